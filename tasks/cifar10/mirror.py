"""Mirror pairs of real CIFAR-10: two models that one recipe trained on two parts of one
permutation of the training set.

``membench train cifar10 --profile full --set skip=N`` makes the second. A random
permutation parts the images as coins part those of a drawn world
(docs/design/mirror-pairs.md), and the recipe shows as many of either part as often.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from membench.errors import UserError
from membench.seeds import seed_of

from ..pixels.mirror import Pair
from ..pixels.planted import Half


def real_pair(images: np.ndarray, classes: np.ndarray, model: Path, mirror: Path) -> Pair:
    """The parts that two models' training.json name, as halves ``a`` and ``b``, and as
    many images of neither.

    images, classes: the whole training set. Raises :class:`UserError` for models that
    are no mirror of each other.
    """
    records = [_record(folder) for folder in (model, mirror)]
    (own, other), told = (
        [list(map(int, r["rows"])) for r in records],
        {r["labels"] for r in records},
    )
    if both := set(own) & set(other):
        raise UserError(
            f"{mirror} was trained on {len(both)} of the images that {model} saw, so it is no"
            " mirror; choose other images (skip=N)"
        )
    if sorted(records[0]["copies"]) != sorted(records[1]["copies"]) or len(told) > 1:
        raise UserError(
            f"{model} and {mirror} were not trained by one recipe: subset, duplicate and labels"
            " must agree"
        )
    if not told <= {"class", "none"}:
        raise UserError(
            f"labels={told.pop()}: what a model was told of its own images is not defined for its"
            " mirror's; train with labels=class"
        )
    conditional = told == {"class"}
    rest = np.setdiff1d(np.arange(len(images)), [*own, *other])
    held_out = (
        np.random.RandomState(seed_of("cifar10 held out") % 2**32)
        .permutation(rest)[: len(own)]
        .tolist()
    )

    def half(rows: list[int], copies: list[int], kind: str = "") -> Half:
        labels = classes[rows] if conditional else np.full(len(rows), -1)
        return Half(
            images[rows],
            labels,
            np.array(copies),
            tuple(kind or f"x{n}" for n in copies),
            tuple(f"train/{r:05d}" for r in rows),
        )

    halves = {
        name: half(rows, list(map(int, r["copies"])))
        for name, rows, r in zip("ab", (own, other), records, strict=True)
    }
    return Pair(0, halves, half(held_out, [0] * len(held_out), "held_out"))


def _record(folder: Path) -> dict[str, Any]:
    file = folder / "training.json"
    try:
        data = dict(json.loads(file.read_bytes())["data"])
        if missing := {"rows", "copies", "labels"} - set(data):
            raise KeyError(missing)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} does not say which images the model was trained on: nobody knows what it saw;"
            " choose cifar10.examples=generated"
        ) from None
    return data
