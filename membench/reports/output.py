"""A table as text, Markdown, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from membench.boards.board import Board
from membench.boards.leaders import leaders_lines
from membench.boards.saved import write
from membench.errors import UserError
from membench.plain import for_spreadsheet, marked_down, plain, say
from membench.reports.attack_tables import attack_tables
from membench.reports.board_tables import bands_tables, differences_tables, run_tables
from membench.reports.mirror_tables import mirror_tables
from membench.reports.seeds_tables import seeds_tables, summary_tables
from membench.storage.files import atomic_write

Tables = Iterable[tuple[str, pd.DataFrame, Sequence[str]]]
# What the parts of a board show, by what a row is of.
OF_PARTS: dict[str, Callable[[pd.DataFrame], Tables]] = {
    "run": run_tables,
    **dict.fromkeys(("seeds", "kind", "source"), seeds_tables),
    "mirror": mirror_tables,
    "attack": attack_tables,
    "band": bands_tables,
    "difference": differences_tables,
}


def write_boards(board: Board, fmt: str, output: Path | None) -> None:
    """Prints a board, or writes it to ``output``. csv, json and parquet hold numbers,
    table and md text. Raises :class:`UserError`.
    """
    if board.by == "leaders" and fmt not in ("table", "md"):
        raise UserError(
            f"--by leaders makes sentences; for numbers: --by difference --format {fmt}"
        )
    if fmt in ("table", "md"):
        emit(text_of(board, fmt), output)
    else:
        save(board.frame, board.by, fmt, output)
    if output is not None:
        say(f"{len(board.frame)} rows written to {output}")


def text_of(board: Board, fmt: str) -> str:
    """The board as tables of text, and below them why its parts are apart; of leaders,
    sentences.
    """
    line, before = (marked_down, "\n") if fmt == "md" else (plain, "")
    if board.by == "leaders":
        return before.join(f"{line(text)}\n" for text in leaders_lines(board.frame))
    if board.by == "published":
        title = "published numbers beside measured ones"
        return (
            f"### {title}\n\n{markdown(board.frame)}\n"
            if fmt == "md"
            else table(title, board.frame)
        )
    if board.by == "summary":
        shown: dict[str, Tables] = {"": summary_tables(board.frame)}
    else:
        shown = {part.title: OF_PARTS[board.by](part.frame) for part in board.parts}
    parts = []
    for title, tables in shown.items():
        parts += [f"### {line(title)}\n"] if fmt == "md" and title else []
        for what, body, below in tables:
            heading = f"{what.capitalize()}:\n\n" if title else ""
            text = (
                f"{heading}{markdown(body)}\n"
                if fmt == "md"
                else table(f"{title}: {what}" if title else what, body)
            )
            parts.append(text + "".join(f"{before}{line(note)}\n" for note in below))
    return "\n".join(parts) + "".join(f"{before}{line(note)}\n" for note in board.notes)


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
        text = for_spreadsheet(frame).to_csv(index=False) if fmt == "csv" else ""
        emit(
            text or json.dumps(json.loads(frame.to_json(orient="records")), indent=1) + "\n", output
        )


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


def table(title: str, frame: pd.DataFrame) -> str:
    """A terminal table of :func:`~membench.plain.plain` text; as wide as it needs to be
    where stdout is not a terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # a str would be read as markup, and lose what stands in brackets

    made = Table(
        title=Text(plain(title)), title_justify="left", title_style="bold", header_style="bold"
    )
    for column in frame.columns:
        made.add_column(Text(plain(column)), no_wrap=not sys.stdout.isatty())
    for row in frame.to_numpy().tolist():
        made.add_row(*(Text(plain(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
