"""A table as text, Markdown, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from membench.boards.identity import apart, boards
from membench.boards.seeds import over_seeds
from membench.errors import UserError
from membench.plain import for_spreadsheet, marked_down, plain, say
from membench.reports.board_tables import run_tables
from membench.reports.seeds_tables import seeds_tables
from membench.storage import files

FORMATS = ("table", "md", "csv", "json", "parquet")


Tables = Iterable[tuple[str, pd.DataFrame, Sequence[str]]]


def text_of(frame: pd.DataFrame, tables: Mapping[str, Tables], fmt: str) -> str:
    """The boards as text, and below them why they are apart. tables: of each title, (what it shows, text, notes below)."""
    parts = []
    line = marked_down if fmt == "md" else plain
    for title in tables:
        parts += [f"### {line(title)}\n"] if fmt == "md" and title else []
        for what, body, below in tables[title]:
            heading = f"{what.capitalize()}:\n\n" if title else ""
            shown = f"{heading}{markdown(body)}\n" if fmt == "md" else table(f"{title}: {what}" if title else what, body)
            between = "\n" if fmt == "md" else ""
            parts.append(shown + "".join(f"{between}{line(note)}\n" for note in below))
    before = "\n" if fmt == "md" else ""
    return "\n".join(parts) + "".join(f"{before}{line(note)}\n" for note in apart(frame))


def write(frame: pd.DataFrame, fmt: str, out: Path | None, seeds: bool = False) -> None:
    """Prints the boards, or writes them to ``out``. csv, json and parquet hold numbers.

    seeds: the frame is one of ``seeds_table.over_seeds``, or is made one, with a row a setting in place of one a run.
    """
    if seeds and "seeds" not in frame:
        frame = over_seeds(frame)
    if fmt in ("table", "md"):
        shown = {title: seeds_tables(part) if seeds else run_tables(part) for title, part in boards(frame)}
        emit(text_of(frame, shown, fmt), out)
    else:
        save(frame, fmt, out)
    if out is not None:
        say(f"{len(frame)} {'settings' if seeds else 'runs'} written to {out}")


def save(frame: pd.DataFrame, fmt: str, out: Path | None) -> None:
    """The numbers as csv, json or parquet. In CSV, text is made harmless (``plain.for_spreadsheet``); the other two hold it as it is."""
    if fmt == "parquet":
        if out is None:
            raise UserError("--format parquet needs --out FILE.parquet")
        files.atomic_write(out, lambda temporary: frame.to_parquet(temporary, index=False))
    else:
        text = for_spreadsheet(frame).to_csv(index=False) if fmt == "csv" else ""
        emit(text or json.dumps(json.loads(frame.to_json(orient="records")), indent=1) + "\n", out)


def emit(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        files.atomic_write(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of strings, in which every character means itself (``plain.marked_down``)."""
    rows = [[marked_down(cell) for cell in line] for line in [list(frame.columns), *frame.to_numpy().tolist()]]
    lines = [rows[0], ["---"] * frame.shape[1], *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(title: str, frame: pd.DataFrame) -> str:
    """A terminal table of :func:`~membench.plain.plain` text; as wide as it needs to be where stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # a str would be read as markup, and lose what stands in brackets

    made = Table(title=Text(plain(title)), title_justify="left", title_style="bold", header_style="bold")
    for column in frame.columns:
        made.add_column(Text(plain(column)), no_wrap=not sys.stdout.isatty())
    for row in frame.to_numpy().tolist():
        made.add_row(*(Text(plain(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
