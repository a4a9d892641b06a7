"""``membench report``: a page about finished runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from membench.cli.common import finished_runs
from membench.runs.places import REPORT

HELP = "a page about finished runs, with plots and images"
DESCRIPTION = "Write report.html, report.md and the plots of finished runs: no network, no torch."
EXAMPLES = ("report", "report --task sd_webster --output results/report --pdf")


def arguments(parser: argparse.ArgumentParser) -> None:
    finished_runs(parser, "folders of runs")
    shown = parser.add_argument_group("what is written")
    shown.add_argument(
        "--output",
        type=Path,
        default=REPORT,
        metavar="DIR",
        help="folder (default results/report)",
    )
    shown.add_argument(
        "--format", choices=("html", "md"), default="html", help="md: print the Markdown, too"
    )
    shown.add_argument(
        "--pdf", action="store_true", help="plots as PDF, too, for a paper (PNG and SVG: always)"
    )


def call(args: argparse.Namespace) -> int:
    from membench.boards import board as boards
    from membench.boards.rescore import parse_bands
    from membench.cli.finished import chosen, ended
    from membench.plain import say
    from membench.reports.again import again
    from membench.reports.page_boards import write_page
    from membench.storage.files import check_target, disk_errors

    boards.check("seeds", args.groups)
    bands = parse_bands(args.band)
    for path in (args.output / name for name in ("report.html", "report.md")):
        check_target(path)
    with disk_errors(args.output):
        args.output.mkdir(parents=True, exist_ok=True)
    found = chosen(args, verified=True)
    made = boards.board(
        found.runs, "seeds", groups=args.groups, bands=bands, copy=args.copy, compare=("auroc",)
    )
    command = again(args.runs, args.output, _given(args), pdf=args.pdf)
    page = write_page(made, args.output, pdf=args.pdf, progress=True, command=command)
    if args.format == "md":
        sys.stdout.write((args.output / "report.md").read_text(encoding="utf-8"))
    size = page.stat().st_size / 1e6
    runs, parts = len(found.runs), len(made.parts)
    say(
        f"{runs} {'run' if runs == 1 else 'runs'} on {parts} {'board' if parts == 1 else 'boards'}"
        f" written to {page} ({size:.1f} MB), plots to {args.output / 'plots'}"
    )
    return ended(found, args.keep_going)


def _given(args: argparse.Namespace) -> list[str]:
    """The options that choose runs and change numbers, as words, where they are not what
    the command does by itself.
    """
    words = []
    for name in ("task", "detector"):
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", value]
    for band in args.band:
        words += ["--band", band]
    if args.copy is not None:
        words += ["--copy", repr(args.copy)]
    if args.groups != "task":
        words += ["--groups", args.groups]
    return words
