"""The worlds of the mini profile: captions and images of their halves, and where their
models lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from membench.datasets.prompts import example_id
from membench.errors import UserError
from membench.types import Condition, Example

from ..one_recipe import one_recipe
from ..shared import HALVES, folder_of
from . import catalogue, products

DATA = Path(__file__).resolve().parent.parent / "data" / "sd_webster"


def models_of(number: int, models: str) -> Path:
    """The folder with the models of both halves of a world: ``models``, or what ships.

    Raises :class:`UserError` for a world that does not ship where no folder is named, and
    for a folder whose models were trained on something else or by two recipes.
    """
    check_world(number)
    if not models:
        if number:
            raise UserError(
                f"world {number} does not ship: membench train sd_webster --world {number} --output"
                " FOLDER, then --set sd_webster.models=FOLDER"
            )
        return DATA
    root = folder_of(models, number)
    for half in HALVES:
        advice = f"membench train sd_webster --world {number} --part {half} --output {root}"
        if not (root / half / "model_index.json").is_file():
            raise UserError(f"{root / half} is missing or not whole: {advice}")
        file = root / half / "training.json"
        try:
            told = json.loads(file.read_bytes())
            hashed = told.get("entries_hash")
        except (OSError, ValueError, AttributeError, RecursionError):
            hashed = None
        if hashed is None:
            raise UserError(
                f"{file} does not say what the model was trained on; train it again: {advice}"
            )
        if hashed != world(half, number).entries_hash():
            raise UserError(
                f"{root / half} was not trained on half {half} of world {number}; choose its own"
                f" world (--set sd_webster.world=N), or {advice}"
            )
    one_recipe(root / "a" / "training.json", root / "b" / "training.json")
    return root


def check_world(number: int) -> None:
    """Raises :class:`UserError` for a world that was never dealt."""
    if number not in catalogue.DEALS:
        raise UserError(
            f"world {number} of sd_webster was never dealt; choose from"
            f" {', '.join(map(str, catalogue.DEALS))}"
        )


@cache
def world(half: str = "a", number: int = 0) -> catalogue.Split:
    """A split of a world, dealt once a process."""
    return catalogue.build(half, number)


@cache
def training_images_of(half: str = "a", number: int = 0) -> np.ndarray:
    """Every different training image, drawn once a process: ``uint8`` [n, 64, 64, 3]."""
    return np.stack([products.draw(look) for look in unique_images(world(half, number))])


def seen(name: str, number: int = 0) -> frozenset[str]:
    """Ids of the captions that the model of a half was trained on."""
    entries = world(name, number).entries
    return frozenset(example_id(e.caption) for e in entries if e.copies)


def public_images(n: int) -> np.ndarray:
    """At most n different images of the split that neither half has: the VAE alone was
    trained on them. ``uint8`` [n, 64, 64, 3].
    """
    looks = list(unique_images(world("public")))[:n]
    return np.stack([products.draw(look) for look in looks])


def unique_images(half: catalogue.Split) -> dict[products.Look, int]:
    """Each different training image with its number of training rows."""
    index: dict[products.Look, int] = {}
    for e in half.entries:
        if e.copies:
            index[e.look] = index.get(e.look, 0) + e.copies
    return index


def catalogue_examples(half: catalogue.Split) -> Iterator[Example]:
    """Memorized: MV, TV, RV.

    Not: N (its image was trained on once an epoch) and held-out captions.
    """
    for _, e in half.examples():
        memorized = e.kind in ("MV", "TV", "RV")
        source = "catalogue" if memorized else {"N": "singleton", "held_out": "held_out"}[e.kind]
        yield Example(
            Condition(example_id(e.caption), e.caption), int(memorized), e.kind, e.group, source
        )


def mirror_examples(name: str, number: int = 0) -> list[Example]:
    """The captions of both halves of a world.

    Memorized: what is planted in half ``name``; not: the same kinds of the other half
    (source ``mirror``), the half's own singletons, and what was held out of both
    trainings or seen by the other model alone.
    """
    found = []
    for half in HALVES:
        for e in catalogue_examples(world(half, number)):
            if half == name:
                found.append(e)
            else:
                found.append(
                    replace(e, memorized=0, source="mirror" if e.memorized else "held_out")
                )
    return found
