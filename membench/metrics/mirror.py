"""Both models of a mirror pair together: AUROC of each on the other's images, and their
mean (docs/design/mirror-pairs.md).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from membench.metrics.intervals import class_weights, weighted_auroc, weighted_statistics
from membench.metrics.levels import two_level_interval
from membench.metrics.multiplicity import natural
from membench.metrics.separation import auroc_bound, difference_bound

FPR = 0.01
RESAMPLES = 1000
TPR = f"tpr_at_fpr_{FPR:g}"


def mirrored_auroc(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC of one half's images against the other's, for both models: overall and per
    kind against the same kind.

    a, b: the scores (columns id, score, label, kind, group, status) of the two runs:
    the same examples, whose labels are exchanged. An example whose label is 0 in both
    (held out) is left out, as is one that failed in either. Returns columns ``kind``
    ("all" first), ``mirrored`` with ``low`` and ``high``, ``a`` and ``b`` likewise,
    ``tpr`` (at 1 % FPR, mean of both), ``tpr_a``, ``tpr_b`` (NaN for fewer than 100
    negatives, which cannot show it) and ``n`` (examples). Both
    models share each resample of the groups, drawn within each half. Raises ValueError
    for other examples or labels.
    """
    return mirrored_over_seeds([(a, b)], resamples=resamples, level=level, seed=seed)


def mirrored_over_seeds(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The same of several seeds of both runs: means over the seeds, with intervals for
    new groups and new seeds (``metrics.levels``; AUROC on the logit scale). The seeds
    share each resample. An example that failed in any of the runs is left out of all.
    """
    joined = [_joined(a, b) for a, b in pairs]
    first = joined[0]
    if any(not other[["id", "label"]].equals(first[["id", "label"]]) for other in joined[1:]):
        raise ValueError("the seeds scored other examples")
    ok = np.logical_and.reduce([(j.status == "ok") & (j.status_b == "ok") for j in joined])
    joined = [j[ok] for j in joined]
    rows = []
    for kind in ("all", *sorted(joined[0].kind.unique(), key=natural)):
        parts = [j if kind == "all" else j[j.kind == kind] for j in joined]
        labels, groups = parts[0].label.to_numpy(), parts[0].group.to_numpy().astype(str)
        if set(labels) != {0, 1}:
            continue
        once = _of_both(parts, labels, np.ones((1, len(labels)), dtype=np.int64))
        found = once["auroc"][..., 0]
        one, two = found.mean(axis=1)
        # The negatives of either model are what the other has seen
        tpr = once[TPR][..., 0].mean(axis=1)
        tpr = np.where([(labels == k).sum() >= 1 / FPR for k in (0, 1)], tpr, np.nan)
        drawn = [
            _of_both(parts, labels, weights)["auroc"]
            for weights in class_weights(labels, groups, resamples, seed)
        ]
        ends = [(np.nan, np.nan)] * 3
        if drawn:
            both = np.concatenate(drawn, axis=2)
            ends = [
                auroc_bound(
                    two_level_interval(values, resampled, logit=True, level=level),
                    labels,
                    groups,
                    level,
                )
                for values, resampled in (
                    (found.mean(axis=0), both.mean(axis=0)),
                    *zip(found, both, strict=True),
                )
            ]
        (low, high), (a_low, a_high), (b_low, b_high) = ends
        same = all(np.array_equal(part.score, part.score_b) for part in parts)
        if low == high and {one, two} == {0.0, 1.0} and not same:
            # Either is told apart without an error, and no resample says otherwise
            low, high = (a_low + b_low) / 2, (a_high + b_high) / 2
        rows.append(
            {
                "kind": kind,
                "mirrored": (one + two) / 2,
                "low": low,
                "high": high,
                "a": one,
                "a_low": a_low,
                "a_high": a_high,
                "b": two,
                "b_low": b_low,
                "b_high": b_high,
                "tpr": tpr.mean(),
                "tpr_a": tpr[0],
                "tpr_b": tpr[1],
                "n": len(labels),
            }
        )
    return pd.DataFrame(rows)


def over_control(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float] | None:
    """(difference, low, high): AUROC on the model less that on its control model, mean
    over seeds, with an interval for new groups and new seeds (``metrics.levels``).

    pairs: of each seed the scores on the model and on the control (columns id, score,
    label, group, status), of which the examples that have a label and a score in all
    count. Both models share each resample of the groups, drawn within each label; NaN
    ends for fewer than 2 groups of a label. None where no such examples of both labels
    are left, as where the two failed on different ones.
    """
    good = [
        frame[(frame.status == "ok") & (frame.label >= 0)].set_index("id")
        for pair in pairs
        for frame in pair
    ]
    ids = sorted(set.intersection(*(set(frame.index) for frame in good)))
    labels = good[0].loc[ids].label.to_numpy()
    if set(labels) != {0, 1}:
        return None
    groups = good[0].loc[ids].group.to_numpy().astype(str)
    scores = [frame.loc[ids].score.to_numpy(dtype=float) for frame in good]

    def less(weights: np.ndarray) -> np.ndarray:
        """Of each seed under each row of weights: [S, r]."""
        found = [weighted_auroc(one, labels, weights) for one in scores]
        return np.subtract(found[::2], found[1::2])

    once = np.ones((1, len(labels)), dtype=np.int64)
    values = less(once)[:, 0]
    drawn = [less(weights) for weights in class_weights(labels, groups, resamples, seed)]
    if not drawn:
        return float(values.mean()), np.nan, np.nan
    ends = two_level_interval(
        values, np.concatenate(drawn, axis=1), level=level, range_=(-1.0, 1.0)
    )
    # One and the same score of both models differs in no sample
    if not all(map(np.array_equal, scores[::2], scores[1::2])):
        own, other = (
            float(np.mean([weighted_auroc(one, labels, once) for one in of]))
            for of in (scores[::2], scores[1::2])
        )
        ends = difference_bound(ends, own, other, labels, groups, level)
    return float(values.mean()), float(ends[0]), float(ends[1])


def is_mirrored(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Whether :func:`mirrored_auroc` of two runs' scores has a row: both scored the same
    examples, none is memorized by both models, and of what either has memorized one
    example at least has a score from both.
    """
    if _no_mirror(a, b):
        return False
    both = _joined(a, b)
    return set(both[(both.status == "ok") & (both.status_b == "ok")].label) == {0, 1}


def _no_mirror(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Why the scores are not of two models of a mirror pair; empty where they are."""
    if set(a.id) != set(b.id) or a.id.duplicated().any() or b.id.duplicated().any():
        return "the two runs scored other examples"
    if set(a[a.label == 1].id) & set(b[b.label == 1].id):
        return "an example is memorized by both models, so they are no mirror of each other"
    return ""


def _joined(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The examples that one of the two models has seen, by id."""
    if why := _no_mirror(a, b):
        raise ValueError(why)
    both = a.merge(b[["id", "score", "label", "status"]], on="id", suffixes=("", "_b"))
    return both[both.label != both.label_b].sort_values("id").reset_index(drop=True)


def _of_both(
    parts: Sequence[pd.DataFrame], labels: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """AUROC and TPR of each model and seed under each row of weights [r, n]: [2, S, r]
    each.
    """
    of_one = functools.partial(weighted_statistics, limits=(FPR,), precision=False)
    found = [
        (
            of_one(part.score.to_numpy(dtype=float), labels, weights),
            of_one(part.score_b.to_numpy(dtype=float), 1 - labels, weights),
        )
        for part in parts
    ]
    return {
        name: np.array([[pair[model][name] for pair in found] for model in (0, 1)])
        for name in ("auroc", TPR)
    }
