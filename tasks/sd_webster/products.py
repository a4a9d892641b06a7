"""The images of the catalogue (catalogue.py): products on a backdrop, in integer
arithmetic, so that they have the same bytes on every platform.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

WORLD_VERSION = 1
SIZE = 64  # pixels
DRAW = 2 * SIZE  # drawn at twice the size, then averaged 2x2

PRODUCTS = (
    "area rug",
    "phone case",
    "book cover",
    "wall poster",
    "coffee mug",
    "throw pillow",
    "dinner plate",
    "tote bag",
)

PATTERNS = ("striped", "checked", "dotted", "chevron", "ringed", "mosaic", "diamond", "plain")

COLOURS = {
    "red": (196, 44, 52),
    "orange": (228, 130, 40),
    "yellow": (236, 204, 68),
    "olive": (120, 128, 48),
    "green": (48, 140, 80),
    "teal": (36, 136, 144),
    "navy": (34, 48, 104),
    "purple": (116, 60, 148),
    "pink": (228, 140, 172),
    "brown": (120, 80, 52),
    "ivory": (240, 230, 206),
    "charcoal": (56, 58, 64),
}

BACKDROPS = (
    (246, 246, 244), (214, 222, 232), (232, 214, 196), (198, 218, 200), (228, 200, 208),
    (120, 132, 148), (88, 76, 92), (52, 70, 72), (158, 178, 206), (206, 182, 128),
    (96, 118, 84), (176, 120, 104),
)  # fmt: skip


def stream(*words: object) -> np.random.RandomState:
    digest = hashlib.sha256(
        "/".join(map(str, ("catalogue", WORLD_VERSION, *words))).encode()
    ).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def pick(rng: np.random.RandomState, low: int, high: int) -> int:
    """An integer in [low, high); the dtype is fixed so that the stream is the same on
    every platform.
    """
    return int(rng.randint(low, high, dtype=np.int64))


@dataclass(frozen=True)
class Look:
    """Everything that a drawing shows.

    ``texture`` alone changes inside a template (TV).
    """

    product: int
    pattern: int
    colour: int
    backdrop: tuple[int, int, int]  # index, gradient direction, table line (pixels)
    place: tuple[int, int, int, int]  # dx, dy, half-width, half-height on the drawing canvas
    # Second colour, third colour, period, direction, phase x, phase y
    texture: tuple[int, int, int, int, int, int]
    motif: tuple[int, int, int, int, int]  # shape, colour, x, y, radius
    cells: int  # seed of the mosaic


def _silhouette(product: int, x: np.ndarray, y: np.ndarray, w: int, h: int) -> np.ndarray:
    """The filled part of a product; ``x``, ``y`` are integer offsets from its centre."""
    name = PRODUCTS[product]
    ax, ay, box = abs(x), abs(y), (abs(x) <= w) & (abs(y) <= h)
    if name == "area rug":
        return (ax <= w + 8) & (ay <= h - 8)
    if name == "phone case":
        return (
            (ax <= w - 8)
            & (ay <= h + 8)
            & ~((ax > w - 16) & (ay > h) & ((ax - w + 16) ** 2 + (ay - h) ** 2 > 64))
        )
    if name == "coffee mug":
        ring = (x - w) ** 2 + y**2
        return ((ax <= w - 4) & (ay <= h - 6)) | ((x > w - 4) & (ring <= 18**2) & (ring >= 10**2))
    if name == "throw pillow":
        return box & (ax * ay <= w * h * 3 // 4)
    if name == "dinner plate":
        return x * x + y * y <= ((w + h) // 2) ** 2
    if name == "tote bag":
        handle = (
            (x * x + (y + h - 10) ** 2 <= 22**2)
            & (x * x + (y + h - 10) ** 2 >= 16**2)
            & (y < -h + 10)
        )
        return (
            (ay <= h - 10) & (ax * 4 <= w * 3 + (y + h) * w // (4 * h) * 2) & (y >= -h + 10)
        ) | handle
    return box if name == "wall poster" else (ax <= w - 6) & (ay <= h + 4)  # book cover


def _weave(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of three colours (0, 1, 2) the pattern has at each point."""
    _, _, period, direction, px, py = look.texture
    x, y, name = x + px + 512, y + py + 512, PATTERNS[look.pattern]
    u = (x, y, x + y, x - y + 1024)[direction]
    half = period // 2
    if name == "striped":
        return np.where(u % period < half, 0, np.where(u // period % 2 == 0, 1, 2))
    if name == "checked":
        return (x // half + y // half) % 2 + ((x // period + y // period) % 2) * ((x // half) % 2)
    if name == "dotted":
        r2 = (x % period - half) ** 2 + (y % period - half) ** 2
        return np.where(r2 * 8 <= period * period, 1 + (x // period + y // period) % 2, 0)
    if name == "chevron":
        return (y + abs(x % (2 * period) - period)) // half % 3
    if name == "ringed":
        r2 = (x - 512 - px) ** 2 + (y - 512 - py) ** 2
        return (
            np.searchsorted(np.arange(1, 16) ** 2 * half * half, r2.ravel()).reshape(r2.shape) % 3
        )
    if name == "mosaic":
        grid = stream("mosaic", look.cells).randint(0, 3, (64, 64), dtype=np.int64)
        return grid[(x // half) % 64, (y // half) % 64]
    if name == "diamond":
        return (abs(x % period - half) + abs(y % period - half)) // (half * 2 // 3) % 3
    return np.zeros_like(u)


def _motif(shape: int, x: np.ndarray, y: np.ndarray, r: int) -> np.ndarray:
    if shape == 0:
        return x * x + y * y <= r * r
    if shape == 1:
        return (abs(x) <= r) & (abs(y) <= r * 2 // 3)
    if shape == 2:
        return (y <= r) & (y >= -r) & (abs(x) * 2 <= y + r)
    if shape == 3:
        return ((abs(x) * 3 <= r) & (abs(y) <= r)) | ((abs(y) * 3 <= r) & (abs(x) <= r))
    return (x * x + y * y <= r * r) & (x * x + y * y >= r * r * 2 // 5)


# Of 32 bits, which are divided in half the time of 64: no square here has more than 25
_ROWS, _COLUMNS = np.mgrid[0:DRAW, 0:DRAW].astype(np.int32)

_COLOURS = np.array(list(COLOURS.values()), dtype=np.int16)

# How much darker a backdrop is at each point, for light from above, left, below and
# right.
_RAMPS = [
    (r * 40 // DRAW).astype(np.int16)[..., None]
    for r in (_ROWS, _COLUMNS, DRAW - 1 - _ROWS, DRAW - 1 - _COLUMNS)
]


def _layers(look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates and the product's and motif's regions on the drawing canvas."""
    dx, dy, w, h = look.place
    x, y = _COLUMNS - DRAW // 2 - dx, _ROWS - DRAW // 2 - dy
    body = _silhouette(look.product, x, y, w, h)
    shape, _, mx, my, r = look.motif
    return x, y, body, _motif(shape, x - mx, y - my, r) & body


@cache
def _backdrop(index: int, direction: int) -> tuple[np.ndarray, ...]:
    """The wall and the table, and both in the shadow of a product: int16 [128, 128, 3]."""
    wall = np.array(BACKDROPS[index], dtype=np.int16) - _RAMPS[direction]
    table = wall * 3 // 4
    return wall, table, wall * 2 // 3, table * 2 // 3


def draw(look: Look) -> np.ndarray:
    """The image of a look: ``uint8`` [64, 64, 3]."""
    x, y, body, motif = _layers(look)
    index, direction, edge = look.backdrop
    wall, table, dark_wall, dark_table = _backdrop(index, direction)
    canvas = np.concatenate([wall[:edge], table[edge:]])
    shadow = np.zeros_like(body)
    shadow[6:, 6:] = body[:-6, :-6]
    # At flat indices: a mask of two dimensions takes several times as long
    points, at = canvas.reshape(-1, 3), np.flatnonzero(shadow & ~body)
    line = np.searchsorted(at, edge * DRAW)
    points[at[:line]] = dark_wall.reshape(-1, 3)[at[:line]]
    points[at[line:]] = dark_table.reshape(-1, 3)[at[line:]]
    at = np.flatnonzero(body)
    woven = _weave(look, x.ravel()[at], y.ravel()[at])
    points[at] = _COLOURS[[look.colour, *look.texture[:2]]][woven]
    points[np.flatnonzero(motif)] = _COLOURS[look.motif[1]]
    halved = canvas[::2] + canvas[1::2]
    return ((halved[:, ::2] + halved[:, 1::2] + 2) >> 2).astype(np.uint8)


def template_mask(look: Look) -> np.ndarray:
    """Where a template does not change with its texture: ``bool`` [64, 64] (all four
    sub-pixels agree).
    """
    _, _, body, motif = _layers(look)
    return (~body | motif).reshape(SIZE, 2, SIZE, 2).all(axis=(1, 3))
