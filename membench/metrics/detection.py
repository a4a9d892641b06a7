"""How well scores separate memorized examples from the rest.

Higher score = more memorized; the sign is never flipped.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from membench.metrics.rows import Metric
from membench.seeds import seed_of

FPR_LIMITS = (0.01, 0.001)


def detection_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    limits: tuple[float, ...] = FPR_LIMITS,
    seed: int = 0,
    subset: str = "all",
) -> list[Metric]:
    """AUROC, average precision, TPR at low FPR and balanced accuracy, without
    intervals.

    scores: float [n]; labels: 0 or 1 [n]; groups [n]: near-duplicates share one. All
    values lie in [0, 1]: ``auroc`` (ties count half); ``average_precision`` (the
    step-wise sum, not interpolated; its chance level is the share of positives);
    ``tpr_at_fpr_0.01``, ``tpr_at_fpr_0.001`` (``threshold`` is the limit; see
    :func:`tpr_at_fpr`); ``balanced_accuracy`` of "score >= threshold" on the examples
    outside the development half, where ``threshold`` was chosen (see :func:`dev_split`;
    n counts the examples it is measured on; None if a class has fewer than 2 groups).
    Raises ValueError for scores that are not finite, labels other than 0 and 1, lengths
    that differ, or an absent class.
    """
    scores, labels, groups = check(scores, labels, groups)
    n = len(scores)
    rows = [
        Metric("auroc", None, None, unit(roc_auc_score(labels, scores)), None, None, n, subset),
        Metric(
            "average_precision",
            None,
            None,
            unit(average_precision_score(labels, scores)),
            None,
            None,
            n,
            subset,
        ),
    ]
    rows += [
        Metric(f"tpr_at_fpr_{x:g}", None, x, tpr_at_fpr(scores, labels, x), None, None, n, subset)
        for x in limits
    ]
    dev = dev_split(labels, groups, seed)
    if dev is None:
        return [*rows, Metric("balanced_accuracy", None, None, None, None, None, n, subset)]
    threshold = best_threshold(scores[dev], labels[dev])
    value = balanced_accuracy(scores[~dev], labels[~dev], threshold)
    return [
        *rows,
        Metric("balanced_accuracy", None, threshold, value, None, None, int((~dev).sum()), subset),
    ]


def tpr_at_fpr(scores: np.ndarray, labels: np.ndarray, limit: float) -> float | None:
    """True positive rate, in [0, 1], at the last ROC point whose false positive rate is
    <= limit: no interpolation.

    Published code differs here (last point below, nearest, interpolated); this one
    never exceeds the limit. Tied scores form one point. None for fewer than 1 / limit
    negatives, which cannot show a false positive rate that low.
    """
    if (labels == 0).sum() < 1 / limit:
        return None
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return unit(tpr[fpr <= limit][-1])


def dev_split(labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """The development half, bool [n]: in each class the first half (rounded down) of
    the groups in the order of hash(seed, group).

    No group lies on both sides, and the order of rows has no influence. None if a class
    has fewer than 2 groups.
    """
    dev = np.zeros(len(labels), dtype=bool)
    for label in (0, 1):
        mine = sorted(set(groups[labels == label]), key=lambda group: seed_of("dev", seed, group))
        if len(mine) < 2:
            return None
        dev |= np.isin(groups, mine[: len(mine) // 2])
    return dev


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score t for which "score >= t" has the best balanced accuracy; the highest of
    equally good ones, inf for "never".
    """
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    return float(thresholds[np.argmax(tpr - fpr)])


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Mean of the two classes' accuracies of "score >= threshold", in [0, 1]."""
    called = scores >= threshold
    return unit((called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2)


def unit(value: float) -> float:
    """A statistic that lies in [0, 1] but for rounding, cut there; NaN stays NaN."""
    return float(np.clip(value, 0.0, 1.0))


def of_kind(labels: np.ndarray, kinds: np.ndarray, kind: str) -> np.ndarray:
    """Rows, bool [n], that tell how well a kind is detected: its positives against the
    negatives of the same kind, where there are any (mirror pairs: the other half's),
    and against all negatives otherwise.
    """
    labels, alike = np.asarray(labels), np.asarray(kinds) == kind
    negative = labels == 0
    return (alike & (labels == 1)) | (negative & alike if (negative & alike).any() else negative)


def check(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three as float64, int64 and str arrays [n].

    Raises ValueError as :func:`detection_metrics` does, and for a mixed group.
    """
    scores, labels, groups = (
        np.asarray(scores, dtype=np.float64),
        np.asarray(labels),
        np.asarray(groups).astype(str),
    )
    if not len(scores) == len(labels) == len(groups):
        raise ValueError(f"{len(scores)} scores, {len(labels)} labels and {len(groups)} groups")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{(~np.isfinite(scores)).sum()} scores are not finite; a failed example must be left"
            " out by its status"
        )
    if not np.array_equal(np.unique(labels), [0, 1]):
        raise ValueError(
            f"labels must be 0 and 1, both present; found {np.unique(labels).tolist()}"
        )
    mixed = sorted(set(groups[labels == 1]) & set(groups[labels == 0]))
    if mixed:
        raise ValueError(f"group {mixed[0]!r} holds both labels")
    return scores, labels.astype(np.int64), groups
