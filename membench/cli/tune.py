"""``membench tune``: options chosen on the development world, with equal budgets."""

from __future__ import annotations

import argparse
from pathlib import Path

from membench import registry
from membench.cli.common import (
    how_to_run,
    names_of,
    own_settings,
    plugin,
    settings,
    task_settings,
)
from membench.errors import UserError
from membench.options import detector_options, parse_options

HELP = "choose options of detectors on the development world"
DESCRIPTION = (
    "Try the same number of settings of each detector on both models of the development world, and"
    " name the best by mirrored AUROC. What is chosen is to be reported on another world."
)
EXAMPLES = (
    "tune --detector loss,flipd --task cifar10 --tries 8",
    "tune --detector cfg_norm,dsm --task sd_webster --tries 6 --limit 400",
)
WHERE = Path("results/tuned")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to tune")
    what.add_argument("--detector", required=True, metavar="A,B", help="names")
    what.add_argument("--task", required=True, help="a mini task with a mirror pair")
    what.add_argument(
        "--tries",
        type=int,
        default=8,
        metavar="N",
        help="settings of each detector, its defaults among them (default 8)",
    )
    what.add_argument("--limit", type=int, metavar="N", help="only N examples, of every try")
    settings(what, "an option that is the same in all tries: DETECTOR.K=V or TASK.K=V")
    plugin(what)
    how = how_to_run(parser)
    how.add_argument("--quiet", action="store_true", help="no progress bars")
    how.add_argument(
        "--output",
        type=Path,
        metavar="FILE.parquet",
        help=f"every try, a row each (default {WHERE}/TASK.parquet)",
    )


def call(args: argparse.Namespace) -> int:
    registry.tasks().get(args.task)
    names = names_of(args.detector, registry.detectors(), "detector")
    if not 2 <= args.tries <= 1000:
        raise UserError(f"--tries {args.tries}: it must be 2 to 1000, the defaults among them")
    owners = [*names, args.task]
    of_task = task_settings(args, args.task, owners)
    parse_options(registry.tasks().load(args.task).Options, of_task, owner=f"task {args.task}")
    options = {name: own_settings(args.options, name, owners) for name in names}
    for name in names:
        detector_options(name, registry.detectors().load(name), options[name], None, "mini")

    from membench.boards.tuned import collect_tries
    from membench.reports.tuned import told
    from membench.runs.devices import device_of
    from membench.runs.spec import Spec
    from membench.runs.tuning import examples_of, tries, tune
    from membench.storage.files import atomic_write, check_target

    where = args.output or WHERE / f"{args.task}.parquet"
    check_target(where)
    shared = ("task", "limit", "dtype", "batch_size", "compile")
    specs = [
        Spec(
            name,
            options=tuple(options[name]),
            task_options=tuple(of_task),
            device=device_of(args.device),
            **{key: getattr(args, key) for key in shared},
        )
        for name in names
    ]
    examples = examples_of(specs[0])
    plan = [t for spec in specs for t in tries(spec, examples, args.tries)]
    frame = collect_tries(tune(plan, args.runs, progress=not args.quiet))
    atomic_write(where, lambda path: frame.to_parquet(path, index=False))
    print(told(frame, args.tries, where))
    return 0
