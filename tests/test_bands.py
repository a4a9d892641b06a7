"""What ``--band`` and ``--copy`` may say."""

from __future__ import annotations

import math

import pytest
from boards import L2

from membench.boards.rescore import parse_bands, rebanded
from membench.errors import UserError
from membench.types import Band, Space

COSINE = Space(
    "cosine/test",
    True,
    (Band("high", 0.6, 1.0), Band("low", 0.4, 0.6)),
    copy=0.5,
    floor=0.3,
    source="test",
)


def test_bands_in_the_order_in_which_they_are_given() -> None:
    assert parse_bands(["low=0.5:0.6", " high =0.6:1e0"]) == (
        Band("low", 0.5, 0.6),
        Band("high", 0.6, 1.0),
    )
    assert parse_bands([]) == ()
    assert parse_bands(["a=-1:-0.5"]) == (Band("a", -1, -0.5),)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["high"], "cannot read --band 'high'; write --band NAME=LOW:HIGH"),
        (["high=0.5"], "cannot read --band 'high=0.5'"),
        (["high=0.5:"], "cannot read --band 'high=0.5:'"),
        (["high=0.5:x"], "cannot read --band 'high=0.5:x'"),
        (["high=0.5:0.6:0.7"], "cannot read"),
        (["=0.5:0.6"], "cannot read"),
        (["high=nan:0.6"], "must be finite"),
        (["high=0.5:inf"], "must be finite"),
        (
            ["high=0.6:0.5"],
            "--band high=0.6:0.5 is reversed: write the lower end first, --band high=0.5:0.6",
        ),
        (["high=0.6:0.6"], "is empty"),
        (["high=0.6:1", "high=0.4:0.5"], "--band high stands twice"),
        (["high=0.6:1", "low=0.4:0.61"], "bands low .0.4, 0.61. and high .0.6, 1. overlap"),
        (["a=0:1", "b=0:1"], "overlap"),
        (["a=0:1", "b=2:3", "c=0.2:0.3"], "bands a .0, 1. and c .0.2, 0.3. overlap"),
    ],
)
def test_bands_that_are_none(texts: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_bands(texts)


def test_another_space_differs_in_bands_and_copy_alone() -> None:
    bands = (Band("x", 0.0, 0.5), Band("y", 0.5, 1.4))
    found = rebanded(L2, bands, 0.7)
    assert (found.bands, found.copy) == (bands, 0.7)
    assert (found.id, found.higher_is_closer, found.floor, found.source) == (
        L2.id,
        False,
        L2.floor,
        L2.source,
    )
    assert rebanded(L2, (), None) == L2 and rebanded(L2, (), L2.copy) == L2
    assert rebanded(L2, (), 0.0).copy == 0.0 and rebanded(L2, (), L2.floor).copy == L2.floor
    assert rebanded(COSINE, (Band("x", 0.3, 1.0),), 1.0).copy == 1.0


@pytest.mark.parametrize(
    ("space", "bands", "copy", "told"),
    [
        (
            L2,
            [(-0.1, 0.5)],
            None,
            "--band x=-0.1:0.5: -0.1 lies outside the range of l2, 0 and more",
        ),
        (L2, [(0.5, 1.5)], None, "pairs beyond 1.4 of l2 are not stored, so 1.5 cannot be counted"),
        (COSINE, [(0.5, 1.1)], None, "1.1 lies outside the range of cosine/test, -1 to 1"),
        (COSINE, [(-1.1, 0.5)], None, "-1.1 lies outside"),
        (COSINE, [(0.2, 0.5)], None, "pairs beyond 0.3 of cosine/test are not stored, so 0.2"),
        (L2, [], math.nan, "--copy nan: nan lies outside the range"),
        (L2, [], -0.1, "--copy -0.1: -0.1 lies outside the range"),
        (L2, [], math.inf, "--copy inf: pairs beyond 1.4"),
        (L2, [], 1.5, "--copy 1.5: pairs beyond 1.4"),
        (COSINE, [], 0.2, "--copy 0.2: pairs beyond 0.3"),
        (COSINE, [], 1.5, "--copy 1.5: 1.5 lies outside"),
    ],
)
def test_bands_and_copies_outside_the_range(
    space: Space, bands: list, copy: float | None, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        rebanded(space, [Band("x", *ends) for ends in bands], copy)
