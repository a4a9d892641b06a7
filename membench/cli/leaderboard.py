"""``membench leaderboard``: finished runs, compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from membench.cli.common import FORMATS, finished_runs

HELP = "finished runs, compared"
DESCRIPTION = (
    "Compare finished runs: a table for each set of runs on the same model, data and examples."
)
EXAMPLES = (
    "leaderboard --by seeds",
    "leaderboard --by attack --task cifar10",
    "leaderboard --by difference --task sd_webster",
    "leaderboard --by band --band high=0:0.5 --band low=0.5:1.2 --copy 0.8",
    "leaderboard --by summary --runs results/leaderboard.parquet",
    "leaderboard --by seeds --format parquet --output board.parquet",
)
BY = {
    "run": "a run",
    "seeds": "a detector and its options: means and intervals over seeds",
    "mirror": "a detector on both models of a mirror pair, overall and for each kind",
    "kind": "means over seeds, for each kind of memorized example",
    "source": "the same, for each source of examples that are not memorized",
    "attack": "an attack: what it extracts from the model and from its mirror, at what cost",
    "band": "a run and band of similarity",
    "difference": "a pair of detectors: is the difference significant?",
    "leaders": "one sentence a task: who leads",
    "published": "a published number, and what was measured",
    "summary": "a detector: all tasks in one small table",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    finished_runs(parser, "folders of runs, or one .parquet of a leaderboard")
    shown = parser.add_argument_group("what is shown")
    rows = "; ".join(f"{name}: {text}" for name, text in BY.items())
    shown.add_argument(
        "--by",
        choices=tuple(BY),
        metavar="WHAT",
        help=f"what a row is. {rows} (default run; with --band: band)",
    )
    shown.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="table (default) and md: text; the others: numbers",
    )
    shown.add_argument(
        "--output", type=Path, metavar="FILE", help="write to FILE in place of printing"
    )


def call(args: argparse.Namespace) -> int:
    """Reads, compares and prints; 2 where a folder could not be read, unless
    --keep-going.
    """
    from membench.boards import board as boards
    from membench.boards.rescore import parse_bands
    from membench.cli.finished import chosen, ended, names
    from membench.errors import UserError
    from membench.reports.output import write_boards
    from membench.storage.files import check_target

    by: boards.By = args.by or ("band" if args.band else "run")
    boards.check(by, args.groups)
    if args.output is not None:
        check_target(args.output)
    if len(args.runs) == 1 and args.runs[0].suffix == ".parquet":
        [path] = args.runs
        if given := [f"--{name}" for name in ("band", "copy") if getattr(args, name)] + [
            "--groups"
        ] * (args.groups != "task"):
            raise UserError(f"{path} is a finished table: {given[0]} needs the folders of its runs")
        write_boards(
            boards.read(path, by, tasks=names(args.task), detectors=names(args.detector)),
            args.format,
            args.output,
        )
        return 0
    bands = parse_bands(args.band)
    found = chosen(args)
    made = boards.board(found.runs, by, groups=args.groups, bands=bands, copy=args.copy)
    write_boards(made, args.format, args.output)
    return ended(found, args.keep_going)
