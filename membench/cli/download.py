"""``membench download``: what a task needs and does not ship."""

from __future__ import annotations

import argparse
from dataclasses import fields

from membench import registry
from membench.cli.common import assets, settings, task_settings
from membench.errors import UserError
from membench.options import parse_options

HELP = "fetch what a task needs and does not ship"
DESCRIPTION = (
    "Fetch models, prompt sets and weights of a task, checked and resumed. What is already"
    " here is left as it is."
)
EXAMPLES = ("download sd_webster", "download sd_webster --offline")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a name (membench list tasks)")
    assets(parser)
    parser.add_argument(
        "--images", action="store_true", help="the ground-truth images of the prompts, too"
    )
    settings(parser, "an option of the task, TASK.K=V (membench show TASK)")
    parser.add_argument(
        "--offline", action="store_true", help="fetch nothing: say what is here and what is missing"
    )


def call(args: argparse.Namespace) -> int:
    task = registry.tasks().load(args.task)
    given = task_settings(args, args.task, [args.task])
    if args.images:
        if "ground_truth" not in {option.name for option in fields(task.Options)}:
            raise UserError(
                f"task {args.task} has no ground-truth images to download; leave --images out"
            )
        given.append("ground_truth=urls")
    from membench.fetching.resources import download

    needed = task(parse_options(task.Options, given, owner=f"task {args.task}")).resources()
    if not needed:
        raise UserError(
            f"task {args.task} has nothing to download: its data and models ship with it, or are"
            f" the user's (membench show {args.task})"
        )
    return download(needed)
