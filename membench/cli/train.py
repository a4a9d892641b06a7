"""``membench train``: a task's models, by its own recipe."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from membench import registry
from membench.cli.common import log, settings, tracker_of
from membench.errors import UserError
from membench.plain import say

HELP = "train a task's models"
DESCRIPTION = (
    "Train a task's models by its own recipe. The same command continues a training that was"
    " stopped."
)
EXAMPLES = (
    "train sd_webster",
    "train cifar10 --labels random --perturb 0.3",
    "train cifar10 --profile full --data-root DATA --subset 256 --duplicate 0.1:20 --labels class",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a name (membench list tasks)")
    parser.add_argument("--profile", default="mini", help="mini (default) or full")
    parser.add_argument(
        "--part", action="append", help="only this part (repeatable; default: all, in order)"
    )
    settings(parser, "a number of the recipe")
    parser.add_argument(
        "--world",
        type=int,
        metavar="N",
        help="the mirror pair that generator seed N draws (0: the development world)",
    )
    told = parser.add_argument_group("what the model is told")
    told.add_argument("--labels", metavar="KIND", help="class (default), random, cluster or none")
    told.add_argument(
        "--perturb",
        type=float,
        metavar="P",
        help="share of labels or captions that are perturbed, anew each time",
    )
    told.add_argument(
        "--caption-dropout",
        type=float,
        metavar="P",
        help="share of captions or labels that are left out, anew each time",
    )
    real = parser.add_argument_group("real data (--profile full)")
    real.add_argument("--data-root", help="folder of the real data set")
    real.add_argument("--subset", type=int, metavar="N", help="train on N of its images")
    real.add_argument(
        "--duplicate",
        action="append",
        metavar="FRACTION:TIMES",
        help="show this share of them more often (repeatable)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--output",
        type=Path,
        default=Path("work"),
        metavar="DIR",
        help="checkpoints and models (default ./work)",
    )
    how.add_argument("--device", help="cpu, cuda, cuda:1 ...")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    how.add_argument("--quiet", action="store_true", help="no progress bars")
    log(how)


def call(args: argparse.Namespace) -> int:
    task = registry.task_of(args.task, args.profile)
    if args.threads is not None:
        if not 1 <= args.threads <= 4096:
            raise UserError(f"--threads {args.threads}: choose 1 to 4096")
        import torch

        torch.set_num_threads(args.threads)
    given = {
        key: getattr(args, key)
        for key in ("data_root", "subset", "duplicate", "labels", "perturb", "world", "device")
    }
    if args.duplicate is not None:
        given["duplicate"] = ",".join(args.duplicate)
    options = [
        *args.options,
        *(f"{key}={value}" for key, value in given.items() if value is not None),
    ]
    if args.caption_dropout is not None:
        # Each recipe names it after what its model is told
        told_of = "label" if task.info.examples == "images" else "caption"
        options.append(f"{told_of}_dropout={args.caption_dropout}")
    with tracker_of(args.log, args.output / "log", "train") as tracker:
        # A task of somebody else's may not know of trackers
        known = {} if tracker is None else {"tracker": tracker}
        task.train(
            args.output, args.part, options, profile=args.profile, progress=not args.quiet, **known
        )
    if line := _next(args, {field.name for field in fields(task.Options)}, task.info.examples):
        say(line)
    return 0


def _next(args: argparse.Namespace, read: Collection[str], examples: str) -> str:
    """The command that asks the models of a whole training by the mini recipe; empty
    for another recipe, whose models the task may refuse. read, examples: the task's
    options, by name, and whether it has prompts or images.
    """
    told = (args.labels, args.perturb, args.caption_dropout)
    changed = args.options or args.part or any(value is not None for value in told)
    if args.profile != "mini" or changed or "models" not in read:
        return ""
    world = f" --set {args.task}.world={args.world}" if args.world else ""
    models = shlex.quote(f"{args.task}.models={args.output}")
    detector = "loss" if examples == "images" else "cfg_norm"
    return f"next: membench run --detector {detector} --task {args.task}{world} --set {models}"
