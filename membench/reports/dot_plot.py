"""The first plot of a board: what each detector reaches, on the model and on the model
that has not seen the examples, beside what content alone reaches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.captions import CONTROLS
from membench.boards.identity import marked
from membench.boards.mirror import mirror_rows, paired
from membench.reports.plots import CHANCE, Axis, Line, Plot
from membench.runs.finished import Run

SIZE = "png_size"  # the detector that reads an image's size alone
LETTERS = 20  # of a detector's name, in a line
# Styles of the ink c0: dashes, and dots
CAPTIONS, SIZES = 6, 12


def unseen_columns(frame: pd.DataFrame, runs: list[Run]) -> pd.DataFrame:
    """``unseen``, ``_low`` and ``_high`` of each row of a board over seeds: AUROC of its
    labels on the mirror model, else on the control model; NaN where neither was asked.

    runs: of all boards, since a mirror model's are on one of its own. Of a mirror model
    it is 1 less its own AUROC, of which labels are exchanged.
    """
    names = ["unseen", "unseen_low", "unseen_high"]
    columns = ["control_auroc", "control_auroc_low", "control_auroc_high"]
    out = pd.DataFrame(np.nan, index=frame.index, columns=names)
    if "control_auroc" in frame:
        out[names] = frame[columns].astype(float).to_numpy()
    pairs, _ = paired(runs)
    rows = mirror_rows(pairs) if pairs else pd.DataFrame({"kind": []})
    found: dict[Any, tuple[float, float, float]] = {}
    for r in rows[rows.kind == "all"].to_dict("records"):
        # The model of half a first; of each the other is the mirror model
        for other, weights in zip("ba", r["weights"].split("|"), strict=True):
            key = (r["task"], r["profile"], weights, r["examples"], r["detector"], r["options"])
            value, low, high = (r[f"auroc_{other}{end}"] for end in ("", "_low", "_high"))
            found[key] = (1 - value, 1 - high, 1 - low)
    for i, r in frame.iterrows():
        key = (r.task, r.profile, r.weights, r.examples, r.detector, r.options)
        if key in found and not r.control:
            out.loc[i, names] = found[key]
    return out


def dot_plot(frame: pd.DataFrame, unseen: pd.DataFrame) -> Plot | None:
    """A row a detector, best first, with whiskers; None where no row has an AUROC.

    frame: rows of a board over seeds. unseen: of :func:`unseen_columns`. Lines:
    what captions alone reach (``captions_auroc``), and what sizes alone do.
    """
    rows = frame.join(unseen)
    lines = _lines(rows)
    rows = rows[rows.auroc.notna() & ~rows.detector.isin([*CONTROLS, SIZE])]
    if rows.empty:
        return None
    rows = rows.sort_values("auroc", ascending=False)
    at = np.arange(len(rows))[::-1].astype(float)
    shown = []
    for name, column, hollow, aside in (
        ("the model", "auroc", False, 0.0),
        ("the mirror or control model", "unseen", True, -0.22),
    ):
        value, low, high = (
            rows[f"{column}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high")
        )
        if np.isfinite(value).any():
            shown.append(
                Line(
                    name,
                    value,
                    at + aside,
                    low,
                    high,
                    style=2,
                    joined=False,
                    marker="o",
                    hollow=hollow,
                    whiskers=True,
                    across=True,
                )
            )
    ends = np.array([-0.7, len(rows) - 0.3])
    shown += [Line(name, np.full(2, x), ends, style=style) for name, (x, style) in lines.items()]
    options = rows.options if rows.options.nunique() > 1 else [""] * len(rows)
    names = [
        textwrap.fill(marked(f"{r.detector} {asked}".strip(), r.status), LETTERS)
        for r, asked in zip(rows.itertuples(), options, strict=True)
    ]
    reach = np.concatenate(
        [np.atleast_1d(v) for line in shown for v in (line.x, line.low) if v is not None]
    )
    least = float(np.nanmin([0.45, np.nanmin(reach) - 0.02]))
    note = (
        "AUROC with its 95 % interval. Hollow: the same labels on the mirror or control model,"
        " which has not seen the memorized examples; a mirror model has seen the others, so that"
        " it lies below 0.5."
    )
    return Plot(
        "What each detector reaches",
        "dots",
        Axis("AUROC", max(0.0, least), 1.0),
        Axis("detector", -0.7, len(rows) - 0.3, at=list(zip(at, names, strict=True))),
        [Line("chance", np.full(2, 0.5), ends, style=CHANCE), *shown],
        note=note,
        height=1.1 + 0.2 * sum(1.4 + name.count("\n") for name in names),
    )


def _lines(rows: pd.DataFrame) -> Mapping[str, tuple[float, int]]:
    """(AUROC, style) of what needs no model, by what the key calls it."""
    found = {}
    if "captions_auroc" in rows and rows.captions_auroc.notna().any():
        best = rows[rows.captions_auroc.notna()].iloc[0]
        found[f"captions alone {best.captions_auroc:.3f}"] = (float(best.captions_auroc), CAPTIONS)
    sizes = rows[(rows.detector == SIZE) & rows.auroc.notna()]
    if len(sizes):
        found[f"PNG size alone {sizes.auroc.iloc[0]:.3f}"] = (float(sizes.auroc.iloc[0]), SIZES)
    return found
