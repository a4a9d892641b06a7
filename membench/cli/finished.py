"""Which finished runs a command reads."""

from __future__ import annotations

import argparse

import pandas as pd
from tqdm import tqdm

from membench import errors
from membench.boards.groups import GROUPINGS
from membench.boards.rescore import parse_bands, rescored
from membench.errors import UserError
from membench.plain import say
from membench.runs.finished import MAKE_ONE, Found, read_runs


def chosen(args: argparse.Namespace, verified: bool = False) -> Found:
    """The runs that the arguments ask for, under their bands. verified: of ``read_runs``. Raises :class:`UserError` where none is left."""
    bands = parse_bands(args.band)
    if args.groups not in GROUPINGS:
        raise UserError(f"unknown grouping {args.groups!r}.{errors.suggest(args.groups, GROUPINGS)} Choose from {', '.join(GROUPINGS)}")
    for path in args.runs:
        if not path.is_dir():
            raise UserError(f"--runs {path} is no folder, so there are no finished runs. {MAKE_ONE}")
    found = read_runs(args.runs, images="image" in args.groups, verified=verified)
    for problem in found.problems:
        say(f"left out: {problem}")
    if not found.runs:
        raise UserError("none of the run folders could be read, see above")
    named = pd.DataFrame([(run.info["task"], run.info["detector"]) for run in found.runs], columns=["task", "detector"])
    runs = [found.runs[i] for i in asked_for(named, args).index]
    shown = tqdm(runs, desc="thresholds", unit="run", delay=1, leave=False, disable=None)  # None: no bar in a file
    return Found([rescored(run, bands, args.copy) for run in shown], found.problems)


def asked_for(frame: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The rows of the tasks and detectors that are asked for. Raises :class:`UserError` for one that is not among them."""
    for what, names in (("task", args.task), ("detector", args.detector)):
        if names is not None:
            asked, there = [name.strip() for name in names.split(",")], sorted(set(frame[what]))
            if unknown := [name for name in asked if name not in there]:
                close = errors.suggest(unknown[0], there)
                raise UserError(f"--{what} {unknown[0]}: no finished run of it here.{close} There are runs of {', '.join(there)}")
            frame = frame[frame[what].isin(asked)]
    return frame


def told(found: Found, keep_going: bool) -> int:
    """The exit code; 2, with a line, where a folder was left out and that was not allowed."""
    if not found.problems or keep_going:
        return 0
    many = "1 run folder" if len(found.problems) == 1 else f"{len(found.problems)} run folders"
    say(f"{many} could not be read, see above (--keep-going: exit 0 all the same)")
    return 2
