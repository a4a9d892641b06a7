"""Intervals over groups, bootstrap percentiles in the main, and the table of detection
metrics that carries them.

Near-duplicates are not independent, so whole groups are drawn with replacement (Field &
Welsh 2007), positive and negative ones apart, so that each resample holds both classes.
A resample is a vector of weights, not a copy of the rows: scores are sorted once and
every statistic is a weighted cumulative sum. With fewer than 2 groups in a class there
is not an interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from membench.metrics.detection import FPR_LIMITS, check, detection_metrics, dev_split, of_kind
from membench.metrics.ranks import beaten, counts, places, taken, wins
from membench.metrics.ranks import parts as rows_at_once
from membench.metrics.rows import Metric
from membench.metrics.separation import bound_of, bounded
from membench.metrics.unique import Interval

_CELLS = 2_000_000  # weights held at once


def detection_table(
    frame: pd.DataFrame, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> list[Metric]:
    """Detection metrics with intervals: overall (subset ``all``), per positive kind and
    per source of negatives.

    frame: columns id, score, label, kind, group, source, status. Only rows with status
    ``ok`` count, and ``Metric.n`` says how many; whether they are enough of the whole
    is for the caller to report. ``kind=MV``: the positives of kind MV against the
    negatives of that kind, or all negatives where it has none. ``source=held_out``: all
    positives against the negatives of source held_out. Metrics are those of
    :func:`detection_metrics`; the interval of ``balanced_accuracy`` holds the threshold
    fixed. Raises ValueError as :func:`detection_metrics` does, and for an id that
    stands twice.
    """
    rows = frame[frame["status"] == "ok"]
    if rows["id"].duplicated().any():
        raise ValueError("an id stands twice")
    positive = rows["label"] == 1
    parts = {"all": rows}
    parts |= {
        f"kind={kind}": rows[of_kind(rows["label"], rows["kind"], kind)]
        for kind in sorted(rows["kind"][positive].unique())
    }
    parts |= {
        f"source={source}": rows[positive | (rows["source"] == source)]
        for source in sorted(rows["source"][~positive].unique())
    }
    table = []
    for subset, part in parts.items():
        scores, labels, groups = check(
            *(part[name].to_numpy() for name in ("score", "label", "group"))
        )
        metrics = detection_metrics(scores, labels, groups, seed=seed, subset=subset)
        found = detection_intervals(
            scores, labels, groups, resamples=resamples, level=level, seed=seed
        )
        *_, accuracy = metrics
        dev = dev_split(labels, groups, seed)
        if dev is not None and accuracy.threshold is not None:
            right = (scores >= accuracy.threshold) == labels
            found["balanced_accuracy"] = _class_mean_interval(
                right[~dev], labels[~dev], groups[~dev], resamples, level, seed
            )
        for metric in metrics:
            low, high = (None if metric.value is None else found.get(metric.name)) or (None, None)
            table.append(replace(metric, low=low, high=high))
    return table


def detection_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    limits: tuple[float, ...] = FPR_LIMITS,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Intervals of ``auroc``, ``average_precision`` and ``tpr_at_fpr_*``, by name; None
    where a class has fewer than 2 groups. Where the classes are told apart without an
    error they are bounds (``metrics.separation``). Whether the negatives can support a
    limit is left to ``detection.tpr_at_fpr``.

    Arguments and errors as in ``detection.detection_metrics``. The same seed gives the
    same interval, in whatever order the rows stand.
    """
    scores, labels, groups = check(scores, labels, groups)
    parts = [
        weighted_statistics(scores, labels, w, limits)
        for w in class_weights(labels, groups, resamples, seed)
    ]
    rates = [f"tpr_at_fpr_{x:g}" for x in limits]
    if not parts:
        return dict.fromkeys(["auroc", "average_precision", *rates])
    found = {
        name: percentiles(np.concatenate([part[name] for part in parts]), level)
        for name in parts[0]
    }
    return {name: bound_of(name)(ends, labels, groups, level) for name, ends in found.items()}


def weighted_statistics(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    limits: tuple[float, ...] = FPR_LIMITS,
    *,
    precision: bool = True,
) -> dict[str, np.ndarray]:
    """AUROC, average precision (with ``precision``) and TPR at each limit of FPR, [r]
    each, under each row of weights [r, n].

    Equal to scikit-learn's with ``sample_weight`` (tested). Each row must give weight
    to both classes. TPR is computed for any number of negatives. All lie in [0, 1].
    """
    at = places(scores, labels)
    # Of each positive the positives, of each negative the negatives, that score no less
    alike, tied = (counts(scores[rows], scores[rows])[1] for rows in (at.positive, at.negative))
    higher = np.append(counts(scores[at.positive], scores[at.negative])[0], len(at.positive))
    ties = not np.array_equal(alike, np.arange(1, len(alike) + 1))
    found: dict[str, list[np.ndarray]] = {}
    for part in rows_at_once(weights):
        own, tp = taken(part, at.positive)
        _, fp = taken(part, at.negative)
        positive, negative = tp[:, -1], fp[:, -1]
        above, upto = beaten(fp, at)
        pairs = positive * negative
        values = {"auroc": wins(own, pairs, above, upto) / pairs}
        if precision:
            none_less = np.take(tp, alike, axis=1) if ties else tp[:, 1:]
            all_less = none_less + upto
            # 0 / 0 before the first weight
            np.maximum(all_less, np.finfo(float).tiny, out=all_less)
            np.divide(1, all_less, out=all_less)
            values["average_precision"] = (
                np.einsum("rp,rp,rp->r", own, none_less, all_less) / positive
            )
        # A sum may round to 1 + 2e-16
        values = {name: np.clip(value, 0.0, 1.0) for name, value in values.items()}
        for x, allowed in zip(limits, _allowed(fp, tied, limits), strict=True):
            values[f"tpr_at_fpr_{x:g}"] = tp[np.arange(len(tp)), higher[allowed]] / positive
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in found.items()}


