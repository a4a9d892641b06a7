"""``membench reference``: the runs of the reference leaderboard."""

from __future__ import annotations

import argparse

from membench import registry
from membench.cli.common import how_to_run, names_of, settings, what_to_run
from membench.cli.run import executors, quality, run, said

HELP = "run every detector on every task, three seeds"
DESCRIPTION = (
    "Make the runs of the reference leaderboard: every detector on every task, seeds 0, 1 and 2"
    " (results/README.md)."
)
EXAMPLES = ("reference", "reference --control --task cifar10")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = what_to_run(parser, control="on the control models")
    what.add_argument("--detector", metavar="A,B", default="all", help="names (default all)")
    what.add_argument("--task", metavar="A,B", default="all", help="names (default all)")
    what.add_argument("--seeds", metavar="N,N", default="0,1,2", help="default 0,1,2")
    quality(what)
    settings(what, "an option: [DETECTOR.]K=V or TASK.K=V (membench show NAME)")
    how = how_to_run(parser)
    executors(how)
    said(how)


def call(args: argparse.Namespace) -> int:
    return run(
        args,
        names_of(args.detector, registry.detectors(), "detector"),
        names_of(args.task, registry.tasks(), "task"),
    )
