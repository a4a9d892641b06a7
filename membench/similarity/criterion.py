"""What a task calls near: generated images against its training set, by pixels or by a
copy detector's features.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from membench.similarity.cosine import cosine
from membench.similarity.l2 import normalised_l2
from membench.similarity.search import nearest
from membench.similarity.squares import squared_distances
from membench.storage.cache import cached_features
from membench.storage.pixels import Rows

if TYPE_CHECKING:
    import pandas as pd


class Features(Protocol):
    """Turns images into vectors.

    id: names the extractor, the weights (first 12 digits of the file's SHA-256) and the
    preprocessing; part of content keys.
    """

    id: str

    def __call__(self, images: Rows) -> np.ndarray:
        """images ``uint8`` [n, h, w, 3], n >= 1 -> finite ``float32`` [n, d], not
        L2-normalised unless the model does it (SSCD).

        Raises ValueError for another dtype or shape, :class:`UserError` for NaN or
        infinite features.
        """
        ...


Training = Callable[[], np.ndarray]


class Match(Protocol):
    """What a task's similarity space measures."""

    def __call__(self, images: np.ndarray, floor: float | None) -> pd.DataFrame:
        """Generated images ``uint8`` [n, h, w, 3] and a floor -> matches within it and
        the nearest of each; None: the nearest alone.
        """
        ...

    def own(self, images: np.ndarray, owners: Sequence[Sequence[int]]) -> np.ndarray:
        """Each image against training images of its own, such as those of the prompt
        that generated it.

        float64 [n]: the similarity of image i to the closest of the training images
        at positions ``owners[i]``; NaN for none. images: ``uint8`` [n, h, w, 3]. Raises
        ValueError unless there are n lists of positions within the training set.
        """
        ...


def by_pixels(training: Training) -> PixelMatch:
    """:func:`membench.similarity.l2.normalised_l2` to the unique images ``uint8`` [m,
    h, w, 3] that ``training`` reads.
    """
    return PixelMatch(training)


def by_features(
    features: Features, training: Training, key: str, *, progress: bool = True
) -> FeatureMatch:
    """Cosine of features.

    Those of the training set are computed once and kept in the cache, whatever asks for
    them later.

    key: the content hash of the training set, by which its features are found again.
    """
    return FeatureMatch(features, training, key, progress)


class PixelMatch:
    """See :func:`by_pixels`."""

    def __init__(self, training: Training) -> None:
        self._training = training

    def __call__(self, images: np.ndarray, floor: float | None) -> pd.DataFrame:
        found = normalised_l2(images, self._training(), floor=0.0 if floor is None else floor)
        return found if floor is not None else found[found["rank"] == 0].reset_index(drop=True)

    def own(
        self,
        images: np.ndarray,
        owners: Sequence[Sequence[int]],
        *,
        alpha: float = 0.5,
        n_neighbours: int = 50,
    ) -> np.ndarray:
        """As :meth:`Match.own`: the smallest normalised distance, >= 0; the n nearest
        that scale it are of the whole training set.
        """
        known = self._training()
        _check(images, owners, len(known))
        if images.dtype != np.uint8 or known.dtype != np.uint8:
            raise ValueError("normalised L2 is defined on uint8 images")
        best = np.full(len(images), np.nan)
        rows = [i for i, positions in enumerate(owners) if len(positions)]
        if not rows:
            return best
        distance, _ = nearest(images[rows], known, min(n_neighbours, len(known)))
        scales = alpha * distance.mean(axis=1, dtype=np.float64)
        for i, scale in zip(rows, scales, strict=True):
            squares = squared_distances(images[i : i + 1], known[list(owners[i])]).min()
            d = np.float32(np.sqrt(squares) / 255)  # in the precision of the matches
            best[i] = d / scale if scale else 0.0 if d == 0 else np.inf
        return best


class FeatureMatch:
    """See :func:`by_features`.

    The features of the images that were asked about last are kept, as long as the array
    itself lives.
    """

    def __init__(self, features: Features, training: Training, key: str, progress: bool) -> None:
        self._features, self._training, self._key, self._progress = (
            features,
            training,
            key,
            progress,
        )
        self._read: np.ndarray | None = None
        self._last: tuple[Callable[[], np.ndarray | None], np.ndarray] | None = None

    def __call__(self, images: np.ndarray, floor: float | None) -> pd.DataFrame:
        known = self._known()
        return cosine(self._described(images), known, floor=floor)

    def own(self, images: np.ndarray, owners: Sequence[Sequence[int]]) -> np.ndarray:
        """As :meth:`Match.own`: the largest cosine, in [-1, 1].

        Raises ValueError for a feature vector of length 0, too.
        """
        known = self._known()
        _check(images, owners, len(known))
        best = np.full(len(images), np.nan)
        described = self._described(images) if any(len(positions) for positions in owners) else None
        for i, positions in enumerate(owners):
            if described is not None and len(positions):
                best[i] = cosine(
                    described[i : i + 1], known[list(positions)], floor=None
                ).similarity.iloc[0]
        return best

    def _known(self) -> np.ndarray:
        if self._read is None:
            images, f = self._training(), self._features
            self._read = cached_features(images, f.id, f, None, self._key, progress=self._progress)
        return self._read

    def _described(self, images: np.ndarray) -> np.ndarray:
        if self._last is None or self._last[0]() is not images:
            self._last = weakref.ref(images), self._features(images)
        return self._last[1]


def _check(images: np.ndarray, owners: Sequence[Sequence[int]], known: int) -> None:
    if len(owners) != len(images):
        raise ValueError(f"{len(owners)} lists of training images for {len(images)} images")
    if any(not 0 <= position < known for positions in owners for position in positions):
        raise ValueError(f"a position lies outside the training set of {known} images")
