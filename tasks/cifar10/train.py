"""``membench train cifar10``: the mini models, and (``--profile full``) a memorizing
model on a subset of real CIFAR-10.

The subset is the first N of a seeded permutation of the 50,000 training images; the
first FRACTION of those are shown TIMES times as often as the rest, the next so often as
the next FRACTION:TIMES says. ``labels`` is the
experiment that SIDE's reviewers asked for: what a model is told of an image, and how
much it then memorizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from membench.errors import UserError
from membench.options import parse_options
from membench.seeds import seed_of
from membench.storage.hashing import json_hash
from membench.types import Tracker

from ..pixels.labels import make_labels
from ..pixels.recipe import PixelRecipe
from ..pixels.train import TrainingSet, told_record, train_pixels
from .data import CLASSES, read_cifar10

MOST_TIMES = 100_000  # an image is shown
MOST_ROWS = 100_000_000  # in all, the numbers of which a training holds in memory


@dataclass(frozen=True)
class SubsetRecipe(PixelRecipe):
    data_root: str = field(
        default="data", metadata={"help": "folder that holds cifar-10-batches-py"}
    )
    subset: int = field(
        default=512, metadata={"help": "different training images", "min": 2, "max": 50_000}
    )
    skip: int = field(
        default=0,
        metadata={
            "help": "leave out the first so many of the permutation: for a control model",
            "min": 0,
        },
    )
    duplicate: str = field(
        default="0.1:16",
        metadata={
            "help": (
                "FRACTION:TIMES of images that are shown more often, several with commas; 0:1 for"
                " none"
            )
        },
    )

    def duplicates(self) -> list[tuple[float, int]]:
        """(share of the images, how often each is shown); the rest once."""
        found = []
        for part in self.duplicate.split(","):
            match = re.fullmatch(r"([0-9.]+):([0-9]+)", part)
            try:
                fraction, times = float(match[1]), int(match[2])  # type: ignore[index]
            except (TypeError, ValueError):
                raise UserError(
                    f"duplicate={self.duplicate}: write FRACTION:TIMES, such as 0.1:16, or several"
                    " with commas"
                ) from None
            if not 0 <= fraction <= 1 or not 1 <= times <= MOST_TIMES:
                raise UserError(
                    f"duplicate={self.duplicate[:60]}: the fraction must lie in [0, 1], and times"
                    f" must be from 1 to {MOST_TIMES:,}"
                )
            found.append((fraction, times))
        if sum(fraction for fraction, _ in found) > 1 + 1e-9:
            raise UserError(f"duplicate={self.duplicate}: the fractions add up to more than 1")
        if sum(round(share * self.subset) * times for share, times in found) > MOST_ROWS:
            raise UserError(
                f"duplicate={self.duplicate} of subset={self.subset}: more than {MOST_ROWS:,}"
                " images in all; choose fewer times"
            )
        return found


@dataclass(frozen=True)
class Subset:
    """Rows of CIFAR-10's training set with how often each is shown."""

    rows: np.ndarray
    copies: np.ndarray


def choose_subset(
    n: int, size: int, duplicates: Sequence[tuple[float, int]], seed: int, skip: int = 0
) -> Subset:
    """``size`` of a permutation of n rows, after the first ``skip``; of each (fraction,
    times) the next round(fraction * size) of them count ``times``.
    """
    if skip + size > n:
        raise UserError(f"subset={size} after skip={skip}: the training set has {n} images")
    rows = np.random.RandomState(seed_of("cifar10 subset", seed) % 2**32).permutation(n)[
        skip : skip + size
    ]
    copies = np.ones(size, dtype=np.int64)
    start = 0
    for fraction, times in duplicates:
        end = start + round(fraction * size)
        copies[start:end], start = times, end
    return Subset(rows, copies)


def subset_data(recipe: SubsetRecipe) -> TrainingSet:
    duplicates = recipe.duplicates()  # before the data, which may have to be fetched
    images, classes = read_cifar10(Path(recipe.data_root))
    chosen = choose_subset(len(images), recipe.subset, duplicates, recipe.seed, recipe.skip)
    shown = images[chosen.rows]
    labels = make_labels(recipe.labels, shown, classes[chosen.rows], len(CLASSES), recipe.seed)
    record = {
        "source": "CIFAR-10, training set",
        "rows": chosen.rows.tolist(),
        "copies": chosen.copies.tolist(),
        **told_record(recipe.labels, labels),
        "hash": json_hash([shown.tobytes().hex(), chosen.copies.tolist()]),
    }
    return TrainingSet(shown, chosen.copies, labels, len(CLASSES), record)


def train_subset(
    out: Path, options: Sequence[str], progress: bool, tracker: Tracker | None = None
) -> None:
    recipe = parse_options(SubsetRecipe, options, owner="recipe of cifar10")
    name = (
        f"cifar10-{recipe.subset}-{recipe.labels}"
        + (f"-perturbed{recipe.perturb:g}" if recipe.perturb else "")
        + (f"-after{recipe.skip}" if recipe.skip else "")
    )
    train_pixels(out, name, subset_data(recipe), recipe, progress, tracker)
