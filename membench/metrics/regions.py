"""Regions of a similarity or distance gamma: what lies in one, and where it ends.

A *region* is a :class:`Band`, half-open [low, high), except that the highest band of a
similarity is closed (SIDE's bands are closed at both ends, which counts an edge twice);
or a float, cumulative: gamma >= region for a similarity, <= for a distance. gamma is
stored in float32; limits are rounded to float32 too, so that a value equal to a limit
as written counts as equal.
"""

from __future__ import annotations

import numpy as np

from membench.types import Band, Space


def in_region(values: np.ndarray, space: Space, region: Band | float) -> np.ndarray:
    """Which of the values [n] lie in the region: bool [n]."""
    values = np.asarray(values, dtype=np.float32)
    if not isinstance(region, Band):
        return (
            values >= np.float32(region) if space.higher_is_closer else values <= np.float32(region)
        )
    closed = space.higher_is_closer and region.high == max(band.high for band in space.bands)
    high = np.float32(region.high)
    return (values >= np.float32(region.low)) & ((values <= high) if closed else (values < high))


def far_edge(space: Space, region: Band | float) -> float:
    """The end of the region at which images are least alike: the threshold of the
    cumulative score that covers a band.
    """
    if not isinstance(region, Band):
        return region
    return region.low if space.higher_is_closer else region.high


def stored(space: Space, region: Band | float) -> bool:
    """Whether all pairs in the region are within ``space.floor``, and so are stored."""
    far = far_edge(space, region)
    return far >= space.floor if space.higher_is_closer else far <= space.floor
