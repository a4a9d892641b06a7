"""``membench run``: detectors on tasks."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench import registry
from membench.cli.common import (
    TASK_FLAGS,
    executor_of,
    how_to_run,
    log,
    names_of,
    own_settings,
    presets_of,
    seeds_of,
    settings,
    task_settings,
    tracker_of,
    what_to_run,
)
from membench.errors import UserError, listed
from membench.options import detector_options, parse_options

if TYPE_CHECKING:
    from membench.runs.execute import Skipped
    from membench.runs.spec import Spec

HELP = "run detectors on a task"
DESCRIPTION = (
    "Run detectors on a task and store what they find as Parquet. The same command continues a run"
    " that was stopped."
)
EXAMPLES = (
    "run --detector cfg_norm --task sd_webster",
    "run --detector cfg_norm,flipd --task cifar10 --set cfg_norm.steps=5 --seeds 0,1,2",
    "run --config runs.yaml --dry-run",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    what = what_to_run(
        parser, control="on the control model, which never saw the task's training images"
    )
    parser.set_defaults(profile=None)  # so that one beside --config can be refused
    what.add_argument("--detector", metavar="A,B", help="names, or all (membench list detectors)")
    what.add_argument("--task", metavar="A,B", help="names, or all (membench list tasks)")
    what.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="in place of both: detectors, tasks, options and seeds from YAML or TOML",
    )
    what.add_argument(
        "--seeds",
        metavar="N,N",
        default="0",
        help="all noise is a function of the seed (default 0)",
    )
    quality(what)
    settings(what, "an option: [DETECTOR.]K=V or TASK.K=V (membench show NAME)")
    how = how_to_run(parser)
    executors(how)
    said(how)


def quality(what: Any) -> None:
    what.add_argument(
        "--quality",
        metavar="A,B",
        help=(
            "compare each run's images with training and held-out images by these features:"
            " bottleneck, pixels, clip:MODEL:FILE, sscd:FILE, sscd-int8; classifier: by what one"
            " learns from them; finished runs too"
        ),
    )


def said(how: Any) -> None:
    """How much a command that makes runs prints at its end."""
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="say what the runs would take, timed on a few examples, and stop",
    )
    how.add_argument("--quiet", action="store_true", help="print nothing but the runs' folders")
    how.add_argument("--verbose", action="store_true", help="every table, and what each part cost")
    how.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="json: paths, settings and metrics as data",
    )
    log(how)


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
        help="for --executor ray (default: one per GPU, or as many as the cores allow)",
    )
    how.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of a running Ray cluster, or auto; its machines must share --runs",
    )


def call(args: argparse.Namespace) -> int:
    if args.config is not None:
        return run_config(args)
    if args.profile is None:
        args.profile = "mini"
    for name in ("detector", "task"):
        if getattr(args, name) is None:
            raise UserError(f"--{name} is required, or --config. See: membench run --help")
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
        # Of all detectors, what does not suit a task is left out
        known = registry.tasks().load(task) if every else registry.task_of(task, args.profile)
        parse_options(known.Options, given_to_task, owner=f"task {task}")

    from membench.runs.devices import device_of
    from membench.runs.spec import Spec

    args.device = device_of(args.device)
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
    return run_specs(args, specs, skip=every)


def run_config(args: argparse.Namespace) -> int:
    """Runs what a file says; flags that change no number are for all of it."""
    from membench.runs.config import read_config
    from membench.runs.devices import device_of

    given = ("detector", "task", "profile", "preset", "limit", "budget", *TASK_FLAGS)
    if named := [f"--{n.replace('_', '-')}" for n in given if getattr(args, n) is not None]:
        raise UserError(f"{named[0]} and --config exclude each other: write it into {args.config}")
    if args.options or args.control or args.extract_only or args.seeds != "0":
        raise UserError(
            "--set, --control, --extract-only and --seeds exclude --config: write them into"
            f" {args.config}"
        )
    read_config(args.config)  # before torch is asked for a device
    args.device = device_of(args.device)
    how = {name: getattr(args, name) for name in ("device", "dtype", "batch_size", "compile")}
    return run_specs(args, read_config(args.config, **how), skip=False)


def run_specs(args: argparse.Namespace, specs: Sequence[Sequence[Spec]], *, skip: bool) -> int:
    """Runs specs, a list for each task and seed, and prints what came out. skip: leave
    out detectors that do not suit, in place of a refusal.
    """
    from membench.api import write_pages
    from membench.boards.board import board
    from membench.reports.beside_published import beside_published
    from membench.reports.grid_table import grid_table
    from membench.reports.lines import width
    from membench.reports.output import write_boards
    from membench.reports.run_end import as_json, run_end
    from membench.reports.run_tables import run_table
    from membench.runs.grid import run_grid
    from membench.runs.quality import check_names

    features = listed(args.quality, "--quality") if args.quality else []
    check_names(features)
    seeds = {spec.seed for of_task in specs for spec in of_task}
    tasks = {spec.task for of_task in specs for spec in of_task}
    if args.dry_run:
        return _priced(args, specs, skip=skip)
    with (
        tracker_of(args.log, args.runs.parent / "log", "run") as tracker,
        executor_of(args) as executor,
    ):
        found = run_grid(
            specs,
            args.runs,
            skip=skip,
            progress=not args.quiet,
            executor=executor,
            quality=features,
            tracker=tracker,
        )
    write_pages(found.runs)
    if args.format == "json":
        print(as_json(found.runs))
    elif args.quiet:
        sys.stdout.write("".join(f"{run.path}\n" for run in found.runs))
    elif args.verbose and len(seeds) > 1 and found.runs:
        write_boards(board(found.runs, by="seeds"), "table", None, wide=True)
    elif args.verbose:
        print(run_table(found.runs) if len(tasks) == 1 else grid_table(found))
    elif found.runs:
        sys.stdout.write(run_end(found.runs, args.runs, width()))
    if args.format != "json" and not args.quiet:
        sys.stdout.write(beside_published(found.runs, width()))
    _tell_left_out(found.skipped)
    return 0


def _tell_left_out(skipped: Sequence[Skipped]) -> None:
    """Once for all seeds."""
    for line in dict.fromkeys(f"left out: {s.detector} on {s.task}: {s.reason}" for s in skipped):
        print(line, file=sys.stderr)


def _priced(args: argparse.Namespace, specs: Sequence[Sequence[Spec]], *, skip: bool) -> int:
    """Prints what the runs would take. specs: a list for each task and seed; those that
    differ in the seed alone are timed once. skip: of :func:`run_specs`.
    """
    from membench.plain import say
    from membench.reports.lines import width
    from membench.reports.price_table import price_json, price_table
    from membench.runs.devices import device_line
    from membench.runs.price import prices

    seeds: dict[str, list[int]] = {}
    first: dict[str, Sequence[Spec]] = {}
    for of_task in specs:
        same = repr([replace(spec, seed=0) for spec in of_task])
        seeds.setdefault(same, []).append(of_task[0].seed)
        first.setdefault(same, of_task)
    skipped: list[Skipped] = []
    how: dict[str, Any] = {"progress": not args.quiet, "skipped": skipped if skip else None}
    found = [
        price
        for same, of_task in first.items()
        for price in prices(of_task, args.runs, seeds[same], **how)
    ]
    if not args.quiet and args.format == "table":
        say(device_line(args.device, args.dtype))
    if args.format == "json":
        sys.stdout.write(price_json(found))
    elif found:
        sys.stdout.write(price_table(found, width()))
    _tell_left_out(skipped)
    return 0
