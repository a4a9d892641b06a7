"""Distances, neighbour search and cliques against loops written from the formulas."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membench.similarity.cliques import density_score, largest_clique
from membench.similarity.l2 import normalised_l2, tiled_l2, tiled_l2_matrix
from membench.similarity.search import (
    MATCH_COLUMNS,
    matches_frame,
    nearest,
    within,
)
from membench.similarity.squares import squared_distances


def pictures(n: int, side: int = 4, levels: int = 256, seed: int = 0) -> np.ndarray:
    step = 255 // (levels - 1)
    return (np.random.default_rng(seed).integers(levels, size=(n, side, side, 3)) * step).astype(
        np.uint8
    )


def l2(a: np.ndarray, b: np.ndarray) -> float:
    total = sum((int(x) - int(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True))
    return np.sqrt(total) / 255


def loop_nearest(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    found = [sorted((l2(q, b), j) for j, b in enumerate(base))[:k] for q in queries]
    return np.array([[d for d, _ in row] for row in found]), np.array(
        [[j for _, j in row] for row in found]
    )


@pytest.mark.parametrize("block", [1, 3, 7, 40, 1000, None])
def test_nearest_is_exact_whatever_the_block(block, tmp_path):
    # Two levels: many ties
    queries, base = pictures(9, levels=2, seed=1), pictures(40, levels=2, seed=2)
    base[31] = base[4] = queries[3]
    distance, position = loop_nearest(queries, base, 6)
    got = nearest(queries, base, 6, block=block)
    np.testing.assert_array_equal(got[1], position)
    np.testing.assert_array_equal(got[0], distance.astype(np.float32))
    assert got[0].dtype == np.float32
    assert got[1][3, :2].tolist() == [4, 31]

    disk = np.memmap(tmp_path / "base", dtype=np.uint8, mode="w+", shape=base.shape)
    disk[:] = base
    np.testing.assert_array_equal(nearest(queries, disk, 6, block=block)[1], position)

    as_floats = nearest(queries / 255, base / 255, 6, block=block)
    mixed = nearest(queries, (base / 255).astype(np.float32), 6, block=block)
    np.testing.assert_allclose(as_floats[0], distance, rtol=1e-6, atol=0)
    np.testing.assert_allclose(mixed[0], distance, rtol=1e-5, atol=1e-6)


def test_nearest_does_not_cancel():
    """1,500 bright dimensions in two products, and neighbours that differ by one grey
    level in one of them.
    """
    base = np.full((5, 1500), 255, np.uint8)
    for i in range(5):
        base[i, i] -= i
    distance, position = nearest(base[:1], base, 5)
    np.testing.assert_array_equal(distance[0], (np.arange(5) / 255).astype(np.float32))
    assert position[0].tolist() == [0, 1, 2, 3, 4]
    floats = 1e4 + np.arange(4)[:, None] * np.full((4, 8), 1e-6)
    np.testing.assert_allclose(
        nearest(floats[:1], floats, 4)[0][0], np.arange(4) * 1e-6 * np.sqrt(8), rtol=1e-5
    )


def test_squared_distances_are_whole_numbers_at_the_extremes():
    black, white = np.zeros((1, 3000), np.uint8), np.full((1, 3000), 255, np.uint8)
    assert squared_distances(black, white)[0, 0] == 3000 * 255**2
    assert squared_distances(white, white)[0, 0] == 0


@pytest.mark.parametrize("wide", [3000, 9000, 17000])
def test_squared_distances_are_exact_of_bright_images(wide):
    """Odd products whose sum float32 cannot hold, in one part of the columns, in two that
    are held, and in more.
    """
    rng = np.random.default_rng(wide)
    a, b = (255 - rng.integers(0, 2, (n, wide)).astype(np.uint8) for n in (3, 4))
    b[1], b[2, : wide // 2] = 0, rng.integers(0, 256, wide // 2)
    apart = a[:, None].astype(np.int64) - b[None]
    np.testing.assert_array_equal(squared_distances(a, b), (apart**2).sum(axis=2))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 15))
def test_nearest_property(seed, k, block):
    queries, base = (
        pictures(3, side=1, levels=3, seed=seed),
        pictures(12, side=1, levels=3, seed=seed + 1),
    )
    np.testing.assert_array_equal(
        nearest(queries, base, k, block=block)[1], loop_nearest(queries, base, k)[1]
    )


def test_nearest_over_several_blocks_of_queries():
    queries, base = pictures(2100, side=1, seed=3), pictures(30, side=1, seed=4)
    whole = squared_distances(queries, base).argsort(axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(nearest(queries, base, 4, block=11)[1], whole)
    i, j, _ = within(queries, base, np.full(2100, 0.3), block=11)
    np.testing.assert_array_equal(
        np.sort(i * 30 + j), np.flatnonzero(np.sqrt(squared_distances(queries, base)) / 255 <= 0.3)
    )


def test_nearest_refuses():
    base = pictures(3)
    for k in (0, 4):
        with pytest.raises(ValueError, match="k is"):
            nearest(base, base, k)
    with pytest.raises(ValueError, match="shape"):
        nearest(pictures(1, side=2), base, 1)
    with pytest.raises(ValueError, match="finite"):
        nearest(np.array([[np.nan]]), np.ones((2, 1)), 1)
    assert nearest(base[:0], base, 2)[0].shape == (0, 2)


def test_matches_frame_ranks_by_closeness_then_position():
    frame = matches_frame(
        np.array([1, 0, 0, 0]),
        np.array([5, 9, 2, 7]),
        np.array([0.1, 0.5, 0.5, 0.9]),
        higher_is_closer=True,
    )
    assert frame["generated"].tolist() == [0, 0, 0, 1]
    assert frame["training"].tolist() == [7, 2, 9, 5]
    assert frame["rank"].tolist() == [0, 1, 2, 0]
    assert {name: frame[name].dtype for name in frame} == MATCH_COLUMNS
    with pytest.raises(ValueError, match="NaN"):
        matches_frame(np.array([0]), np.array([0]), np.array([np.nan]), higher_is_closer=True)


def loop_normalised(generated, training, alpha, n, floor):
    rows = []
    for i, g in enumerate(generated):
        distance = [l2(g, t) for t in training]
        scale = alpha * np.mean(sorted(distance)[:n])
        if scale:
            values = [d / scale for d in distance]
        else:
            values = [0.0 if d == 0 else np.inf for d in distance]
        order = sorted(range(len(training)), key=lambda j: (np.float32(values[j]), j))
        rows += [
            (i, j, values[j], rank)
            for rank, j in enumerate(order)
            if values[j] <= floor or rank == 0
        ]
    return rows


@pytest.mark.parametrize("n", [1, 5, 50])
@pytest.mark.parametrize("floor", [0.0, 0.9, 1.4, 2.05, 3.0])
@pytest.mark.parametrize("block", [4, None])
def test_normalised_l2(n, floor, block):
    training, generated = pictures(30, seed=5), pictures(8, seed=6)
    generated[0] = training[7]
    generated[1] = np.clip(training[9].astype(int) + 3, 0, 255)
    generated[2] = (training[9] // 2 + training[10] // 2).astype(np.uint8)
    frame = normalised_l2(generated, training, n_neighbours=n, floor=floor, block=block)
    expected = loop_normalised(generated, training, 0.5, n, floor)
    assert list(zip(frame["generated"], frame["training"], frame["rank"], strict=True)) == [
        (i, j, r) for i, j, _, r in expected
    ]
    np.testing.assert_allclose(frame["similarity"], [v for *_, v, _ in expected], rtol=1e-6)


def test_normalised_l2_by_hand():
    training = np.zeros((3, 1, 1, 3), np.uint8)
    training[1, ..., 0], training[2, ..., 0] = 10, 50
    frame = normalised_l2(training[:1], training, n_neighbours=3, floor=2.0)
    # 10 / (0.5 * (0 + 10 + 50) / 3) = 1; the floor keeps its edge, 50 lies beyond
    assert frame["similarity"].tolist() == [0.0, 1.0]
    assert normalised_l2(training[:1], training, n_neighbours=3, floor=1.0)[
        "training"
    ].tolist() == [0, 1]
    assert normalised_l2(training[:1], training, n_neighbours=3, floor=0.5)[
        "training"
    ].tolist() == [0]
    # Beyond the floor, but nearest
    assert normalised_l2(training[1:2], training[2:], floor=1.0)["similarity"].tolist() == [2.0]


def test_normalised_l2_without_a_denominator():
    training = np.concatenate([np.repeat(pictures(1), 4, axis=0), pictures(2, seed=8)])
    frame = normalised_l2(training[:1], training, n_neighbours=3, floor=1.0)
    # The fourth lies beyond the 3 neighbours, and still counts
    assert frame["training"].tolist() == [0, 1, 2, 3]
    assert frame["similarity"].tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="empty"):
        normalised_l2(training, training[:0], floor=1.0)
    with pytest.raises(ValueError, match="uint8"):
        normalised_l2(training / 255, training, floor=1.0)
    with pytest.raises(ValueError, match="floor"):
        normalised_l2(training, training, floor=np.inf)
    assert len(normalised_l2(training[:0], training, floor=1.0)) == 0


def loop_tiled(a, b, tiles):
    h, w = a.shape[0] // tiles, a.shape[1] // tiles
    cut = [np.s_[y * h : y * h + h, x * w : x * w + w] for y in range(tiles) for x in range(tiles)]
    return max(l2(a[c], b[c]) / np.sqrt(a[c].size) for c in cut)


@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_tiled_l2(tiles):
    images = pictures(4, side=8, seed=9)
    images[3] = images[0]
    images[3, :2, 6:] = 255 - images[0, :2, 6:]  # one tile differs
    matrix = tiled_l2_matrix(images, tiles)
    for i, j in np.ndindex(4, 4):
        assert tiled_l2(images[i], images[j], tiles) == pytest.approx(
            loop_tiled(images[i], images[j], tiles)
        )
        assert matrix[i, j] == pytest.approx(loop_tiled(images[i], images[j], tiles))
    assert np.array_equal(matrix, matrix.T) and not matrix.diagonal().any()


def test_tiled_l2_bounds_and_refusals():
    black, white = np.zeros((8, 4, 3), np.uint8), np.full((8, 4, 3), 255, np.uint8)
    assert tiled_l2(black, white) == 1.0
    for shape in ((6, 8, 3), (8, 6, 3)):
        with pytest.raises(ValueError, match="divide"):
            tiled_l2(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="shapes"):
        tiled_l2(black, white[:4])
    with pytest.raises(ValueError, match="uint8"):
        tiled_l2_matrix(np.zeros((2, 8, 8, 3)))


def loop_clique(distances, threshold):
    n = len(distances)
    sets = (s for size in range(n, 0, -1) for s in combinations(range(n), size))
    return next(
        len(s) for s in sets if all(distances[i, j] <= threshold for i, j in combinations(s, 2))
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 8), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
def test_largest_clique(seed, n, threshold):
    # Values on the threshold
    distances = np.random.default_rng(seed).integers(11, size=(n, n)) / 10
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    assert largest_clique(distances, threshold) == loop_clique(distances, threshold)


def test_cliques_of_agreeing_draws_are_quick():
    assert largest_clique(np.zeros((300, 300)), 0.1) == 300
    blocks = 1 - np.kron(np.eye(3), np.ones((50, 50)))
    assert largest_clique(blocks, 0.1) == 50


def test_density_score():
    near, far = np.full((4, 4), 0.05), np.full((4, 4), 1.0)
    assert density_score(near, 0.15) == 4 + 0.5 / 1.05
    assert density_score(far, 0.15) == 1.25
    assert density_score(np.zeros((4, 4)), 0.15) == 4.5  # identical draws stay below five
    looser = near.copy()
    looser[0, 1] = looser[1, 0] = 0.15  # on the threshold: still an edge
    assert 4 < density_score(looser, 0.15) < density_score(near, 0.15)
    for wrong, words in (
        (np.zeros((1, 1)), "at least 2"),
        (np.zeros((2, 3)), "square"),
        (np.full((2, 2), np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            density_score(wrong, 0.15)


def test_images_beyond_the_neighbours_that_are_as_near_are_within_the_floor():
    """60 images as far away as one another: d = 1 / alpha = 2 of all, and the floor is 2."""
    training = np.zeros((60, 8, 8, 3), np.uint8)
    training.reshape(60, -1)[np.arange(60), np.arange(60)] = 255
    found = normalised_l2(np.zeros((1, 8, 8, 3), np.uint8), training, floor=2.0)
    assert sorted(found.training) == list(range(60)) and set(found.similarity) == {2.0}


def test_a_later_tile_that_is_hardly_nearer_is_found():
    """Squares 40,100, 40,081 ... and, five rows on, 40,097: among the two nearest."""
    base = np.zeros((8, 2, 2, 3), np.uint8)
    rows = base.reshape(8, 12)
    rows[:, 0] = 200
    rows[:, 1] = [10, 9, 11, 12, 20, 9, 20, 20]
    rows[5, 2] = 4
    distance, position = nearest(np.zeros((1, 2, 2, 3), np.uint8), base, 2, block=4)
    assert position.tolist() == [[1, 5]]
    np.testing.assert_allclose(distance, np.sqrt([[40081, 40097]]) / 255, rtol=1e-6)
