"""Frames and intervals as text."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pandas as pd

from membench.plain import marked_down, plain

DETECTION = {  # metrics in tables, and their titles
    "auroc": "AUROC",
    "auroc_complexity_matched": "AUROC matched",
    "tpr_at_fpr_0.01": "TPR@1%FPR",
    "average_precision": "AP",
}
RARE = {"tpr_at_fpr_0.001": "TPR@0.1%FPR"}  # shown where the negatives support it
GENERATIONS = {  # of images whose prompt's own training pictures are known: metrics/truth.py
    "own_copies": "own copies %",
    "prompts_returned": "prompts returned %",
    "auroc_of_generations": "AUROC of images",
}
COPIES = {"ams_cumulative": "AMS copies %", "ums_cumulative": "UMS copies %"}


DETERMINISTIC = "deterministic"  # in place of a number of seeds, where each seed gives the same scores


def marked(name: str, status: str) -> str:
    """The name of a row; of one that is not whole with PARTIAL in front of it, and so in front of its numbers."""
    return name if status == "complete" else f"PARTIAL {name}"


def status_of(statuses: Iterable[str]) -> str:
    """``complete`` if all are."""
    return "complete" if all(status == "complete" for status in statuses) else "partial"


def interval(value: float, low: float, high: float, *, scale: float = 1.0, digits: int = 3) -> str:
    """``0.912 [0.884, 0.936]``; ``n/a`` where the metric is not defined or not supported by the data."""
    if pd.isna(value):
        return "n/a"
    text = f"{value * scale:.{digits}f}"
    return text if pd.isna(low) else f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def supported(text: str, metric: str) -> str:
    """The text of a metric's cell; of a TPR that is ``n/a``, with what it needs: one negative for each step of the limit."""
    if text != "n/a" or not metric.startswith("tpr_at_fpr_"):
        return text
    return f"n/a (needs ≥ {round(1 / float(metric.removeprefix('tpr_at_fpr_'))):,} negatives)"


def number(value: float, digits: int = 0) -> str:
    """With thousands separated; ``n/a`` for a missing one."""
    return "n/a" if pd.isna(value) else f"{value:,.{digits}f}"


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
