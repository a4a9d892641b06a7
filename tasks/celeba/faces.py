"""The mini world of ``celeba``: drawn faces of 24 people.

An identity fixes the head; light, dress, place and mood change with each image.
"""

from __future__ import annotations

import numpy as np

from ..pixels.planted import Canvas, World, stream

PEOPLE = 24

SKIN = np.array(
    [(255, 219, 190), (236, 188, 150), (210, 160, 116), (168, 116, 78), (120, 78, 52), (84, 54, 40)]
)

HAIR = np.array(
    [(30, 24, 22), (78, 48, 26), (142, 92, 40), (214, 176, 96), (168, 60, 32), (150, 150, 152)]
)

EYES = np.array([(60, 38, 22), (40, 96, 140), (64, 120, 66), (96, 96, 100)])


def draw(identity: int, random: np.random.RandomState) -> np.ndarray:
    """One photograph of a person, who comes from a stream of its own: both halves know
    the same people, by different images.
    """
    person = stream("faces person", identity)
    skin, hair, eye = (
        SKIN[person.randint(len(SKIN))],
        HAIR[person.randint(len(HAIR))],
        EYES[person.randint(len(EYES))],
    )
    wide, high, style, gap = (
        person.randint(27, 36),
        person.randint(36, 44),
        person.randint(4),
        person.randint(11, 16),
    )
    c = Canvas(64)
    colour = random.randint(0, 256, size=(5, 3))
    c.gradient(colour[0], colour[1], across=bool(random.randint(2)))
    if random.randint(2):  # a window or an image on the wall
        left, top = random.randint(0, 96), random.randint(0, 48)
        c.fill(
            c.box(left, top, left + random.randint(16, 48), top + random.randint(16, 60)), colour[2]
        )
    cx, cy = 64 + random.randint(-12, 13), 62 + random.randint(-10, 11)
    if style in (1, 2):  # long hair falls behind the shoulders
        c.fill(c.ellipse(cx, cy + 12, wide + 12, high + 22 if style == 2 else high + 10), hair)
    c.fill(c.ellipse(cx, cy + high + 44, 56, 40), colour[3])  # shoulders
    if random.randint(2):
        c.fill(
            c.ellipse(cx, cy + high + 44, 56, 40) & ((c.y + c.x) // random.randint(4, 9) % 2 == 0),
            colour[4],
        )
    c.fill(c.box(cx - 10, cy + 20, cx + 10, cy + high + 14), skin * 9 // 10)  # neck
    if style != 3:  # bald
        c.fill(c.ellipse(cx, cy - 8, wide + 6, high + 2), hair)
    c.fill(c.ellipse(cx, cy + 2, wide, high - 2), skin)
    if style != 3:
        c.fill(
            c.ellipse(cx, cy + 2, wide, high - 2) & (c.y < cy - high // 2 + (style == 0) * 4), hair
        )
    look = random.randint(-2, 3)
    for side in (-1, 1):
        ex, ey = cx + side * gap, cy - 4
        c.fill(c.ellipse(ex, ey, 7, 4 + random.randint(0, 2)), np.array((245, 245, 245)))
        c.fill(c.ellipse(ex + look, ey, 3, 3), eye)
        c.fill(c.box(ex - 7, ey - 11, ex + 8, ey - 8), hair // 2)
    c.fill(c.box(cx - 2, cy, cx + 3, cy + 12), skin * 8 // 10)  # nose
    mouth, smile = random.randint(7, 14), random.randint(1, 6)
    c.fill(c.ellipse(cx, cy + 20, mouth, smile) & (c.y >= cy + 18), np.array((176, 56, 60)))
    if random.randint(4) == 0:  # glasses
        for side in (-1, 1):
            outer, inner = (
                c.ellipse(cx + side * gap, cy - 4, 11, 9),
                c.ellipse(cx + side * gap, cy - 4, 9, 7),
            )
            c.fill(outer & ~inner, np.array((20, 20, 24)))
    if random.randint(4) == 0:  # a hat
        c.fill(c.ellipse(cx, cy - high + 6, wide + 10, 18) & (c.y < cy - high + 14), colour[2])
    light = random.randint(75, 116)
    c.pixels = c.pixels * light // 100
    return c.done()


WORLD = World(
    "faces",
    1,
    64,
    PEOPLE,
    draw,
    {1: 96, 4: 24, 16: 12, 64: 8},
    near=6,
    variants=8,
    held_out=96,
    paired=False,
)
