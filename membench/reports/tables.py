"""The tables that show a board, by what a row of it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd

from membench.boards.board import Board
from membench.reports.attack_tables import attack_tables
from membench.reports.board_tables import bands_tables, differences_tables, run_tables
from membench.reports.mirror_tables import mirror_tables, worlds_tables
from membench.reports.seeds_tables import seeds_tables, summary_tables

# What a table shows, its text and the notes below it.
Tables = Iterable[tuple[str, pd.DataFrame, Sequence[str]]]
OF_PARTS: dict[str, Callable[[pd.DataFrame], Tables]] = {
    "run": run_tables,
    **dict.fromkeys(("seeds", "kind", "source"), seeds_tables),
    "mirror": mirror_tables,
    "worlds": worlds_tables,
    "attack": attack_tables,
    "band": bands_tables,
    "difference": differences_tables,
}


def tables_of(board: Board, *, wide: bool = True) -> Iterator[tuple[str, pd.DataFrame, Tables]]:
    """(full title, the numbers, their tables) of each part of a board; a summary and
    published numbers are one part without a title. wide: a summary says of attacks,
    too, what they copy.
    """
    if board.by == "published":
        title = "published numbers beside measured ones"
        yield "", board.frame, [(title, board.frame, [])]
    elif board.by == "summary":
        yield "", board.frame, summary_tables(board.frame, images=wide)
    else:
        for part in board.parts:
            yield part.title, part.frame, OF_PARTS[board.by](part.frame)
