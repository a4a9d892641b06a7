"""``membench report``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from membench.boards.collect import collect
from membench.boards.differences import differences, resamples_for
from membench.boards.identity import BOARD, apart, boards
from membench.boards.leaders import leaders
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.cli.finished import chosen, told
from membench.plain import say
from membench.reports.board_tables import differences_table
from membench.reports.seeds_tables import seeds_tables
from membench.runs.finished import Run
from membench.storage.files import check_target, disk_errors

if TYPE_CHECKING:
    from membench.reports.board_page import Board

# ------------------------------------------------------------------------------------------------- report


def report(args: argparse.Namespace) -> int:
    """Writes the page, the Markdown and the plots."""
    from membench.reports.board_page import write_board

    for path in (args.out / name for name in ("report.html", "report.md")):
        check_target(path)
    with disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    found = chosen(args, verified=True)
    shown = list(page_boards(found.runs, args.groups))
    page = write_board(found.runs, shown, args.out, progress=True)
    if args.format == "md":
        sys.stdout.write((args.out / "report.md").read_text(encoding="utf-8"))
    size = page.stat().st_size / 1e6
    say(f"{len(found.runs)} runs on {len(shown)} boards written to {page} ({size:.1f} MB), plots to {args.out / 'plots'}")
    return told(found, args.keep_going)


def page_boards(runs: Sequence[Run], groups: str = "task") -> Iterator[Board]:
    """The boards of a page: over seeds, with paired differences and what was published; model before control."""
    from membench.reports.board_page import Board

    frame = collect(runs, groups)
    place = {str(run.path): i for i, run in enumerate(runs)}
    settings = over_seeds(frame, runs, Resampler(groups))
    lines = apart(settings)
    found = differences(frame, runs, ["auroc"], Resampler(groups, resamples_for(frame)))
    taken: set[str] = set()
    for title, part in boards(settings):
        own = frame.merge(part[list(BOARD)].drop_duplicates(), on=list(BOARD))
        [(_, text, notes)] = seeds_tables(part)
        tables = []
        compared = found.merge(part[list(BOARD)].drop_duplicates(), on=list(BOARD))
        if len(compared):
            body, below = differences_table(compared)
            tables.append(("Which detector is better, and is the difference significant?", body, " ".join(below)))
        control = bool(part.control.iloc[0])
        slug = _slug(f"{part.task.iloc[0]}-{part.profile.iloc[0]}{'-control' if control else ''}", taken)
        mine = [line for line in lines if line.startswith(f"{part.task.iloc[0]}:")] if not control else []
        mine = [*([f"AUROC: {leaders(compared)}"] if len(compared) and not control else []), *mine]
        shown = text.loc[:, (text != "").any()]  # no column without a word, such as options where all are defaults
        yield Board(title, slug, shown, [*notes, *mine], tables, [place[path] for path in own.run], control)


def _slug(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    slug, k = base, 1
    while slug in taken:
        k += 1
        slug = f"{base}-{k}"
    taken.add(slug)
    return slug
