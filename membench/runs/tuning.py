"""Tuning: each detector's options chosen by the same number of tries, on the
development world.

A try is an ordinary pair of runs, one on each model of the mirror pair, kept under its
own key. The first is the defaults; the others are drawn without replacement from the
grid that the detector names (``Detector.tuning``), in an order that is fixed by a hash.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from membench import registry
from membench.errors import UserError
from membench.options import as_settings, detector_options
from membench.runs.execute import execute, execute_all
from membench.runs.finished import Run
from membench.runs.job import open_task
from membench.runs.spec import Spec
from membench.seeds import seed_of
from membench.storage.files import DamagedFile

HALVES = ("a", "b")


@dataclass(frozen=True)
class Try:
    """One setting of a detector's options. number: 0 is the defaults. runs: on the
    models of halves a and b; empty where it was refused, with the reason.
    """

    spec: Spec
    number: int
    settings: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    refused: str = ""


def tries(spec: Spec, examples: str, count: int) -> list[Try]:
    """``count`` settings of a detector, or all that there are.

    examples: "prompts" or "images", what the task's are. Combinations that the
    detector's options refuse are not counted. Raises :class:`UserError` for a detector
    that names nothing to tune there.
    """
    detector = registry.detectors().load(spec.detector)
    named = detector.tuning.get(examples, {})
    if not named:
        raise UserError(
            f"detector {spec.detector} names nothing to tune on {examples}; sweep its options with"
            " membench ablate"
        )

    def options(settings: Sequence[str]) -> object:
        of_spec = [*spec.options, *settings]
        return detector_options(spec.detector, detector, of_spec, spec.preset, spec.profile)

    set_ = {setting.partition("=")[0].strip() for setting in spec.options} & set(named)
    if set_:
        raise UserError(
            f"option {min(set_)} of {spec.detector} is tuned; leave out its --set, or the detector"
        )
    found = {options(()): Try(spec, 0, ())}
    every = [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]
    order = sorted(range(len(every)), key=lambda i: seed_of(0, "tune", spec.detector, i))
    for i in order:
        if len(found) >= count:
            break
        settings = tuple(as_settings(every[i]))
        with suppress(UserError):  # options that do not go together
            found.setdefault(options(settings), Try(spec, len(found), settings))
    return list(found.values())


def tune(plan: Sequence[Try], out: Path, *, progress: bool) -> list[Try]:
    """The tries with their runs. Raises :class:`UserError` where all are refused."""
    for half in HALVES if len(plan) > 1 else ():
        # Side by side they share evaluations; who is refused, and why, is found below
        with suppress(UserError):
            execute_all([_at(t, half) for t in plan], out, progress=progress, skip=True)
    done = list(_each(plan, out, progress))
    if all(t.refused for t in done):
        raise UserError(f"all {len(done)} tries were refused: {done[0].refused}")
    return done


def _each(plan: Sequence[Try], out: Path, progress: bool) -> Iterator[Try]:
    for i, t in enumerate(plan, 1):
        if progress:
            print(
                f"try {i} of {len(plan)}: {t.spec.detector} {' '.join(t.settings) or 'defaults'}",
                file=sys.stderr,
            )
        try:
            runs = tuple(execute(_at(t, half), out, progress=progress) for half in HALVES)
            yield replace(t, runs=runs)
        except UserError as error:
            if isinstance(error, DamagedFile) or isinstance(error.__cause__, OSError):
                raise  # the disk's refusal, not the detector's
            yield replace(t, refused=" ".join(str(error).split()))


def _at(t: Try, half: str) -> Spec:
    return replace(
        t.spec,
        options=(*t.spec.options, *t.settings),
        task_options=(*t.spec.task_options, f"half={half}"),
    )


def examples_of(spec: Spec) -> str:
    """What the examples of the task are: "prompts" or "images".

    Raises :class:`UserError` for a task that is no mirror pair, or for another world
    than the development world: what is tuned on is not reported on.
    """
    profiles = registry.tasks().load(spec.task).info.profiles
    task = open_task(spec) if "mini" in profiles else None
    if task is None or not hasattr(task.options, "half"):
        lacks = "no profile mini" if task is None else "no option half"
        raise UserError(
            f"tuning takes both halves of a mini task, and {spec.task} has {lacks}. See: membench"
            " list tasks"
        )
    for name in ("half", "world", "models"):
        if any(setting.partition("=")[0].strip() == name for setting in spec.task_options):
            raise UserError(
                f"--set {spec.task}.{name}: tuning takes both halves of the development world, and"
                " what it chooses is reported on others; leave it out"
            )
    return task.info.examples
