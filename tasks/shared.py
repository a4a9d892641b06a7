"""What every task that ships says alike: which model saw which half of its mini world,
and the hash of its examples.
"""

from __future__ import annotations

from collections.abc import Sequence

from membench.errors import UserError
from membench.storage.hashing import json_hash
from membench.types import Example

# Of the shipped models, the half of the mini world that each was trained on
HALVES = {"model": "a", "control": "b"}


def shipped_model(half: str, *, control: bool) -> str:
    """The folder's name of the shipped model that was trained on a half ("a" or "b");
    with ``control``, on the other one.
    """
    return next(name for name, seen in HALVES.items() if (seen == half) is not control)


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
