"""A board: finished runs side by side.

:func:`board` makes one of runs, :func:`read` of a Parquet file.

The command line, the pages and Python use the same. A board prints nothing;
``membench.reports`` turns it into text and pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from tqdm.auto import tqdm

from membench.boards import identity, published
from membench.boards.attacks import collect_attacks
from membench.boards.collect import about, collect, collect_bands, collect_kinds
from membench.boards.differences import RESAMPLES, differences
from membench.boards.examples import collect_examples
from membench.boards.groups import GROUPINGS
from membench.boards.identity import BOARD
from membench.boards.mirror import collect_mirror
from membench.boards.published_table import published_path, published_table, with_published
from membench.boards.resampling import Resampler
from membench.boards.rescore import rescored
from membench.boards.saved import PAIRS, read_attacks, read_board, read_differences, read_pairs
from membench.boards.seeds import over_seeds
from membench.boards.worlds import collect_worlds, left_out
from membench.errors import UserError, suggest
from membench.metrics.names import PAIRED
from membench.runs.finished import Run
from membench.types import Band

By = Literal[
    "run",
    "seeds",
    "attack",
    "mirror",
    "worlds",
    "kind",
    "source",
    "band",
    "example",
    "difference",
    "leaders",
    "published",
    "summary",
]
# Tables whose intervals are made here; a run's own are those of its task's groups. Not
# those of attacks: UMS has no resamples, so half of the table would be of other groups.
REGROUPED = ("seeds", "kind", "source", "difference", "leaders", "summary")
# Tables of scores and labels alone: no band changes them, and a copy threshold changes the
# labels of generated images only, which no mirror pair has
OF_SCORES = ("mirror", "worlds", "kind", "source", "example", "difference", "leaders")


@dataclass(frozen=True)
class Part:
    """Rows that may be compared: they agree in model, data, examples and similarity.

    title: for people. fields: names and values in which they agree
    (``identity.BOARD``). frame: the rows. compared: paired differences between them,
    where ``compare`` asked for some. runs: the runs they are of; none of a board that
    was read from a file. notes: why it is not comparable with other parts of the task.
    """

    title: str
    fields: dict[str, Any]
    frame: pd.DataFrame
    compared: pd.DataFrame
    runs: Sequence[Run]
    notes: Sequence[str]


@dataclass(frozen=True)
class Board:
    """Finished runs as numbers.

    by: what a row is of. frame: all rows, with the columns of
    ``membench.boards.columns``. parts: its rows by what may be compared. notes: why
    rows are in parts of their own, or which runs are in none.
    """

    by: By
    frame: pd.DataFrame
    parts: Sequence[Part]
    notes: Sequence[str]


def board(
    runs: Sequence[Run],
    by: By = "run",
    *,
    groups: str = "task",
    bands: Sequence[Band] = (),
    copy: float | None = None,
    compare: Sequence[str] = (),
    quality: bool = False,
) -> Board:
    """The board of finished runs (``membench.runs.finished.read_runs``).

    by: what a row is of: ``run``; ``seeds``: a setting, mean over its seeds;
    ``attack``: the same, of attacks; ``mirror``: a setting and kind, on both models of a
    mirror pair; ``worlds``: the same over the mirror pairs of several worlds; ``kind``:
    of memorized example; ``source``: of examples that are not; ``band``: of similarity;
    ``example``: an example and run; ``difference``: a pair of detectors; ``leaders``:
    the same rows, for sentences; ``published``: a published number, and what was
    measured; ``summary``: as seeds, for one small table. groups: what intervals
    resample: ``task`` (as the task groups its examples), ``text``, ``image`` or
    ``text+image``. bands, copy: other bands and copy threshold, by stored matches, of
    tables that they change.
    compare: metrics by which settings are compared in pairs, of a board by seeds.
    quality: of a board by attack, the figures of quality that runs hold.
    Raises :class:`UserError` where the runs do not support what is asked for.
    """
    check(by, groups)
    if not runs:
        raise UserError("a board needs at least one finished run")
    if bands or copy is not None:
        _refuse_unread(runs, by, bands)
        # None: no bar in a file
        shown = tqdm(runs, desc="thresholds", unit="run", delay=1, leave=False, disable=None)
        runs = [rescored(run, bands, copy) for run in shown]
    resampler = Resampler(groups)
    if by == "mirror":
        found = collect_mirror(runs)
        return Board(by, found, _parts(found, runs, None, ()), ())
    if by == "worlds":
        found = collect_worlds(runs)
        return Board(by, found, _parts(found, runs, None, ()), left_out(runs))
    if by == "attack":
        return _board(by, collect_attacks(runs, resampler, quality=quality), runs)
    if by == "band":
        return _board(by, collect_bands(runs), runs)
    if by == "example":
        return _board(by, collect_examples(runs), runs)
    if by in ("kind", "source"):
        return _board(by, over_seeds(collect_kinds(runs, by), runs, resampler), runs)
    if by == "published":
        return Board(by, _published(runs), (), ())
    if by in ("difference", "leaders"):
        found = _compared(collect(runs), runs, groups, PAIRED)
        if found.empty:
            raise UserError(
                "no two detectors have scored the same examples with a common seed: there is"
                " nothing to compare"
            )
        return _board(by, found, runs)
    frame = collect(runs, groups)
    compared = _compared(frame, runs, groups, compare) if compare else None
    if by != "run":
        frame = over_seeds(frame, runs, resampler)
        frame = with_published(frame) if by == "seeds" else frame
    return _board(by, frame, runs, compared)


def check(by: str, groups: str = "task") -> None:
    """Raises :class:`UserError` for an unknown ``by`` or ``groups``, and for two that
    do not go together.
    """
    for what, value, known in (("--by", by, get_args(By)), ("grouping", groups, GROUPINGS)):
        if value not in known:
            raise UserError(
                f"unknown {what} {value!r}.{suggest(value, known)} Choose from {', '.join(known)}"
            )
    if groups != "task" and by not in REGROUPED:
        raise UserError(
            f"--groups {groups} is for --by {', '.join(REGROUPED[:-1])} and {REGROUPED[-1]}: a"
            " run's own intervals are those of its task's groups"
        )


def _refuse_unread(runs: Sequence[Run], by: str, bands: Sequence[Band]) -> None:
    """Raises :class:`UserError` for bands, or another copy threshold, that change no number
    of a table.
    """
    if by not in OF_SCORES:
        return
    if bands:
        raise UserError(
            f"--band is of extracted images, and --by {by} shows scores alone; choose --by band"
        )
    if by in ("mirror", "worlds") or not any(run.scores.similarity.notna().any() for run in runs):
        raise UserError(
            f"--copy changes the labels of generated images, and --by {by} shows none here; choose"
            " --by seeds"
        )


def read(
    path: Path,
    by: By = "run",
    *,
    tasks: Sequence[str] | None = None,
    detectors: Sequence[str] | None = None,
) -> Board:
    """A board that was written as Parquet. by: ``run`` shows it as it was written;
    ``seeds`` and ``summary``, ``difference`` and ``leaders`` show the same rows;
    ``attack``, ``mirror`` and ``worlds`` those of their own. tasks,
    detectors: only these. Raises :class:`UserError` for a file that is damaged or
    another table.
    """
    if by in ("difference", "leaders"):
        return _board(by, read_differences(path, tasks, detectors), ())
    if by in PAIRS:
        frame = selected(read_pairs(path, by), tasks, detectors)
        return Board(by, frame, _parts(frame, (), None, ()), ())
    if by == "attack":
        return _board(by, selected(read_attacks(path), tasks, detectors), ())
    if by not in ("run", "seeds", "summary"):
        raise UserError(f"{path} is a finished table: --by {by} needs the folders of its runs")
    frame = selected(read_board(path), tasks, detectors)
    return of_frame(frame, "seeds" if by == "run" and "seeds" in frame else by)


def of_frame(frame: pd.DataFrame, by: By) -> Board:
    """The board of a frame of ``collect``, ``over_seeds``, ``collect_bands`` or
    ``differences``; by ``seeds``, of ``collect`` too.
    """
    return _board(by, over_seeds(frame) if by == "seeds" and "seeds" not in frame else frame, ())


def selected(
    frame: pd.DataFrame, tasks: Sequence[str] | None, detectors: Sequence[str] | None
) -> pd.DataFrame:
    """The rows of these tasks and detectors; None: of all.

    Raises :class:`UserError` for one that has none.
    """
    for what, asked in (("task", tasks), ("detector", detectors)):
        if asked is not None:
            there = sorted(set(frame[what]))
            if unknown := [name for name in asked if name not in there]:
                close = suggest(unknown[0], there)
                raise UserError(
                    f"--{what} {unknown[0]}: no finished run of it here.{close} There are runs of"
                    f" {', '.join(there)}"
                )
            frame = frame[frame[what].isin(asked)]
    return frame.reset_index(drop=True)


def _board(
    by: By, frame: pd.DataFrame, runs: Sequence[Run], compared: pd.DataFrame | None = None
) -> Board:
    notes = identity.apart(frame)
    return Board(by, frame, _parts(frame, runs, compared, notes), notes)


def _parts(
    frame: pd.DataFrame, runs: Sequence[Run], compared: pd.DataFrame | None, notes: Sequence[str]
) -> list[Part]:
    places = [tuple(about(run)[name] for name in BOARD) for run in runs]
    parts = []
    for title, rows in identity.boards(frame):
        fields = {name: rows[name].iloc[0] for name in BOARD}
        own = [
            run for run, place in zip(runs, places, strict=True) if place == tuple(fields.values())
        ]
        of_part = (
            compared.merge(rows[list(BOARD)].drop_duplicates(), on=list(BOARD))
            if compared is not None
            else pd.DataFrame()
        )
        why = (
            []
            if fields["control"]
            else [line for line in notes if line.startswith(f"{fields['task']}:")]
        )
        parts.append(Part(title, fields, rows, of_part, own, why))
    return parts


def _compared(
    frame: pd.DataFrame, runs: Sequence[Run], groups: str, metrics: Sequence[str]
) -> pd.DataFrame:
    resampler = Resampler(groups, RESAMPLES, metrics=metrics)
    return differences(frame, runs, metrics, resampler)


def _published(runs: Sequence[Run]) -> pd.DataFrame:
    path = published_path()
    tasks = sorted({run.info["task"] for run in runs})
    frame = over_seeds(collect(runs), runs)
    found = published_table(published.read(path), frame.assign(space=frame.space_id), tasks)
    if found.empty:
        raise UserError(f"nothing published is known of {', '.join(tasks)}")
    return found
