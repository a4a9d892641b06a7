"""``membench list``: names of detectors and tasks."""

from __future__ import annotations

import argparse
import json

from membench import registry
from membench.cli.common import as_data, plugin
from membench.reports.lines import entry, width

HELP = "names of detectors and tasks"
DESCRIPTION = "List detectors and tasks, each with what it is."
EXAMPLES = ("list", "list detectors")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("detectors", "tasks"))
    as_data(parser)
    plugin(parser)


def call(args: argparse.Namespace) -> int:
    kinds = {"detectors": registry.detectors(), "tasks": registry.tasks()}
    shown = {kind: known for kind, known in kinds.items() if args.what in (None, kind)}
    if args.format == "json":
        found = {
            kind: {name: known.get(name).summary for name in known.names()}
            for kind, known in shown.items()
        }
        print(json.dumps(found, indent=1))
        return 0
    for kind, known in shown.items():
        if args.what is None:
            print(f"{kind}:")
        for name in known.names():
            print(entry(f"  {name}", known.get(name).summary, width(), 22))
    return 0
