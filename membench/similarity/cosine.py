"""Cosine similarity of image features, as SSCD is compared (Pizzi et al., CVPR 2022; Somepalli et al., CVPR 2023)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from membench.similarity import matches_frame
from membench.similarity.search import nearest, within


def cosine(generated: np.ndarray, training: np.ndarray, *, floor: float | None, block: int | None = None) -> pd.DataFrame:
    """Matches by gamma = <a, b> / (|a| |b|), in [-1, 1], higher = closer.

    generated ``float32`` [n, d], training ``float32`` [m, d], finite. Returns a frame of matches (``MATCH_COLUMNS``): every pair with
    gamma >= floor, and always the nearest of each generated image; floor None: the nearest alone. block: training rows at once.
    Raises ValueError for an empty training set, shapes that differ, a vector of length 0, or a floor not in [-1, 1].
    """
    if len(training) == 0:
        raise ValueError("the training set is empty")
    if floor is not None and not -1 <= floor <= 1:
        raise ValueError(f"floor is {floor}, but a cosine lies in [-1, 1]")
    a, b = _unit(generated), _unit(training)
    distance, position = nearest(a, b, 1, block=block)
    rows, columns, distance = np.arange(len(a)), position[:, 0], distance[:, 0]
    if floor is not None:
        # |a - b|^2 = 2 - 2 gamma on the sphere. A little wide: decided below, in the precision that is stored.
        found = within(a, b, np.full(len(a), np.sqrt(2 - 2 * floor) + 1e-5), block=block)
        other = found[1] != columns[found[0]]
        rows, columns, distance = (np.concatenate([x, y[other]]) for x, y in zip((rows, columns, distance), found, strict=True))
    gamma = 1 - distance.astype(np.float64) ** 2 / 2
    matches = matches_frame(rows, columns, gamma, higher_is_closer=True)
    keep = matches["rank"] == 0
    return matches[keep if floor is None else keep | (matches["similarity"] >= np.float32(floor))].reset_index(drop=True)


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a feature vector has length 0, so it has no cosine")
    return features / length
