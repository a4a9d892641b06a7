"""Tables for a terminal of any width, in which no number and no name is cut off.

What does not fit beside the rest is folded between words; columns that do not fit at
all stand in a further block of the same rows, below the first. Where stdout is no
terminal, a table is as wide as it needs to be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text  # a str would be read as markup, and lose what stands in brackets

from membench.plain import plain
from membench.reports.lines import folded, width

# Columns that say what a row is of: where they stand in front, each block begins with
# them.
NAMES: tuple[str, ...] = (
    "detector",
    "options",
    "seed",
    "kind",
    "source",
    "subset",
    "images",
    "region",
)
NAMES += ("better", "worse", "paper", "model")
GAP = 2  # between two columns
PROSE, FOLDED = 60, 28  # a text of more than this is folded to no less than that
SHORT = 6  # a title that is not folded, such as a / b
_NUMBER = re.compile(r"[-≥>=<]*\s?\d|n/a")


def table(title: str, frame: pd.DataFrame) -> str:
    """A table of :func:`~membench.plain.plain` text for the terminal that stdout is."""
    return laid_out(title, frame, width())


def laid_out(title: str, frame: pd.DataFrame, room: int | None) -> str:
    """The table for a terminal of ``room`` columns; None: of any width.

    frame: cells are shown as ``plain(str(cell))``. Blocks of columns are parted by an
    empty line.
    """
    cells = [[plain(cell) for cell in row] for row in frame.to_numpy().tolist()]
    columns = [
        Column(plain(name), [row[place] for row in cells])
        for place, name in enumerate(frame.columns)
    ]
    lines = folded(plain(title), room)
    for block in _blocks(columns, room):
        lines += [*_block(block, styled=room is not None), ""]
    return "\n".join(lines[:-1] if columns else lines) + "\n"


class Column:
    """A column's texts and how narrow they may be. fixed: of numbers, whose cells are
    never folded. least, natural: cells of a terminal, folded as far as it goes and not
    at all. Wide characters count two.
    """

    def __init__(self, title: str, cells: Sequence[str]) -> None:
        self.title, self.cells = title, cells
        told = [cell for cell in cells if cell]
        self.fixed = bool(told) and all(map(_NUMBER.match, told))
        words = [word for cell in cells for word in ([cell] if self.fixed else cell.split())]
        head = title.split() if len(title) > SHORT else [title]
        longest = max(map(cell_len, [*head, *words]), default=0)
        self.natural = max(map(cell_len, [title, *cells]))
        self.least = max(longest, 1)
        self.wanted = max(self.least, FOLDED) if self.natural > PROSE else self.least


def _blocks(columns: Sequence[Column], room: int | None) -> list[list[tuple[Column, int]]]:
    """Which columns stand side by side, and how wide each is."""
    if room is None:
        return [[(column, column.natural) for column in columns]]
    lead: list[Column] = []
    for column in columns:  # the first, and those that leave half of the terminal to the numbers
        taken = sum(c.wanted + GAP for c in lead)
        if lead and (column.title not in NAMES or taken + column.wanted > room // 2):
            break
        lead.append(column)
    rest = list(columns[len(lead) :])
    blocks: list[list[tuple[Column, int]]] = []
    while rest or not blocks:
        block = [*lead]
        while rest and (
            len(block) == len(lead) or sum(c.wanted + GAP for c in [*block, rest[0]]) - GAP <= room
        ):
            block.append(rest.pop(0))
        blocks.append(_widths(block, room))
    return blocks


def _widths(columns: Sequence[Column], room: int) -> list[tuple[Column, int]]:
    """What is left of the room goes to the columns that are folded, the first first; of
    a block that does not fit, every column is as narrow as it can be.
    """
    left = room - sum(c.wanted + GAP for c in columns) + GAP
    if left < 0:
        return [(column, column.least) for column in columns]
    found = []
    for column in columns:
        more = min(left, column.natural - column.wanted)
        found.append((column, column.wanted + more))
        left -= more
    return found


def _block(columns: Sequence[tuple[Column, int]], *, styled: bool) -> list[str]:
    """The lines of a block. One of a single column beyond the terminal's width is as
    wide as its longest word, which is not broken. styled: for a terminal; a file gets no
    escape sequences, although stdout may be a terminal.
    """
    made = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, GAP - 1, 0, 0),  # the box parts two columns by one more
        pad_edge=False,
        header_style="bold",
    )
    for column, space in columns:
        made.add_column(Text(column.title), width=space, overflow="fold")
    for row in zip(*(column.cells for column, _ in columns), strict=True):
        made.add_row(*(Text(cell) for cell in row))
    console = Console(
        width=sum(space + GAP for _, space in columns) + 2,
        color_system="auto" if styled else None,
    )
    with console.capture() as captured:
        console.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]
