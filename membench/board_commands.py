"""``membench leaderboard`` and ``membench report``: what they read, choose and print."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from membench import leaderboard as boards
from membench import published, registry
from membench.bands import parse_bands
from membench.bands_table import bands_tables
from membench.comparison import BOARD, apart
from membench.differences import differences, differences_table, resamples_for
from membench.errors import UserError
from membench.groups import GROUPINGS
from membench.leaders import leaders, leaders_lines, read_differences
from membench.plain import marked_down, plain, say
from membench.printing import markdown, table
from membench.resampling import Resampler
from membench.rescore import rescored
from membench.runs import MAKE_ONE, Found, Run, read_runs
from membench.seeds_table import over_seeds, seeds_tables
from membench.stored_board import read_board
from membench.summary import summary_tables
from membench.tables import check_target, disk_errors

if TYPE_CHECKING:
    from membench.board_report import Board

__all__ = ["chosen", "leaderboard", "page_boards", "read_board", "report"]

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published.parquet"  # of the checkout that membench lies in
VIEWS = ("kinds", "sources", "bands", "differences", "leaders", "published", "summary", "seeds")
# Views whose intervals are made here; a run's own are those of its task's groups.
REGROUPED = ("kinds", "sources", "differences", "leaders", "summary", "seeds")
Tables = Callable[[pd.DataFrame], Iterator[tuple[str, pd.DataFrame, list[str]]]]


def leaderboard(args: argparse.Namespace) -> int:
    """Reads, compares and prints. 2 where a folder could not be read, unless --keep-going."""
    view = next((name for name in VIEWS if getattr(args, name)), "bands" if args.band else "runs")
    if args.out is not None:
        check_target(args.out)
    if args.bands and args.seeds:
        raise UserError("--bands has a row a run; leave out --seeds, or --bands")
    if len(args.runs) == 1 and args.runs[0].suffix == ".parquet":
        return _stored(args, view)
    if args.groups != "task" and args.groups in GROUPINGS and view not in REGROUPED:
        asked = ", ".join(f"--{name}" for name in REGROUPED[:-1])
        raise UserError(
            f"--groups {args.groups} is for {asked} and --{REGROUPED[-1]}: a run's own intervals are those of its task's groups"
        )
    found = chosen(args)
    resampler = Resampler(args.groups)
    if view in ("kinds", "sources"):
        frame = boards.collect_kinds(found.runs, view.removesuffix("s"))
        boards.write(over_seeds(frame, found.runs, resampler), args.format, args.out, seeds=True)
    elif view == "bands":
        _write(boards.collect_bands(found.runs), args, bands_tables)
    elif view == "differences":
        _write(_differences(found.runs, args.groups), args, _differences_tables)
    elif view == "leaders":
        _leaders(_differences(found.runs, args.groups), args)
    elif view == "published":
        _published(found.runs, args)
    elif view == "summary":
        _write(over_seeds(boards.collect(found.runs, args.groups), found.runs, resampler), args, summary_tables, whole=True)
    else:
        frame = boards.collect(found.runs, args.groups)
        frame = with_published(over_seeds(frame, found.runs, resampler)) if args.seeds else frame
        boards.write(frame, args.format, args.out, seeds=args.seeds)
    return told(found, args.keep_going)


def chosen(args: argparse.Namespace, verified: bool = False) -> Found:
    """The runs that the arguments ask for, under their bands. verified: of ``read_runs``. Raises :class:`UserError` where none is left."""
    bands = parse_bands(args.band)
    if args.groups not in GROUPINGS:
        raise UserError(f"unknown grouping {args.groups!r}.{registry.suggest(args.groups, GROUPINGS)} Choose from {', '.join(GROUPINGS)}")
    for path in args.runs:
        if not path.is_dir():
            raise UserError(f"--runs {path} is no folder, so there are no finished runs. {MAKE_ONE}")
    found = read_runs(args.runs, images="image" in args.groups, verified=verified)
    for problem in found.problems:
        say(f"left out: {problem}")
    if not found.runs:
        raise UserError("none of the run folders could be read, see above")
    named = pd.DataFrame([(run.info["task"], run.info["detector"]) for run in found.runs], columns=["task", "detector"])
    runs = [found.runs[i] for i in _asked(named, args).index]
    shown = tqdm(runs, desc="thresholds", unit="run", delay=1, leave=False, disable=None)  # None: no bar in a file
    return Found([rescored(run, bands, args.copy) for run in shown], found.problems)


def _asked(frame: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The rows of the tasks and detectors that are asked for. Raises :class:`UserError` for one that is not among them."""
    for what, names in (("task", args.task), ("detector", args.detector)):
        if names is not None:
            asked, there = [name.strip() for name in names.split(",")], sorted(set(frame[what]))
            if unknown := [name for name in asked if name not in there]:
                close = registry.suggest(unknown[0], there)
                raise UserError(f"--{what} {unknown[0]}: no finished run of it here.{close} There are runs of {', '.join(there)}")
            frame = frame[frame[what].isin(asked)]
    return frame


def told(found: Found, keep_going: bool) -> int:
    """The exit code; 2, with a line, where a folder was left out and that was not allowed."""
    if not found.problems or keep_going:
        return 0
    many = "1 run folder" if len(found.problems) == 1 else f"{len(found.problems)} run folders"
    say(f"{many} could not be read, see above (--keep-going: exit 0 all the same)")
    return 2


