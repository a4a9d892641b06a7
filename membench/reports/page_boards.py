"""The boards of a page, from a :class:`membench.boards.board.Board` over seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from membench.boards import board as made
from membench.boards.attacks import is_attack
from membench.boards.base_rate import with_base
from membench.boards.collect import about
from membench.boards.leaders import leaders
from membench.reports.attack_tables import attack_tables
from membench.reports.board_page import write_board
from membench.reports.board_parts import Board
from membench.reports.board_tables import differences_table
from membench.reports.detector_cost import detector_cost_plot, evaluated
from membench.reports.dot_plot import dot_plot, unseen_columns
from membench.reports.ladder import page_plot
from membench.reports.plots import Plot
from membench.reports.seeds_tables import seeds_tables
from membench.runs.finished import Run


def write_page(
    board: made.Board,
    output: Path,
    *,
    pdf: bool = False,
    progress: bool = False,
    command: str = "",
) -> Path:
    """Writes ``report.html``, ``report.md`` and ``plots/`` of a board by seeds, with pdf
    its plots as PDF, too; returns the page's path.

    command: that makes all of it again. Raises :class:`membench.errors.UserError` if the
    disk refuses.
    """
    runs = [run for part in board.parts for run in part.runs]
    boards = list(page_boards(board))
    return write_board(runs, boards, output, pdf=pdf, progress=progress, command=command)


def page_boards(board: made.Board) -> Iterator[Board]:
    """A board a part, model before control.

    The positions of their runs are among those of all parts, in order.
    """
    taken: set[str] = set()
    first = 0
    attacks = _attacks(board)
    figures = _against_base(attacks)
    runs = [run for part in board.parts for run in part.runs]
    for part in board.parts:
        [(_, text, notes)] = seeds_tables(part.frame)
        control = bool(part.fields["control"])
        tables, leads = [], []
        if len(part.compared):
            body, below = differences_table(part.compared)
            tables.append(
                (
                    "Which detector is better, and is the difference significant?",
                    body,
                    " ".join(below),
                )
            )
            leads = [] if control else [f"AUROC: {leaders(part.compared)}"]
        for fields, rows in attacks:
            if fields == part.fields:
                tables += [
                    (f"Attacks: {what}", body, " ".join(below))
                    for what, body, below in attack_tables(rows)
                ]
        slug = _slug(
            f"{part.fields['task']}-{part.fields['profile']}{'-control' if control else ''}", taken
        )
        # No column without a word, such as options where all are defaults
        shown = text.loc[:, (text != "").any()]
        yield Board(
            part.title,
            slug,
            shown,
            [*notes, *leads, *part.notes],
            tables,
            range(first, first + len(part.runs)),
            control,
            [
                plot
                for plot in (
                    dot_plot(part.frame, unseen_columns(part.frame, runs)),
                    detector_cost_plot(part.frame, evaluated(part.frame, part.runs)),
                    # All models of a task in one figure, on the first of their boards
                    None if control else figures.pop(_compared(part.fields), None),
                )
                if plot
            ],
            [_folder(row, part.runs) for _, row in part.frame.iterrows()],
        )
        first += len(part.runs)


def _folder(row: pd.Series, runs: Sequence[Run]) -> Path | None:
    """The folder of the row's run of the lowest seed."""
    own = [run for run in runs if about(run)["settings"] == row.settings]
    return min(own, key=lambda run: run.info["seed"]).path if own else None


def _attacks(board: made.Board) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of the board of attacks, by what they may be compared with; empty where no
    attack has run on a model that has seen the images.
    """
    runs = [run for part in board.parts for run in part.runs]
    if not any(is_attack(run) and not run.info["control"] and run.n_ok for run in runs):
        return []
    return [(part.fields, part.frame) for part in made.board(runs, "attack").parts]


def _compared(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Boards of one task, of any of its models."""
    return tuple(fields[name] for name in ("task", "task_version", "profile", "space"))


def _against_base(
    attacks: Sequence[tuple[Mapping[str, Any], pd.DataFrame]],
) -> dict[tuple[Any, ...], Plot]:
    """Attacks against the base rate, a plot a task."""
    frames: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for fields, rows in attacks:
        frames.setdefault(_compared(fields), []).append(rows)
    plots = {task: page_plot(with_base(pd.concat(of))) for task, of in frames.items()}
    return {task: plot for task, plot in plots.items() if plot}


def _slug(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    names = itertools.chain([base], (f"{base}-{k}" for k in itertools.count(2)))
    slug = next(name for name in names if name not in taken)
    taken.add(slug)
    return slug
