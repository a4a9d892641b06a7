"""Whether one recipe trained both models of a mirror pair, by their training.json."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from membench.errors import UserError

ELSEWHERE = frozenset({"device", "grid_every"})  # what changes no weight
PLACES = frozenset({"world", "start"})  # in which the recipes of two worlds differ


def one_recipe(model: Path, mirror: Path, but: Collection[str] = ELSEWHERE) -> None:
    """Raises :class:`UserError` where the training.json of a model and of its mirror
    hold different recipes, ``but`` for these numbers: what a detector finds between
    their images would be of the trainings.
    """
    own, other = _recipe(model), _recipe(mirror)
    for name in sorted((set(own) | set(other)) - set(but)):
        if own.get(name) != other.get(name):
            told = [str(recipe.get(name, "not said"))[:40] for recipe in (own, other)]
            raise UserError(
                f"{model} and {mirror} were not trained by one recipe: {name} is {told[0]} and"
                f" {told[1]}"
            )


def recipe_of(file: Path) -> dict[str, Any]:
    """What the recipes of a training.json's model and of another world's have in
    common, if they are one: for the ``provenance`` of a task.
    """
    found = {k: v for k, v in _recipe(file).items() if k not in ELSEWHERE | PLACES}
    return {"recipe": found} if found else {}


def _recipe(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    recipe = told.get("recipe") if isinstance(told, dict) else None
    return recipe if isinstance(recipe, dict) else {}