def weighted_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of :func:`weighted_statistics` the AUROC alone."""
    return weighted_statistics(scores, labels, weights, (), precision=False)["auroc"]


def _allowed(fp: np.ndarray, tied: np.ndarray, limits: tuple[float, ...]) -> list[np.ndarray]:
    """Of each limit how many of the highest negatives keep the FPR within it, int [r].

    Rates rise along a row, so only its beginning is looked at, as far as the largest
    limit is not passed.
    """
    if not limits:
        return []
    looked = 16 + int(2 * max(limits) * len(tied))
    while True:
        rates = np.take(fp, tied[:looked], axis=1) / fp[:, -1:]
        if looked >= len(tied) or (rates[:, -1] > max(limits)).all():
            return [(rates <= x).sum(axis=1) for x in limits]
        looked *= 2


def mean_intervals(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval | None]:
    """The interval of the mean of each column of values [n, m] over resampled groups
    [n]; None for fewer than 2 groups.
    """
    drawn = mean_resamples(values, groups, resamples=resamples, seed=seed)
    return (
        [None] * np.shape(values)[1]
        if drawn is None
        else [percentiles(column, level) for column in drawn.T]
    )


def mean_resamples(
    values: np.ndarray, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> np.ndarray | None:
    """The mean of each column of values [n, m] in each resample of the groups [n]:
    float64 [resamples, m]; None for fewer than 2 groups.

    A group counts with all its rows, so the mean is a ratio of sums. Raises ValueError
    for lengths that differ or values not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    names, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < 2:
        return None
    size = np.bincount(member)
    total = np.stack([np.bincount(member, column) for column in values.T], axis=1)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [times @ total / (times @ size)[:, None] for times in draws(len(names), resamples, rng)]
    )


def share_intervals(
    hits: np.ndarray,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval | None]:
    """The interval of the share of hits of each column of bool [n, m] over groups [n]:
    :func:`mean_intervals`.

    Where no row or every row is a hit, each resample is like the next and the
    bootstrap's interval has no width. There, that of Clopper & Pearson (1934) for 0 or
    G of G groups: groups (of like size), not rows, are the independent units.
    """
    hits = np.asarray(hits, dtype=bool)
    independent = len(set(np.asarray(groups).astype(str).tolist()))
    found = mean_intervals(hits, groups, resamples=resamples, level=level, seed=seed)
    return [ends and bounded(ends, independent, level) for ends in found]


def _class_mean_interval(
    right: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    resamples: int,
    level: float,
    seed: int,
) -> Interval | None:
    """Interval of the mean over the two classes of the share that is right."""
    parts = []  # shares of whole numbers, whose mean cannot round beyond 1
    for w in class_weights(labels, groups, resamples, seed):
        share = [
            (w * (right & (labels == label))).sum(axis=1) / (w * (labels == label)).sum(axis=1)
            for label in (0, 1)
        ]
        parts.append((share[0] + share[1]) / 2)
    return percentiles(np.concatenate(parts), level) if parts else None


def class_weights(
    labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """How often each row is drawn, int [some, n], in all ``resamples`` rows; nothing if
    a class has fewer than 2 groups.
    """
    rows = [np.flatnonzero(labels == label) for label in (0, 1)]
    members = [np.unique(groups[of], return_inverse=True)[1] for of in rows]
    counts = [member.max() + 1 for member in members]
    if min(counts) < 2:
        return
    negative, positive = (np.random.default_rng([seed, label]) for label in (0, 1))
    step = max(1, _CELLS // len(labels))
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        weights = np.empty((some, len(labels)), dtype=np.int64)
        for of, member, count, rng in zip(rows, members, counts, (negative, positive), strict=True):
            weights[:, of] = np.concatenate(list(draws(count, some, rng)))[:, member]
        yield weights


def group_weights(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, int [some, n], in all ``resamples`` rows, classes
    not apart; nothing for fewer than 2 groups.
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(member))
    for start in range(0, resamples, step):
        for times in draws(len(names), min(step, resamples - start), rng):
            yield times[:, member]


def draws(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of ``count`` groups is drawn when ``count`` are drawn with
    replacement: int [some, count], in parts.
    """
    step = max(1, _CELLS // count)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = rng.integers(count, size=(some, count)) + np.arange(some)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=some * count).reshape(some, count)


def percentiles(values: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
