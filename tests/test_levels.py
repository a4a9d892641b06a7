"""Intervals over groups and seeds, p-values and Holm's adjustment: by hand, against
plain loops, and in the limits that are known.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from membench.metrics.intervals import mean_intervals, mean_resamples, percentiles
from membench.metrics.levels import (
    difference_p,
    holm,
    p_value,
    shared_variance,
    tail,
    two_level,
    two_level_interval,
    widened,
)

GROUPS = np.repeat(np.arange(30), 4)


def resampled(values: np.ndarray, resamples: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """The means of each column (a seed) of values [n, S], and of the same resamples of
    GROUPS: [S], [S, r].
    """
    drawn = mean_resamples(values, GROUPS, resamples=resamples)
    assert drawn is not None
    return values.mean(axis=0), drawn.T


def width(values: np.ndarray, drawn: np.ndarray) -> float:
    low, high = two_level_interval(values, drawn, range_=(-np.inf, np.inf))
    return high - low


def test_one_seed_is_the_plain_bootstrap():
    values = np.random.default_rng(0).normal(size=(120, 1))
    mean, drawn = resampled(values, 1000)
    assert (two_level(mean, drawn) == drawn[0]).all()
    assert two_level_interval(mean, drawn, range_=(-9, 9)) == mean_intervals(values, GROUPS)[0]
    assert two_level_interval([0.5], drawn.clip(0, 1), logit=True) == percentiles(
        drawn[0].clip(0, 1), 0.95
    )


def test_without_group_variance_it_is_students_interval_over_seeds():
    """Seeds that move all examples, and examples that are all alike: the resamples say
    nothing.
    """
    values = np.array([0.61, 0.7, 0.64, 0.72])
    found = two_level_interval(values, np.repeat(values[:, None], 200_000, axis=1))
    assert found == pytest.approx(
        stats.t.interval(0.95, 3, values.mean(), stats.sem(values)), abs=0.003
    )
    odds, error = (
        np.log(values.mean() / (1 - values.mean())),
        stats.sem(values) / values.mean() / (1 - values.mean()),
    )
    logit = two_level_interval(values, np.repeat(values[:, None], 200_000, axis=1), logit=True)
    assert logit == pytest.approx(
        stats.logistic.cdf(stats.t.interval(0.95, 3, odds, error)), abs=0.003
    )


@pytest.mark.parametrize("logit", [False, True])
def test_without_seed_variance_it_is_the_bootstrap_of_the_mean(logit):
    one = np.random.default_rng(1).random(120)
    mean, drawn = resampled(np.stack([one] * 3, axis=1))
    assert two_level(mean, drawn, logit=logit) == pytest.approx(drawn.mean(axis=0))
    assert two_level_interval(mean, drawn, logit=logit) == pytest.approx(
        percentiles(drawn[0], 0.95)
    )


def test_noise_of_single_examples_counts_once():
    """It is in each seed's own resamples and in what differs between the seeds.

    Alone, it leaves nothing that seeds share.
    """
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(120, 12))
    mean, drawn = resampled(noise)
    alone = percentiles(drawn.mean(axis=0), 0.95)
    student = stats.t.interval(0.95, 11, 0, stats.sem(mean))
    assert shared_variance(drawn) < 0.2 * np.var(drawn.mean(axis=0))
    assert width(mean, drawn) == pytest.approx(student[1] - student[0], rel=0.1)
    # What counting it twice would give
    assert width(mean, drawn) < 0.9 * np.hypot(alone[1] - alone[0], student[1] - student[0])
    group = rng.normal(size=30)[GROUPS]
    assert width(*resampled(noise + 3 * group[:, None])) == pytest.approx(
        2 * 1.96 * 3 * np.unique(group).std() / np.sqrt(30), rel=0.2
    )


def test_the_shared_variance_by_hand():
    drawn = np.random.default_rng(3).normal(size=(3, 50)) + 2 * np.random.default_rng(4).normal(
        size=50
    )
    by_hand = np.mean(
        [np.mean((a - a.mean()) * (b - b.mean())) for a, b in itertools.combinations(drawn, 2)]
    )
    assert shared_variance(drawn) == pytest.approx(by_hand)
    noise = np.mean([np.var(a - b) / 2 for a, b in itertools.combinations(drawn, 2)])
    # The mean's own, less the noise of S seeds
    assert np.var(drawn.mean(axis=0)) == pytest.approx(by_hand + noise / 3)
    assert shared_variance(np.array([[0.0, 1.0], [1.0, 0.0]])) == 0


def test_an_interval_on_the_logit_scale_stays_inside_and_is_longer_below():
    values = np.array([0.99, 0.999, 0.95])
    drawn = np.clip(values[:, None] + 0.02 * np.random.default_rng(5).normal(size=(3, 2000)), 0, 1)
    low, high = two_level_interval(values, drawn, logit=True)
    assert 0 < low < 0.93 < values.mean() < high < 1 and values.mean() - low > 3 * (
        high - values.mean()
    )
    assert two_level_interval(values, drawn)[1] == 1  # cut
    assert two_level_interval([1.0, 1.0, 1.0], np.ones((3, 10)), logit=True) == (1, 1)


def test_the_same_seed_gives_the_same_interval():
    values, drawn = resampled(np.random.default_rng(6).random((120, 3)), 500)
    assert (
        two_level_interval(values, drawn)
        == two_level_interval(values, drawn)
        != two_level_interval(values, drawn, seed=1)
    )
    assert two_level_interval(values[::-1], drawn[::-1]) == pytest.approx(
        two_level_interval(values, drawn)
    )


@pytest.mark.parametrize(
    ("values", "drawn", "logit", "match"),
    [
        ([0.5, 0.6], np.zeros((3, 10)), False, "resampled"),
        ([], np.zeros((0, 10)), False, "resampled"),
        ([0.5], np.zeros(10), False, "resampled"),
        ([0.5], np.zeros((1, 0)), False, "resampled"),
        ([np.nan], np.zeros((1, 10)), False, "finite"),
        ([0.5], np.full((1, 10), np.inf), False, "finite"),
        ([0.5], np.full((1, 10), 1.1), True, "outside"),
        ([-0.1], np.zeros((1, 10)), True, "outside"),
    ],
)
def test_what_is_refused(values, drawn, logit, match):
    with pytest.raises(ValueError, match=match):
        two_level(values, drawn, logit=logit)


def test_p_value_by_hand():
    above = np.array([-1.0, *np.arange(1, 20)])  # 1 of 20 below
    assert p_value(above) == p_value(-above) == pytest.approx(2 * 2 / 21)
    assert p_value(np.array([0.0, 0.0, 1.0, 2.0])) == 1  # 2 * 3 / 5, and no more than 1
    assert p_value(np.ones(999)) == p_value(-np.ones(999)) == pytest.approx(2 / 1000)  # never less
    assert p_value(np.zeros(10)) == 1  # no difference in any resample
    # 0 is not a difference: it counts
    assert p_value(np.array([0.0, *np.ones(98)])) == pytest.approx(2 * 2 / 100)


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(7)
    found = [p_value(rng.normal(size=500) + rng.normal()) for _ in range(2000)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("chance", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize(
    "law",
    [stats.norm(), stats.gamma(100), stats.gamma(20), stats.logistic()],
    ids=["normal", "gamma100", "gamma20", "logistic"],
)
@pytest.mark.parametrize("side", [1, -1])
def test_a_tail_beyond_the_resamples_holds_the_exact_chance(law, chance: float, side: int):
    """5,000 resamples of a law whose chance below 0 is known: what is made of it is
    rarely too small, and not much too large.
    """
    rng = np.random.default_rng(11)
    end = law.ppf(chance) if side == 1 else law.isf(chance)
    # Of 40, the tenth is too noisy
    ratios = np.array(
        [tail(side * (law.rvs(5000, random_state=rng) - end)) / chance for _ in range(400)]
    )
    assert np.median(ratios) > 0.8 and np.quantile(ratios, 0.1) > 0.2 and np.median(ratios) < 300


def test_tail_by_hand():
    # Enough lie there: counted
    assert tail(np.r_[np.zeros(20), np.ones(1980)]) == pytest.approx(21 / 2001)
    assert tail(np.ones(1999)) == pytest.approx(1 / 2000)  # no tail to go by
    # 2 %, on average 0.5125 below 2
    drawn = np.r_[np.linspace(1, 2, 40, endpoint=False), np.full(1960, 2.0)]
    assert tail(drawn) == pytest.approx(0.02 * np.exp(-2 / 0.5125))
    assert tail(drawn + 100) == pytest.approx(1 / 2001 / 1000)  # no further than that


def test_p_values_of_a_difference():
    rng = np.random.default_rng(5)
    drawn = rng.normal(3.0, 1.0, (1, 5000))
    # Counted, where resamples reach
    assert difference_p([3.0], drawn - 1.5) == p_value(drawn[0] - 1.5)
    exact = 2 * stats.norm.sf(4.5)
    assert exact / 2 < difference_p([4.5], drawn + 1.5) < min(100 * exact, 2 / 5001)
    assert difference_p([-4.5], -drawn - 1.5) == pytest.approx(difference_p([4.5], drawn + 1.5))
    # Three seeds: where groups make no difference, p is that of Student's test over
    # seeds.
    values = np.array([0.30, 0.31, 0.302])
    found = difference_p(values, np.repeat(values[:, None], 5000, axis=1))
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_holm_of_hundreds_of_pairs_can_be_significant():
    """200 pairs, one of them far apart: by counting alone the least adjusted p is 200 *
    2 / 5001.
    """
    rng = np.random.default_rng(6)
    distribution = rng.normal(5.0, 1.0, (1, 5000))
    assert 200 * p_value(distribution[0]) > 0.05
    assert holm([difference_p([5.0], distribution), *[0.5] * 199])[0] < 0.05


def by_definition(p: list[float]) -> list[float]:
    """Holm 1979: reject in the order of p while p_(k) <= alpha / (m - k + 1); the
    adjusted p is the least alpha that rejects.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    found = [0.0] * len(p)
    for k, i in enumerate(order):
        found[i] = min(1.0, max((len(p) - j) * p[order[j]] for j in range(k + 1)))
    return found


