"""What a task calls near: generated images against its training set, by pixels or by a copy detector's features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from membench.imageset import cached_features
from membench.similarity.cosine import cosine
from membench.similarity.l2 import normalised_l2

if TYPE_CHECKING:
    from membench.features import Features

#: Generated images ``uint8`` [n, h, w, 3] and a floor -> matches within it and the nearest of each; None: the nearest alone.
Match = Callable[[np.ndarray, float | None], pd.DataFrame]


def by_pixels(training: Callable[[], np.ndarray]) -> Match:
    """:func:`membench.similarity.l2.normalised_l2` to the unique pictures ``uint8`` [m, h, w, 3] that ``training`` reads."""

    def match(images: np.ndarray, floor: float | None) -> pd.DataFrame:
        found = normalised_l2(images, training(), floor=0.0 if floor is None else floor)
        return found if floor is not None else found[found["rank"] == 0].reset_index(drop=True)

    return match


def by_features(features: Features, training: Callable[[], np.ndarray], key: str, *, progress: bool = True) -> Match:
    """Cosine of features. Those of the training set are computed once and kept in the cache, whatever asks for them later.

    key: the content hash of the training set, by which its features are found again.
    """

    def match(images: np.ndarray, floor: float | None) -> pd.DataFrame:
        known = cached_features(training(), features.id, features, None, key, progress=progress)
        return cosine(features(images), known, floor=floor)

    return match
