"""AMS, UMS and their company against loops, hand-made cases and exhaustive enumeration."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membench.metrics.extraction import (
    ams,
    copy_counts,
    extraction_metrics,
    precision_of_confident,
    rarefaction,
    ums,
    ums_intervals,
    ums_nearest,
    unique_per_1000,
)
from membench.metrics.regions import in_region
from membench.metrics.unique import chao1, chao1_interval
from membench.similarity.search import matches_frame
from membench.types import Band, Space

SSCD = Space(
    "sscd",
    True,
    (Band("low", 0.3, 0.5), Band("mid", 0.5, 0.6), Band("high", 0.6, 1.0)),
    copy=0.5,
    floor=0.3,
    source="test",
)
L2 = Space(
    "l2",
    False,
    (Band("high", 0.0, 1.0), Band("mid", 1.0, 1.4), Band("low", 1.4, 2.0)),
    copy=1.0,
    floor=2.0,
    source="test",
)


def stored(values: np.ndarray, space: Space):
    """The frame of a full matrix [n, m]: pairs up to the floor, and the nearest of
    each.
    """
    i, j = np.indices(values.shape).reshape(2, -1)
    frame = matches_frame(i, j, values.ravel(), higher_is_closer=space.higher_is_closer)
    close = (
        frame["similarity"] >= space.floor
        if space.higher_is_closer
        else frame["similarity"] <= space.floor
    )
    return frame[close | (frame["rank"] == 0)]


def matrix(space: Space, seed: int = 0, n: int = 12, m: int = 7) -> np.ndarray:
    """Values on a grid, so that edges of bands are hit, and rows whose best is close
    and not so close.
    """
    rng = np.random.default_rng(seed)
    grid, away = rng.integers(0, 21, size=(n, m)) / 20, rng.integers(1, 4, size=(n, 1))
    return grid / away if space.higher_is_closer else grid + away - 1


def inside(value: float, space: Space, region: Band | float) -> bool:
    value = round(value, 6)
    if isinstance(region, float):
        return value >= region if space.higher_is_closer else value <= region
    return region.low <= value < region.high or (
        space.higher_is_closer and value == region.high == 1.0
    )


@pytest.mark.parametrize("space", [SSCD, L2])
@pytest.mark.parametrize("seed", range(5))
def test_ams_and_ums_from_the_formulas(space, seed):
    values = matrix(space, seed)
    n, m = values.shape
    best = values.max(axis=1) if space.higher_is_closer else values.min(axis=1)
    first = values.argmax(axis=1) if space.higher_is_closer else values.argmin(axis=1)
    frame = stored(values, space)
    for region in (*space.bands, space.copy, 0.6, 1.0):
        assert ams(frame, n, space, region) == sum(inside(b, space, region) for b in best) / n
        union = {j for i in range(n) for j in range(m) if inside(values[i, j], space, region)}
        assert ums(frame, n, space, region) == len(union) / n
        assert (
            ums_nearest(frame, n, space, region)
            == len({j for b, j in zip(best, first, strict=True) if inside(b, space, region)}) / n
        )


@pytest.mark.parametrize("space", [SSCD, L2])
def test_the_random_matches_hit_every_edge(space):
    """Else the comparison above would say nothing of them."""
    for region in space.bands:
        for edge in (region.low, region.high):
            assert any((np.round(matrix(space, seed), 6) == edge).any() for seed in range(5))


def test_every_score_by_hand():
    """Image 0 is nearest to image 2 at the edge of mid; 1 and 2 both to image 0; 3
    to nothing that counts.
    """
    close = np.array([[0.55, 0.3, 0.5], [0.9, 0.6, 0.5], [0.6, 0.2, 0.55], [0.1, 0.2, 0.29]])
    close[0] = 0.45, 0.3, 0.5
    frame, bands = stored(close, SSCD), {b.name: b for b in SSCD.bands}
    scores = lambda region: tuple(4 * f(frame, 4, SSCD, region) for f in (ams, ums, ums_nearest))  # noqa: E731
    assert scores(bands["low"]) == (0, 2, 0)  # images 0 and 1 of image 0, whose best is 0.5
    assert scores(bands["mid"]) == (1, 1, 1)  # image 2, of images 0, 1 and 2
    assert scores(bands["high"]) == (2, 2, 1)  # 0.9 and both 0.6
    assert (
        scores(0.3) == scores(0.5) == (3, 3, 2)
        and scores(0.6) == (2, 2, 1)
        and scores(0.61) == (1, 1, 1)
    )
    far = np.array([[1.0, 1.2, 2.0], [0.4, 0.9, 1.4], [1.4, 2.5, 2.5], [2.5, 2.6, 2.7]])
    frame, bands = stored(far, L2), {b.name: b for b in L2.bands}
    scores = lambda region: tuple(4 * f(frame, 4, L2, region) for f in (ams, ums, ums_nearest))  # noqa: E731
    assert scores(bands["high"]) == (1, 2, 1)  # image 1 alone; 1.0 belongs to mid
    assert scores(bands["mid"]) == (1, 2, 1)
    assert scores(bands["low"]) == (1, 2, 1)  # 1.4 of image 2 and of image 1; 2.0 is beyond
    assert scores(1.0) == (2, 2, 1) and scores(1.4) == (3, 3, 1) and scores(2.0) == (3, 3, 1)


def test_ums_exceeds_ams_as_equation_9_allows():
    frame = stored(np.array([[0.9, 0.8, 0.7], [0.1, 0.1, 0.1]]), SSCD)
    high = SSCD.bands[-1]
    assert ams(frame, 2, SSCD, high) == 0.5
    assert ums(frame, 2, SSCD, high) == 1.5
    assert ums_nearest(frame, 2, SSCD, high) == 0.5


def test_bands_hide_a_closer_match_and_cumulative_scores_do_not():
    frame = stored(np.array([[0.9, 0.55]]), SSCD)
    mid = SSCD.bands[1]
    assert ams(frame, 1, SSCD, mid) == 0.0 and ams(frame, 1, SSCD, 0.5) == 1.0
    assert ums(frame, 1, SSCD, mid) == 1.0 and ums(frame, 1, SSCD, 0.5) == 2.0


def test_edges_of_regions():
    edges = np.array([0.3, 0.5, 0.6, 1.0])
    assert [in_region(edges, SSCD, band).tolist() for band in SSCD.bands] == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 1],
    ]
    # 0.6 is not a float32, and still equals itself
    assert in_region(edges, SSCD, 0.6).tolist() == [0, 0, 1, 1]
    edges = np.array([0.0, 1.0, 1.4, 2.0])
    assert [in_region(edges, L2, band).tolist() for band in L2.bands] == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]
    assert in_region(edges, L2, 1.4).tolist() == [1, 1, 1, 0]


def test_ums_refuses_what_is_not_stored():
    frame = stored(matrix(SSCD), SSCD)
    with pytest.raises(ValueError, match="floor"):
        ums(frame, 12, SSCD, 0.2)
    with pytest.raises(ValueError, match="floor"):
        ums(stored(matrix(L2), L2), 12, L2, Band("beyond", 1.4, 2.5))
    wide = Space(
        "wide",
        True,
        (Band("low", 0.0, 0.5), Band("high", 0.5, 1.0)),
        copy=0.5,
        floor=0.3,
        source="test",
    )
    rows = {(r.name, r.band): r.value for r in extraction_metrics(frame, 12, wide)}
    assert (
        rows["ums", "low"] is None
        and rows["ums", "high"] is not None
        and rows["ams", "low"] is not None
    )


def test_every_image_needs_its_nearest():
    frame = stored(matrix(SSCD), SSCD)
    for count in (0, 11, 13):
        with pytest.raises(ValueError, match="exactly one"):
            ams(frame, count, SSCD, 0.5)
    broken = frame.assign(similarity=np.nan)
    with pytest.raises(ValueError, match="NaN"):
        ams(broken, 12, SSCD, 0.5)


@pytest.mark.parametrize("space", [SSCD, L2])
def test_rarefaction_is_the_mean_over_all_subsets(space):
    values = matrix(space, 3, n=8, m=4)
    frame = stored(values, space)
    best = values.max(axis=1) if space.higher_is_closer else values.min(axis=1)
    first = values.argmax(axis=1) if space.higher_is_closer else values.argmin(axis=1)
    copied = [j if inside(b, space, space.copy) else None for b, j in zip(best, first, strict=True)]
    assert len(set(copied)) > 2
    expected = [
        np.mean([len({copied[i] for i in s} - {None}) for s in combinations(range(8), size)])
        for size in range(9)
    ]
    np.testing.assert_allclose(rarefaction(frame, 8, space, range(9)), expected, atol=1e-9)
    assert rarefaction(frame, 8, space, [8])[0] == pytest.approx(
        8 * ums_nearest(frame, 8, space, space.copy)
    )
    with pytest.raises(ValueError, match="between"):
        rarefaction(frame, 8, space, [9])


def test_rarefaction_with_many_images_and_with_none_copied():
    n = 200_000
    frame = matches_frame(np.arange(n), np.arange(n) % 1000, np.full(n, 0.9), higher_is_closer=True)
    curve = rarefaction(frame, n, SSCD, [1, 1000, n])
    np.testing.assert_allclose(curve, [1, 1000 * (1 - (1 - 1 / 1000) ** 1000), 1000], rtol=2e-3)
    nothing = stored(np.full((4, 2), 0.1), SSCD)
    assert rarefaction(nothing, 4, SSCD, [0, 4]).tolist() == [0, 0]
    (estimate,) = (r for r in extraction_metrics(nothing, 4, SSCD) if r.name == "chao1_estimate")
    assert (estimate.value, estimate.low, estimate.high) == (0, None, None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 6)
)
def test_precision_of_confident_is_the_mean_over_orders_of_the_tied(rows, k):
    confidence, copies = np.array([c for c, _ in rows], float), np.array([x for _, x in rows])
    if k > len(rows):
        assert precision_of_confident(confidence, copies, k) is None
        return
    every = [
        sorted(order, key=lambda i: -confidence[i])[:k] for order in permutations(range(len(rows)))
    ]
    assert precision_of_confident(confidence, copies, k) == pytest.approx(
        np.mean([copies[list(top)].mean() for top in every])
    )


def test_precision_refuses_a_failed_sample():
    with pytest.raises(ValueError, match="finite"):
        precision_of_confident(np.array([1.0, np.nan]), np.array([True, False]), 1)


def test_unique_images_per_1000_evaluations():
    frame = stored(np.array([[0.9, 0.8], [0.7, 0.2], [0.1, 0.5], [0.4, 0.3]]), SSCD)
    assert unique_per_1000(frame, 4, SSCD, 400) == 1000 * 2 / 400
    with pytest.raises(ValueError, match="evaluations"):
        unique_per_1000(frame, 4, SSCD, 0)


@pytest.mark.parametrize("space", [SSCD, L2])
def test_extraction_metrics_is_the_sum_of_its_parts(space):
    values = matrix(space, 4, n=60, m=9)
    frame = stored(values, space)
    best = values.max(axis=1) if space.higher_is_closer else values.min(axis=1)
    confidence = np.random.default_rng(0).normal(size=60)
    groups = np.arange(60) // 4
    rows = extraction_metrics(
        frame, 60, space, confidence=confidence, evaluations=3000, groups=groups
    )
    found = {(r.name, r.band, r.threshold): r for r in rows if r.name != "rarefaction"}
    for band in space.bands:
        far = band.low if space.higher_is_closer else band.high
        for name, measure in (("ams", ams), ("ums", ums), ("ums_nearest", ums_nearest)):
            assert found[name, band.name, None].value == measure(frame, 60, space, band)
            assert found[name + "_cumulative", band.name, far].value == measure(
                frame, 60, space, far
            )
    copy = found["ams_cumulative", None, space.copy]
    assert (
        copy.low is not None
        and copy.high is not None
        and copy.low <= copy.value <= copy.high
        and copy.low < copy.high
    )
    unique = found["ums_cumulative", None, space.copy]
    assert (unique.low, unique.high) == ums_intervals(frame, 60, space, space.copy, groups)[0]
    for q in (50, 75, 90, 95, 99):
        assert found[f"best_p{q}", None, None].value == pytest.approx(
            np.percentile(best, q), rel=1e-6
        )
    assert found["precision_at_50", None, space.copy].value == precision_of_confident(
        confidence, in_region(best, space, space.copy), 50
    )
    assert found["precision_at_100", None, space.copy].value is None
    assert found["unique_per_1000_evaluations", None, space.copy].value == unique_per_1000(
        frame, 60, space, 3000
    )
    curve = [r for r in rows if r.name == "rarefaction"]
    assert (
        curve[0].n == 1
        and curve[-1].n == 60
        and curve[0].value == pytest.approx(ams(frame, 60, space, space.copy))
    )
    with pytest.raises(ValueError, match="confidences"):
        extraction_metrics(frame, 60, space, confidence=confidence[:5])
    counts = copy_counts(frame, 60, space)
    estimate = found["chao1_estimate", None, space.copy]
    assert (estimate.value, estimate.low, estimate.high) == (
        chao1(counts, 60),
        *chao1_interval(counts, 60),
    ) and estimate.n == 60
    assert all(
        r.low is None for r in extraction_metrics(frame, 60, space) if r.name != "chao1_estimate"
    )
