"""Cosine similarity of image features, as SSCD is compared (Pizzi et al., CVPR 2022;
Somepalli et al., CVPR 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from membench.similarity.search import matches_frame

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1024  # rows compared at once


def cosine(
    generated: np.ndarray, training: np.ndarray, *, floor: float | None, block: int | None = None
) -> pd.DataFrame:
    """Matches by gamma = <a, b> / (|a| |b|), in [-1, 1], higher = closer.

    generated ``float32`` [n, d], training ``float32`` [m, d], finite. Returns a frame
    of matches (``MATCH_COLUMNS``): every pair with gamma >= floor, and always the
    nearest of each generated image; floor None: the nearest alone. block: training rows
    at once. Raises ValueError for an empty training set, shapes that differ, a vector
    of length 0, or a floor not in [-1, 1].
    """
    if len(training) == 0:
        raise ValueError("the training set is empty")
    if floor is not None and not -1 <= floor <= 1:
        raise ValueError(f"floor is {floor}, but a cosine lies in [-1, 1]")
    a, step = _unit(generated), block or BLOCK
    parts = []
    for row in range(0, len(a), BLOCK):
        for start in range(0, len(training), step):
            # Compared as stored, so that directions that are equal tie whatever the
            # block they are in.
            gamma = np.clip(
                a[row : row + BLOCK] @ _unit(training[start : start + step]).T, -1, 1
            ).astype(np.float32)
            near = np.zeros(gamma.shape, bool) if floor is None else gamma >= np.float32(floor)
            near[np.arange(len(gamma)), gamma.argmax(axis=1)] = True  # may be the nearest of all
            i, j = np.nonzero(near)
            parts.append((i + row, j + start, gamma[i, j]))
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    matches = matches_frame(rows, columns, values, higher_is_closer=True)
    keep = matches["rank"] == 0
    return matches[
        keep if floor is None else keep | (matches["similarity"] >= np.float32(floor))
    ].reset_index(drop=True)


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a feature vector has length 0, so it has no cosine")
    return features / length
