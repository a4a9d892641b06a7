"""``membench leaderboard``: finished runs, compared."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.cli.common import ENDINGS, FORMATS, finished_runs

if TYPE_CHECKING:
    from membench.boards.board import Board

HELP = "finished runs, compared"
DESCRIPTION = (
    "Compare finished runs: a table for each set of runs on the same model, data and examples."
)
EXAMPLES = (
    "leaderboard --by seeds",
    "leaderboard --by attack --task cifar10 --quality",
    "leaderboard --by difference --task sd_webster",
    "leaderboard --by band --band high=0:0.5 --band low=0.5:1.2 --copy 0.8",
    "leaderboard --by example --detector cfg_norm,dsm --format csv --output scores.csv",
    "leaderboard --by mirror --runs results/mirror_development.parquet",
    "leaderboard --by worlds --runs results/worlds.parquet",
    "leaderboard --by seeds --format parquet --output board.parquet",
    "leaderboard --by seeds --push-to-hub OWNER/NAME --dry-run --output upload",
)
BY = {
    "run": "a run",
    "seeds": "a detector and its options: means and intervals over seeds",
    "mirror": "a detector on both models of a mirror pair, overall and for each kind",
    "worlds": "the same over the mirror pairs of several worlds: new images, new trainings",
    "kind": "means over seeds, for each kind of memorized example",
    "source": "the same, for each source of examples that are not memorized",
    "attack": "an attack: what it extracts from the model and from its mirror, at what cost",
    "band": "a run and band of similarity",
    "example": "an example and run: its score (csv, json, parquet)",
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
        help=(
            f"what a row is. {rows} (default: mirror for runs on both models of a pair, run for"
            " the others; with --band: band)"
        ),
    )
    shown.add_argument(
        "--quality",
        action="store_true",
        help="with --by attack: Frechet distance, KID, precision, recall ... (run --quality)",
    )
    shown.add_argument("--wide", action="store_true", help="tables with all columns and hashes")
    shown.add_argument(
        "--format",
        choices=(*FORMATS, "card"),
        help=(
            "table, md and latex: text; card: Markdown for a model card; the others: numbers"
            " (default: by the ending of --output, else table)"
        ),
    )
    shown.add_argument(
        "--output", type=Path, metavar="FILE", help="write to FILE in place of printing"
    )
    shown.add_argument(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="upload Parquet, card and configuration of the runs as a data set",
    )
    shown.add_argument(
        "--dry-run",
        action="store_true",
        help="with --push-to-hub: write the files into the folder --output, and ask no network",
    )


def call(args: argparse.Namespace) -> int:
    """Reads, compares and prints; 2 where a folder could not be read, unless
    --keep-going.
    """
    from membench.boards import board as boards
    from membench.boards.mirror import paired
    from membench.boards.quality import features_of
    from membench.boards.rescore import parse_bands
    from membench.cli.finished import asked_for, chosen, ended
    from membench.errors import UserError
    from membench.plain import say
    from membench.reports.output import emit
    from membench.storage.files import check_target

    if args.format is None:
        args.format = _meant(args.output) if args.push_to_hub is None else "table"
    # Where both models of a pair were asked, one row says what two would have to
    # A threshold of 0 is one, too: of a distance that of equal images
    rescored = ["--band"] * bool(args.band) + ["--copy"] * (args.copy is not None)
    halved = args.by is None and args.format == "table" and not rescored
    by: boards.By = args.by or ("band" if args.band else "run")
    boards.check(by, args.groups)
    if args.quality and by != "attack":
        raise UserError("--quality is of the images of attacks: add --by attack")
    _check_publishing(args, by)
    if args.output is not None and args.push_to_hub is None:
        check_target(args.output)
    if len(args.runs) == 1 and args.runs[0].suffix == ".parquet":
        [path] = args.runs
        if given := rescored + ["--groups"] * (args.groups != "task"):
            raise UserError(f"{path} is a finished table: {given[0]} needs the folders of its runs")
        tasks, detectors = asked_for(args)
        made = boards.read(path, by, tasks=tasks, detectors=detectors)
        if args.quality and not features_of(made.frame):
            raise UserError(f"{path} holds no figures of quality: name the folders of its runs")
        _show(made, args)
        return 0
    bands = parse_bands(args.band)
    found = chosen(args)
    if args.push_to_hub is not None:
        made = boards.board(
            found.runs, by, groups=args.groups, bands=bands, copy=args.copy, quality=args.quality
        )
        _publish(args.push_to_hub, args.output, made, [run.info for run in found.runs])
        return ended(found, args.keep_going)
    pairs, others = paired(found.runs) if halved and args.output is None else ([], found.runs)
    if pairs:
        _show(boards.board(pairs, "mirror"), args)
    if pairs and others:
        print()
    if others:
        made = boards.board(
            others, by, groups=args.groups, bands=bands, copy=args.copy, quality=args.quality
        )
        _show(made, args)
    if args.output is not None:
        from membench.runs.config_writer import config_of

        beside = args.output.with_suffix(".runs.yaml")
        emit(config_of([run.info for run in found.runs]), beside)
        say(f"the runs again: membench run --config {beside}")
    return ended(found, args.keep_going)


def _meant(output: Path | None) -> str:
    """The format of a file by its name: board.csv is meant to be CSV."""
    from membench.errors import UserError

    ending = output.suffix.lower() if output is not None else ""
    if ending not in ENDINGS:
        raise UserError(
            f"--output {output}: no format has the ending {ending}; add --format"
            f" {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    return ENDINGS[ending]


def _show(made: Board, args: argparse.Namespace) -> None:
    from membench.errors import UserError
    from membench.plain import say
    from membench.reports.cards import snippet
    from membench.reports.output import TEXT, emit, write_boards

    if made.by == "worlds" and args.format not in TEXT:
        for note in made.notes:  # the file has rows alone
            say(note)
    if args.format != "card":
        write_boards(made, args.format, args.output, wide=args.wide)
    elif made.by in ("leaders", "published", "example"):
        raise UserError(f"--format card is a table, and --by {made.by} has none of its own")
    else:
        emit(snippet(made), args.output)


def _check_publishing(args: argparse.Namespace, by: str) -> None:
    """Before any board is made."""
    from membench.errors import UserError
    from membench.fetching.publish import check_repository

    if args.push_to_hub is None:
        if args.dry_run:
            raise UserError("--dry-run is for --push-to-hub; add that, or leave --dry-run out")
        return
    check_repository(args.push_to_hub)
    if args.dry_run != (args.output is not None):
        raise UserError(
            "--push-to-hub with --dry-run needs --output DIR, where its files are written; without"
            " --dry-run leave --output out"
        )
    if by in ("leaders", "published", "example"):
        raise UserError(f"--push-to-hub uploads numbers of runs, and --by {by} makes others")
    if any(path.suffix == ".parquet" for path in args.runs):
        raise UserError("--push-to-hub needs the folders of the runs, from which its card is made")


def _publish(
    name: str, aside: Path | None, made: Board, infos: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the three files of a data set into a folder, and uploads them unless the
    user named that folder.
    """
    import tempfile

    from membench.boards.saved import write
    from membench.fetching.publish import push
    from membench.plain import say
    from membench.reports.cards import FILES, data_card
    from membench.reports.output import emit
    from membench.runs.config_writer import config_of
    from membench.storage.files import disk_errors

    with tempfile.TemporaryDirectory() as own:
        folder = aside or Path(own)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files = {file: folder / file for file in FILES}
        write(made.frame, made.by, files["leaderboard.parquet"])
        emit(config_of(infos), files["runs.yaml"])
        emit(data_card(made, "membench run --config runs.yaml"), files["README.md"])
        if aside is not None:
            say(f"nothing was uploaded; {name} would hold {', '.join(FILES)}, see {aside}")
            return
        say(f"uploaded to {push(name, files, message='a membench leaderboard')}")
