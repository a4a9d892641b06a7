"""AUROC at like PNG size and the correlation with it, against loops over all pairs,
scikit-learn and SciPy.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import within
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from membench.metrics.complexity import (
    bin_edges,
    complexity_table,
    correlation_interval,
    matched_auroc,
    rank_correlation,
    size_bins,
    weighted_correlation,
)
from membench.metrics.table import run_metrics
from membench.types import Band, Space

L2 = Space("l2", False, (Band("high", 0.0, 1.0),), copy=1.0, floor=1.4, source="test")


def loop_auroc(scores, labels, bins) -> float | None:
    wins = pairs = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if labels[i] == 1 and labels[j] == 0 and bins[i] == bins[j]:
                wins += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
                pairs += 1
    return wins / pairs if pairs else None


def loop_bins(sizes, quantiles) -> list[int]:
    """How many of the quantiles k / q lie below: the least size that at least k n / q
    of the sizes do not exceed.
    """
    ends = [
        min(x for x in sizes if quantiles * sum(y <= x for y in sizes) >= k * len(sizes))
        for k in range(1, quantiles)
    ]
    return [sum(x > end for end in ends) for x in sizes]


few = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([1, 1, 0, 0, -1]), st.integers(1, 12)),
    min_size=1,
    max_size=25,
)


def columns(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, labels, sizes = np.array(rows).T
    return scores.astype(float), labels, sizes * 8.0


@settings(max_examples=150, deadline=None)
@given(few, st.sampled_from([1, 2, 4, 5, 8]))
def test_matched_auroc_is_that_of_all_pairs_within_bins(rows, quantiles):
    scores, labels, sizes = columns(rows)
    bins = loop_bins(sizes.tolist(), quantiles)
    assert size_bins(sizes, quantiles).tolist() == bins
    found = matched_auroc(scores, labels, sizes, quantiles)
    assert found == loop_auroc(scores, labels, bins)
    if quantiles == 1 and {0, 1} <= set(labels):
        known = labels >= 0
        assert found == pytest.approx(roc_auc_score(labels[known], scores[known]))


@settings(max_examples=60, deadline=None)
@given(few, st.randoms(use_true_random=False))
def test_neither_order_nor_scale_counts(rows, random):
    scores, labels, sizes = columns(rows)
    found, rho = matched_auroc(scores, labels, sizes), rank_correlation(scores, sizes)
    order = random.sample(range(len(rows)), len(rows))
    assert matched_auroc(scores[order], labels[order], sizes[order]) == found
    assert matched_auroc(np.exp(scores), labels, sizes**3) == found  # only the ranks of either
    turned = matched_auroc(-scores, labels, sizes)
    assert turned is None if found is None else turned == pytest.approx(1 - found)
    for changed in (
        rank_correlation(scores[order], sizes[order]),
        rank_correlation(np.exp(scores), sizes**3),
    ):
        assert changed == (None if rho is None else pytest.approx(rho))
    assert rank_correlation(-scores, sizes) == (None if rho is None else pytest.approx(-rho))


@settings(max_examples=80, deadline=None)
@given(few)
def test_rank_correlation_is_pearsons_of_midranks(rows):
    scores, _, sizes = columns(rows)
    found = rank_correlation(scores, sizes)
    if len(scores) < 3 or len(set(scores)) == 1 or len(set(sizes)) == 1:
        assert found is None
        return
    first, second = (
        [sum(y < x for y in of) + sum(y == x for y in of) / 2 for x in of] for of in (scores, sizes)
    )
    assert found == pytest.approx(np.corrcoef(first, second)[0, 1]) and -1 <= found <= 1


def test_equal_sizes_share_a_bin():
    assert size_bins(np.full(9, 8.0)).tolist() == [0] * 9
    assert size_bins(np.arange(10.0)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sorted(set(size_bins(np.array([1.0] * 9 + [2.0])))) == [0, 4]
    assert bin_edges(np.arange(10.0), 1).tolist() == [] and bin_edges(
        np.array([5.0, 7.0]), 2
    ).tolist() == [5.0]


def test_no_bin_with_both_classes():
    labels, sizes = np.array([1, 1, 0, 0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert (
        matched_auroc(np.ones(4), labels, sizes, 2) is None
        and matched_auroc(np.ones(4), labels, sizes, 1) == 0.5
    )
    assert matched_auroc(np.ones(2), np.array([1, -1]), np.ones(2)) is None
    assert matched_auroc(*np.empty((3, 0))) is None


@pytest.mark.parametrize("quantiles", [5, 10])
def test_a_score_that_is_size_alone_is_found_out(quantiles):
    """Labels follow size, and the score is a function of size: AUROC near 1 tells of no
    memorization.
    """
    rng = np.random.default_rng(0)
    sizes = rng.integers(4000, 8000, size=2000) * 8.0
    middle = np.median(sizes)
    # Memorized images are the simple ones
    labels = (sizes + rng.normal(0, 1500, size=2000) < middle).astype(int)
    score = -sizes
    assert roc_auc_score(labels, score) > 0.95
    assert rank_correlation(score, sizes) == pytest.approx(-1)
    matched = matched_auroc(score, labels, sizes, quantiles)
    assert matched < roc_auc_score(labels, score) - 0.1
    # Where, within a bin, size tells nothing of the label, nothing is left.
    step = np.floor((sizes - sizes.min()) / (np.ptp(sizes) + 1) * quantiles)
    chance = rng.random(2000) < 1 - (step + 0.5) / quantiles
    assert roc_auc_score(chance, score) > 0.75
    assert matched_auroc(score, chance.astype(int), sizes, quantiles) == pytest.approx(
        0.5, abs=0.05
    )
    # Sizes that part the classes leave nothing to compare, or the middle bin alone.
    parted = (sizes <= middle).astype(int)
    assert roc_auc_score(parted, score) == 1 and matched_auroc(score, parted, sizes, quantiles) == (
        None if quantiles == 10 else 1
    )
    frame = pd.DataFrame(
        {
            "id": np.arange(2000),
            "score": score,
            "label": parted,
            "group": np.arange(2000),
            "png_bits": sizes,
        }
    )
    table = complexity_table(
        frame.assign(kind=np.where(parted, "MV", "N"), status="ok"), resamples=20
    )
    assert 300 < table[0].n < 500 and table[0].name == "auroc_complexity_matched"


def test_a_score_that_tells_beside_size_keeps_its_auroc():
    rng = np.random.default_rng(1)
    labels, sizes = np.arange(1000) % 2, rng.integers(4000, 8000, size=1000) * 8.0
    score = labels + rng.normal(size=1000)
    assert matched_auroc(score, labels, sizes) == pytest.approx(
        roc_auc_score(labels, score), abs=0.02
    )
    assert abs(rank_correlation(score, sizes)) < 0.1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99999), st.integers(1, 5))
def test_weighted_correlation_is_that_of_repeated_rows(seed, levels):
    rng = np.random.default_rng(seed)
    scores, sizes, weights = (
        rng.integers(levels, size=15) / 3,
        rng.integers(9, size=15) * 8.0,
        rng.integers(4, size=(3, 15)),
    )
    for found, times in zip(weighted_correlation(scores, sizes, weights), weights, strict=True):
        first, second = np.repeat(scores, times), np.repeat(sizes, times)
        if len(set(first)) < 2 or len(set(second)) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(first, second).statistic)


@pytest.mark.parametrize(
    "change", [lambda s, b: (s[1:], b), lambda s, b: (s * np.nan, b), lambda s, b: (s, b * np.inf)]
)
def test_refusals(change):
    scores, sizes = change(np.arange(4.0), np.arange(1.0, 5))
    for function in (rank_correlation, lambda s, b: matched_auroc(s, np.array([0, 1, 0, 1]), b)):
        with pytest.raises(ValueError, match=r"lengths differ|not finite"):
            function(scores, sizes)
    with pytest.raises(ValueError, match="0 quantile bins"):
        bin_edges(np.ones(3), 0)


# ---------------------------------------------------------------------------- the table


def table_frame(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Groups of three; a third of them memorized, of two kinds; a score that tells, and
    rises with size.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n) // 3
    label = (group % 3 == 0).astype(int)
    sizes = 8.0 * (rng.integers(500, 700, size=n) + 20 * label)
    frame = pd.DataFrame(
        {
            "id": [f"e{i:03d}" for i in range(n)],
            "score": np.round(label + sizes / 800 + rng.normal(size=n), 1),
        }
    )
    kind = np.where(label == 1, np.where(group % 2 == 0, "MV", "TV"), "N")
    return frame.assign(
        label=label, kind=kind, group=group.astype(str), source="s", status="ok", png_bits=sizes
    )


def by_name(frame: pd.DataFrame, **options) -> dict:
    return {(m.name, m.subset): m for m in complexity_table(frame, **{"resamples": 300} | options)}


def test_the_table():
    frame = table_frame()
    found = by_name(frame)
    bins = size_bins(frame.png_bits.to_numpy())
    parts = {"all": frame.label >= 0} | {
        f"kind={kind}": (frame.label == 0) | (frame.kind == kind) for kind in ("MV", "TV")
    }
    assert set(found) == {
        ("spearman_png_bits", "all"),
        *(("auroc_complexity_matched", subset) for subset in parts),
    }
    for subset, part in parts.items():
        metric, inside = found["auroc_complexity_matched", subset], part.to_numpy()
        assert metric.value == loop_auroc(
            frame.score[part].to_numpy(), frame.label[part].to_numpy(), bins[inside]
        )
        assert (
            metric.low < metric.value < metric.high
            and metric.n == part.sum()
            and metric.threshold == 5
            and metric.band is None
        )
    rho = found["spearman_png_bits", "all"]
    assert (
        rho.value == pytest.approx(spearmanr(frame.score, frame.png_bits).statistic)
        and rho.value > 0
    )
    assert rho.low < rho.value < rho.high and rho.n == 300 and rho.threshold is None


def test_intervals_are_those_of_a_plain_bootstrap_over_groups():
    """Against copies of rows: other random numbers, so equal only up to their noise."""
    frame, rng = table_frame(150), np.random.default_rng(5)
    bins = size_bins(frame.png_bits.to_numpy())
    members = {g: np.flatnonzero(frame.group == g) for g in frame.group.unique()}
    classes = [frame.group[frame.label == label].unique() for label in (0, 1)]
    aurocs, rhos = [], []
    score, label, size = (frame[name].to_numpy() for name in ("score", "label", "png_bits"))
    for _ in range(800):
        rows = np.concatenate([members[g] for of in classes for g in rng.choice(of, len(of))])
        pairs = (bins[rows][:, None] == bins[rows]) & (label[rows][:, None] > label[rows])
        beats = (score[rows][:, None] > score[rows]) + (score[rows][:, None] == score[rows]) / 2
        aurocs.append(beats[pairs].mean())
        rows = np.concatenate([members[g] for g in rng.choice(list(members), len(members))])
        rhos.append(spearmanr(score[rows], size[rows]).statistic)
    found = by_name(frame, resamples=3000)
    for name, plain in (("auroc_complexity_matched", aurocs), ("spearman_png_bits", rhos)):
        metric = found[name, "all"]
        assert (metric.low, metric.high) == pytest.approx(
            np.quantile(plain, [0.025, 0.975]), abs=0.025
        )


def test_intervals_are_the_same_again_in_any_order_and_quick():
    frame = table_frame(1500)
    with within(100):
        first = by_name(frame, resamples=1000)
    shuffled = by_name(frame.sample(frac=1, random_state=2), resamples=1000)
    assert (
        by_name(frame, resamples=1000) == first and by_name(frame, seed=1, resamples=1000) != first
    )
    for name, metric in first.items():
        assert (shuffled[name].value, shuffled[name].low, shuffled[name].high) == pytest.approx(
            (metric.value, metric.low, metric.high)
        )
        assert metric.low <= metric.value <= metric.high


def test_failed_and_sizeless_rows_are_left_out_and_unlabelled_ones_correlate():
    frame = table_frame(90)
    more = frame.head(30).assign(id=[f"x{i}" for i in range(30)])
    failed = pd.concat([frame, more.assign(status="failed", score=np.nan)], ignore_index=True)
    sizeless = pd.concat([frame, more.assign(png_bits=np.nan)], ignore_index=True)
    assert by_name(failed) == by_name(sizeless) == by_name(frame)
    assert (
        complexity_table(frame.assign(png_bits=np.nan)) == [] and complexity_table(frame[:0]) == []
    )
    only = by_name(frame.assign(label=-1, kind="unlabelled"))
    assert (
        set(only) == {("spearman_png_bits", "all")}
        and only["spearman_png_bits", "all"].value is not None
    )
    both = by_name(pd.concat([frame, more.assign(label=-1, kind="unlabelled")], ignore_index=True))
    assert (
        both["spearman_png_bits", "all"].n == 120
        and both["auroc_complexity_matched", "all"].n == 90
    )
    assert ("auroc_complexity_matched", "kind=unlabelled") not in both


def test_what_the_data_cannot_support():
    frame = table_frame(30).assign(label=[1] * 15 + [0] * 15, kind=["MV"] * 15 + ["N"] * 15)
    apart = by_name(frame.assign(png_bits=np.arange(30.0)), resamples=50)[
        "auroc_complexity_matched", "all"
    ]
    assert apart.value is not None and apart.n == 6  # the middle bin alone holds both
    none = by_name(frame.assign(png_bits=[1.0] * 15 + [2.0] * 15))[
        "auroc_complexity_matched", "all"
    ]
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 0)
    flat = by_name(frame.assign(png_bits=8.0))
    assert (
        flat["spearman_png_bits", "all"].value is None
        and flat["auroc_complexity_matched", "all"].n == 30
    )
    one = by_name(frame.assign(group=["a"] * 15 + ["b"] * 15, png_bits=np.arange(30.0) % 7))
    assert (
        one["auroc_complexity_matched", "all"].low is None
        and one["auroc_complexity_matched", "all"].value is not None
    )
    assert correlation_interval(np.arange(5.0), np.arange(5.0), np.zeros(5)) is None


def test_resamples_without_a_pair_are_left_out():
    """Two bins with a positive group each: one draw in four of either class misses the
    other's bin.
    """
    group, label = [f"g{i}" for i in range(4)] * 3, [1, 1, 0, 0] * 3
    frame = pd.DataFrame(
        {
            "id": [f"e{i}" for i in range(12)],
            "score": np.arange(12.0),
            "label": label,
            "group": group,
        }
    )
    frame = frame.assign(
        kind=np.where(frame.label == 1, "MV", "N"),
        source="s",
        status="ok",
        png_bits=[8.0, 16.0] * 6,
    )
    metric = by_name(frame)["auroc_complexity_matched", "all"]
    assert metric.n == 12 and 0 <= metric.low <= metric.value <= metric.high <= 1


def test_the_metrics_of_a_run_hold_these_rows():
    frame = table_frame()
    empty = pd.DataFrame(columns=["sample_id", "condition", "prompt", "confidence"])
    known = run_metrics(frame, empty, empty, L2, evaluations=0, resamples=50)
    assert list(known.metric.unique()[:2]) == ["auroc", "average_precision"]
    assert list(known[known.metric == "auroc_complexity_matched"].subset) == [
        "all",
        "kind=MV",
        "kind=TV",
    ]
    assert list(known[known.metric == "spearman_png_bits"].subset) == ["all"]
    without = run_metrics(
        frame.assign(png_bits=np.nan), empty, empty, L2, evaluations=0, resamples=50
    )
    pd.testing.assert_frame_equal(
        without, known[~known.metric.isin(["auroc_complexity_matched", "spearman_png_bits"])]
    )
