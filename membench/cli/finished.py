"""Which finished runs a command reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import pandas as pd

from membench.boards.board import selected
from membench.errors import UserError, listed
from membench.plain import say
from membench.runs.finished import MAKE_ONE, Found, read_runs


def chosen(args: argparse.Namespace, verified: bool = False) -> Found:
    """The runs that the arguments ask for. verified: of ``read_runs``.

    Raises :class:`UserError` where none is left.
    """
    for path in args.runs:
        if not os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
            raise UserError(
                f"--runs {path} is not a folder, so there are no finished runs. {MAKE_ONE}"
            )
    found = read_runs(args.runs, verified=verified)
    for problem in found.problems:
        say(f"left out: {problem}")
    if not found.runs:
        raise UserError("none of the run folders could be read, see above")
    named = pd.DataFrame(
        [(run.info["task"], run.info["detector"]) for run in found.runs],
        columns=["task", "detector"],
    )
    kept = selected(named.assign(place=range(len(named))), *asked_for(args))
    return Found([found.runs[i] for i in kept.place], found.problems)


def asked_for(args: argparse.Namespace) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """The tasks and the detectors that are named; None: all."""
    tasks, detectors = args.task, args.detector
    return (
        None if tasks is None else listed(tasks, "--task"),
        None if detectors is None else listed(detectors, "--detector"),
    )


def ended(found: Found, keep_going: bool) -> int:
    """The exit code; 2, with a line, where a folder was left out and that was not
    allowed.
    """
    if not found.problems or keep_going:
        return 0
    many = "1 run folder" if len(found.problems) == 1 else f"{len(found.problems)} run folders"
    say(f"{many} could not be read, see above (--keep-going: exit 0 all the same)")
    return 2
