"""An image of a data set, not decoded yet, and what was left out of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Item:
    """An image of a data set. read: its file's bytes, or the pixels ``uint8``
    [h, w, 3]. label: the name of its class; number: the class's own, where the data
    give one beside the name.
    """

    name: str
    read: Callable[[], bytes | np.ndarray]
    texts: tuple[str, ...] = ()
    label: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class Bad:
    """What was left out, and why."""

    name: str
    why: str
