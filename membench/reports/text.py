"""Frames and intervals as text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def interval(value: float, low: float, high: float, *, scale: float = 1.0, digits: int = 3) -> str:
    """``0.912 [0.884, 0.936]``; ``n/a`` where the metric is not defined or not
    supported by the data.
    """
    if pd.isna(value):
        return "n/a"
    text = f"{value * scale:.{digits}f}"
    return text if pd.isna(low) else f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def supported(text: str, metric: str) -> str:
    """The text of a metric's cell; of a TPR that is ``n/a``, with what it needs: one
    negative for each step of the limit.
    """
    if text != "n/a" or not metric.startswith("tpr_at_fpr_"):
        return text
    return f"n/a (needs ≥ {round(1 / float(metric.removeprefix('tpr_at_fpr_'))):,} negatives)"


def number(value: float, digits: int = 0) -> str:
    """With thousands separated; ``n/a`` for a missing one."""
    return "n/a" if pd.isna(value) else f"{value:,.{digits}f}"


def with_more(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """The names, and behind one that stands with several of ``more`` its own."""
    pairs = list(zip(names, more, strict=True))
    held = [name for name, _ in set(pairs)]
    return [f"{name} {of}".strip() if held.count(name) > 1 else name for name, of in pairs]


LONGEST = 16  # of a value in a table; weights that another run has learned are longer


def briefly(options: str) -> str:
    """Options in one line, ``key=value``, a value of more than LONGEST characters cut
    short. A stored board holds them whole.
    """
    words = [word.partition("=") for word in options.split(" ")]
    return " ".join(
        f"{key}{equals}{value if len(value) <= LONGEST else value[: LONGEST - 1] + '…'}"
        for key, equals, value in words
    )


def told_briefly(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of options, :func:`briefly`; in full where two rows, which ``rows`` names
    by all its columns, are cut to the same words.
    """
    short = rows.assign(**{column: rows[column].map(briefly)})
    return short[column].mask(short.duplicated(keep=False), rows[column])
