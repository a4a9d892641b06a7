"""A board as tables for a paper: LaTeX, with booktabs."""

from __future__ import annotations

import re

import pandas as pd

from membench.boards.board import Board
from membench.boards.leaders import leaders_lines
from membench.plain import plain
from membench.reports.screen import Shown, short_notes, shown

HEAD = r"% \usepackage{booktabs}"

# Characters that mean something else to LaTeX, or that pdfLaTeX does not know
MATH = {
    **{"≥": r"\geq", "≤": r"\leq", "±": r"\pm", "×": r"\times", "−": "-", "√": r"\surd"},
    **{"→": r"\to", "·": r"\cdot", "α": r"\alpha", "γ": r"\gamma", "σ": r"\sigma"},
    **{"<": "<", ">": ">", "|": "|", "\\": r"\backslash", "~": r"\sim", "^": r"{}^\wedge"},
}
MEANT = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"${words}$" for c, words in MATH.items()}
    | {"…": r"\ldots{}", '"': "''"}
)


def in_latex(board: Board, *, wide: bool = False) -> str:
    """The board's tables (``screen.shown``), each with a caption and its notes; of
    leaders, sentences.
    """
    if board.by == "leaders":
        return "\n\n".join(map(escaped, leaders_lines(board.frame))) + "\n"
    parts = [_table(of) for of in shown(board, wide=wide)]
    notes = [f"% {plain(note)}" for note in (board.notes if wide else short_notes(board))]
    return "\n\n".join([HEAD, *parts, *notes]) + "\n"


def escaped(text: str) -> str:
    """The text, of which every character means itself to LaTeX."""
    return plain(text).translate(MEANT)


def _table(of: Shown) -> str:
    body = of.body.map(lambda cell: escaped(str(cell)))
    sides = "".join(_side(of.body[title]) for title in of.body)
    rows = body.set_axis(map(escaped, body.columns), axis=1).style.hide(axis="index")
    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{escaped(of.head)}}}"]
    lines += [rows.to_latex(hrules=True, column_format=sides).rstrip(), ""]
    lines += [rf"\footnotesize {escaped(note)}\par" for note in of.notes]
    return "\n".join([*lines, r"\end{table}"])


def _side(cells: pd.Series) -> str:
    """Numbers stand at the right of their column."""
    return "r" if all(re.match(r"[-+<>≥]?[\d.]|n/a|$", str(cell)) for cell in cells) else "l"
