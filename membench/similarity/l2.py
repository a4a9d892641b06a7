"""The two pixel distances of Carlini et al., "Extracting Training Data from Diffusion
Models" (USENIX Security 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from membench.similarity.search import matches_frame, nearest, within
from membench.similarity.squares import squared_distances

if TYPE_CHECKING:
    import pandas as pd


def normalised_l2(
    generated: np.ndarray,
    training: np.ndarray,
    *,
    alpha: float = 0.5,
    n_neighbours: int = 50,
    floor: float,
    block: int | None = None,
) -> pd.DataFrame:
    """Matches by d(x^, x) = |x^ - x| / (alpha * mean of |x^ - y| over the n nearest
    training images y of x^), Carlini's distance.

    generated ``uint8`` [n, h, w, 3]; training ``uint8`` [m, h, w, 3] of UNIQUE
    images: exact duplicates would fill the neighbourhood and make every copy of a
    duplicated image look ordinary. Fewer than ``n_neighbours`` images: all are
    used. Distances are >= 0, dimensionless, lower = closer; Carlini calls d < 1 a copy.
    Where all n neighbours equal the generated image (denominator 0), d is 0 for
    images equal to it and infinite for all others.

    Returns a frame of matches (``MATCH_COLUMNS``): every pair with d <= floor, and
    always the nearest of each generated image. Raises ValueError for an empty training
    set, shapes that differ, an array that is not ``uint8``, or a floor not in [0, inf).
    """
    if generated.dtype != np.uint8 or training.dtype != np.uint8:
        raise ValueError("normalised L2 is defined on uint8 images")
    if len(training) == 0:
        raise ValueError("the training set is empty")
    if not 0 <= floor < np.inf:
        raise ValueError(f"floor is {floor}, but must be finite and not negative")
    distance, position = nearest(generated, training, min(n_neighbours, len(training)), block=block)
    scale = alpha * distance.mean(axis=1, dtype=np.float64)
    rows, columns, distance = (
        np.repeat(np.arange(len(generated)), position.shape[1]),
        position.ravel(),
        distance.ravel(),
    )
    # Beyond the n neighbours lie only distances of at least their mean, that is d >= 1
    # / alpha.
    if alpha * floor >= 1 or not scale.all():
        # A little wide: decided below, in the precision that is stored
        limits = floor * scale * (1 + 1e-6)
        beyond = distance > limits[rows]
        found = within(generated, training, limits, block=block)
        rows, columns, distance = (
            np.concatenate([x[beyond], y])
            for x, y in zip((rows, columns, distance), found, strict=True)
        )
    values = np.divide(
        distance, scale[rows], out=np.where(distance == 0, 0.0, np.inf), where=scale[rows] > 0
    )
    matches = matches_frame(rows, columns, values, higher_is_closer=False)
    return matches[
        (matches["similarity"] <= np.float32(floor)) | (matches["rank"] == 0)
    ].reset_index(drop=True)


def tiled_l2(a: np.ndarray, b: np.ndarray, tiles: int = 4) -> float:
    """Largest root-mean-square pixel difference over tiles x tiles non-overlapping
    tiles, in [0, 1]; lower = closer.

    a, b: ``uint8`` [h, w, c], pixels scaled to [0, 1]; a tile's L2 is divided by the
    root of its number of values. Carlini et al. use 128 x 128 tiles of 512 x 512
    images, so that a shared background does not pass for a copy; hence 4 a side. The
    maximum, not the mean, is the paper's. Raises ValueError if a side is not a multiple
    of ``tiles`` or shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    pair = _tiles(np.stack([a, b]), tiles).astype(np.float64) / 255
    return float(np.sqrt(((pair[:, 0] - pair[:, 1]) ** 2).mean(axis=-1).max()))


def tiled_l2_matrix(images: np.ndarray, tiles: int = 4) -> np.ndarray:
    """:func:`tiled_l2` of every pair of images ``uint8`` [n, h, w, c]: float64 [n, n],
    symmetric, zero diagonal.
    """
    return tiled_l2_between(images, images, tiles)


def tiled_l2_between(a: np.ndarray, b: np.ndarray, tiles: int = 4) -> np.ndarray:
    """:func:`tiled_l2` of each of a [n, h, w, c] with each of b [m, h, w, c], both
    ``uint8``: float64 [n, m].
    """
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError("tiled L2 is defined on uint8 images")
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"shapes differ: {a.shape[1:]} and {b.shape[1:]}")
    left, right = _tiles(a, tiles), _tiles(b, tiles)
    largest = np.zeros((len(a), len(b)))
    for x, y in zip(left, right, strict=True):
        np.maximum(largest, squared_distances(x, y), out=largest)
    return np.sqrt(largest / left.shape[-1]) / 255


def _tiles(images: np.ndarray, tiles: int) -> np.ndarray:
    """[n, h, w, c] -> [tiles * tiles, n, values of a tile]."""
    n, h, w, c = images.shape
    if tiles < 1 or h % tiles or w % tiles:
        raise ValueError(
            f"an image of {h} x {w} pixels does not divide into {tiles} x {tiles} tiles"
        )
    cut = images.reshape(n, tiles, h // tiles, tiles, w // tiles, c)
    return cut.transpose(1, 3, 0, 2, 4, 5).reshape(tiles * tiles, n, -1)
