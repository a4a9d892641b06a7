"""What each detector reaches against what it asks of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from membench.boards.collect import about
from membench.boards.identity import marked
from membench.reports.plots import CHANCE, MARKERS, RUN_INKS, Axis, Line, Plot
from membench.runs.finished import Run, evaluations_per_example


def evaluated(frame: pd.DataFrame, runs: Sequence[Run]) -> pd.Series:
    """Forwards and Jacobian-vector products an example of each row of a board over seeds,
    mean over its ``runs``; what a detector needs to learn, or to generate what it scores
    by, is in it.
    """
    spent: dict[str, list[float]] = {}
    for run in runs:
        spent.setdefault(about(run)["settings"], []).append(evaluations_per_example(run))
    return pd.Series(
        [np.mean(spent.get(settings, [np.nan])) for settings in frame.settings],
        index=frame.index,
        dtype=float,
    )


def detector_cost_plot(frame: pd.DataFrame, evaluations: pd.Series) -> Plot | None:
    """AUROC with its interval against evaluations an example, and the best of what costs
    as much or less; None for fewer than two detectors that ask the model.

    frame: rows of a board over seeds. evaluations: of :func:`evaluated`.
    """
    rows = frame.assign(evaluations=evaluations)
    rows = rows[rows.auroc.notna() & rows.evaluations.notna()].sort_values("evaluations")
    if rows[rows.evaluations > 0].detector.nunique() < 2:
        return None
    options = rows.options if rows.options.nunique() > 1 else [""] * len(rows)
    lines = []
    for i, (r, given) in enumerate(zip(rows.itertuples(), options, strict=True)):
        value, low, high = (
            np.array([v], dtype=float) for v in (r.auroc, r.auroc_low, r.auroc_high)
        )
        lines.append(
            Line(
                marked(f"{r.detector} {given}".strip(), r.status),
                np.array([r.evaluations], dtype=float),
                value,
                low,
                high,
                style=i % RUN_INKS,
                joined=False,
                marker=MARKERS[i // RUN_INKS % len(MARKERS)],
                whiskers=True,
            )
        )
    costs = rows.evaluations.to_numpy(float)
    last = 1.3 * float(costs.max())
    best = rows.auroc.cummax().to_numpy(float)
    least = float(min(0.45, np.nanmin(rows.auroc_low.astype(float).fillna(rows.auroc)) - 0.02))
    lines.append(
        Line(
            "best so far",
            np.append(costs, last),
            np.append(best, best[-1]),
            style=CHANCE,
            steps=True,
        )
    )
    return Plot(
        "What each detector costs",
        "detector-cost",
        Axis(
            "evaluations of the model, an example",
            0.0,
            last,
            log=True,
            linear=1.0,
            at=_ticks(last),
            room=0.04,
        ),
        Axis("AUROC", max(0.0, least), 1.0),
        lines,
        note=(
            "AUROC with its 95 % interval against forwards and Jacobian-vector products an"
            " example, images that it scores by included. Dotted: the best of what costs as much"
            " or less."
        ),
    )


def _ticks(last: float) -> list[tuple[float, str]]:
    at = [0.0, *(10.0**k for k in range(12) if 10.0**k <= last)]
    return [(x, f"{x:,.0f}") for x in at]
