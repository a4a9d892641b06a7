"""Intervals where positives and negatives are told apart without an error.

There each resample of the groups is like the next, and the bootstrap's interval has no
width: 5 examples of each label would show as much as 5,000. What the examples do show
is a bound. Pair the groups of the two classes one to one: the g pairs (g the smaller
number of groups) are independent, and each is in the right order with the probability
that AUROC is. All of them were, so an AUROC below (0.05 / 2)^(1 / g) would have shown
less in 97.5 % of such samples (Clopper & Pearson 1934 for g of g).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from membench.metrics.unique import Interval, zero_limit

Bound = Callable[[Interval, np.ndarray, np.ndarray, float], Interval]


def auroc_bound(
    interval: Interval, labels: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """The bootstrap's interval of AUROC, or of the mean of AUROCs of the same examples;
    where that is [1, 1] or [0, 0], the bound of that many groups.

    Arguments of ``intervals.detection_intervals``.
    """
    return bounded(interval, min(units(labels, groups, label) for label in (0, 1)), level)


def bounded(interval: Interval, independent: int, level: float) -> Interval:
    """The interval of a share; where it is [1, 1] or [0, 0], that of all or none of so
    many independent cases.
    """
    limit = zero_limit(independent, level)
    return {(0.0, 0.0): (0.0, limit), (1.0, 1.0): (1 - limit, 1.0)}.get(interval, interval)


def precision_bound(
    interval: Interval, labels: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """Of average precision: where it is [1, 1], down to what it is if the share of
    positives that the bound allows lies below all negatives, or such a share of the
    negatives above all positives, whichever is less.
    """
    if interval != (1.0, 1.0):
        return interval
    lost, false = (zero_limit(units(labels, groups, label), level) for label in (1, 0))
    negatives, positives = np.bincount(labels, minlength=2)
    found = np.arange(1, positives + 1)
    return min(1 - lost, float((found / (found + false * negatives)).mean())), 1.0


def rate_bound(
    interval: Interval, labels: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """Of a true positive rate: where it is [1, 1] or [0, 0], the bound of the positive
    groups, with the threshold as it is.
    """
    return bounded(interval, units(labels, groups, 1), level)


def bound_of(metric: str) -> Bound:
    """The bound of a metric of ``intervals.detection_intervals``, by its name."""
    known = {"auroc": auroc_bound, "average_precision": precision_bound}
    return known.get(metric, rate_bound)


def difference_bound(
    interval: Interval,
    first: float,
    second: float,
    labels: np.ndarray,
    groups: np.ndarray,
    level: float,
    metric: str = "auroc",
) -> Interval:
    """The interval of first less second, two values of a metric on the same examples, that
    are of two scores; where either value is 0 or 1 and each resample is like the next, it
    is as wide as the bounds of the two allow: 1 and 1 on ten examples are not alike for
    sure.
    """
    if interval[0] != interval[1] or not {first, second} <= {0.0, 1.0}:
        return interval
    bound = bound_of(metric)
    (low, high), (other_low, other_high) = (
        bound((value, value), labels, groups, level) for value in (first, second)
    )
    return low - other_high, high - other_low


def separated_p(
    first: float, second: float, labels: np.ndarray, groups: np.ndarray, metric: str = "auroc"
) -> float:
    """Least two-sided p of "the difference is 0" of two values of a metric on the same
    examples, one of them 1 and the other 0, which no resample changes: the sign test's of g
    groups that all say the same, 2 / 2^g. 0 of other values, of which the resamples tell.
    """
    if {first, second} != {0.0, 1.0}:
        return 0.0
    classes = (0, 1) if metric == "auroc" else (1,)
    return min(1.0, 2 * 0.5 ** min(units(labels, groups, label) for label in classes))


def units(labels: np.ndarray, groups: np.ndarray, label: int) -> int:
    """How many groups a class has."""
    return len(np.unique(groups[labels == label]))
