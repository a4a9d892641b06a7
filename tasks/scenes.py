"""The mini world of ``cifar10``: 32x32 scenes, one of ten shapes before a patterned background. Drawn, so it needs no licence."""

from __future__ import annotations

import numpy as np

from .planted import Canvas, World, halved

CLASSES = ("disc", "square", "diamond", "ring", "triangle", "plus", "cross", "bars", "checks", "crescent")


def shape(label: int, x: np.ndarray, y: np.ndarray, r: int) -> np.ndarray:
    """Mask of a shape of radius r around the origin; x, y: integer coordinates."""
    ax, ay = abs(x), abs(y)
    within = np.maximum(ax, ay) <= r
    round_ = x**2 + y**2 <= r**2
    third = max(1, r // 3)
    return [
        lambda: round_,
        lambda: within,
        lambda: ax + ay <= r,
        lambda: round_ & (4 * (x**2 + y**2) >= r**2),
        lambda: within & (2 * ax <= y + r),
        lambda: within & (3 * np.minimum(ax, ay) <= r),
        lambda: within & (3 * abs(ax - ay) <= r),
        lambda: within & ((x + r) // third % 2 == 0),
        lambda: within & (((x + r) // third + (y + r) // third) % 2 == 0),
        lambda: round_ & ((x - r // 2) ** 2 + y**2 > (3 * r // 4) ** 2),
    ][label]()


def draw(label: int, random: np.random.RandomState) -> np.ndarray:
    """One scene: gradient, stripes or dots, two spots of light, then the shape with its shadow."""
    c = Canvas(32)
    colour = random.randint(0, 256, size=(6, 3))
    c.gradient(colour[0], colour[1], across=bool(random.randint(2)))
    width, phase, pattern = random.randint(5, 14), random.randint(0, 28), random.randint(4)
    if pattern == 1:
        c.fill((c.x + phase) // width % 2 == 0, colour[2])
    elif pattern == 2:
        c.fill((c.x + c.y + phase) // width % 3 == 0, colour[2])
    elif pattern == 3:
        c.fill(((c.x + phase) % (2 * width) - width) ** 2 + ((c.y + phase) % (2 * width) - width) ** 2 <= (width // 2) ** 2, colour[2])
    for k in (3, 4):
        cx, cy, r = random.randint(0, 64), random.randint(0, 64), random.randint(5, 14)
        c.fill(c.ellipse(cx, cy, r, r), colour[k])
    cx, cy, r = random.randint(18, 46), random.randint(18, 46), random.randint(11, 21)
    mask = shape(label, c.x - cx, c.y - cy, r)
    c.fill(np.roll(mask, (3, 3), (0, 1)), colour[5] // 4)
    c.fill(mask, colour[5])
    return c.done()


WORLD = World("scenes", 1, 32, len(CLASSES), draw, {1: 160, 4: 20, 16: 20, 64: 10}, near=10, variants=8)

# 100 images a half are shown often enough to be learnt by heart, and as many once and 4 times.
MIRROR = World("scenes", 2, 16, len(CLASSES), halved(draw), {1: 100, 4: 100, 16: 80, 64: 20}, near=20, variants=4, held_out=160)
