"""A table as text, Markdown, LaTeX, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pandas as pd

from membench.boards.board import Board
from membench.boards.leaders import leaders_lines
from membench.boards.saved import write
from membench.errors import UserError
from membench.plain import for_spreadsheet, marked_down, say
from membench.reports.latex import in_latex
from membench.reports.lines import width
from membench.reports.screen import on_screen
from membench.reports.tables import tables_of
from membench.storage.files import atomic_write

TEXT = ("table", "md", "latex")  # formats that are read, and hold rounded numbers


def write_boards(board: Board, fmt: str, output: Path | None, *, wide: bool = False) -> None:
    """Prints a board, or writes it to ``output``. csv, json and parquet hold numbers,
    TEXT text. wide: tables for the terminal and LaTeX have all columns, too.

    Raises :class:`UserError`.
    """
    if board.by == "leaders" and fmt not in TEXT:
        raise UserError(
            f"--by leaders makes sentences; for numbers: --by difference --format {fmt}"
        )
    if board.by == "example" and fmt in TEXT:
        raise UserError(
            f"--by example has {len(board.frame):,} rows; write them: --format csv --output"
            " scores.csv (or json, parquet)"
        )
    if fmt == "table":
        emit(on_screen(board, wide=wide, room=width() if output is None else None), output)
    elif fmt == "md":
        emit(in_markdown(board), output)
    elif fmt == "latex":
        emit(in_latex(board, wide=wide), output)
    else:
        save(board.frame, board.by, fmt, output)
    if output is not None:
        rows = len(board.frame)
        say(f"{rows} row{'s' * (rows != 1)} written to {output}")


def in_markdown(board: Board) -> str:
    """The board as Markdown tables of all columns, and below them why its parts are
    apart; of leaders, sentences.
    """
    if board.by == "leaders":
        return "\n".join(f"{marked_down(text)}\n" for text in leaders_lines(board.frame))
    parts = []
    for title, _, tables in tables_of(board):
        parts += [f"### {marked_down(title)}\n"] if title else []
        for what, body, below in tables:
            heading = f"{what.capitalize()}:\n\n" if title else ""
            heading = f"### {what}\n\n" if board.by == "published" else heading
            notes = "".join(f"\n{marked_down(note)}\n" for note in below)
            parts.append(f"{heading}{markdown(body)}\n{notes}")
    return "\n".join(parts) + "".join(f"\n{marked_down(note)}\n" for note in board.notes)


def save(frame: pd.DataFrame, by: str, fmt: str, output: Path | None) -> None:
    """The numbers as csv, json or parquet.

    In CSV, text is made harmless (``plain.for_spreadsheet``); the other two hold it as
    it is.
    """
    if fmt == "parquet":
        if output is None:
            raise UserError("--format parquet needs --output FILE.parquet")
        write(frame, by, output)
    else:
        emit(for_spreadsheet(frame).to_csv(index=False) if fmt == "csv" else _json(frame), output)


def _json(frame: pd.DataFrame) -> str:
    """A list of objects, every number to its last digit (``to_json`` of pandas keeps ten
    decimals, and makes a score of 1e-12 a 0); what is missing or infinite is null.
    """
    there = frame.notna() & ~frame.isin([math.inf, -math.inf])
    rows = frame.astype(object).where(there, None).to_dict("records")
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"


def emit(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        atomic_write(output, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of strings, in which every character means itself
    (``plain.marked_down``).
    """
    rows = [
        [marked_down(cell) for cell in line]
        for line in [list(frame.columns), *frame.to_numpy().tolist()]
    ]
    lines = [rows[0], ["---"] * frame.shape[1], *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
