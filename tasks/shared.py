"""What every task that ships says alike: the two halves of its mini world, and the hash
of its examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.seeds import LARGEST_SEED
from membench.storage.hashing import json_hash
from membench.types import Example

HALVES = ("a", "b")  # of a mini world; a model is named after the half that it saw


def mirror_of(half: str) -> str:
    """The other half's name."""
    return HALVES[1 - HALVES.index(half)]


def world_option(what: str) -> Any:
    """The field ``world`` of a task's options. what: the number is."""
    return field(
        default=0,
        metadata={
            "help": f"mini: {what}; 0: the development world, which ships",
            "min": 0,
            "max": LARGEST_SEED,
        },
    )


def models_option() -> Any:
    """The field ``models``, which :func:`folder_of` reads."""
    return field(
        default="",
        metadata={
            "help": (
                "mini: folder that membench train wrote (a/ and b/), {world}: the world's number;"
                " empty: what ships"
            )
        },
    )


def folder_of(models: str, number: int) -> Path:
    """Where the models of a world lie: the option ``models``, in which ``{world}`` stands
    for its number, so that one file of runs can name several worlds.
    """
    return Path(models.replace("{world}", str(number)))


def rung_folder(folder: Path, step: int) -> Path:
    """Of the weights that a training kept after ``step`` steps."""
    return folder / f"step-{step:05d}"


def refuse_control_of(model: str) -> None:
    """Raises :class:`UserError` where a model is given beside --control, which asks the
    one that ships.
    """
    if model:
        raise UserError(
            "--control and --model exclude each other: the control model is the one that ships"
        )


def examples_hash(examples: Sequence[Example]) -> str:
    """Of ids, labels, kinds, groups and sources, in order: ``hashes["prompts"]`` of a
    :class:`~membench.task.LoadedTask`.
    """
    return json_hash([[e.id, e.memorized, e.kind, e.group, e.source] for e in examples])
