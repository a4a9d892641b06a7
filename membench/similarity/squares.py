"""Squared L2 distances, exact, a tile at a time.

``|a|^2 + |b|^2 - 2ab`` cancels where it matters most, at near-duplicates. Two ways
round it, both free of rounding error that depends on the tile: for ``uint8`` the
products are sums of whole numbers that float32 holds exactly, so the matrix product
gives exact distances at full speed; floats are compared by direct differences in
float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

# Columns whose products float32 can sum whatever the greys: of greys less 128
# |sum| <= 1024 * 128 * 128 = 2^24, the last whole number it is sure of. Most images hold
# less, and then a product takes more columns (:func:`_spans`).
_PIECE, _EXACT = 1024, 2.0**24
_COLUMNS = 8 * _PIECE  # converted at once
BLOCK = 1024  # rows compared at once: a tile of squares stays in a core's cache


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared L2 distances, float64 [n, m], between the rows of a [n, ...] and b [m,
    ...].

    Two ``uint8`` arrays: exact, in units of (1/255)^2. Otherwise by direct differences,
    with ``uint8`` scaled to [0, 1].
    """
    rows, found = Queries(a, b.dtype), np.empty((len(a), len(b)))
    for start in range(0, len(b), BLOCK):
        part = slice(start, start + BLOCK)
        np.add(rows.less_own(b[part]), rows.own[:, None], out=found[:, part])
    return found


class Queries:
    """Rows [n, ...] that tiles are compared with, one after another; other: their type.

    own: what a row's squares lack in :meth:`less_own`, float64 [n].
    """

    def __init__(self, rows: np.ndarray, other: np.dtype) -> None:
        self._rows = rows.reshape(len(rows), -1)
        self._whole = rows.dtype == np.uint8 and other == np.uint8
        self.own = np.zeros(len(rows))
        self._held: list[_Greys] | None = None
        self._buffers = np.empty(0, np.float32), np.empty(0)
        if not self._whole:
            self._rows = _scaled(self._rows)
            return
        # Converted once, where that is no more than two parts of them
        self._held = [*self._greys()] if self._rows.shape[1] <= 2 * _COLUMNS else None
        for part in self._held or self._greys():
            self.own += part.squares.sum(axis=1)

    def less_own(self, tile: np.ndarray) -> np.ndarray:
        """The squared distances to the rows of a tile [m, ...] less ``own``, float64
        [n, m], until the next call.
        """
        tile = tile.reshape(len(tile), -1)
        if not self._whole:
            from scipy.spatial.distance import cdist

            found = cdist(self._rows, _scaled(tile), "sqeuclidean")
            if not np.isfinite(found).all():
                raise ValueError("a distance is not finite")
            return found
        product, found = self._of(len(tile))
        found[:] = 0
        squares = np.zeros(len(tile))
        for x, y in zip(self._held or self._greys(), _greys(tile), strict=True):
            squares += y.squares.sum(axis=1)
            for span in _spans(x.squares, y.squares):
                found += np.matmul(x.values[:, span], y.values[:, span].T, out=product)
        found += squares
        return found

    def _greys(self) -> Iterator[_Greys]:
        for part in _greys(self._rows):
            # A product of twice as much is as exact: a power of two
            np.multiply(part.values, -2, out=part.values)
            yield part

    def _of(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for a product and for squares: new memory costs as much as to fill it."""
        size = len(self._rows) * width
        if self._buffers[0].size < size:
            self._buffers = np.empty(size, np.float32), np.empty(size)
        shape = len(self._rows), width
        return self._buffers[0][:size].reshape(shape), self._buffers[1][:size].reshape(shape)


@dataclass(frozen=True)
class _Greys:
    """Some columns of ``uint8`` rows less 128. values: float32 [n, d]; squares: the sum
    of the squares of each ``_PIECE`` of them, float64 [n, pieces].
    """

    values: np.ndarray
    squares: np.ndarray


def _greys(rows: np.ndarray) -> Iterator[_Greys]:
    """A part of the columns of rows ``uint8`` [n, d] after another."""
    for start in range(0, rows.shape[1], _COLUMNS):
        values = rows[:, start : start + _COLUMNS].astype(np.float32)
        values -= 128
        pieces = (values[:, at : at + _PIECE] for at in range(0, values.shape[1], _PIECE))
        squares = [np.einsum("ij,ij->i", piece, piece) for piece in pieces]
        yield _Greys(values, np.stack(squares, axis=1).astype(np.float64))


def _spans(x: np.ndarray, y: np.ndarray) -> Iterable[slice]:
    """Columns whose products float32 sums without rounding: |sum| <= |x| |y|, for every
    row of the one and of the other (Cauchy-Schwarz). x, y: ``_Greys.squares``.
    """
    start, pieces = 0, x.shape[1]
    for end in range(1, pieces):
        longest = (of[:, start : end + 1].sum(axis=1).max(initial=0) for of in (x, y))
        if np.prod([*longest]) > _EXACT**2:
            yield slice(start * _PIECE, end * _PIECE)
            start = end
    yield slice(start * _PIECE, pieces * _PIECE)


def _scaled(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) / (255 if values.dtype == np.uint8 else 1)
