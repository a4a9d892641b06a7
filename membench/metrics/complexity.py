"""How a score relates to the visual complexity of the example's image, of which the
size of its PNG is the proxy.

Local intrinsic dimension, and what estimates it, falls for a simple image as it falls
for a memorized one: Ross et al. (ICLR 2025) name complexity as a confounder of
memorization, and Kamkari et al. (NeurIPS 2024) show that FLIPD ranks images by it, with
PNG size as the yardstick. Where memorized examples happen to be simpler, such a score
separates the classes and has recognised nothing. The matched AUROC therefore compares
examples of like size only, and the correlation tells how far the score is a measure of
size. It is positive where complex images score higher; a detector with score = -LID
that ranks complexity has a strongly negative one. Neither proves that the score *is*
complexity: memorization may itself change the size of what is generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from membench.metrics.detection import check, of_kind, unit
from membench.metrics.intervals import class_weights, group_weights, percentiles
from membench.metrics.ranks import Places, beaten, parts, places, taken, wins
from membench.metrics.rows import Metric
from membench.metrics.unique import Interval

QUANTILES = 5


def complexity_table(
    frame: pd.DataFrame, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> list[Metric]:
    """``auroc_complexity_matched`` (subset ``all``, and ``kind=`` of each positive
    kind) and ``spearman_png_bits`` (``all``).

    frame: columns id, score, label, kind, group, status, png_bits. Only rows with
    status ``ok`` and a size count; without any, no Metric. The matched AUROC is there
    where these rows have both labels; ``threshold`` is the number of bins asked for, n
    the labelled examples in bins that hold both classes. Bins are those of all the
    rows, unlabelled ones too, in every subset. The correlation is over all the rows.
    Raises ValueError as ``detection.check`` does.
    """
    rows = frame[(frame["status"] == "ok") & frame["png_bits"].notna()]
    if rows.empty:
        return []
    scores, sizes, groups = (rows[name].to_numpy() for name in ("score", "png_bits", "group"))
    labels, bins = rows["label"].to_numpy(), size_bins(sizes)
    table = []
    if np.isin((0, 1), labels).all():
        kinds = rows["kind"].to_numpy()
        parts = {"all": labels >= 0}
        parts |= {
            f"kind={kind}": of_kind(labels, kinds, kind) for kind in sorted(set(kinds[labels == 1]))
        }
        for subset, part in parts.items():
            value, interval, n = _matched(
                *check(scores[part], labels[part], groups[part]), bins[part], resamples, level, seed
            )
            low, high = interval or (None, None)
            table.append(
                Metric("auroc_complexity_matched", None, QUANTILES, value, low, high, n, subset)
            )
    rho = rank_correlation(scores, sizes)
    interval = (
        None
        if rho is None
        else correlation_interval(
            scores, sizes, groups, resamples=resamples, level=level, seed=seed
        )
    )
    low, high = interval or (None, None)
    return [*table, Metric("spearman_png_bits", None, None, rho, low, high, len(rows))]


def size_bins(png_bits: np.ndarray, quantiles: int = QUANTILES) -> np.ndarray:
    """The bin of each size, int [n], in 0 ... quantiles - 1: the number of
    :func:`bin_edges` below it.

    Equal sizes share a bin, so with many ties there are fewer bins than asked for, and
    they differ in how many they hold.
    """
    return np.searchsorted(bin_edges(png_bits, quantiles), png_bits, side="left")


def bin_edges(png_bits: np.ndarray, quantiles: int = QUANTILES) -> np.ndarray:
    """The sizes that end all bins but the last, [quantiles - 1]: inverse of the
    distribution function, so sizes that occur.

    Raises ValueError for fewer than one bin, or a size that is not finite.
    """
    if quantiles < 1:
        raise ValueError(f"{quantiles} quantile bins")
    [png_bits] = _checked(png_bits)
    return np.quantile(png_bits, np.arange(1, quantiles) / quantiles, method="inverted_cdf")


def matched_auroc(
    scores: np.ndarray, labels: np.ndarray, png_bits: np.ndarray, quantiles: int = QUANTILES
) -> float | None:
    """AUROC over the pairs (positive, negative) that lie in one bin of size; in [0, 1],
    None where no bin has both classes.

    scores, png_bits: float [n]; labels [n]: 1, 0, or -1 for an unlabelled example,
    which counts for the bins alone. The sum of the bins' Mann-Whitney wins (ties half)
    over the sum of their pairs, so pairs, not bins, count equally. With one bin it is
    the AUROC. Sizes within a bin still differ, so some of their influence is left; and
    where the AUROC is 1, this is 1 or None: sizes that part the classes leave few
    examples to compare, which n of :func:`complexity_table` tells. Raises ValueError
    for lengths that differ, and for scores or sizes that are not finite.
    """
    scores, labels, png_bits = _checked(scores, labels, png_bits)
    return _value(scores, labels, size_bins(png_bits, quantiles)) if len(scores) else None


def rank_correlation(scores: np.ndarray, png_bits: np.ndarray) -> float | None:
    """Spearman's rho of score [n] with size [n], in [-1, 1], positive where complex
    images score higher.

    None where either is constant or n < 3. Raises ValueError for lengths that differ,
    and for values that are not finite.
    """
    scores, png_bits = _checked(scores, png_bits)
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(png_bits) == 0:
        return None
    # May round to 1 + 2e-16
    return float(np.clip(spearmanr(scores, png_bits).statistic, -1.0, 1.0))


def correlation_interval(
    scores: np.ndarray,
    png_bits: np.ndarray,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Bootstrap percentiles of :func:`rank_correlation` over groups [n], whole and of
    either label; None for fewer than 2 groups.

    Each resample is ranked anew. Those in which score or size is constant have no rho
    and are left out.
    """
    parts = [
        weighted_correlation(scores, png_bits, w)
        for w in group_weights(np.asarray(groups).astype(str), resamples, seed)
    ]
    return _finite_percentiles(parts, level)


