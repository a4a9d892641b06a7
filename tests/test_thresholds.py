"""AMS and UMS against the threshold: the numbers of metrics.extraction at every edge
and band, and plain loops.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from membench.metrics.extraction import ams, ums, ums_intervals, ums_nearest
from membench.metrics.intervals import share_intervals
from membench.metrics.thresholds import curves, grid_of, threshold
from membench.metrics.unique import rarefied
from membench.types import Band, Space

L2 = Space(
    "l2",
    False,
    (Band("high", 0.0, 0.7), Band("mid", 0.7, 1.0), Band("low", 1.0, 1.4)),
    copy=1.0,
    floor=1.4,
    source="test",
)
COSINE = Space(
    "cos",
    True,
    (Band("high", 0.6, 1.0), Band("mid", 0.5, 0.6), Band("low", 0.4, 0.5)),
    copy=0.5,
    floor=0.4,
    source="test",
)


def matches(space: Space, seed: int = 0, n: int = 30, training: int = 12) -> pd.DataFrame:
    """Of a dense matrix of values on a coarse lattice, so that many lie exactly on
    edges: pairs within the floor, and each nearest.
    """
    rng = np.random.default_rng(seed)
    dense = (
        rng.integers(0, 36, size=(n, training)) / 20
        if not space.higher_is_closer
        else rng.integers(0, 21, size=(n, training)) / 20
    )
    rows = []
    for i, values in enumerate(dense.astype(np.float32)):
        order = np.argsort(-values if space.higher_is_closer else values, kind="stable")
        for rank, j in enumerate(order):
            inside = (
                values[j] >= np.float32(space.floor)
                if space.higher_is_closer
                else values[j] <= np.float32(space.floor)
            )
            if inside or rank == 0:
                rows.append((i, j, values[j], rank))
    return pd.DataFrame(rows, columns=["generated", "training", "similarity", "rank"]).astype(
        {"similarity": "float32"}
    )


@pytest.mark.parametrize("space", [L2, COSINE], ids=["distance", "similarity"])
def test_every_row_is_the_metric_at_its_region(space: Space) -> None:
    found, n = matches(space), 30
    edges = grid_of(space, 8)
    table = curves(found, n, space, edges, at=10)
    assert len(table) == 3 * (len(edges) + len(edges) * (len(edges) - 1) // 2) + len(edges)
    # in_region closes the highest band of the space: here the one that ends at the
    # highest edge of the grid.
    for row in table.itertuples():
        if row.form == "cumulative":
            region: Band | float = float(row.alpha if space.higher_is_closer else row.beta)
            if row.metric == "ums_equal_n":
                inside = (
                    found.similarity >= np.float32(region)
                    if space.higher_is_closer
                    else found.similarity <= np.float32(region)
                )
                hits = found[inside].groupby("training").size().to_numpy()
                assert row.value * 10 == pytest.approx(rarefied(hits, n, [10])[0]) and row.n == 10
                continue
        else:
            region = Band("x", row.alpha, row.beta)
        expected = {"ams": ams, "ums": ums, "ums_nearest": ums_nearest}[row.metric](
            found, n, space, region
        )
        assert row.value == pytest.approx(expected, abs=1e-12), (row, expected)


def test_by_hand() -> None:
    """Images at 0.2 and 0.9 of image 0, at 0.9 also of image 1: [0.5, 1) holds the
    second image and both images.
    """
    found = pd.DataFrame(
        {
            "generated": [0, 1, 1],
            "training": [0, 0, 1],
            "similarity": np.float32([0.2, 0.9, 0.9]),
            "rank": [0, 0, 1],
        }
    )
    table = (
        curves(found, 2, L2, np.array([0.0, 0.5, 1.0]))
        .set_index(["metric", "form", "alpha", "beta"])
        .value
    )
    assert table["ams", "banded", 0.5, 1.0] == 0.5
    assert table["ums", "banded", 0.5, 1.0] == 1.0  # two images over two images: more than AMS
    assert table["ums_nearest", "banded", 0.5, 1.0] == 0.5
    assert table["ums", "banded", 0.0, 0.5] == 0.5
    # Image 0 counts once though it is in both halves
    assert table["ums", "banded", 0.0, 1.0] == 1.0


def test_ums_at_equal_numbers_may_exceed_one() -> None:
    """4 images that are near three training images each, all different: any 2 of them
    hold 6, and all 4 of them what UMS counts.
    """
    found = pd.DataFrame(
        {
            "generated": np.repeat(np.arange(4), 3),
            "training": np.arange(12),
            "similarity": np.float32([0.5, 0.6, 0.7] * 4),
            "rank": [0, 1, 2] * 4,
        }
    )
    for at in (2, 4):
        table = curves(found, 4, L2, np.array([0.4, 1.0]), at=at).set_index(["metric", "beta"])
        assert table.value["ums_equal_n", 1.0] == pytest.approx(3.0)
    assert table.value["ums", 1.0].iloc[0] == 3.0


@pytest.mark.parametrize("space", [L2, COSINE], ids=["distance", "similarity"])
def test_intervals_are_those_of_the_single_metric(space: Space) -> None:
    found, n = matches(space, seed=3), 30
    groups, edges = np.arange(n) // 3, grid_of(space, 5)
    table = curves(found, n, space, edges, groups=groups, resamples=200, seed=5)
    best = found[found["rank"] == 0].sort_values("generated").similarity.to_numpy()
    cumulative = table[table.form == "cumulative"]
    for edge, row in zip(edges, cumulative[cumulative.metric == "ams"].itertuples(), strict=True):
        hits = best >= np.float32(edge) if space.higher_is_closer else best <= np.float32(edge)
        [expected] = share_intervals(hits[:, None], groups, resamples=200, seed=5)
        assert (row.low, row.high) == pytest.approx(expected)
    for metric, which in (("ums", 0), ("ums_nearest", 1)):
        for edge, row in zip(
            edges, cumulative[cumulative.metric == metric].itertuples(), strict=True
        ):
            assert (row.low, row.high) == pytest.approx(
                ums_intervals(found, n, space, float(edge), groups)[which]
            )
    band = table[(table.form == "banded") & (table.metric == "ams")].iloc[3]
    top = space.higher_is_closer and band.beta == edges[-1]
    inside = (best >= np.float32(band.alpha)) & (
        (best <= np.float32(band.beta)) if top else (best < np.float32(band.beta))
    )
    [expected] = share_intervals(inside[:, None], groups, resamples=200, seed=5)
    assert (band.low, band.high) == pytest.approx(expected)
    assert table[(table.form == "banded") & (table.metric != "ams")].low.isna().all()


def test_grid_holds_every_named_edge() -> None:
    for space in (L2, COSINE):
        edges = grid_of(space, 11)
        ends = {end for band in space.bands for end in (band.low, band.high)} | {
            space.copy,
            space.floor,
        }
        assert ends <= set(edges.tolist()) and (np.diff(edges) > 0).all()
        assert edges.min() >= (space.floor if space.higher_is_closer else 0)


def test_threshold_names_the_one_end() -> None:
    for space in (L2, COSINE):
        edges = grid_of(space, 5)
        table = curves(matches(space), 30, space, edges, bands=False)
        assert (
            threshold(table[table.metric == "ams"]).tolist() == edges.tolist()
            and (table.form == "cumulative").all()
        )


@pytest.mark.parametrize(
    ("edges", "word"),
    [
        ([0.5], "2 edges"),
        ([0.5, 0.5], "ascending"),
        ([1.0, 0.5], "ascending"),
        ([0.5, 1.5], "floor"),
    ],
)
def test_grids_that_make_no_sense(edges: list[float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        curves(matches(L2), 30, L2, np.array(edges))
    with pytest.raises(ValueError, match="at must"):
        curves(matches(L2), 30, L2, np.array([0.5, 1.0]), at=31)
