"""``membench list``: names of detectors and tasks."""

from __future__ import annotations

import argparse

from membench import registry
from membench.cli.common import plugin

HELP = "names of detectors and tasks"
DESCRIPTION = "List detectors and tasks, a line each."
EXAMPLES = ("list", "list detectors")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("detectors", "tasks"))
    plugin(parser)


def call(args: argparse.Namespace) -> int:
    for kind, known in (("detectors", registry.detectors()), ("tasks", registry.tasks())):
        if args.what in (None, kind):
            if args.what is None:
                print(f"{kind}:")
            for name in known.names():
                print(f"  {name:<19} {known.get(name).summary}")
    return 0
