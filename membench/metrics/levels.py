"""Intervals over two levels, groups of examples and seeds, and what they say of two
detectors.

The quantity is a metric's expectation over new groups of examples *and* new seeds. All
seeds of a setting score the same examples, so the mean over seeds still varies with
which groups happened to be chosen; an interval over seeds alone leaves that out, and
one over groups alone leaves out what a seed does to all examples at once (SIDE's
surrogate, a shared noise).

- Groups: every seed's metric under the same resamples of the groups
  (``intervals.class_weights``). What two seeds share, their covariance over the
  resamples, is the variance of the mean that the choice of groups makes. The rest of a
  seed's own bootstrap variance is noise of single examples, independent from seed to
  seed, which the spread of the seeds' values holds already.
- Seeds: Student's t with S - 1 degrees of freedom times s / sqrt(S), s that spread.

The sum of the two is the t-interval over seeds where groups make no difference, the
bootstrap over groups where all seeds agree, and in between a little too wide. For AUROC
and its like (``scale`` of ``metrics.names.METRICS``) the seeds' part is added on the
logit scale, as is usual for an area under a curve: near 1 a seed can lose much and gain
little, and a symmetric interval falls short.

Coverage of 95 % intervals (``benchmarks/coverage.py``; 60 groups a class, mean AUROC
about 0.8): AUROC 94 to 97 %, the difference of two detectors 94 to 98 %; with 20 groups
92 and 93 %. TPR at 1 % FPR is not served: 88 % with one seed, 76 % with 20 groups,
since two or three negatives decide it and their bootstrap sees no others. Nor are seeds
that differ widely near 1 (mean AUROC 0.95, standard deviation 0.07 between seeds): 92 %
with three seeds, 89 % with five, where nothing but the seed matters; without the logit
scale 80 %. AMS of one run (100 groups): 92 to 95 %, but 86 % where two groups in a
hundred are copied, each as a whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.special import logit as log_odds
from scipy.stats import t as student

from membench.metrics.intervals import percentiles
from membench.metrics.unique import Interval
from membench.seeds import seed_of


def mover(value: float, interval: Interval, other: float, other_interval: Interval) -> Interval:
    """Interval of value - other from the two single ones, which need not be symmetric:
    MOVER (Zou & Donner, Stat. Med. 2008).

    It takes the two as independent. A run and its control share prompts and noise, so
    the difference is known no worse than this.
    """
    (low, high), (other_low, other_high) = interval, other_interval
    difference = value - other
    below = np.hypot(value - low, other_high - other)
    above = np.hypot(high - value, other - other_low)
    return float(difference - below), float(difference + above)


FEW, MANY, TAIL = 10, 1000, 0.02  # of difference_p and tail


def two_level(
    values: Sequence[float] | np.ndarray, drawn: np.ndarray, *, logit: bool = False, seed: int = 0
) -> np.ndarray:
    """The distribution, float64 [r], of the mean over S seeds of a metric; of one seed,
    its resamples as they are.

    values [S]: of each seed on all examples; drawn [S, r]: under r resamples of the
    groups, a column the same groups in every seed. logit: the seeds' part is added on
    the scale log(m / (1 - m)) of a metric in [0, 1], its standard error by the delta
    method. Raises ValueError for shapes that differ, a value that is not finite, or one
    outside [0, 1] with ``logit``.
    """
    found, drawn = np.asarray(values, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
    if drawn.ndim != 2 or found.shape != drawn.shape[:1] or not drawn.size:
        raise ValueError(f"{found.shape} values and {drawn.shape} resampled ones")
    if not (np.isfinite(found).all() and np.isfinite(drawn).all()):
        raise ValueError("a value is not finite")
    if logit and (min(found.min(), drawn.min()) < 0 or max(found.max(), drawn.max()) > 1):
        raise ValueError("a value lies outside [0, 1]")
    seeds, (shared, error) = len(found), _parts(found, drawn)
    if error == 0:
        return shared
    deviates = error * _deviates(seeds - 1, len(shared), seed)
    if not logit:
        return shared + deviates
    return expit(log_odds(np.clip(shared, 0, 1)) + deviates / (found.mean() * (1 - found.mean())))


@functools.lru_cache(maxsize=8)
def _deviates(freedom: int, size: int, seed: int) -> np.ndarray:
    """Of Student's t, the same for all that has so many seeds: kept, since drawing them
    takes longer than all else of a pair.
    """
    found = np.random.default_rng(seed_of("seeds", seed)).standard_t(freedom, size=size)
    found.flags.writeable = False
    return found


def _parts(values: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of the groups, [r] around the mean, and the standard error of the seeds'
    part; 0 for one seed.
    """
    mean, seeds = drawn.mean(axis=0), len(values)
    if seeds < 2:
        return mean, 0.0
    spread = float(mean.var())
    shared = (
        mean.mean() + (mean - mean.mean()) * np.sqrt(shared_variance(drawn) / spread)
        if spread > 0
        else mean
    )
    return shared, float(values.std(ddof=1) / np.sqrt(seeds))


