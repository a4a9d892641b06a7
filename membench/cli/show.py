"""``membench show``: a detector's or task's options and source."""

from __future__ import annotations

import argparse
from typing import Any

from membench import registry
from membench.cli.common import plugin
from membench.errors import unknown_name
from membench.options import describe_options

HELP = "options and source of a detector or task"
DESCRIPTION = "Show what a detector or task is, its options with their defaults, and its presets."
EXAMPLES = ("show cfg_norm", "show sd_webster")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a name (membench list)")
    plugin(parser)


def call(args: argparse.Namespace) -> int:
    of_detectors, of_tasks = registry.detectors(), registry.tasks()
    known = of_detectors if args.name in of_detectors.names() else of_tasks
    if args.name not in known.names():
        raise unknown_name(
            "detector or task",
            args.name,
            [*of_detectors.names(), *of_tasks.names()],
            "membench list",
        )
    entry, is_detector = known.get(args.name), known is of_detectors
    found: Any = known.load(args.name)
    version = found.version if is_detector else found.info.version
    print(
        f"{args.name}: {entry.summary}\nfrom {entry.target} ({entry.origin}), version {version}\n"
    )
    rows = describe_options(found.Options)
    width = [max((len(str(row[i])) for row in rows), default=0) for i in range(3)]
    print(f"options (--set {'' if is_detector else args.name + '.'}key=value):")
    for name, kind, default, text in rows:
        print(f"  {name:<{width[0]}}  {kind:<{width[1]}}  {default!s:<{width[2]}}  {text}")
    if is_detector:
        for preset, values in found.presets.items():
            shown = " ".join(
                f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
                for k, v in values.items()
            )
            print(f"\npreset {preset} (--preset {preset}): {shown or 'the defaults above'}")
        return 0
    space = found.info.space
    print(f"\nprofiles: {', '.join(found.info.profiles)}\nsampling: {dict(found.info.sampling)}")
    print(
        f"similarity: {space.id}, a copy is {'>=' if space.higher_is_closer else '<'} {space.copy}"
        f" ({space.source})"
    )
    print("bands: " + ", ".join(f"{b.name} [{b.low}, {b.high})" for b in space.bands))
    return 0
