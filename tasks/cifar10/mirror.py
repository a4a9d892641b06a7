"""Mirror pairs of real CIFAR-10: two models that one recipe trained on two parts of one
permutation of the training set.

``membench train cifar10 --profile full --set skip=N`` makes the second. A random
permutation parts the images as coins part those of a drawn world
(docs/design/mirror-pairs.md), and the recipe shows as many of either part as often.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from membench.errors import UserError
from membench.seeds import seed_of

from ..one_recipe import ELSEWHERE, one_recipe
from ..pixels.mirror import Pair
from ..pixels.planted import Half
from .trained import read_trained

OWN = ELSEWHERE | {"skip", "data_root"}  # numbers of a recipe in which a pair may differ


def real_pair(
    images: np.ndarray, classes: np.ndarray, model: Path, mirror: Path, *, rung: int = 0
) -> Pair:
    """The parts that two models' training.json name, as halves ``a`` and ``b``, and as
    many images of neither.

    images, classes: the whole training set. model, mirror: the two files. rung: of
    both, for which their snapshots must be of the same steps. Raises :class:`UserError`
    for models that are no mirror of each other.
    """
    advice = "choose --set cifar10.examples=generated"
    trained = [read_trained(file, len(images), advice) for file in (model, mirror)]
    own, other = (t.rows for t in trained)
    told = {t.labels for t in trained}
    if both := set(own) & set(other):
        raise UserError(
            f"{mirror} was trained on {len(both)} of the images that {model} saw, so it is no"
            " mirror; choose other images (skip=N)"
        )
    if sorted(trained[0].copies) != sorted(trained[1].copies) or len(told) > 1:
        raise UserError(
            f"{model} and {mirror} were not trained by one recipe: subset, duplicate and labels"
            " must agree"
        )
    one_recipe(model, mirror, OWN if rung else OWN | {"rungs"})
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

    halves = {name: half(t.rows, t.copies) for name, t in zip("ab", trained, strict=True)}
    return Pair(0, halves, half(held_out, [0] * len(held_out), "held_out"))