def _write(frame: pd.DataFrame, args: argparse.Namespace, tables: Tables, whole: bool = False) -> None:
    """A frame with the columns of BOARD, as numbers or as one block of tables a board; whole: one block of all."""
    if args.format not in ("table", "md"):
        boards.save(frame, args.format, args.out)
    else:
        shown = {"": tables(frame)} if whole else {title: tables(part) for title, part in boards.boards(frame)}
        boards.emit(boards.text_of(frame, shown, args.format), args.out)
    if args.out is not None:
        say(f"{len(frame)} rows written to {args.out}")


def _leaders(table: pd.DataFrame, args: argparse.Namespace) -> None:
    if args.format not in ("table", "md"):
        raise UserError(f"--leaders are sentences; for numbers: --differences --format {args.format}")
    line, between = (marked_down, "\n") if args.format == "md" else (plain, "")
    boards.emit(between.join(f"{line(text)}\n" for text in leaders_lines(table)), args.out)


def _stored_differences(args: argparse.Namespace, view: str) -> int:
    table = read_differences(args.runs[0])
    for what, names, columns in (("task", args.task, ("task",)), ("detector", args.detector, ("a", "b"))):
        asked = [] if names is None else [name.strip() for name in names.split(",")]
        if unknown := [name for name in asked if not any((table[column] == name).any() for column in columns)]:
            raise UserError(f"--{what} {unknown[0]}: there is no difference of it in {args.runs[0]}")
        for column in columns if names is not None else ():
            table = table[table[column].isin(asked)]
    if table.empty:
        raise UserError(f"{args.runs[0]} holds no difference of those")
    if view == "leaders":
        _leaders(table, args)
    else:
        _write(table, args, _differences_tables)
    return 0


def _stored(args: argparse.Namespace, view: str) -> int:
    """A leaderboard, or differences, that were written as Parquet."""
    [path] = args.runs
    if view in ("leaders", "differences") and not (args.band or args.copy is not None or args.groups != "task"):
        return _stored_differences(args, view)
    if view not in ("runs", "seeds", "summary") or args.band or args.copy is not None or args.groups != "task":
        raise UserError(
            f"{path} is a finished table: --kinds, --sources, --bands, --band, --copy, --groups and --published need "
            "the folders of its runs"
        )
    frame = read_board(path)
    frame = _asked(frame, args).reset_index(drop=True)
    if view == "summary":
        _write(frame, args, summary_tables, whole=True)
    else:
        boards.write(frame, args.format, args.out, seeds=args.seeds or "seeds" in frame)
    return 0


def _differences(runs: Sequence[Run], groups: str) -> pd.DataFrame:
    scored = [run for run in runs if len(run.scores)]
    frame = boards.collect(scored) if scored else pd.DataFrame()
    found = differences(frame, scored, resampler=Resampler(groups, resamples_for(frame))) if scored else frame
    if found.empty:
        raise UserError("no two detectors have scored the same examples with a common seed: there is nothing to compare")
    return found


def _differences_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    for metric in part.metric.unique():
        yield (f"differences in {metric}", *differences_table(part, metric))


def _published(runs: Sequence[Run], args: argparse.Namespace) -> None:
    frame = over_seeds(boards.collect(runs), runs)
    tasks = sorted({run.info["task"] for run in runs})
    path = published_path()
    if path is None:
        raise UserError(f"{PUBLISHED} is not there: it comes with membench's repository; run membench from a checkout of it")
    shown = published.table(published.read(path), frame.assign(space=frame.space_id), tasks)
    if shown.empty:
        raise UserError(f"nothing published is known of {', '.join(tasks)}")
    if args.format not in ("table", "md"):
        boards.save(shown, args.format, args.out)
        return
    title = "published numbers beside measured ones"
    boards.emit(f"### {title}\n\n{markdown(shown)}\n" if args.format == "md" else table(title, shown), args.out)


def with_published(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows over seeds, with ``reported_...`` columns where a paper reports a number for the very setting of a row (never of a mini one)."""
    path = published_path()
    if path is None or (frame.profile == "mini").all():
        return frame
    known = published.with_reported(frame.assign(space=frame.space_id), published.read(path))
    numbers = [name for name in known if name.startswith("reported_") and name != "reported_source" and known[name].notna().any()]
    return frame.assign(**{name: known[name] for name in [*numbers, *(["reported_source"] if numbers else [])]})


def published_path() -> Path | None:
    """The ``published.parquet`` that comes with membench; None where it was installed without. None beside a folder of runs is read."""
    return PUBLISHED if PUBLISHED.is_file() else None


# ------------------------------------------------------------------------------------------------- report


def report(args: argparse.Namespace) -> int:
    """Writes the page, the Markdown and the plots."""
    from membench.board_report import write_board

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
    from membench.board_report import Board

    frame = boards.collect(runs, groups)
    place = {str(run.path): i for i, run in enumerate(runs)}
    settings = over_seeds(frame, runs, Resampler(groups))
    lines = apart(settings)
    found = differences(frame, runs, ["auroc"], Resampler(groups, resamples_for(frame)))
    taken: set[str] = set()
    for title, part in boards.boards(settings):
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
