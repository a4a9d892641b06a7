"""Generated images against a reference set of descriptors: exact, in blocks, or
candidates of an index, whose cosines are computed exactly again.

An index can only miss neighbours: what is counted from its candidates (AMS, UMS,
percentiles of the best similarity) is a lower bound.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from membench.similarity.cosine import candidates, matches_of, unit

if TYPE_CHECKING:
    import pandas as pd

    from membench.similarity.criterion import Features
    from membench.similarity.descriptors import Descriptors


class Search(Protocol):
    """Finds candidates. exact: whether none within the floor is missed."""

    exact: bool

    def candidates(self, queries: np.ndarray, floor: float | None) -> tuple[np.ndarray, np.ndarray]:
        """queries: unit vectors, float32 [n, d] -> positions of queries and of
        descriptors, int64 [p]: pairs among which are those with a cosine >= floor, and
        at least one pair of each query.
        """
        ...


class ExactSearch:
    """Every pair is looked at, in float32, in the memory of one block."""

    exact = True

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors

    def candidates(self, queries: np.ndarray, floor: float | None) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Search.candidates`."""
        return candidates(queries, self._descriptors.blocks, floor)


def reference_matches(
    generated: np.ndarray, descriptors: Descriptors, search: Search, floor: float | None
) -> pd.DataFrame:
    """Matches by cosine, in [-1, 1], as :func:`membench.similarity.cosine.cosine` gives
    them, of the candidates of ``search``.

    generated: float [n, d], finite and not 0.
    """
    queries = unit(generated)
    rows, columns = search.candidates(queries.astype(np.float32), floor)
    return matches_of(queries, rows, columns, descriptors.rows, floor)


class ReferenceMatch:
    """A :class:`membench.similarity.criterion.Match` to descriptors."""

    def __init__(self, features: Features, descriptors: Descriptors, search: Search) -> None:
        self._features, self._descriptors, self._search = features, descriptors, search
        self._last: tuple[Callable[[], np.ndarray | None], np.ndarray] | None = None

    def __call__(self, images: np.ndarray, floor: float | None) -> pd.DataFrame:
        if self._last is None or self._last[0]() is not images:
            self._last = weakref.ref(images), self._features(images)
        return reference_matches(self._last[1], self._descriptors, self._search, floor)

    def own(self, images: np.ndarray, owners: Sequence[Sequence[int]]) -> np.ndarray:
        """NaN [n]: nothing says which descriptors are of the images' own prompts."""
        if len(owners) != len(images):
            raise ValueError(f"{len(owners)} lists of training images for {len(images)} images")
        return np.full(len(images), np.nan)
