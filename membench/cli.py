"""``membench``: a thin layer over the Python interface. Imports no torch until a command needs it.

stdout is data, stderr is talk. A user's mistake is one line on stderr (a list of what is missing: a line each) and exit code 2.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from membench import registry
from membench.arguments import parser
from membench.errors import UserError
from membench.options import describe_options, detector_options, parse_options

if TYPE_CHECKING:
    from membench.executor import Executor

# Arguments that are options of the task, under the same name.
TASK_FLAGS = ("model", "prompts", "negatives", "data_root")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        args = parser().parse_args(argv)
        if getattr(args, "offline", False):  # before the hub's library is imported, which reads it then; membench reads it at each use
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
        for path in getattr(args, "plugin", []):
            registry.load_plugin(path)
        return COMMANDS[args.command](args)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"membench: {line}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        print("membench: out of memory on the device: set a smaller --batch-size; what is finished is kept", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `membench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("membench: stopped; what is finished is kept, and the same command continues", file=sys.stderr)
        return 130


# ----------------------------------------------------------------------------------------------- commands


def _run(args: argparse.Namespace) -> int:
    if args.preset == "leaderboard":  # the reference leaderboard: results/README.md
        args.preset, args.detector, args.task = None, args.detector or "all", args.task or "all"
        args.seeds = args.seeds or "0,1,2"
    if missing := [f"--{name}" for name in ("detector", "task") if getattr(args, name) is None]:
        raise UserError(f"run needs {' and '.join(missing)}. See: membench list")
    known, tasks = _named(args.detector, registry.detectors(), "detector"), _named(args.task, registry.tasks(), "task")
    seeds = [args.seed] if args.seeds is None else _seeds(args.seeds)
    every = args.detector == "all"
    if len(tasks) > 1 and (given := next((key for key in TASK_FLAGS if getattr(args, key) is not None), None)):
        raise UserError(f"--{given.replace('_', '-')} is for one task, and --task names {len(tasks)}; run them apart")
    # Before any work: a typing mistake in the last name or option must not cost the first detector its hours.
    classes = {name: registry.detectors().load(name) for name in known}
    options = {name: _own(args.options, name, [*known, *tasks]) for name in known}
    presets = _presets(args.preset, classes)
    for name in known:
        detector_options(name, classes[name], options[name], presets[name], args.profile)
    from membench import grid, leaderboard
    from membench.runner import Spec

    same = ("profile", "limit", "control", "device", "dtype", "batch_size", "compile", "budget")
    spec: dict[str, Any] = {name: getattr(args, name) for name in same}
    spec["extract_only"] = args.extract_only or args.budget is not None
    specs = []
    for task, seed in itertools.product(tasks, seeds):
        spec |= {"task": task, "seed": seed, "task_options": _task_options(args, task, [*known, *tasks])}
        specs.append([Spec(name, options=options[name], preset=presets[name], **spec) for name in known])
    with _executor(args) as executor:
        found = grid.run_grid(specs, args.out, skip=every, progress=not args.quiet, executor=executor)
    if len(seeds) > 1 and found.runs:
        leaderboard.write(leaderboard.over_seeds(leaderboard.collect(found.runs), found.runs), "table", None, seeds=True)
    else:
        print(leaderboard.run_table(found.runs) if len(tasks) == 1 else grid.grid_table(found))
    for line in dict.fromkeys(grid.skipped_lines(found)):  # once for all seeds
        print(line, file=sys.stdout if len(tasks) > 1 else sys.stderr)
    return 0


def _executor(args: argparse.Namespace) -> AbstractContextManager[Executor | None]:
    """Who computes the shards; None: this process. Raises :class:`UserError` for options of an executor that was not chosen."""
    if args.executor == "local":
        if given := [f"--{name}" for name in ("workers", "address") if getattr(args, name) is not None]:
            raise UserError(f"{given[0]} is for --executor ray; add that, or leave {given[0]} out")
        return nullcontext()
    from membench.ray_executor import RayPool

    return RayPool(args.workers, address=args.address, device=args.device, plugins=args.plugin)


def _seeds(text: str) -> list[int]:
    """Raises :class:`UserError` for a list of seeds that is not one."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UserError(f"--seeds {text!r}: it must be different whole numbers separated by commas, such as 0,1,2")
    return [int(word) for word in words]


def _presets(preset: str | None, classes: Mapping[str, Any]) -> dict[str, str | None]:
    """The preset of each detector: of those that have it, or, where none has, of all, so that the first is refused."""
    owners = [name for name, of in classes.items() if preset in getattr(of, "presets", {})] or list(classes)
    return {name: preset if name in owners else None for name in classes}


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
    given = [f"{key}={value}" for key in TASK_FLAGS if (value := getattr(args, key, None)) is not None]
    return given + _own(args.options, task, names, unscoped=False)


def _ablate(args: argparse.Namespace) -> int:
    registry.tasks().get(args.task)
    detectors = _named(args.detector, registry.detectors(), "detector")
    if args.model and args.control and args.profile == "mini":  # of a full profile the task is told which model is the control
        raise UserError("--control and --model exclude each other: the control model is the one that ships")
    if args.sweep and args.thresholds:
        raise UserError("--sweep and --thresholds exclude each other: sweep options, then the thresholds of the runs that are left")
    if args.sweep and len(detectors) > 1:
        raise UserError(f"--sweep is for the options of one detector, and --detector names {len(detectors)}; sweep them apart")
    from membench.ablate_commands import sweep_options, sweep_thresholds
    from membench.runner import Spec

    names = [*detectors, args.task]
    presets = _presets(args.preset, {name: registry.detectors().load(name) for name in detectors})
    same = ("task", "profile", "limit", "device", "dtype", "batch_size", "compile", "budget")
    spec: dict[str, Any] = {name: getattr(args, name) for name in same} | {"task_options": _task_options(args, args.task, names)}
    spec["extract_only"] = args.extract_only or args.budget is not None
    specs = [Spec(name, options=_own(args.options, name, names), preset=presets[name], **spec) for name in detectors]
    models = [False, True] if args.control else [False]
    return (sweep_options if args.sweep else sweep_thresholds)(args, specs, _seeds(args.seeds), models)


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
    given = {key: getattr(args, key) for key in ("data_root", "subset", "duplicate", "labels", "world", "device")}
    options = [*args.options, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    task.train(args.out, args.part, options, profile=args.profile, progress=not args.quiet)
    return 0


def _download(args: argparse.Namespace) -> int:
    task = registry.tasks().load(args.task)
    if not hasattr(task, "resources"):
        raise UserError(
            f"task {args.task} has nothing to download: its data and models ship with it, or are the user's (membench show {args.task})"
        )
    settings = _task_options(args, args.task, [args.task])
    if args.images:
        if "ground_truth" not in {option.name for option in fields(task.Options)}:
            raise UserError(f"task {args.task} has no ground-truth images to download; leave --images out")
        settings.append("ground_truth=urls")
    from membench.fetching.resources import download

    return download(task(parse_options(task.Options, settings, owner=f"task {args.task}")).resources())


def _leaderboard(args: argparse.Namespace) -> int:
    from membench.board_commands import leaderboard

    return leaderboard(args)


def _report(args: argparse.Namespace) -> int:
    from membench.board_commands import report

    return report(args)


def _doctor(args: argparse.Namespace) -> int:
    from membench import doctor

    return doctor.main()


COMMANDS = {
    "run": _run,
    "ablate": _ablate,
    "list": _list,
    "show": _show,
    "train": _train,
    "download": _download,
    "leaderboard": _leaderboard,
    "report": _report,
    "doctor": _doctor,
}
