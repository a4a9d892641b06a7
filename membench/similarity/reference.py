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

from membench.similarity.search import matches_frame

if TYPE_CHECKING:
    import pandas as pd

    from membench.similarity.criterion import Features
    from membench.similarity.descriptors import Descriptors

MARGIN = 1e-4  # of a cosine in float32, beyond which float64 does not bring a pair back
QUERIES = 1024  # at once


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
        """As :meth:`Search.candidates`: pairs that are within ``MARGIN`` of the floor or
        of the nearest so far.
        """
        best = np.full(len(queries), -np.inf, np.float32)
        rows, columns, values = [], [], []
        for first, block in self._descriptors.blocks():
            for start in range(0, len(queries), QUERIES):
                at = slice(start, start + QUERIES)
                gamma = queries[at] @ block.T
                best[at] = np.maximum(best[at], gamma.max(axis=1))
                least = best[at] - MARGIN
                if floor is not None:
                    least = np.minimum(least, floor - MARGIN)
                i, j = np.nonzero(gamma >= least[:, None])
                rows.append(i + start)
                columns.append(j + first)
                values.append(gamma[i, j])
        row, column, value = (np.concatenate(part) for part in (rows, columns, values))
        # Nearest of an early block that a later one has left behind
        keep = value >= best[row] - MARGIN
        keep |= value >= (np.inf if floor is None else floor - MARGIN)
        return row[keep], column[keep]


def reference_matches(
    generated: np.ndarray, descriptors: Descriptors, search: Search, floor: float | None
) -> pd.DataFrame:
    """Matches by cosine, in [-1, 1], as :func:`membench.similarity.cosine.cosine` gives
    them, of the candidates of ``search``.

    generated: float [n, d], finite and not 0.
    """
    unit = _unit(generated)
    rows, columns = search.candidates(unit.astype(np.float32), floor)
    gamma = np.empty(len(rows))
    for start in range(0, len(rows), 1 << 14):
        part = slice(start, start + (1 << 14))
        known = _unit(descriptors.rows(columns[part]))
        gamma[part] = np.einsum("ij,ij->i", unit[rows[part]], known)
    found = matches_frame(rows, columns, np.clip(gamma, -1, 1), higher_is_closer=True)
    keep = found["rank"] == 0
    if floor is not None:
        keep |= found["similarity"] >= np.float32(floor)
    return found[keep].reset_index(drop=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a feature vector has length 0, so it has no cosine")
    return vectors / length


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
