"""Whether runs are there on both models of each mirror pair, so that a board of mirror
pairs shows them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from membench.boards.counterparts import HALVES, is_half, other_model
from membench.boards.identity import passed
from membench.boards.mirror import half_of, setting
from membench.errors import UserError
from membench.runs.finished import Run


def board_of(runs: Sequence[Run]) -> Literal["mirror", "seeds"]:
    """Which board shows them. Raises :class:`UserError` for half a mirror pair."""
    halves: list[Run] = []
    others: list[Run] = []
    for run in runs:
        (halves if run.info["profile"] == "mini" and is_half(run) else others).append(run)
    if not halves:
        return "seeds"
    if others:
        raise UserError(
            f"{halves[0].path} is half of a mirror pair and {others[0].path} is not: they are of"
            " different boards; submit them apart, each with another --output"
        )
    places: dict[tuple[str, int, str], Run] = {}
    for run in halves:
        place = (setting(run.info), run.info["seed"], half_of(run))
        if place in places:
            raise UserError(
                f"{places[place].path} and {run.path} are of one half, seed and setting, and of"
                " different models or data; name one of them"
            )
        places[place] = run
    for (shared, seed, half), run in places.items():
        other = places.get((shared, seed, HALVES[half]))
        if other is None:
            raise UserError(_alone(run, halves))
        models = {r.info["key_parts"]["hashes"]["weights"] for r in (run, other)}
        if len(models) == 1:
            raise UserError(
                f"{run.path} and {other.path} say that they are of two halves, and are of one model"
                f" ({models.pop()[:8]}); delete the edited one and make it again"
            )
    return "mirror"


def _alone(run: Run, runs: Sequence[Run]) -> str:
    """What to say of a run without its counterpart."""
    for other in runs:
        if half_of(other) != half_of(run) and _but_examples(other) == _but_examples(run):
            return (
                f"{run.path} and {other.path} are of both halves, and scored other examples, so"
                " they are no mirror of each other; leave out --set"
                f" {run.info['task']}.examples, and make both runs again"
            )
    return (
        f"{run.path} has no counterpart on the other model of its mirror pair, with the same"
        f" options and seed; make it and name both: {other_model(run)}"
    )


def _but_examples(run: Run) -> tuple[str, int]:
    """All that both halves have in common, but the examples."""
    parts = {k: v for k, v in run.info["key_parts"].items() if k != "examples"}
    kept = {"key_parts": parts, "task_options_passed": passed(run.info, "examples")}
    info = {**run.info, **kept}
    return setting(info), run.info["seed"]
