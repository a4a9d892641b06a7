"""``membench leaderboard`` and ``membench report``: what they read, choose and print."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from membench.boards import published
from membench.boards.collect import collect, collect_bands, collect_kinds
from membench.boards.differences import differences, resamples_for
from membench.boards.groups import GROUPINGS
from membench.boards.identity import boards
from membench.boards.leaders import leaders_lines, read_differences
from membench.boards.published import read
from membench.boards.resampling import Resampler
from membench.boards.saved import read_board
from membench.boards.seeds import over_seeds
from membench.cli.finished import asked_for, chosen, told
from membench.errors import UserError
from membench.plain import marked_down, plain, say
from membench.reports import output
from membench.reports.board_tables import bands_tables, differences_table, published_table
from membench.reports.output import emit, markdown, save, table, text_of, write
from membench.reports.seeds_tables import summary_tables
from membench.runs.finished import Run
from membench.storage.files import check_target

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
        frame = collect_kinds(found.runs, view.removesuffix("s"))
        write(over_seeds(frame, found.runs, resampler), args.format, args.out, seeds=True)
    elif view == "bands":
        _write(collect_bands(found.runs), args, bands_tables)
    elif view == "differences":
        _write(_differences(found.runs, args.groups), args, _differences_tables)
    elif view == "leaders":
        _leaders(_differences(found.runs, args.groups), args)
    elif view == "published":
        _published(found.runs, args)
    elif view == "summary":
        _write(over_seeds(collect(found.runs, args.groups), found.runs, resampler), args, summary_tables, whole=True)
    else:
        frame = collect(found.runs, args.groups)
        frame = with_published(over_seeds(frame, found.runs, resampler)) if args.seeds else frame
        write(frame, args.format, args.out, seeds=args.seeds)
    return told(found, args.keep_going)


def _write(frame: pd.DataFrame, args: argparse.Namespace, tables: Tables, whole: bool = False) -> None:
    """A frame with the columns of BOARD, as numbers or as one block of tables a board; whole: one block of all."""
    if args.format not in ("table", "md"):
        save(frame, args.format, args.out)
    else:
        shown = {"": tables(frame)} if whole else {title: tables(part) for title, part in boards(frame)}
        emit(text_of(frame, shown, args.format), args.out)
    if args.out is not None:
        say(f"{len(frame)} rows written to {args.out}")


def _leaders(table: pd.DataFrame, args: argparse.Namespace) -> None:
    if args.format not in ("table", "md"):
        raise UserError(f"--leaders are sentences; for numbers: --differences --format {args.format}")
    line, between = (marked_down, "\n") if args.format == "md" else (plain, "")
    output.emit(between.join(f"{line(text)}\n" for text in leaders_lines(table)), args.out)


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
    frame = asked_for(frame, args).reset_index(drop=True)
    if view == "summary":
        _write(frame, args, summary_tables, whole=True)
    else:
        output.write(frame, args.format, args.out, seeds=args.seeds or "seeds" in frame)
    return 0


def _differences(runs: Sequence[Run], groups: str) -> pd.DataFrame:
    scored = [run for run in runs if len(run.scores)]
    frame = collect.collect(scored) if scored else pd.DataFrame()
    found = differences(frame, scored, resampler=Resampler(groups, resamples_for(frame))) if scored else frame
    if found.empty:
        raise UserError("no two detectors have scored the same examples with a common seed: there is nothing to compare")
    return found


def _differences_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    for metric in part.metric.unique():
        yield (f"differences in {metric}", *differences_table(part, metric))


def _published(runs: Sequence[Run], args: argparse.Namespace) -> None:
    frame = over_seeds(collect(runs), runs)
    tasks = sorted({run.info["task"] for run in runs})
    path = published_path()
    if path is None:
        raise UserError(f"{PUBLISHED} is not there: it comes with membench's repository; run membench from a checkout of it")
    shown = published_table(read(path), frame.assign(space=frame.space_id), tasks)
    if shown.empty:
        raise UserError(f"nothing published is known of {', '.join(tasks)}")
    if args.format not in ("table", "md"):
        save(shown, args.format, args.out)
        return
    title = "published numbers beside measured ones"
    emit(f"### {title}\n\n{markdown(shown)}\n" if args.format == "md" else table(title, shown), args.out)


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
