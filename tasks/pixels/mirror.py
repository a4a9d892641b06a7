"""Mirror pairs: two halves of a drawn world that differ by coin flips alone
(docs/design/mirror-pairs.md).

For each kind and label, twice as many images are drawn as a half needs. They are sorted
by how much detail they hold, neighbours become pairs, and a fair coin sends one of each
pair to half ``a`` and the other to half ``b``. The coins see neither the images nor the
order of drawing, so nothing in an image tells which model was trained on it. Of a world
that is not ``paired`` each half is drawn by itself: exchangeable too, but nothing keeps
their details alike. ``held_out`` images are drawn likewise and belong to neither half.
Streams are numpy's frozen ``RandomState`` (NEP 19) and all arithmetic is on integers:
the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..shared import HALVES
from .planted import Half, World, stream, vary


@dataclass(frozen=True)
class Pair:
    """Both halves of world ``number`` and the held-out images (``Half.copies`` 0)."""

    number: int
    halves: dict[str, Half]
    held_out: Half


def detail(images: np.ndarray) -> np.ndarray:
    """How many colours each image's mixed second difference has, [n]: of an image of
    few edges and patterns few.

    Its rank correlation with the size of a PNG is 0.942 for scenes at 16 pixels and
    0.857 for faces at 64.
    """
    x = images.astype(np.int64)
    mixed = x[:, 1:, 1:] - x[:, :-1, 1:] - x[:, 1:, :-1] + x[:, :-1, :-1]
    return np.array([len(np.unique(one.reshape(-1, x.shape[-1]), axis=0)) for one in mixed])


def split(images: np.ndarray, coins: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Rows of an even number of images for half a and half b: neighbours in detail are
    parted by a fair coin.
    """
    pairs = np.argsort(detail(images), kind="stable").reshape(-1, 2)
    heads = coins.randint(2, size=len(pairs))
    rows = np.arange(len(pairs))
    return pairs[rows, heads], pairs[rows, 1 - heads]


def build_pair(world: World, number: int = 0) -> Pair:
    """World ``number``; 0 is the development world."""
    halves = _paired(world, number) if world.paired else _apart(world, number)
    held_out = []
    for label in range(world.classes):
        for k in range(world.held_out // world.classes):
            image = world.draw(
                label, stream(world.name, world.version, number, "held_out", label, k)
            )
            held_out.append((image, label, 0, "held_out", f"{number}/held_out/{label}/{k}"))
    return Pair(number, halves, _half(held_out))


def fresh(world: World, number: int, n: int) -> np.ndarray:
    """n images ``uint8`` [n, size, size, 3] of world ``number`` that are in none of its
    halves, labels in turn: what images of quality look like.
    """
    return np.stack(
        [
            world.draw(
                i % world.classes,
                stream(world.name, world.version, number, "quality", i % world.classes, i),
            )
            for i in range(n)
        ]
    )


def _apart(world: World, number: int) -> dict[str, Half]:
    """Each half drawn by itself. Labels are dealt in turn, so that each has as many
    images of a kind as any other, give or take one.
    """
    start = (world.name, world.version, *([number] if number else []))
    counts = sorted(world.counts.items(), reverse=True)
    order = [(copies, f"x{copies}") for copies, count in counts for _ in range(count)]
    order += [(1, "near")] * world.near
    halves = {}
    for half in HALVES:
        rows = []
        for turn, (copies, kind) in enumerate(order):
            label, name = turn % world.classes, f"{half}/{turn:04d}"
            image = world.draw(label, stream(*start, name))
            if kind != "near":
                rows.append((image, label, copies, kind, name))
                continue
            for k in range(world.variants):
                rows.append((vary(image, stream(*start, name, k)), label, copies, kind, name))
        halves[half] = _half(rows)
    return halves


def _paired(world: World, number: int) -> dict[str, Half]:
    """Halves of matched pairs. Every label has as many images of a kind as any other."""
    kinds = [
        (f"x{times}", times, count, 1)
        for times, count in sorted(world.counts.items(), reverse=True)
    ]
    kinds.append(("near", 1, world.near, world.variants))
    rows: dict[str, list[tuple[np.ndarray, int, int, str, str]]] = {half: [] for half in HALVES}
    for kind, copies, count, variants in kinds:
        if count % world.classes:
            raise ValueError(
                f"{world.name}: {count} images of kind {kind} do not share out over {world.classes}"
                " labels"
            )
        each = count // world.classes
        for label in range(world.classes):
            words = (world.name, world.version, number, kind, label)
            images = np.stack([world.draw(label, stream(*words, k)) for k in range(2 * each)])
            for half, chosen in zip(HALVES, split(images, stream(*words, "coins")), strict=True):
                for row in chosen:
                    group = f"{number}/{kind}/{label}/{row}"
                    for k in range(variants):
                        image = (
                            images[row]
                            if variants == 1
                            else vary(images[row], stream(*words, int(row), "variant", k))
                        )
                        rows[half].append((image, label, copies, kind, group))
    return {half: _half(found) for half, found in rows.items()}


def _half(rows: Sequence[tuple[np.ndarray, int, int, str, str]]) -> Half:
    images, labels, copies, kinds, groups = zip(*rows, strict=True)
    return Half(np.stack(images), np.array(labels), np.array(copies), kinds, groups)