def test_holm_by_hand_and_by_definition():
    # The example of Wikipedia's article on the Holm-Bonferroni method: at 0.05 it
    # rejects the fourth, the first, and stops at 0.03 > 0.025.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [3 * 0.01, 2 * 0.03, 2 * 0.03, 4 * 0.005]
    )
    rng = np.random.default_rng(8)
    for m in (1, 2, 7, 40):
        p = (rng.random(m) ** 3).round(2).tolist()  # with ties
        assert holm(p) == pytest.approx(by_definition(p))
        for alpha in (0.03, 0.2):  # the step-down procedure itself
            rejected = set()
            for k, i in enumerate(np.argsort(p, kind="stable")):
                if p[i] > alpha / (m - k):
                    break
                rejected.add(int(i))
            assert rejected == {
                i for i, adjusted in enumerate(holm(p)) if adjusted <= alpha + 1e-12
            }
    assert holm([]) == [] and holm([0.6, 0.7]) == [1.0, 1.0]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="outside"):
            holm([0.5, wrong])


def test_widened_by_hand():
    values, lows, highs = [0.2, 0.4, 0.3], [0.1, 0.3, 0.2], [0.4, 0.7, 0.4]
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert widened(values, lows, highs) == pytest.approx(
        (0.3 - np.hypot(0.1, half), 0.3 + np.hypot(0.2, half))
    )
    assert widened([0.2], [0.1], [0.4]) == pytest.approx((0.1, 0.4))
    # Seeds that agree add nothing
    assert widened([0.3] * 3, [0.1] * 3, [0.4] * 3) == pytest.approx((0.1, 0.4))
    assert np.isnan(widened([0.2, 0.3], [0.1, np.nan], [0.4, 0.5])[0])
    for wrong in (([], [], []), ([0.1], [0.1, 0.2], [0.1])):
        with pytest.raises(ValueError, match="ends"):
            widened(*wrong)
