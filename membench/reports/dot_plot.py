"""The first plot of a board: what each detector reaches, on the model and on the model
that has not seen the examples, beside what content alone reaches.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from membench.boards.captions import CONTROLS
from membench.boards.collect import about
from membench.boards.identity import marked
from membench.boards.mirror import pairs_of
from membench.boards.resampling import Resampler
from membench.boards.verdict import CONTROL, MIRROR
from membench.metrics.levels import two_level_interval
from membench.metrics.separation import auroc_bound
from membench.reports.plots import CHANCE, Axis, Line, Plot
from membench.runs.finished import Run

SIZE = "png_size"  # the detector that reads an image's size alone
UNSEEN = ["unseen", "unseen_low", "unseen_high"]
LETTERS = 20  # of a detector's name, in a line
# Styles of the ink c0: dashes, and dots
CAPTIONS, SIZES = 6, 12


def unseen_columns(frame: pd.DataFrame, runs: list[Run]) -> pd.DataFrame:
    """``unseen``, ``_low`` and ``_high`` of each row of a board over seeds: AUROC of its
    very examples and labels on the control model, else on the mirror model; and
    ``unseen_on``, which of the two. NaN and None where neither was asked.

    runs: of all boards, since a mirror model's are on one of its own. Its run has scored
    the same examples under other labels, so it is measured anew under the row's: against
    all its negatives, held-out ones too, as the row's own AUROC is.
    """
    out = pd.DataFrame(np.nan, index=frame.index, columns=UNSEEN)
    out["unseen_on"] = None
    if "control_auroc" in frame:
        columns = ["control_auroc", "control_auroc_low", "control_auroc_high"]
        out[UNSEEN] = frame[columns].astype(float).to_numpy()
        out.loc[out.unseen.notna(), "unseen_on"] = CONTROL
    found = {}
    for pairs in pairs_of(runs):
        for half in (0, 1):
            settings = about(pairs[0][half])["settings"]
            found[settings] = [(pair[half], pair[1 - half]) for pair in pairs]
    for i, r in frame.iterrows():
        if r.settings in found and out.unseen_on[i] is None:
            out.loc[i, UNSEEN] = _on_mirror(found[r.settings])
            out.loc[i, "unseen_on"] = MIRROR
    return out


def _on_mirror(pairs: Sequence[tuple[Run, Run]]) -> tuple[float, float, float]:
    """AUROC, with its interval, of the mirror's scores under the labels and groups of
    the run, over seeds.

    pairs: of each seed the run, and the same on its mirror model.
    """
    of_run = ["id", "label", "kind", "group", "source"]
    relabelled = [
        replace(
            mirror,
            scores=mirror.scores.drop(columns=of_run[1:]).merge(run.scores[of_run], on="id"),
        )
        for run, mirror in pairs
    ]
    resampler = Resampler(metrics=("auroc",))
    drawn = [of["auroc"] for of in resampler.detection(relabelled) if "auroc" in of]
    if not drawn:
        return (math.nan,) * 3
    values = [of.value for of in drawn]
    resampled = [of.resampled for of in drawn if of.resampled is not None]
    if not resampled:
        return float(np.mean(values)), math.nan, math.nan
    ends = two_level_interval(values, np.stack(resampled), logit=True)
    frame = resampler.common(relabelled)[0].frame
    labels, groups = (frame[name].to_numpy() for name in ("label", "group"))
    return float(np.mean(values)), *auroc_bound(ends, labels, groups.astype(str), 0.95)


def dot_plot(frame: pd.DataFrame, unseen: pd.DataFrame) -> Plot | None:
    """A row a detector, best first, with whiskers; None where no row has an AUROC.

    frame: rows of one part of a board over seeds. unseen: of :func:`unseen_columns`. Lines:
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
    asked = CONTROL if rows.control.iloc[0] else "the model"
    every = np.ones(len(rows), dtype=bool)
    for name, column, of, marker, aside in (
        (asked, "auroc", every, "o", 0.0),
        (MIRROR, "unseen", rows.unseen_on == MIRROR, "o", -0.22),
        (CONTROL, "unseen", rows.unseen_on == CONTROL, "s", -0.22),
    ):
        value, low, high = (
            rows[f"{column}{end}"].where(of).to_numpy(dtype=float) for end in ("", "_low", "_high")
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
                    marker=marker,
                    hollow=column == "unseen",
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
        "AUROC with its 95 % interval, of the memorized examples against all negatives, as in the"
        " table. Hollow: the same examples and labels on a model that has not seen the memorized"
        " ones, the control model where it was asked (a square), else the mirror model (a circle);"
        " a mirror model has seen some of the negatives, so that it lies below 0.5."
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
