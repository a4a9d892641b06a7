"""The share of training images that come back at each multiplicity, against a plain
count.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from membench.metrics.multiplicity import multiplicity_table, natural, wilson
from membench.metrics.table import run_metrics
from membench.storage import tables
from membench.types import Band, Space, Training

DISTANCE = Space("l2", False, (Band("high", 0.0, 1.0),), copy=1.0, floor=1.4, source="test")
SIMILARITY = Space("cosine", True, (Band("high", 0.5, 1.0),), copy=0.5, floor=0.3, source="test")
COLUMNS = ["sample_id", "training_id", "training", "similarity", "rank"]


def frame(*pairs: tuple[str, int, float]) -> pd.DataFrame:
    rows = [
        (sample, f"t{training}", training, similarity, 0) for sample, training, similarity in pairs
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {"training": "int32", "similarity": "float32", "rank": "int32"}
    )


def random_case(seed: int, space: Space) -> tuple[pd.DataFrame, list[str]]:
    """Up to 40 images and 60 images of up to 5 kinds; about one value in four is
    exactly the copy threshold.
    """
    rng = np.random.default_rng(seed)
    n, images = int(rng.integers(2, 60)), int(rng.integers(1, 40))
    kinds = rng.choice(["x1", "x4", "x16", "x64", "near"], n).tolist()
    pairs = [(i, j) for i in range(images) for j in range(n) if rng.random() < 0.1]
    near, far = sorted((space.copy, space.floor))
    values = np.where(
        rng.random(len(pairs)) < 0.25, space.copy, rng.uniform(near - 0.2, far + 0.2, len(pairs))
    )
    return frame(*((f"c{i}/0", j, v) for (i, j), v in zip(pairs, values, strict=True))), kinds


def plain(
    matches: pd.DataFrame, space: Space, kinds: list[str]
) -> dict[str, tuple[int, float, float]]:
    """(images, share, mean number of copying images) of each kind, counted image by
    image.
    """
    copiers: list[set[str]] = [set() for _ in kinds]
    for row in matches.itertuples():
        value, limit = np.float32(row.similarity), np.float32(space.copy)
        if value == limit or (value > limit) == space.higher_is_closer:
            copiers[row.training].add(row.sample_id)
    found = {}
    for kind in set(kinds):
        of = [len(c) for c, k in zip(copiers, kinds, strict=True) if k == kind]
        found[kind] = (len(of), sum(c > 0 for c in of) / len(of), sum(of) / len(of))
    return found


@pytest.mark.parametrize("space", [DISTANCE, SIMILARITY], ids=["distance", "similarity"])
@pytest.mark.parametrize("seed", range(25))
def test_against_a_plain_count(seed: int, space: Space) -> None:
    matches, kinds = random_case(seed, space)
    rows, expected = multiplicity_table(matches, space, kinds), plain(matches, space, kinds)
    if len(expected) < 2:
        assert rows == []
        return
    assert [r.subset for r in rows if r.name == "extracted_share"] == [
        f"kind={k}" for k in sorted(expected, key=natural)
    ]
    assert len(rows) == 2 * len(expected)
    for row in rows:
        n, share, copies = expected[row.subset.removeprefix("kind=")]
        assert (row.n, row.band, row.threshold) == (n, None, space.copy)
        if row.name == "extracted_share":
            assert row.value == pytest.approx(share) and 0 <= row.low <= row.value <= row.high <= 1
            assert (row.low, row.high) == wilson(round(share * n), n)
        else:
            assert (
                row.name == "copies_per_image"
                and row.value == pytest.approx(copies)
                and row.low is row.high is None
            )
    shuffled = matches.sample(frac=1, random_state=seed)
    assert multiplicity_table(shuffled, space, kinds) == rows


def test_any_copy_counts_not_the_nearest_alone_and_a_pair_counts_once() -> None:
    matches = frame(
        ("a/0", 0, 0.2), ("a/0", 1, 0.9), ("b/0", 0, 0.3), ("b/0", 0, 0.3), ("b/0", 2, 1.01)
    ).assign(rank=[0, 1, 0, 1, 2])
    found = {
        (r.name, r.subset): r.value
        for r in multiplicity_table(matches, DISTANCE, ["x4", "near", "x1", "x1"])
    }
    assert found["extracted_share", "kind=near"] == 1 and found["copies_per_image", "kind=x4"] == 2
    assert found["extracted_share", "kind=x1"] == found["copies_per_image", "kind=x1"] == 0


def test_the_natural_order() -> None:
    assert sorted(["near", "x64", "other", "x4", "x16", "xx", "x1"], key=natural) == [
        "x1",
        "x4",
        "x16",
        "x64",
        "near",
        "other",
        "xx",
    ]


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 20), (20, 20), (7, 20), (1, 400)])
def test_wilson_against_its_formula(hits: int, n: int) -> None:
    z, p = 1.959963984540054, hits / n
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert wilson(hits, n) == pytest.approx(
        (max(0, middle - half), min(1, middle + half)), abs=1e-12
    )


def test_nothing_matched_gives_zeros_with_an_interval() -> None:
    for matches in (
        frame(),
        tables.SCHEMAS["matches"].empty_table().to_pandas(),
        frame(("a/0", 1, 1.3)),
    ):
        rows = multiplicity_table(matches, DISTANCE, ["x1"] * 10 + ["x64"] * 5)
        assert [(r.name, r.value, r.n) for r in rows] == [
            (name, 0, n) for n in (10, 5) for name in ("extracted_share", "copies_per_image")
        ]
        assert rows[0].low == 0 and rows[0].high == pytest.approx(
            1.959964**2 / (10 + 1.959964**2), abs=1e-6
        )


def test_one_kind_or_none_gives_no_rows() -> None:
    assert (
        multiplicity_table(frame(("a/0", 0, 0.1)), DISTANCE, ["x1"])
        == multiplicity_table(frame(("a/0", 0, 0.1)), DISTANCE, [])
        == []
    )


def test_what_cannot_be_told_and_what_is_wrong() -> None:
    beyond = dataclasses.replace(DISTANCE, floor=0.5)  # copies farther than 0.5 were not stored
    rows = multiplicity_table(frame(("a/0", 0, 0.1)), beyond, ["x1", "x4"])
    assert len(rows) == 4 and {(r.value, r.low, r.high, r.n) for r in rows} == {
        (None, None, None, 1)
    }
    for training in (2, -1):
        with pytest.raises(ValueError, match="beyond the 2"):
            multiplicity_table(frame(("a/0", training, 0.1)), DISTANCE, ["x1", "x4"])
    with pytest.raises(ValueError, match="NaN"):
        multiplicity_table(frame(("a/0", 0, math.nan)), DISTANCE, ["x1", "x4"])


def training(
    copies: list[int], kinds: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> Training:
    return Training(
        lambda: pytest.fail("images were read"), ["t0", "t1", "t2"], copies, kinds, groups
    )


def test_the_kinds_and_groups_of_training_images() -> None:
    assert training([1, 64, 1]).kinds == ["x1", "x64", "x1"] and training([1, 64, 1]).groups == [
        "t0",
        "t1",
        "t2",
    ]
    told = training([1, 64, 1], ("x1", "x64", "near"), ("a", "b", "b"))
    assert [*told.kinds] == ["x1", "x64", "near"] and [*told.groups] == ["a", "b", "b"]
    for wrong, message in (
        (((1, 2),), "2 copies for 3"),
        (((1, 1, 1), ("x1",)), "1 kinds for 3"),
        (((1, 1, 1), (), ("a", "b")), "2 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            training(*wrong)  # type: ignore[arg-type]
    none = Training.none()
    assert len(none.images()) == len(none.ids) == len(none.kinds) == 0


def metrics_of(
    matches: pd.DataFrame, *images: str, kinds: tuple[str, ...] = ("x1", "x4", "x4")
) -> pd.DataFrame:
    samples = pd.DataFrame(
        {"sample_id": images, "condition": images, "prompt": "p", "confidence": 0.0}
    )
    scores = tables.SCHEMAS["scores"].empty_table().to_pandas()
    return run_metrics(
        scores, samples, matches, DISTANCE, evaluations=1, training_kinds=kinds, resamples=10
    )


def test_the_metrics_of_a_run_hold_these_rows() -> None:
    matches = frame(("a/0", 1, 0.1), ("b/0", 0, 1.2), ("failed/0", 2, 0.1))
    found = metrics_of(matches, "a/0", "b/0")
    shares = found[found.metric == "extracted_share"]
    # An image that is not a sample of it does not count
    assert shares.set_index("subset").value.to_dict() == {"kind=x1": 0, "kind=x4": 0.5}
    assert (
        shares.n.tolist() == [1, 2]
        and shares.band.isna().all()
        and shares.threshold.tolist() == [1.0, 1.0]
    )
    assert found[found.metric == "copies_per_image"].value.tolist() == [0, 0.5]
    only = {"extracted_share", "copies_per_image"}
    assert not only & set(metrics_of(matches, "a/0", "b/0", kinds=()).metric)
    assert not only & set(metrics_of(matches, "a/0", "b/0", kinds=("x1",) * 3).metric)
    assert not len(metrics_of(matches))  # no image, no rows