def shared_variance(drawn: np.ndarray) -> float:
    """Variance of the mean over seeds that the choice of groups makes, >= 0: the mean
    covariance of two seeds over resamples [S, r].
    """
    every = np.cov(drawn, ddof=0)
    return max(0.0, float((every.sum() - np.trace(every)) / (len(drawn) * (len(drawn) - 1))))


def two_level_interval(
    values: Sequence[float] | np.ndarray,
    drawn: np.ndarray,
    *,
    logit: bool = False,
    level: float = 0.95,
    seed: int = 0,
    range_: Interval = (0.0, 1.0),
) -> Interval:
    """Percentiles of :func:`two_level`, cut at the metric's range."""
    low, high = percentiles(two_level(values, drawn, logit=logit, seed=seed), level)
    return max(low, range_[0]), min(high, range_[1])


def p_value(distribution: np.ndarray) -> float:
    """Two-sided p of "the difference is 0" from the distribution [r] of a difference: 2
    min(P(d <= 0), P(d >= 0)), in (0, 1].

    Each share counts itself once more, (1 + k) / (1 + r), so that r resamples never
    claim a p below 2 / (1 + r).
    """
    r = len(distribution)
    tail = min((distribution <= 0).sum(), (distribution >= 0).sum())
    return float(min(1.0, 2 * (1 + tail) / (1 + r)))


def difference_p(
    values: Sequence[float] | np.ndarray,
    drawn: np.ndarray,
    distribution: np.ndarray | None = None,
) -> float:
    """Two-sided p of "the difference is 0", from the same as :func:`two_level`:
    :func:`p_value` of its distribution (None: it is computed), where that reaches.

    Of r resamples it reaches down to 2 / (1 + r), where Holm's adjustment of more than
    r / 40 pairs can never be significant. Where fewer than FEW of at least MANY
    resamples lie beyond 0, the tail is computed: the seeds' part exactly, as the mean
    over resamples of Student's distribution function, and that of the groups by
    :func:`tail`. The greater of the two counts.
    """
    found, drawn = np.asarray(values, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
    if distribution is None:
        distribution = two_level(found, drawn)
    if len(distribution) < MANY or min((distribution <= 0).sum(), (distribution >= 0).sum()) >= FEW:
        return p_value(distribution)
    shared, error = _parts(found, drawn)
    if shared.mean() < 0:
        shared = -shared
    of_seeds = float(student.cdf(-shared / error, len(found) - 1).mean()) if error > 0 else 0.0
    return min(1.0, 2 * max(of_seeds, tail(shared)))


def tail(distribution: np.ndarray) -> float:
    """Chance of a value <= 0 under a distribution of which resamples [r] are given,
    where hardly any of them lies there; in (0, 1].

    The TAIL share of the resamples that is nearest to 0 is taken as exponential beyond
    its edge u: TAIL exp(-u / a), a the mean distance of these from u. That is the
    tail's shape where it falls slowest among those of log-concave densities, such as
    the normal one that a bootstrap distribution tends to: of a normal tail it makes 2
    to 30 times too much of a chance of 1e-3 to 1e-6, and hardly ever too little (a
    generalised Pareto distribution fitted to the same says 0 in a quarter of the
    cases). Not below what was counted, nor below a thousandth of what r resamples can
    tell; where the resamples do not vary, no less than 1 / (1 + r).
    """
    r = len(distribution)
    counted, count = (distribution <= 0).sum(), max(2, round(TAIL * r))
    ordered = np.partition(distribution, count)
    edge, nearest = float(ordered[count]), ordered[:count]
    scale = edge - float(nearest.mean())
    if counted >= FEW or scale <= 0:
        return float((1 + counted) / (1 + r))
    return float(min(1.0, max(count / r * np.exp(-edge / scale), counted / r, 1 / (1 + r) / 1000)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of m p-values, which bounds the chance of any
    false one among them, whatever their dependence.

    The k-th smallest times m - k + 1, never below a smaller one's, at most 1. Raises
    ValueError for a p outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    if len(values) and not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a p-value lies outside [0, 1]")
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(
        1.0, np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    )
    adjusted = np.empty(len(values))
    adjusted[order] = stepped
    return adjusted.tolist()


def widened(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float], level: float = 0.95
) -> Interval:
    """Interval of the mean over seeds of a metric of which each seed has its own: their
    mean, widened by Student's t over seeds.

    The two half-widths add in squares. Wider than need be, since a seed's own interval
    holds some of what differs between seeds; for metrics that have no resamples to
    average (UMS). NaN where a seed has no interval. Raises ValueError for lengths that
    differ or no seed.
    """
    found, low, high = (np.asarray(column, dtype=np.float64) for column in (values, lows, highs))
    if not (len(found) == len(low) == len(high)) or not len(found):
        raise ValueError(f"{len(found)} values, {len(low)} and {len(high)} ends")
    mean, n, half = float(found.mean()), len(found), 0.0
    if n > 1:
        half = float(student.ppf((1 + level) / 2, n - 1) * found.std(ddof=1) / np.sqrt(n))
    return mean - float(np.hypot(mean - low.mean(), half)), mean + float(
        np.hypot(high.mean() - mean, half)
    )
