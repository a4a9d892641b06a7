"""``membench run``: detectors on tasks."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from membench import registry
from membench.cli.common import (
    TASK_FLAGS,
    executor_of,
    how_to_run,
    names_of,
    own_settings,
    presets_of,
    seeds_of,
    settings,
    task_settings,
    what_to_run,
)
from membench.errors import UserError
from membench.options import detector_options, parse_options

HELP = "run detectors on a task"
DESCRIPTION = (
    "Run detectors on a task and store what they find as Parquet. The same command continues a run"
    " that was stopped."
)
EXAMPLES = (
    "run --detector cfg_norm --task sd_webster",
    "run --detector cfg_norm,flipd --task cifar10 --set cfg_norm.steps=5 --seeds 0,1,2",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    what = what_to_run(
        parser, control="on the control model, which never saw the task's training images"
    )
    what.add_argument(
        "--detector", metavar="A,B", required=True, help="names, or all (membench list detectors)"
    )
    what.add_argument(
        "--task", metavar="A,B", required=True, help="names, or all (membench list tasks)"
    )
    what.add_argument(
        "--seeds",
        metavar="N,N",
        default="0",
        help="all noise is a function of the seed (default 0)",
    )
    settings(what, "an option: [DETECTOR.]K=V or TASK.K=V (membench show NAME)")
    how = how_to_run(parser)
    executors(how)


def executors(how: Any) -> None:
    how.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="ray: several processes, GPUs or machines",
    )
    how.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="of --executor ray (default: one a GPU, or as the cores have room for)",
    )
    how.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of a running Ray cluster, or auto; its machines must share --runs",
    )


def call(args: argparse.Namespace) -> int:
    return run(
        args,
        names_of(args.detector, registry.detectors(), "detector"),
        names_of(args.task, registry.tasks(), "task"),
    )


def run(args: argparse.Namespace, detectors: Sequence[str], tasks: Sequence[str]) -> int:
    """Checks every name and option first: a mistake in the last must not cost the first
    detector its hours.
    """
    seeds, names, every = seeds_of(args.seeds), [*detectors, *tasks], args.detector == "all"
    if len(tasks) > 1 and (
        given := next((key for key in TASK_FLAGS if getattr(args, key) is not None), None)
    ):
        raise UserError(
            f"--{given.replace('_', '-')} is for one task, and --task names {len(tasks)}; run them"
            " apart"
        )
    classes = {name: registry.detectors().load(name) for name in detectors}
    options = {name: own_settings(args.options, name, names) for name in detectors}
    presets = presets_of(args.preset, classes)
    for name in detectors:
        detector_options(name, classes[name], options[name], presets[name], args.profile)
    of_task = {task: task_settings(args, task, names) for task in tasks}
    for task, given_to_task in of_task.items():
        parse_options(registry.tasks().load(task).Options, given_to_task, owner=f"task {task}")

    from membench.api import write_pages
    from membench.boards.board import board
    from membench.reports.output import write_boards
    from membench.reports.run_tables import grid_table, run_table
    from membench.runs.grid import run_grid
    from membench.runs.spec import Spec

    same = ("profile", "limit", "control", "device", "dtype", "batch_size", "compile", "budget")
    shared: dict[str, Any] = {name: getattr(args, name) for name in same}
    shared["extract_only"] = args.extract_only or args.budget is not None
    specs = []
    for task, seed in itertools.product(tasks, seeds):
        given_here = shared | {"task": task, "seed": seed, "task_options": of_task[task]}
        specs.append(
            [
                Spec(name, options=options[name], preset=presets[name], **given_here)
                for name in detectors
            ]
        )
    with executor_of(args) as executor:
        found = run_grid(specs, args.runs, skip=every, progress=not args.quiet, executor=executor)
    write_pages(found.runs)
    if len(seeds) > 1 and found.runs:
        write_boards(board(found.runs, by="seeds"), "table", None)
    else:
        print(run_table(found.runs) if len(tasks) == 1 else grid_table(found))
    # Once for all seeds
    for line in dict.fromkeys(
        f"left out: {s.detector} on {s.task}: {s.reason}" for s in found.skipped
    ):
        print(line, file=sys.stdout if len(tasks) > 1 else sys.stderr)
    return 0
