"""``membench show``: a detector's or task's options and source."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from membench import registry
from membench.cli.common import as_data, plugin
from membench.errors import UserError, unknown_name
from membench.options import OptionInfo, describe_options
from membench.reports.lines import entry, folded, width

HELP = "options and source of a detector or task"
DESCRIPTION = "Show what a detector or task is, its options with their defaults, and its presets."
EXAMPLES = ("show cfg_norm", "show sd_webster", "show task cifar10")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="+", help="a name (membench list); task NAME: what can be ablated, too"
    )
    as_data(parser)
    plugin(parser)


def call(args: argparse.Namespace) -> int:
    of_detectors, of_tasks = registry.detectors(), registry.tasks()
    *kind, name = args.name
    if kind not in ([], ["task"], ["detector"]):
        raise UserError(f"show takes one name, not {' '.join(args.name)!r}")
    known = of_detectors if name in of_detectors.names() else of_tasks
    known = {"task": of_tasks, "detector": of_detectors}[kind[0]] if kind else known
    if name not in known.names():
        searched = [known] if kind else [of_detectors, of_tasks]
        choices = [choice for one in searched for choice in one.names()]
        hint = f"membench list; {registry.of_ones_own(*searched)}"
        raise unknown_name(kind[0] if kind else "detector or task", name, choices, hint)
    listed, is_detector = known.get(name), known is of_detectors
    found: Any = known.load(name)
    version = found.version if is_detector else found.info.version
    rows = describe_options(found.Options)
    if args.format == "json":
        print(json.dumps(_data(name, listed, found, version, rows, is_detector), indent=1))
        return 0
    room = width()
    about = f"{name}: {listed.summary}"
    print("\n".join([*folded(about, room), *folded(_origin(listed, version), room), ""]))
    print(f"options (--set {'' if is_detector else name + '.'}key=value):")
    _options(rows, room)
    if is_detector:
        for preset, values in found.presets.items():
            shown = " ".join(
                f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
                for k, v in values.items()
            )
            text = f"preset {preset} (--preset {preset}): {shown or 'the defaults above'}"
            print("\n" + "\n".join(folded(text, room)))
        return 0
    print("\n" + "\n".join(line for text in _of_task(found) for line in folded(text, room)))
    if kind:
        print("\nwhat can be ablated (membench ablate --sweep OPTION=V,V):")
        for detector in of_detectors.names():
            names = [row.name for row in describe_options(of_detectors.load(detector).Options)]
            print(entry(f"  {detector}", ", ".join(names) or "(no options)", room, 22))
    return 0


def _origin(listed: registry.Entry, version: int) -> str:
    return f"from {listed.target} ({listed.origin}), version {version}"


def _options(rows: Sequence[OptionInfo], room: int | None) -> None:
    # An empty default has to be seen; the help of an option says what empty means
    told_of = [(row[0], row[1], _typed(row[2]) or "empty", row[3]) for row in rows]
    width_of = [max((len(row[i]) for row in told_of), default=0) for i in range(3)]
    indent = sum(width_of) + 8
    for name, kind, default, text in told_of:
        if room is None or room >= indent + 30:
            head = f"  {name:<{width_of[0]}}  {kind:<{width_of[1]}}  {default:<{width_of[2]}}  "
            print(entry(head.rstrip(), text, room, indent))
        else:  # help below, and a long list of choices folded
            told = f"{kind}; default {default}" + (f"; {text}" if text else "")
            print(entry(f"  {name}", told, room, 24))


def _typed(value: object) -> str:
    """As --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _of_task(found: Any) -> list[str]:
    space = found.info.space
    return [
        f"profiles: {', '.join(found.info.profiles)}",
        "sampling: " + ", ".join(f"{name} {value}" for name, value in found.info.sampling.items()),
        f"similarity: {space.id}, a copy is {'>=' if space.higher_is_closer else '<='} {space.copy}"
        f" ({space.source})",
        "bands: " + ", ".join(f"{b.name} [{b.low}, {b.high})" for b in space.bands),
    ]


def _data(
    name: str,
    listed: registry.Entry,
    found: Any,
    version: int,
    rows: Sequence[OptionInfo],
    is_detector: bool,
) -> dict[str, Any]:
    """What ``--format json`` prints."""
    options = [row._asdict() for row in rows]
    about = {"name": name, "summary": listed.summary, "target": listed.target, "version": version}
    if is_detector:
        return about | {
            "options": options,
            "presets": {k: dict(v) for k, v in found.presets.items()},
        }
    return about | {"options": options, "profiles": list(found.info.profiles)}
