"""Other bands and another copy threshold for stored matches: what ``--band NAME=LOW:HIGH`` and ``--copy X`` say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from membench.errors import UserError
from membench.types import Band, Space


def parse_bands(texts: Sequence[str]) -> tuple[Band, ...]:
    """``["high=0:0.7", "low=1:1.4"]``. Raises :class:`UserError` for what cannot be read, is reversed, stands twice or overlaps."""
    bands = []
    for text in texts:
        name, equals, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        try:
            band = Band(name.strip(), float(low), float(high))
        except ValueError:
            equals = ""
        if not (equals and colon and name.strip()):
            raise UserError(f"cannot read --band {text!r}; write --band NAME=LOW:HIGH, such as --band high=0.6:1")
        if not (math.isfinite(band.low) and math.isfinite(band.high)):
            raise UserError(f"--band {text}: its ends must be finite numbers")
        if band.low > band.high:
            raise UserError(f"--band {text} is reversed: write the lower end first, --band {band.name}={band.high:g}:{band.low:g}")
        if band.low == band.high:
            raise UserError(f"--band {text} is empty: its ends are the same")
        bands.append(band)
    names = [band.name for band in bands]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--band {twice[0]} stands twice; give each band one name and one range")
    ordered = sorted(bands, key=lambda band: band.low)
    for first, second in itertools.pairwise(ordered):
        if second.low < first.high:
            raise UserError(
                f"bands {first.name} [{first.low:g}, {first.high:g}) and {second.name} [{second.low:g}, {second.high:g}) overlap: an image "
                "would count twice"
            )
    return tuple(bands)


def rebanded(space: Space, bands: Sequence[Band], copy: float | None) -> Space:
    """The space with other bands (none: its own) and copy threshold. Raises :class:`UserError` for one outside the similarity's range.

    The range of a cosine is [-1, 1], of a distance [0, inf). Pairs beyond ``space.floor`` are not stored, which AMS can do without and
    UMS cannot: a band that reaches there is refused.
    """
    least, most = (-1.0, 1.0) if space.higher_is_closer else (0.0, math.inf)
    values = [(f"--band {band.name}={band.low:g}:{band.high:g}", end) for band in bands for end in (band.low, band.high)]
    for what, value in [*values, *([] if copy is None else [(f"--copy {copy:g}", copy)])]:
        if not least <= value <= most:
            span = "-1 to 1" if space.higher_is_closer else "0 and more"
            raise UserError(f"{what}: {value:g} lies outside the range of {space.id}, {span}")
        if (value < space.floor) if space.higher_is_closer else (value > space.floor):
            raise UserError(f"{what}: pairs beyond {space.floor:g} of {space.id} are not stored, so {value:g} cannot be counted")
    return replace(space, bands=tuple(bands) or space.bands, copy=space.copy if copy is None else copy)
