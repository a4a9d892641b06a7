"""A board as a terminal shows it: short tables, or with ``wide`` all columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from membench.boards.board import Board
from membench.boards.leaders import leaders_lines
from membench.plain import plain
from membench.reports.lines import folded
from membench.reports.short import notes_of, short_titles, shortened, told_apart
from membench.reports.tables import tables_of
from membench.reports.terminal import laid_out


def on_screen(board: Board, *, wide: bool = False, room: int | None = None) -> str:
    """The board as tables for a terminal of ``room`` columns (None: of any width), and
    below them the board's notes; of leaders, sentences.

    wide: every column, and hashes in the titles. Otherwise the columns that decide
    (``short``), of attacks their images and of other detectors their scores.
    """
    if board.by == "leaders":
        return "".join(_lines(leaders_lines(board.frame), room))
    parts = [
        laid_out(of.head, of.body, room) + "".join(_lines([*of.notes, *of.hint], room))
        for of in shown(board, wide=wide)
    ]
    return "\n".join(parts) + "".join(_lines(board.notes if wide else short_notes(board), room))


class Shown(NamedTuple):
    """A table: its heading, its cells as text, what stands below it, and how to see what
    is left out.
    """

    head: str
    body: pd.DataFrame
    notes: list[str]
    hint: list[str]


def shown(board: Board, *, wide: bool = False) -> Iterator[Shown]:
    """The tables of a board; wide as :func:`on_screen`."""
    short = short_titles(board)
    for title, frame, tables in tables_of(board, wide=wide):
        found, hint = list(tables), []
        if not wide and len(found) > 1 and board.by == "run":  # scores before images
            found, left = found[:1], len(found) - 1
            hint = [f"--wide: all columns, and {left} table{'s' * (left > 1)} of extracted images"]
        for what, body, below in found:
            head = f"{title if wide else short[title]}: {what}" if title else what
            notes = list(below)
            if not wide:
                body = shortened(board.by, body, frame)
                notes = notes_of(body, notes)
            body, same = told_apart(body)
            yield Shown(f"{head} ({same})" if same else head, body, notes, hint)


def short_notes(board: Board) -> list[str]:
    """Why parts of one task are apart, without the hashes that a title has already; of
    worlds, what is left out.
    """
    if board.by == "worlds":
        return list(board.notes)
    return ["tables of one task are not comparable: --wide says why"] if board.notes else []


def _lines(texts: Iterable[str], room: int | None) -> list[str]:
    return [f"{line}\n" for text in texts for line in folded(plain(text), room)]
