"""The spaces of image features: ids, thresholds, and bands that hold together."""

from __future__ import annotations

import pytest

from membench.errors import UserError
from membench.options import parse_options
from membench.registry import detectors
from membench.similarity.spaces import NAMES, space_of


@pytest.mark.parametrize("name", NAMES)
def test_bands_hold_together(name) -> None:
    space = space_of(name, f"{name}-0123456789ab-square288")
    assert (
        space.id == f"cosine/{name}-0123456789ab-square288"
        and space.higher_is_closer
        and space.source
    )
    assert [band.name for band in space.bands] == ["high", "mid", "low"] and space.bands[
        0
    ].high == 1
    assert all(
        above.low == below.high for above, below in zip(space.bands, space.bands[1:], strict=False)
    )
    # Pairs below the floor are not stored: no band and no threshold may lie there.
    assert -1 <= space.floor < space.bands[-1].low and space.copy in {
        band.low for band in space.bands
    }


def test_sscd_is_sides_and_somepallis() -> None:
    space = space_of("sscd", "x")
    assert [(band.low, band.high) for band in space.bands] == [
        (0.6, 1.0),
        (0.5, 0.6),
        (0.4, 0.5),
    ] and space.copy == 0.5
    exact = space_of("sscd-int8", "x")
    assert (exact.bands, exact.copy, exact.floor) == (
        space.bands,
        space.copy,
        space.floor,
    ) and exact.source != space.source
    assert "ours" in space_of("clip", "x").source


def test_another_name_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"'ssdc'.*sscd"):
        space_of("ssdc", "x")


@pytest.mark.parametrize("name", NAMES)
def test_what_has_a_space_serves_side_too(name) -> None:
    options = detectors().load("side").Options
    assert parse_options(options, [f"features={name}"], owner="side").features == name
    with pytest.raises(UserError, match="features"):
        parse_options(options, [f"features={name}x"], owner="side")
