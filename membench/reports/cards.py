"""A leaderboard for other places: the card of a data set on the hub, and a piece of
Markdown for a model card.
"""

from __future__ import annotations

from membench.boards.board import Board
from membench.boards.columns import KINDS, column
from membench.plain import marked_down
from membench.reports.output import markdown
from membench.reports.short import notes_of, short_titles, shortened, told_apart
from membench.reports.tables import tables_of

FILES = ("leaderboard.parquet", "runs.yaml", "README.md")


def snippet(board: Board) -> str:
    """Markdown of the short tables, for a model card: what was measured and what it
    means.
    """
    titles = short_titles(board)
    parts = ["## Memorization\n"]
    for title, frame, tables in tables_of(board, wide=False):
        for _, body, below in list(tables)[:1]:
            text = shortened(board.by, body, frame)
            notes = notes_of(text, below)
            text, same = told_apart(text)
            head = ", ".join(filter(None, [titles.get(title, ""), same]))
            parts.append(f"{marked_down(head)}\n\n{markdown(text)}\n")
            parts += [f"{marked_down(note)}\n" for note in notes]
    parts.append("Measured by membench; higher AUROC: training images leave more of a trace.\n")
    return "\n".join(parts)


def data_card(board: Board, command: str) -> str:
    """README.md of a data set repository: what it is, how it was made, its columns.

    command: that makes the runs again.
    """
    rows = []
    for name in board.frame.columns:
        of = column(str(name), board.by)
        rows.append(f"| `{name}` | {KINDS[of.kind]} | {of.unit} | {of.about} |")
    lines = [
        "---",
        "license: apache-2.0",
        "tags: [membench, memorization, diffusion]",
        "configs:",
        "  - config_name: default",
        "    data_files: leaderboard.parquet",
        "---",
        "",
        "# A membench leaderboard",
        "",
        snippet(board),
        "## How it was made",
        "",
        f"`{command}` makes the runs, `membench leaderboard --by {board.by}` the table. Rows that"
        " agree in the first ten columns may be compared.",
        "",
        "## Columns",
        "",
        "| column | type | unit | what it holds |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    return "\n".join(lines)
