"""``membench ablate``: options of a detector or a task, or the thresholds of AMS and UMS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench import registry
from membench.cli.common import (
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
from membench.options import describe_options, detector_options, parse_options

if TYPE_CHECKING:
    from membench.runs.spec import Spec

HELP = "sweep options of a detector or task, or thresholds of AMS and UMS"
DESCRIPTION = (
    "Plot AMS and UMS against their thresholds (several detectors), against options of one"
    " detector (--sweep), or against how much a model has memorized (--sweep TASK.rung=1,2: AMS"
    " of attacks, AUROC of detectors by kind of example)."
)
EXAMPLES = (
    "ablate --detector side --task cifar10 --sweep clusters=30,100 --extract-only",
    "ablate --detector side,random --task cifar10 --seeds 0,1,2",
    "ablate --detector random,side --task cifar10 --sweep cifar10.rung=1,2,3,4,5 --set"
    " random.extraction=unconditional --set random.generations=1980 --set side.generations=300"
    " --extract-only --control",
    "ablate --detector loss,clid --task cifar10 --sweep cifar10.rung=1,2,3,4,5 --set images=0",
)
WHERE = Path("results/ablations")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = what_to_run(parser, control="each point on the control model too")
    what.add_argument(
        "--detector",
        required=True,
        metavar="A,B",
        help="names (membench list detectors); just one, to sweep its options",
    )
    what.add_argument("--task", required=True, help="a name (membench list tasks)")
    what.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="K=V,V",
        help="an option and its values; several give their full grid; TASK.option: of the task",
    )
    what.add_argument(
        "--thresholds",
        metavar="GRID",
        help="auto (default), LOW:HIGH:N or X,X,X, where no option is swept",
    )
    what.add_argument(
        "--seeds", default="0", metavar="N,N", help="each point with each seed (default 0)"
    )
    settings(what, "an option, the same at every point")
    how = how_to_run(parser)
    how.add_argument("--quiet", action="store_true", help="no progress bars")
    how.add_argument(
        "--output",
        type=Path,
        metavar="NAME",
        help=(
            "NAME.parquet, .png, .svg and .pdf (default results/ablations/<task>-<detector>-<what"
            " is swept>)"
        ),
    )


def call(args: argparse.Namespace) -> int:
    registry.tasks().get(args.task)
    detectors = names_of(args.detector, registry.detectors(), "detector")
    # Of a full profile the task is told which model is the control
    if args.model and args.control and args.profile == "mini":
        raise UserError(
            "--control and --model exclude each other: the control model is the one that ships"
        )
    if args.sweep and args.thresholds:
        raise UserError(
            "--sweep and --thresholds exclude each other: sweep options, then the thresholds of the"
            " runs that are left"
        )
    of_task = [sweep for sweep in args.sweep if sweep.startswith(f"{args.task}.")]
    if len(of_task) > 1:
        raise UserError("--sweep takes one option of the task; sweep its others apart")
    if args.sweep and len(detectors) > 1 and not of_task:
        raise UserError(
            f"--sweep is for the options of one detector, and --detector names {len(detectors)};"
            f" sweep them apart, or sweep an option of the task: --sweep {args.task}.option=V,V"
        )
    names, seeds = [*detectors, args.task], seeds_of(args.seeds)
    classes = {name: registry.detectors().load(name) for name in detectors}
    presets = presets_of(args.preset, classes)
    options = {name: own_settings(args.options, name, names) for name in detectors}
    for name in detectors:
        detector_options(name, classes[name], options[name], presets[name], args.profile)
    of = registry.task_of(args.task, args.profile).Options
    to_task = task_settings(args, args.task, names)
    parse_options(of, to_task, owner=f"task {args.task}")
    _refuse_unknown(of, f"task {args.task}", [s.partition(".")[2] for s in of_task])
    rest = [sweep for sweep in args.sweep if sweep not in of_task]
    for name in detectors:
        own = own_settings(rest, name, names) if of_task else rest
        _refuse_unknown(classes[name].Options, f"detector {name}", own)
    extract_only = args.extract_only or args.budget is not None
    if of_task and extract_only and not any(cls.attack for cls in classes.values()):
        raise UserError(
            "nothing is to be scored, and none of these is an attack, such as random or side:"
            " leave out --extract-only and --budget"
        )

    from membench.runs.devices import device_of
    from membench.runs.spec import Spec

    args.device = device_of(args.device)
    same = ("task", "profile", "limit", "device", "dtype", "batch_size", "compile", "budget")
    shared: dict[str, Any] = {name: getattr(args, name) for name in same} | {
        "task_options": to_task,
        "extract_only": extract_only,
    }
    specs = [
        Spec(name, options=options[name], preset=presets[name], **shared) for name in detectors
    ]
    models = [False, True] if args.control else [False]
    if of_task:
        return _ladder(args, specs, seeds, models, names, of_task[0])
    return (_options if args.sweep else _thresholds)(args, specs, seeds, models)


def _refuse_unknown(options: type, owner: str, sweeps: Sequence[str]) -> None:
    """Options that are swept and unknown, before torch is imported; their values are
    checked with the grid.
    """
    known = {row.name for row in describe_options(options)}
    for name in (sweep.partition("=")[0].strip() for sweep in sweeps):
        if name and name not in known:
            parse_options(options, [f"{name}="], owner)


def _ladder(
    args: argparse.Namespace,
    specs: Sequence[Spec],
    seeds: Sequence[int],
    models: Sequence[bool],
    names: Sequence[str],
    sweep: str,
) -> int:
    """Attacks and detectors over an option of the task; sweeps of a detector's own options
    make further ones of it.
    """
    from membench.boards.attacks import is_attack
    from membench.boards.base_rate import is_base
    from membench.boards.ladder import NO_BASE, ladder
    from membench.boards.strength import has_auroc, strength
    from membench.reports import strength as told
    from membench.reports.ladder import legend, summary, write
    from membench.reports.plot_files import without_ending
    from membench.reports.terminal import table
    from membench.runs.ladder import climb, values_of
    from membench.runs.sweep import grid

    option, values = values_of(specs[0], sweep.partition(".")[2])
    rest = [text for text in args.sweep if text != sweep]
    variants: list[Spec] = []
    for spec in specs:
        own = own_settings(rest, spec.detector, names)
        points = grid(registry.detectors().load(spec.detector), spec, own)
        variants += [replace(spec, options=(*spec.options, *p.settings)) for p in points]
    rungs = climb(variants, option, values, seeds, models, args.runs, progress=not args.quiet)
    for rung in rungs:
        for name, why in dict.fromkeys(rung.refused):
            print(f"membench: left out at {option}={rung.value}: {name}: {why}", file=sys.stderr)
    runs = [run for rung in rungs for run in rung.runs]
    detectors = "-".join(dict.fromkeys(spec.detector for spec in specs))
    where = without_ending(args.output or WHERE / "-".join([args.task, detectors, option]))
    named = f"{args.task} ({args.profile}): {option}"
    bases: dict[str, float] = {}
    plain, scored = any(map(is_base, runs)), any(map(has_auroc, runs))
    if plain or not scored:
        frame = ladder(rungs, option)
        bases = dict(zip(frame.value, frame.base, strict=True))
        print(table(f"attacks on {named}", summary(frame)))
        print("\n".join(legend(frame)))
        write(frame, where)
        where = where.with_name(f"{where.name}-auroc")
    elif any(map(is_attack, runs)):
        print(f"membench: no table of attacks: {NO_BASE}", file=sys.stderr)
    if scored:
        frame = strength(rungs, option, bases)
        print(table(f"detectors on {named}", told.summary(frame)))
        print(told.NOTE)
        told.write(frame, where)
    return 0


def _options(
    args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]
) -> int:
    """A grid of one detector's options: a run a point, seed and model."""
    from membench.reports.sweep import note, summary, write
    from membench.reports.terminal import table
    from membench.runs.sweep import grid, sweep

    [spec] = specs
    detector = registry.detectors().load(spec.detector)
    points = grid(detector, spec, args.sweep)
    frame = sweep(spec, points, seeds, models, args.runs, progress=not args.quiet)
    swept = ", ".join(points[0].values)
    print(table(f"{spec.detector} on {spec.task} ({spec.profile}): {swept}", summary(frame)))
    print(note(frame))
    where = args.output or WHERE / "-".join([spec.task, spec.detector, *points[0].values])
    write(frame, where, {option.name: option.help for option in describe_options(detector.Options)})
    return 0


