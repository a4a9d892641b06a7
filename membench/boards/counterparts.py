"""The same run on the other model: on the control model, or on the other half of a
mirror pair.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from membench.boards.control import control_command, run_words, takes
from membench.boards.identity import given, pair_key, passed
from membench.boards.mirror import half_in, half_of, setting
from membench.errors import UserError
from membench.runs.finished import Run, load
from membench.runs.stored import read_info

HALVES = {"a": "b", "b": "a"}


def counterparts(runs: Sequence[Run]) -> list[Run]:
    """Finished runs that ask the other model what these asked theirs, found beside them
    (``<task>/<profile>/<detector>/``); without PNG bytes. Folders that cannot be read
    are left out, and so are runs that ask what one of these asked of a third model, on
    which nothing of these depends.
    """
    own = {run.path.resolve() for run in runs}
    found = []
    for folder in sorted({run.path.parent for run in runs}):
        for path in sorted(file.parent for file in folder.glob("*/run.json")):
            if path.resolve() in own:
                continue
            try:
                info = read_info(path)
                if info.get("status") in ("complete", "partial") and any(
                    _is_other(info, run.info) for run in runs
                ):
                    found.append(load(path, verified=False))
            except UserError:
                continue
    return found


def _is_other(info: Mapping[str, Any], of: Mapping[str, Any]) -> bool:
    """Whether a run is of the other model: the control of the model, or the reverse, or
    the other half. Of the same kind and half it is of a third one, or of another seed.
    """
    if info["control"] == of["control"] and half_in(info) == half_in(of):
        return False
    return pair_key(info) == pair_key(of) or setting(info) == setting(of)


def is_half(run: Run) -> bool:
    """Whether the run's examples are training images or prompts of two halves, each of
    which another model has seen. Of prompts of one's own nobody knows that: their labels
    are the same for both models.
    """
    info = run.info
    generated = run.scores.similarity.notna().any()
    own = generated or given(info, "prompts")
    return takes(info["task"], "half") and not own and not info["control"]


def other_model(run: Run) -> str:
    """The command of the run's counterpart."""
    info: Mapping[str, Any] = run.info
    if not is_half(run):
        return control_command(info)
    options = [*passed(info, "half"), f"half={HALVES[half_of(run)]}"]
    return shlex.join(run_words({**info, "task_options_passed": options}))
