"""Cosine similarity of image features, as SSCD is compared (Pizzi et al., CVPR 2022;
Somepalli et al., CVPR 2023).

A matrix product in float32 finds the pairs that may count, and float64 decides: what is
left out lies further from the floor and from the nearest than float32 can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from membench.similarity.search import matches_frame

if TYPE_CHECKING:
    import pandas as pd

QUERIES, BLOCK = 2048, 1024  # compared at once: a tile of cosines stays in a core's cache
_PAIRS = 1 << 14  # computed at once in float64


def cosine(
    generated: np.ndarray, training: np.ndarray, *, floor: float | None, block: int | None = None
) -> pd.DataFrame:
    """Matches by gamma = <a, b> / (|a| |b|), in [-1, 1], higher = closer.

    generated ``float32`` [n, d], training ``float32`` [m, d], finite. Returns a frame
    of matches (``MATCH_COLUMNS``): every pair with gamma >= floor, and always the
    nearest of each generated image; floor None: the nearest alone. block: training rows
    at once; it changes no result. Raises ValueError for an empty training set, shapes
    that differ, a vector of length 0, or a floor not in [-1, 1].
    """
    if len(training) == 0:
        raise ValueError("the training set is empty")
    if floor is not None and not -1 <= floor <= 1:
        raise ValueError(f"floor is {floor}, but a cosine lies in [-1, 1]")
    if generated.shape[1:] != training.shape[1:]:
        raise ValueError(f"shapes differ: {generated.shape[1:]} and {training.shape[1:]}")
    a, step = unit(generated), block or BLOCK

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, len(training), step):
            yield first, unit(training[first : first + step]).astype(np.float32)

    rows, columns = candidates(a.astype(np.float32), blocks, floor)
    return matches_of(a, rows, columns, lambda at: training[at], floor)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, d] of length 1, float64. Raises ValueError for one of length 0."""
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a feature vector has length 0, so it has no cosine")
    vectors /= length
    return vectors


def candidates(
    queries: np.ndarray,
    blocks: Callable[[], Iterable[tuple[int, np.ndarray]]],
    floor: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of queries and of vectors, int64 [p]: every pair that may be within the
    floor or the nearest of a query, by products in float32.

    queries: unit vectors, float32 [n, d]. blocks: (position of the first, unit vectors
    float32 [m, d]) of each part of the others, in order; read once for all queries.
    """
    margin = margin_of(queries.shape[1])
    best = np.full(len(queries), -np.inf, np.float32)
    room = np.empty(QUERIES * BLOCK, np.float32)
    none = np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32)
    parts: list[tuple[np.ndarray, ...]] = [none]
    for first, block in blocks():
        for row, start in np.ndindex(-(-len(queries) // QUERIES), -(-len(block) // BLOCK)):
            at = slice(row * QUERIES, (row + 1) * QUERIES)
            some, tile = queries[at], block[start * BLOCK : (start + 1) * BLOCK]
            gamma = room[: len(some) * len(tile)].reshape(len(some), -1)
            np.matmul(some, tile.T, out=gamma)
            best[at] = np.maximum(best[at], gamma.max(axis=1))
            least = best[at] - margin
            if floor is not None:
                least = np.minimum(least, np.float32(floor - margin))
            i, j = np.divmod(np.flatnonzero(gamma >= least[:, None]), len(tile))
            parts.append((i + at.start, j + start * BLOCK + first, gamma[i, j]))
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Nearest of an early tile that a later one has left behind
    keep = values >= best[rows] - margin
    if floor is not None:
        keep |= values >= floor - margin
    return rows[keep], columns[keep]


def margin_of(dimensions: int) -> float:
    """How far two cosines of unit vectors may lie apart in float32 whose order float64
    turns round: twice the rounding of a sum of so many products, and of its factors.
    """
    return (dimensions + 8) * 2.0**-22


def matches_of(
    queries: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    floor: float | None,
) -> pd.DataFrame:
    """The matches among pairs: those within the floor, and the nearest of each query.

    queries: unit vectors, float64 [n, d]. rows, columns: positions of the pairs [p].
    read: the other vectors at these positions, [k, d].
    """
    gamma = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        gamma[part] = np.einsum("ij,ij->i", queries[rows[part]], unit(read(columns[part])))
    # Compared as stored, so that directions that are equal tie
    found = matches_frame(rows, columns, np.clip(gamma, -1, 1), higher_is_closer=True)
    keep = found["rank"] == 0
    if floor is not None:
        keep |= found["similarity"] >= np.float32(floor)
    return found[keep].reset_index(drop=True)
