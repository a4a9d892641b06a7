"""The measures that people want alone: arrays in, numbers out.

``membench.normalised_l2``, ``ams``, ``ums``, ``tpr_at_fpr``, ``auroc_by_group`` and
``rarefaction`` are these. They compute what a run stores, by the same code or, where a
run's needs its tables, by the same formula (docs/metrics.md); a test holds both
together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from membench.metrics import detection
from membench.metrics.intervals import detection_intervals
from membench.metrics.unique import rarefied
from membench.similarity import l2


def normalised_l2(
    generated: np.ndarray, training: np.ndarray, *, alpha: float = 0.5, n_neighbours: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each generated image to its nearest training image, and which it is.

    d = |x^ - x| / (alpha * mean of |x^ - y| over the ``n_neighbours`` nearest training
    images y of x^) (Carlini et al., USENIX Security 2023), who call d < 1 a copy.
    generated ``uint8`` [n, h, w, 3]; training ``uint8`` [m, h, w, 3], unique images.
    Returns float32 [n], at least 0, and int [n], rows of ``training``. Raises
    ValueError for an empty training set, other shapes or other types.
    """
    found = l2.normalised_l2(generated, training, alpha=alpha, n_neighbours=n_neighbours, floor=0.0)
    best = found[found["rank"] == 0].sort_values("generated")
    return best.similarity.to_numpy(), best.training.to_numpy()


def ams(
    similarity: np.ndarray,
    low: float,
    high: float = np.inf,
    *,
    higher_is_closer: bool = True,
) -> float:
    """Average memorization score, in [0, 1]: the share of generated images whose best
    similarity lies in [low, high) (SIDE, equation 6). A run closes the highest band of a
    similarity at its top: leave ``high`` out there.

    similarity: float [n, m], of each generated and each training image. Of a distance
    (``higher_is_closer=False``) the best is the smallest. Raises ValueError for an
    empty array, or one with NaN.
    """
    pairs = _pairs(similarity)
    best = pairs.max(axis=1) if higher_is_closer else pairs.min(axis=1)
    return float(((best >= low) & (best < high)).mean())


def ums(similarity: np.ndarray, low: float, high: float = np.inf) -> float:
    """Unique memorization score, at least 0: how many different training images have a
    similarity in [low, high) with any generated image, over the generated images (SIDE,
    equation 7). It falls as their number grows: compare at equal numbers.

    similarity: float [n, m], a similarity or a distance. Raises ValueError for an empty
    array, or one with NaN.
    """
    pairs = _pairs(similarity)
    return float(((pairs >= low) & (pairs < high)).any(axis=0).sum() / len(pairs))


def tpr_at_fpr(scores: Sequence[float], labels: Sequence[int], fpr: float = 0.01) -> float:
    """True-positive rate, in [0, 1], at the last ROC point whose false-positive rate is
    at most ``fpr``, without interpolation; NaN for fewer than 1 / fpr negatives, which
    cannot show a rate that low.

    scores: float [n], higher = more memorized. labels: 1 or 0, [n]. Raises ValueError
    for a score that is not finite, for other labels, where one of the two is missing,
    and for a rate outside (0, 1].
    """
    if not 0 < fpr <= 1:
        raise ValueError(f"fpr is {fpr}, not a rate above 0 and at most 1")
    found, truth, _ = _scored(scores, labels, None)
    value = detection.tpr_at_fpr(found, truth, fpr)
    return float("nan") if value is None else float(value)


def auroc_by_group(
    scores: Sequence[float],
    labels: Sequence[int],
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """AUROC, in [0, 1], and the ends of its interval, over groups of examples that
    belong together (near-duplicates): each resample takes whole groups, within each
    label.

    scores: float [n], higher = more memorized; labels: 1 or 0, [n]; groups: a name an
    example; None: each is a group of its own. The ends are NaN where a label has fewer
    than 2 groups. Raises ValueError as :func:`tpr_at_fpr`.
    """
    found, truth, names = _scored(scores, labels, groups)
    interval = detection_intervals(
        found, truth, names, limits=(), resamples=resamples, level=level, seed=seed
    )["auroc"]
    low, high = interval or (float("nan"), float("nan"))
    return float(roc_auc_score(truth, found)), float(low), float(high)


def rarefaction(nearest: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """How many different training images n of the generated images copy, expected over
    all subsets of n, for each n of ``sizes``: float64 (Hurlbert 1971).

    nearest: int [N], of each generated image the training image that it copies, and -1
    where it copies none. Raises ValueError for a size outside 0..N.
    """
    copied = np.asarray(nearest)
    _, counts = np.unique(copied[copied >= 0], return_counts=True)
    return rarefied(counts, len(copied), sizes)


def _pairs(similarity: np.ndarray) -> np.ndarray:
    pairs = np.asarray(similarity)
    if pairs.ndim != 2 or 0 in pairs.shape:
        raise ValueError(f"similarity has shape {pairs.shape}, not [generated, training]")
    if np.isnan(pairs).any():
        raise ValueError("a similarity is NaN")
    return pairs


def _scored(
    scores: Sequence[float], labels: Sequence[int], groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found, truth = np.asarray(scores, dtype=float), np.asarray(labels)
    names = np.arange(len(found)).astype(str) if groups is None else np.asarray(groups).astype(str)
    return detection.check(found, truth, names)
