"""``membench``: a thin layer over the Python interface. Imports no torch until a command needs it.

stdout is data, stderr is talk. A user's mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from membench import __version__, registry
from membench.errors import UserError
from membench.options import describe_options, detector_options

FORMATS = ("table", "md", "csv", "json", "parquet")
DTYPES = ("float32", "float16", "bfloat16")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, with the closest names."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def parser() -> Parser:
    top = Parser(prog="membench", description="What has a diffusion model memorized, and which detector tells?")
    top.add_argument("--version", action="version", version=f"membench {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    run = commands.add_parser("run", help="run detectors on a task", description="Run detectors on a task and write Parquet.")
    run.add_argument("--detector", required=True, metavar="A,B", help="names, or 'all' (membench list detectors)")
    run.add_argument("--task", required=True, metavar="A,B", help="names, or 'all' (membench list tasks)")
    run.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="K=V",
        help="an option, [DETECTOR.]KEY=VALUE or TASK.KEY=VALUE (membench show)",
    )
    run.add_argument("--control", action="store_true", help="against the control model, which never saw the task's training images")
    run.add_argument("--seed", type=int, default=0, help="every noise is a function of it (default 0)")
    run.add_argument("--budget", type=int, metavar="N", help="stop extracting at N target evaluations, preparation included; no scores")
    _runs(run)

    ablate = commands.add_parser(
        "ablate",
        help="sweep options of a detector",
        description="Run a detector over a grid of its options and plot AMS and UMS.",
    )
    ablate.add_argument("--detector", required=True, help="a name (membench list detectors)")
    ablate.add_argument("--task", required=True, help="a name (membench list tasks)")
    ablate.add_argument(
        "--sweep", action="append", required=True, metavar="K=V,V", help="an option and its values; several --sweep give their full grid"
    )
    ablate.add_argument("--set", dest="options", action="append", default=[], metavar="K=V", help="an option, the same at every point")
    ablate.add_argument("--seeds", default="0", metavar="N,N", help="each point with each seed (default 0)")
    ablate.add_argument("--control", action="store_true", help="each point on the control model too")
    ablate.add_argument(
        "--save", type=Path, metavar="NAME", help="NAME.parquet, .png and .svg (default results/ablations/<task>-<detector>-<options>)"
    )
    _runs(ablate)

    lister = commands.add_parser("list", help="names of detectors and tasks")
    lister.add_argument("what", nargs="?", choices=("detectors", "tasks"))
    _plugin(lister)

    show = commands.add_parser("show", help="a detector's or task's options and source")
    show.add_argument("name")
    _plugin(show)

    train = commands.add_parser("train", help="train a task's mini models", description="Train a task's mini models, or go on training.")
    train.add_argument("task")
    train.add_argument("--profile", default="mini")
    train.add_argument("--part", action="append", help="only this part (repeatable; default: all, in order)")
    train.add_argument("--data-root", help="folder of the real data set (--profile full)")
    train.add_argument("--subset", type=int, metavar="N", help="train on N of its images (--profile full)")
    train.add_argument("--duplicate", metavar="FRACTION:TIMES", help="show this share of them more often (--profile full)")
    train.add_argument("--labels", metavar="KIND", help="what the model is told: class, random, cluster or none (--profile full)")
    train.add_argument("--device", help="cpu, cuda, cuda:1 ...")
    train.add_argument("--out", type=Path, default=Path("work"), help="checkpoints and models (default ./work)")
    train.add_argument("--threads", type=int, help="CPU threads")
    train.add_argument("--set", dest="options", action="append", default=[], metavar="KEY=VALUE", help="a number of the recipe")
    train.add_argument("--quiet", action="store_true")

    board = commands.add_parser("leaderboard", help="tables of the runs so far")
    board.add_argument("--runs", type=Path, default=Path("results/runs"))
    board.add_argument("--format", choices=FORMATS, default="table")
    board.add_argument("--out", type=Path, help="write to a file (needed for parquet)")
    board.add_argument(
        "--seeds", action="store_true", help="one row for the runs that differ in the seed alone: mean and interval over seeds"
    )
    board.add_argument("--kinds", action="store_true", help="detection of each kind of memorized example, over seeds")

    commands.add_parser("doctor", help="what is installed, which device, which tasks' data and weights are there")
    return top


def _runs(sub: argparse.ArgumentParser) -> None:
    """What every command that makes runs takes."""
    sub.add_argument("--profile", default="mini", help="mini (default): ships with membench")
    sub.add_argument("--preset", metavar="NAME", help="a named set of the detector's options, such as paper (membench show)")
    sub.add_argument("--model", help="folder, or hub id, of a model of the task's kind, in place of the task's own")
    sub.add_argument("--data-root", help="folder of the real data set (--profile full)")
    sub.add_argument("--prompts", help="CSV (column 'prompt') or text file, in place of the task's own")
    sub.add_argument("--limit", type=int, metavar="N", help="only N examples; the run is marked as partial")
    sub.add_argument("--extract-only", action="store_true", help="extract images, score no examples")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    sub.add_argument("--dtype", default="float32", choices=DTYPES)
    sub.add_argument("--batch-size", type=int, default=64, metavar="N", help="images through the network at once (default 64)")
    sub.add_argument("--out", type=Path, default=Path("results/runs"), help="where run folders go (default results/runs)")
    sub.add_argument("--offline", action="store_true", help="never ask the network")
    sub.add_argument("--quiet", action="store_true", help="no progress bars")
    _plugin(sub)


def _plugin(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="a file with a detector of your own")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        args = parser().parse_args(argv)
        if getattr(args, "offline", False):  # the hub reads it when it is imported
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        for path in getattr(args, "plugin", []):
            registry.load_plugin(path)
        return COMMANDS[args.command](args)
    except UserError as error:
        print(f"membench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `membench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("membench: stopped; what is finished is kept, and the same command continues", file=sys.stderr)
        return 130


# ----------------------------------------------------------------------------------------------- commands


def _run(args: argparse.Namespace) -> int:
    known, tasks = _named(args.detector, registry.detectors(), "detector"), _named(args.task, registry.tasks(), "task")
    every = args.detector == "all"
    if len(tasks) > 1 and (given := next((key for key in ("model", "prompts", "data_root") if getattr(args, key) is not None), None)):
        raise UserError(f"--{given.replace('_', '-')} is for one task, and --task names {len(tasks)}; run them apart")
    # Before any work: a typing mistake in the last name or option must not cost the first detector its hours.
    classes = {name: registry.detectors().load(name) for name in known}
    options = {name: _own(args.options, name, [*known, *tasks]) for name in known}
    presets = {name: args.preset for name in known if args.preset in getattr(classes[name], "presets", {})} or dict.fromkeys(
        known, args.preset
    )
    for name in known:
        detector_options(name, classes[name], options[name], presets.get(name), args.profile)
    from membench import grid, leaderboard
    from membench.runner import Spec

    same = ("profile", "seed", "limit", "control", "device", "dtype", "batch_size", "budget")
    spec: dict[str, Any] = {name: getattr(args, name) for name in same}
    spec["extract_only"] = args.extract_only or args.budget is not None
    specs = []
    for task in tasks:
        spec |= {"task": task, "task_options": _task_options(args, task, [*known, *tasks])}
        specs.append([Spec(name, options=options[name], preset=presets.get(name), **spec) for name in known])
    found = grid.run_grid(specs, args.out, skip=every, progress=not args.quiet)
    print(leaderboard.run_table(found.runs) if len(tasks) == 1 else grid.grid_table(found))
    for line in grid.skipped_lines(found):
        print(line, file=sys.stdout if len(tasks) > 1 else sys.stderr)
    return 0


def _named(text: str, known: registry.Registry, kind: str) -> list[str]:
    """The names of a comma-separated list, or all of them. Raises :class:`UserError` for an unknown one."""
    names = known.names() if text == "all" else list(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))
    if not names:
        raise UserError(f"--{kind} names no {kind}. See: membench list {kind}s")
    for name in names:
        known.get(name)
    return names


def _own(settings: Sequence[str], name: str, names: Sequence[str], *, unscoped: bool = True) -> list[str]:
    """The settings of one detector, or of the task: ``key=value`` is for all detectors, ``name.key=value`` for one name."""
    mine = []
    for setting in settings:
        owner, dot, rest = setting.partition(".")
        scoped = bool(dot) and "=" not in owner
        if scoped and owner not in names:
            raise UserError(f"--set {setting}: {owner!r} is none of the names of this run ({', '.join(names)})")
        if owner == name if scoped else unscoped:
            mine.append(rest if scoped else setting)
    return mine


def _task_options(args: argparse.Namespace, task: str, names: Sequence[str]) -> list[str]:
    given = [f"{key}={value}" for key in ("model", "prompts", "data_root") if (value := getattr(args, key)) is not None]
    return given + _own(args.options, task, names, unscoped=False)


def _ablate(args: argparse.Namespace) -> int:
    detector, names = registry.detectors().load(args.detector), [args.detector, args.task]
    registry.tasks().get(args.task)
    if args.model and args.control and args.profile == "mini":  # of a full profile the task is told which model is the control
        raise UserError("--control and --model exclude each other: the control model is the one that ships")
    seeds = [int(s) if s.strip().isdecimal() else None for s in args.seeds.split(",")]
    if None in seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {args.seeds!r}: it must be different whole numbers separated by commas, such as 0,1,2")
    from membench import ablate
    from membench.printing import table
    from membench.runner import Spec

    task_options = _task_options(args, args.task, names)
    same = ("task", "profile", "limit", "device", "dtype", "batch_size", "preset", "extract_only")
    options = _own(args.options, args.detector, names)
    spec = Spec(args.detector, options=options, task_options=task_options, **{name: getattr(args, name) for name in same})
    points = ablate.grid(detector, spec, args.sweep)
    models = [False, True] if args.control else [False]
    frame = ablate.sweep(spec, points, [s for s in seeds if s is not None], models, args.out, progress=not args.quiet)
    swept = ", ".join(points[0].values)
    print(table(f"{args.detector} on {args.task} ({args.profile}): {swept}", ablate.summary(frame)))
    save = args.save or Path("results/ablations") / "-".join([args.task, args.detector, *points[0].values])
    ablate.write(frame, save, {option.name: option.help for option in describe_options(detector.Options)})
    return 0


def _list(args: argparse.Namespace) -> int:
    for kind, known in (("detectors", registry.detectors()), ("tasks", registry.tasks())):
        if args.what in (None, kind):
            if args.what is None:
                print(f"{kind}:")
            for name in known.names():
                print(f"  {name:<14} {known.get(name).summary}")
    return 0


def _show(args: argparse.Namespace) -> int:
    known = registry.detectors() if args.name in registry.detectors().names() else registry.tasks()
    if args.name not in known.names():
        raise registry.unknown_name("detector or task", args.name, [*registry.detectors().names(), *known.names()], "membench list")
    entry = known.get(args.name)
    found: Any = known.load(args.name)
    version = found.info.version if hasattr(found, "info") else found.version
    print(f"{args.name}: {entry.summary}\nfrom {entry.target} ({entry.origin}), version {version}\n")
    rows = describe_options(found.Options)
    width = [max((len(str(row[i])) for row in rows), default=0) for i in range(3)]
    print("options (--set key=value):" if hasattr(found, "access") else f"options (--set {args.name}.key=value):")
    for name, kind, default, text in rows:
        print(f"  {name:<{width[0]}}  {kind:<{width[1]}}  {default!s:<{width[2]}}  {text}")
    for preset, values in getattr(found, "presets", {}).items():
        shown = " ".join(f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in values.items())
        print(f"\npreset {preset} (--preset {preset}): {shown or 'the defaults above'}")
    if hasattr(found, "info"):
        space = found.info.space
        print(f"\nprofiles: {', '.join(found.info.profiles)}\nsampling: {dict(found.info.sampling)}")
        print(f"similarity: {space.id}, a copy is {'>=' if space.higher_is_closer else '<'} {space.copy} ({space.source})")
        print("bands: " + ", ".join(f"{b.name} [{b.low}, {b.high})" for b in space.bands))
    return 0


def _train(args: argparse.Namespace) -> int:
    entry = registry.tasks().get(args.task)
    task = registry.tasks().load(args.task)
    if args.profile not in task.info.profiles:
        raise registry.unknown_name("profile", args.profile, task.info.profiles, f"membench show {args.task}")
    if not hasattr(task, "train"):
        raise UserError(f"task {args.task} ({entry.origin}) has no training recipe")
    if args.threads is not None:
        import torch

        if args.threads < 1:
            raise UserError(f"--threads {args.threads}: it must be at least 1")
        torch.set_num_threads(args.threads)
    given = {key: getattr(args, key) for key in ("data_root", "subset", "duplicate", "labels", "device")}
    options = [*args.options, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    task.train(args.out, args.part, options, profile=args.profile, progress=not args.quiet)
    return 0


def _leaderboard(args: argparse.Namespace) -> int:
    from membench import leaderboard

    frame = leaderboard.collect_kinds(args.runs) if args.kinds else leaderboard.collect(args.runs)
    leaderboard.write(frame, args.format, args.out, seeds=args.seeds or args.kinds)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from membench import doctor

    return doctor.main()


COMMANDS = {"run": _run, "ablate": _ablate, "list": _list, "show": _show, "train": _train, "leaderboard": _leaderboard, "doctor": _doctor}