def _thresholds(
    args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]
) -> int:
    """AMS and UMS of several detectors over a grid of thresholds; runs that are
    finished are read, others are made first.
    """
    from membench.boards.identity import boards
    from membench.boards.thresholds import flips, over_seeds, parse_grid, sweep_thresholds
    from membench.reports.terminal import table
    from membench.reports.thresholds import sentences, summary, write
    from membench.runs.execute import Skipped, execute_all
    from membench.runs.finished import Run
    from membench.runs.job import open_task

    grid = args.thresholds or "auto"
    # Before any work: a typing mistake must not cost hours
    parse_grid(grid, open_task(specs[0]).info.space)
    runs: list[Run] = []
    skipped: list[Skipped] = []
    every = args.detector == "all"
    for control in models:
        for seed in seeds:
            at = [replace(s, seed=seed, control=control) for s in specs]
            found = execute_all(at, args.runs, progress=not args.quiet, skip=every)
            runs += found.runs
            skipped += found.skipped
    for line in dict.fromkeys(f"left out: {s.detector}: {s.reason}" for s in skipped):
        print(f"membench: {line}", file=sys.stderr)
    for name in dict.fromkeys(run.info["detector"] for run in runs if not run.n_ok):
        print(f"membench: left out: {name} has no images", file=sys.stderr)
    swept = sweep_thresholds(runs, grid)
    settings = over_seeds(swept[swept.form == "cumulative"])
    named = "all" if every else "-".join(s.detector for s in specs)
    where = args.output or WHERE / "-".join([specs[0].task, named, "thresholds"])
    write(swept, settings, where)
    for title, part in boards(settings):
        print(table(title, summary(part)))
    for sentence in sentences(flips(settings)):
        print(sentence)
    return 0
