"""Exact nearest neighbours by L2, in blocks, over a training set that may lie on disk.

``|a|^2 + |b|^2 - 2ab`` cancels where it matters most, at near-duplicates. Two ways
round it, both free of rounding error that depends on the block: for ``uint8`` the
products are sums of whole numbers that float32 holds exactly, so the matrix product
gives exact distances at full speed; floats are compared by direct differences in
float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

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


_QUERIES = 1024  # queries compared at once
_BLOCK_BYTES = 64 << 20

# Dimensions in one product: |sum| <= 1024 * 128 * 128 = 2^24, the last whole number
# float32 is sure of
_EXACT = 1024


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared L2 distances, float64 [n, m], between the rows of a [n, ...] and b [m,
    ...].

    Two ``uint8`` arrays: exact, in units of (1/255)^2. Otherwise by direct differences,
    with ``uint8`` scaled to [0, 1].
    """
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        from scipy.spatial.distance import cdist

        return cdist(_scaled(a), _scaled(b), "sqeuclidean")
    total, product = np.zeros((len(a), len(b))), np.empty((len(a), len(b)), np.float32)
    norm_a, norm_b = np.zeros(len(a)), np.zeros(len(b))
    for start in range(0, a.shape[1], _EXACT):
        x, y = (v[:, start : start + _EXACT].astype(np.float32) - 128 for v in (a, b))
        norm_a += np.einsum("ij,ij->i", x, x)
        norm_b += np.einsum("ij,ij->i", y, y)
        total += np.matmul(-2 * x, y.T, out=product)  # twice as much is as exact: a power of two
    total += norm_b
    total += norm_a[:, None]
    return total


def nearest(
    queries: np.ndarray, base: Rows, k: int, *, block: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of base [m, ...] for each of queries [n, ...], nearest first.

    Either may be ``uint8`` (scaled to [0, 1] block by block) or float; base, an array or
    what is read like one, is never converted whole. block: rows of base compared at once
    (default: 64 MiB of them); it changes no result. Returns L2 distances, float32 [n,
    k], and positions in base, int64 [n, k]. Ties go to the lower position. Raises
    ValueError unless 1 <= k <= m and the trailing shapes agree, and for a distance that
    is not finite.
    """
    if not 1 <= k <= len(base):
        raise ValueError(f"k is {k}, but must lie between 1 and the {len(base)} images of the base")
    squares, positions = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
    for rows, start, found in _scan(queries, base, block):
        # After the first block hardly any distance is below the k-th so far, and
        # comparing is much cheaper than partitioning.
        if start:
            i, j = np.nonzero(found < squares[rows, -1:])  # a later tie loses to the lower position
        else:
            last = min(k, found.shape[1]) - 1
            i, j = np.nonzero(found <= np.partition(found, last, axis=1)[:, last, None])
        row = np.concatenate([np.repeat(np.arange(len(found)), k), i])
        values = np.concatenate([squares[rows].ravel(), found[i, j]])
        places = np.concatenate([positions[rows].ravel(), j + start])
        # Stable: among equal distances the known ones, which are lower positions, come
        # first
        order = np.lexsort((values, row))
        first = np.searchsorted(row[order], np.arange(len(found)))
        best = order[first[:, None] + np.arange(k)]
        squares[rows], positions[rows] = values[best], places[best]
    return _distance(squares, queries, base), positions


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
    for rows, start, found in _scan(queries, base, block):
        distance = _distance(found, queries, base)
        i, j = np.nonzero(distance <= limits[rows, None])
        parts.append((i + rows.start, j + start, distance[i, j]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _scan(
    queries: np.ndarray, base: Rows, block: int | None
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """(rows of queries, first position in base, squared distances) of each block,
    positions rising for given rows.
    """
    if queries.shape[1:] != base.shape[1:]:
        raise ValueError(f"queries are of shape {queries.shape[1:]}, the base of {base.shape[1:]}")
    if block is None:
        block = min(8192, max(1, _BLOCK_BYTES // max(1, base[:1].nbytes)))
    for row in range(0, len(queries), _QUERIES):
        rows = slice(row, row + _QUERIES)
        for start in range(0, len(base), block):
            found = squared_distances(queries[rows], base[start : start + block])
            if not np.isfinite(found).all():
                raise ValueError("a distance is not finite")
            yield rows, start, found


def _distance(squares: np.ndarray, a: np.ndarray, b: Rows) -> np.ndarray:
    both = a.dtype == np.uint8 and b.dtype == np.uint8
    return (np.sqrt(squares) / (255 if both else 1)).astype(np.float32)


def _scaled(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) / (255 if values.dtype == np.uint8 else 1)