def weighted_correlation(
    scores: np.ndarray, png_bits: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Spearman's rho, [r] in [-1, 1], under each row of whole weights [r, n]: of the
    rows so often repeated. NaN where one is constant.
    """
    first, second = (
        _weighted_ranks(np.asarray(values, dtype=np.float64), weights)
        for values in (scores, png_bits)
    )
    middle = weights.sum(axis=1, keepdims=True) / 2  # the mean of either's ranks
    first, second = first - middle, second - middle
    spread = (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        rho = (weights * first * second).sum(axis=1) / np.sqrt(spread)
    return np.where(spread > 0, np.clip(rho, -1.0, 1.0), np.nan)


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Midranks less a half, [r, n]: the weight below a value and half of its own."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    own = np.add.reduceat(
        weights[:, order], np.flatnonzero(np.diff(place[order], prepend=-1)), axis=1
    )
    return (np.cumsum(own, axis=1) - own / 2)[:, place]


def _matched(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    bins: np.ndarray,
    resamples: int,
    level: float,
    seed: int,
) -> tuple[float | None, Interval | None, int]:
    """The matched AUROC, its interval, and how many examples lie in bins that hold both
    classes.

    The interval resamples the groups of these examples, classes apart; bins stay those
    of the data. A resample that leaves no bin with both classes has no value and is
    left out.
    """
    kept = np.isin(bins, np.intersect1d(bins[labels == 1], bins[labels == 0]))
    value, drawn = matched_resamples(scores, labels, groups, bins, resamples=resamples, seed=seed)
    return value, None if drawn is None else _finite_percentiles([drawn], level), int(kept.sum())


def matched_resamples(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    bins: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    drawn: Iterable[np.ndarray] | None = None,
) -> tuple[float | None, np.ndarray | None]:
    """The AUROC over pairs within one of the bins [n], and the same in each resample of
    the groups: float64 [resamples].

    bins: below 0 for a row of no bin. drawn: the resamples, as parts int [some, n] of
    ``intervals.class_weights``, where runs with other bins are to be resampled alike;
    else those of the examples in bins that hold both classes. NaN in a resample that
    leaves no bin with both classes. None: no bin holds both classes; a class has fewer
    than 2 groups in such bins.
    """
    both = np.intersect1d(bins[labels == 1], bins[labels == 0])
    kept = np.isin(bins, both[both >= 0])
    scores, labels, groups, bins = scores[kept], labels[kept], groups[kept], bins[kept]
    if not len(scores):
        return None, None
    if min(len(np.unique(groups[labels == label])) for label in (0, 1)) < 2:
        return _value(scores, labels, bins), None
    resampled = []
    within = _within(scores, labels, bins)
    if drawn is not None:  # of all rows
        of = np.flatnonzero(kept)
        within = [replace(p, positive=of[p.positive], negative=of[p.negative]) for p in within]
    for weights in class_weights(labels, groups, resamples, seed) if drawn is None else drawn:
        found, pairs = _wins_and_pairs(within, weights)
        resampled.append(
            np.clip(
                np.divide(found, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0), 0.0, 1.0
            )
        )
    return _value(scores, labels, bins), np.concatenate(resampled)


def _value(scores: np.ndarray, labels: np.ndarray, bins: np.ndarray) -> float | None:
    once = np.ones((1, len(scores)), dtype=np.int64)
    [found], [pairs] = _wins_and_pairs(_within(scores, labels, bins), once)
    return unit(found / pairs) if pairs else None


def _within(scores: np.ndarray, labels: np.ndarray, bins: np.ndarray) -> list[Places]:
    """Of each bin with both classes, where its positives stand among its negatives."""
    found = [places(scores, np.where(bins == one, labels, -1)) for one in np.unique(bins)]
    return [at for at in found if len(at.positive) and len(at.negative)]


def _wins_and_pairs(within: Sequence[Places], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the pairs within bins that the positive wins (half of a tie), and of
    all, [r] each, under weights [r, n].
    """
    found = np.zeros((2, len(weights)))
    start = 0
    for part in parts(weights):
        end = start + len(part)
        for at in within:
            (own, positive), (_, negative) = (taken(part, x) for x in (at.positive, at.negative))
            pairs = positive[:, -1] * negative[:, -1]
            found[0, start:end] += wins(own, pairs, *beaten(negative, at))
            found[1, start:end] += pairs
        start = end
    return found[0], found[1]


def _finite_percentiles(parts: Iterable[np.ndarray], level: float) -> Interval | None:
    values = np.concatenate([np.empty(0), *parts])
    values = values[np.isfinite(values)]
    return percentiles(values, level) if len(values) else None


def _checked(*columns: np.ndarray) -> list[np.ndarray]:
    """As float64.

    Raises ValueError for lengths that differ, or a value that is not finite.
    """
    found = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({len(column) for column in found}) > 1:
        raise ValueError(f"lengths differ: {', '.join(str(len(column)) for column in found)}")
    if not all(np.isfinite(column).all() for column in found):
        raise ValueError(
            "a score or size is not finite: a failed example, or one without an image, must be"
            " left out"
        )
    return found
