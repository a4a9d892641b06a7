"""Several detectors on tasks that differ in one option, such as how much a model has
memorized: a run each, on the model and its mirror.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from membench.errors import UserError
from membench.options import parse_options
from membench.runs.execute import execute, execute_all
from membench.runs.finished import Run
from membench.runs.job import open_task
from membench.runs.spec import Spec
from membench.runs.sweep import swept_values
from membench.storage.files import DamagedFile


@dataclass(frozen=True)
class Rung:
    """The finished runs at one value of the task's option, and (detector, reason) of each
    that was refused.
    """

    value: str
    runs: Sequence[Run]
    refused: Sequence[tuple[str, str]]


def values_of(spec: Spec, sweep: str) -> tuple[str, list[str]]:
    """Option and values of ``"option=value,value"``, an option of the spec's task.

    Raises :class:`UserError` for what the task refuses, and for an option that is set.
    """
    option, _, text = (part.strip() for part in sweep.partition("="))
    if not option or not text:
        raise UserError(
            f"cannot read --sweep {spec.task}.{sweep!r}; write {spec.task}.option=value,value"
        )
    values = swept_values(text, f"{spec.task}.{option}")
    if any(setting.partition("=")[0].strip() == option for setting in spec.task_options):
        raise UserError(
            f"option {spec.task}.{option} is both swept and set; leave out its --sweep or its --set"
        )
    if len(set(values)) < len(values):
        raise UserError(f"--sweep {spec.task}.{option} names a value twice")
    options = open_task(spec).Options
    for value in values:
        parse_options(options, [*spec.task_options, f"{option}={value}"], f"task {spec.task}")
    return option, values


def climb(
    specs: Sequence[Spec],
    option: str,
    values: Sequence[str],
    seeds: Sequence[int],
    controls: Sequence[bool],
    out: Path,
    *,
    progress: bool,
) -> list[Rung]:
    """Every spec at every value, seed and model; runs that are finished are read.

    A detector that is refused at a rung (nothing is copied there that it could learn
    from) leaves a gap with its reason. Raises :class:`UserError` if all are, and at once
    if the disk refuses.
    """
    rungs = []
    for value in values:
        runs: list[Run] = []
        refused: list[tuple[str, str]] = []
        for control in controls:
            for seed in seeds:
                at = [
                    replace(
                        spec,
                        task_options=(*spec.task_options, f"{option}={value}"),
                        seed=seed,
                        control=control,
                    )
                    for spec in specs
                ]
                if progress:
                    model = " (control model)" if control else ""
                    print(f"{option}={value} seed={seed}{model}", file=sys.stderr)
                made, left = _together(at, out, progress)
                runs += made
                refused += left
        rungs.append(Rung(value, runs, refused))
    if not any(rung.runs for rung in rungs):
        raise UserError("; ".join(dict.fromkeys(why for rung in rungs for _, why in rung.refused)))
    return rungs


def _together(
    specs: Sequence[Spec], out: Path, progress: bool
) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs of specs of one model, which share evaluations; where one is refused, each
    by itself.
    """
    try:
        return execute_all(specs, out, progress=progress).runs, []
    except UserError as error:
        if isinstance(error, DamagedFile) or isinstance(error.__cause__, OSError):
            raise
    runs, refused = [], []
    for spec in specs:
        try:
            runs.append(execute(spec, out, progress=progress))
        except UserError as error:
            refused.append((spec.detector, " ".join(str(error).split())))
    return runs, refused
