"""Exact nearest neighbours by L2, tile by tile, over a training set that may lie on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from membench.similarity.squares import BLOCK, Queries
from membench.storage.pixels import Rows

if TYPE_CHECKING:
    import pandas as pd

# : Columns of a frame of matches, with their types. ``rank`` 0 is the nearest training
# image of a generated one.
MATCH_COLUMNS = {
    "generated": np.int32,
    "training": np.int32,
    "similarity": np.float32,
    "rank": np.int32,
}


def matches_frame(
    generated: np.ndarray, training: np.ndarray, similarity: np.ndarray, *, higher_is_closer: bool
) -> pd.DataFrame:
    """A frame of matches from its pairs, [p] each, in any order.

    generated, training: positions in the two sets of images. similarity: a similarity,
    or a distance when ``higher_is_closer`` is False. Returns the columns of
    ``MATCH_COLUMNS``, ordered by generated image and rank; ranks follow closeness as
    stored (float32), ties the lower training position. Raises ValueError for NaN.
    """
    stored = np.asarray(similarity, dtype=np.float32)
    if np.isnan(stored).any():
        raise ValueError("a similarity is NaN")
    order = np.lexsort((training, -stored if higher_is_closer else stored, generated))
    rows = np.asarray(generated)[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    columns = (rows, np.asarray(training)[order], stored[order], rank)
    import pandas as pd

    return pd.DataFrame(
        {
            name: column.astype(kind)
            for (name, kind), column in zip(MATCH_COLUMNS.items(), columns, strict=True)
        }
    )


_QUERIES = 2048  # compared at once


def nearest(
    queries: np.ndarray, base: Rows, k: int, *, block: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of base [m, ...] for each of queries [n, ...], nearest first.

    Either may be ``uint8`` (scaled to [0, 1] block by block) or float; base, an array or
    what is read like one, is never converted whole. block: rows of base compared at once
    (default: 1,024); it changes no result. Returns L2 distances, float32 [n,
    k], and positions in base, int64 [n, k]. Ties go to the lower position. Raises
    ValueError unless 1 <= k <= m and the trailing shapes agree, and for a distance that
    is not finite.
    """
    if not 1 <= k <= len(base):
        raise ValueError(f"k is {k}, but must lie between 1 and the {len(base)} images of the base")
    squares, positions = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
    for rows, tiles in _scan(queries, base, block):
        best = _Best(len(queries[rows]), k)
        for own, first, found in tiles:
            best.see(own, first, found)
        squares[rows], positions[rows] = best.found()
    return _distance(squares, queries, base), positions


class _Best:
    """The k smallest squares so far of each of n queries, and where they are; of ties
    the lower positions.
    """

    def __init__(self, n: int, k: int) -> None:
        self._n, self._k = n, k
        self._limits = np.full(n, np.inf)  # a square that is no smaller is not among the k
        # (query, square, position) of candidates
        self._parts = [(np.zeros(0, int), np.zeros(0), np.zeros(0, int))]
        self._waiting = 0

    def see(self, own: np.ndarray, first: int, found: np.ndarray) -> None:
        """A tile of ``_scan``, of higher positions than those before."""
        if first == 0 and found.shape[1] > self._k:
            near = found <= np.partition(found, self._k - 1, axis=1)[:, self._k - 1, None]
        else:
            near = found < (self._limits - own)[:, None]  # a later tie loses to the lower position
        i, j = np.divmod(np.flatnonzero(near), found.shape[1])
        self._parts.append((i, found[i, j] + own[i], j + first))
        self._waiting += len(i)
        # Seldom, since sorting takes longer than a limit that is a few tiles old costs
        if self._waiting >= self._n * self._k:
            self._sort()

    def _sort(self) -> None:
        query, square, position = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        # Stable: among equal squares the lower positions come first
        order = np.lexsort((square, query))
        starts = np.searchsorted(query[order], np.arange(self._n + 1))
        order = order[np.arange(len(order)) - starts[query[order]] < self._k]
        self._parts, self._waiting = [(query[order], square[order], position[order])], 0
        full = np.diff(starts) >= self._k
        last = np.cumsum(np.minimum(np.diff(starts), self._k)) - 1
        self._limits[full] = square[order][last[full]]

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Squares and positions [n, k], of a base of at least k rows."""
        self._sort()
        [(_, square, position)] = self._parts
        return square.reshape(-1, self._k), position.reshape(-1, self._k)


def within(
    queries: np.ndarray, base: Rows, limits: np.ndarray, *, block: int | None = None
) -> tuple[np.ndarray, ...]:
    """Every pair with an L2 distance <= limits [n], one limit a query; arrays and block
    as in :func:`nearest`.

    Returns positions in queries and in base, int64 [p], and distances, float32 [p] (the
    type in which they are compared).
    """
    parts: list[tuple[np.ndarray, ...]] = [
        (np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    ]
    # A little wide: decided by the distance, in its precision
    squares = (limits * _unit(queries, base)) ** 2 * (1 + 1e-6)
    for rows, tiles in _scan(queries, base, block):
        for own, first, found in tiles:
            near = np.flatnonzero(found <= (squares[rows] - own)[:, None])
            i, j = np.divmod(near, found.shape[1])
            distance = _distance(found[i, j] + own[i], queries, base)
            kept = distance <= limits[rows][i]
            parts.append((i[kept] + rows.start, j[kept] + first, distance[kept]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


Tile = tuple[np.ndarray, int, np.ndarray]


def _scan(
    queries: np.ndarray, base: Rows, block: int | None
) -> Iterator[tuple[slice, Iterator[Tile]]]:
    """Some queries after others, each with its tiles: what the squared distances lack,
    [n]; the first position in base; the squared distances less that, [n, m].
    """
    if queries.shape[1:] != base.shape[1:]:
        raise ValueError(f"queries are of shape {queries.shape[1:]}, the base of {base.shape[1:]}")

    def tiles(some: Queries) -> Iterator[Tile]:
        for first in range(0, len(base), block or BLOCK):
            yield some.own, first, some.less_own(base[first : first + (block or BLOCK)])

    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        yield rows, tiles(Queries(queries[rows], base.dtype))


def _distance(squares: np.ndarray, a: np.ndarray, b: Rows) -> np.ndarray:
    return (np.sqrt(squares) / _unit(a, b)).astype(np.float32)


def _unit(a: np.ndarray, b: Rows) -> int:
    """Of distances between two arrays: grey levels of uint8, which ``Queries`` does not scale."""
    return 255 if a.dtype == np.uint8 and b.dtype == np.uint8 else 1
