"""What is planted in the mini worlds of ``cifar10`` and ``celeba``: images shown
once, 4, 16 or 64 times, and near-duplicates.

A world draws one image from (label, random stream); mirror.py shares its images out to
two halves. Random streams are numpy's frozen ``RandomState`` (NEP 19) and drawing is
integer arithmetic, so that a half has the same bytes on every platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from membench.seeds import seed_of

Draw = Callable[[int, np.random.RandomState], np.ndarray]


@dataclass(frozen=True)
class World:
    """draw(label, stream): ``uint8`` [size, size, 3]. counts: how many images at each
    multiplicity of a half. near: groups of ``variants`` near-duplicates, each shown once. version
    goes up with whatever changes a byte.
    """

    name: str
    version: int
    size: int
    classes: int
    draw: Draw
    counts: Mapping[int, int]
    near: int
    variants: int
    held_out: int  # images of neither half
    paired: bool = True  # whether coins share matched pairs out to the halves (mirror.py)


@dataclass(frozen=True)
class Half:
    """Unique training images of one half. kind: "x1", "x4", ... or "near"; group:
    near-duplicates share one.
    """

    images: np.ndarray  # uint8 [n, size, size, 3]
    labels: np.ndarray  # [n]
    copies: np.ndarray  # rows in the training set, [n]
    kinds: tuple[str, ...]
    groups: tuple[str, ...]

    def content_hash(self) -> str:
        h = hashlib.sha256(self.images.tobytes())
        h.update(
            repr((self.labels.tolist(), self.copies.tolist(), self.kinds, self.groups)).encode()
        )
        return h.hexdigest()


def stream(*words: object) -> np.random.RandomState:
    return np.random.RandomState(seed_of(*words) % 2**32)


def halved(draw: Draw) -> Draw:
    """The same images at half the size: each pixel the mean of 2 x 2, rounded down."""

    def smaller(label: int, random: np.random.RandomState) -> np.ndarray:
        image = draw(label, random).astype(np.int64)
        side = len(image) // 2
        return (image.reshape(side, 2, side, 2, 3).sum(axis=(1, 3)) // 4).astype(np.uint8)

    return smaller


def vary(image: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """A near-duplicate: moved by up to a pixel, a little brighter or darker, with noise
    of one or two grey levels.
    """
    down, right, light = random.randint(-1, 2), random.randint(-1, 2), random.randint(-12, 13)
    moved = np.roll(np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge"), (down, right), (0, 1))[
        1:-1, 1:-1
    ]
    return (
        (moved.astype(np.int64) + light + random.randint(-2, 3, size=image.shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


class Canvas:
    """Integer drawing at twice the size. x, y: coordinates [2 size, 2 size]; ``done``
    averages 2 x 2.
    """

    def __init__(self, size: int) -> None:
        self.size = 2 * size
        self.y, self.x = np.mgrid[: self.size, : self.size].astype(np.int64)
        self.pixels = np.zeros((self.size, self.size, 3), dtype=np.int64)

    def fill(self, mask: np.ndarray, colour: np.ndarray) -> None:
        self.pixels[mask] = colour

    def gradient(self, first: np.ndarray, second: np.ndarray, across: bool) -> None:
        share = (self.x if across else self.y)[..., None]
        self.pixels = (first * (self.size - 1 - share) + second * share) // (self.size - 1)

    def ellipse(self, cx: int, cy: int, rx: int, ry: int) -> np.ndarray:
        return (self.x - cx) ** 2 * ry**2 + (self.y - cy) ** 2 * rx**2 <= rx**2 * ry**2

    def box(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        return (self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom)

    def done(self) -> np.ndarray:
        half = self.size // 2
        return (
            (self.pixels.reshape(half, 2, half, 2, 3).sum(axis=(1, 3)) // 4)
            .clip(0, 255)
            .astype(np.uint8)
        )
