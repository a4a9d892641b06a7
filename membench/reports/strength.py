"""AUROC of detectors by kind of example against how much a model has memorized, as a
table and as plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from membench.boards.identity import marked, status_of
from membench.metrics.multiplicity import natural
from membench.reports.ladder import base_axis, whiskered
from membench.reports.plot_files import write_files
from membench.reports.plots import CHANCE, Axis, Line, Plot
from membench.reports.text import interval, number, told_briefly


def write(frame: pd.DataFrame, save: Path) -> None:
    """``<save>.parquet``, ``.png``, ``.svg`` and ``.pdf``, each whole or not there."""
    write_files(frame, save, {"": (plots(frame), title(frame))})


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """What the command prints: a row a rung, detector and model, in text."""
    option = frame.swept.iloc[0]
    kinds = kinds_of(frame)
    lines = []
    for (value, control, *_), rows in _settings(frame):
        of = rows.set_index("kind")
        first = of.loc["all"]
        line = {option: value, "base %": number(100 * first.base, 1)}
        line |= {"detector": marked(first.detector, first.status), "options": first.options}
        line["model"] = "control" if control else "model"
        line["AUROC"] = interval(first.auroc, first.auroc_low, first.auroc_high)
        line |= {k: number(of.auroc.get(k, np.nan), 3) for k in kinds if k != "all"}
        lines.append(line | {"seeds": str(first.seeds)})
    out = pd.DataFrame(lines)
    if out.options.nunique() > 1:
        out["options"] = told_briefly(out, "options")
    else:
        out = out.drop(columns="options")
    return out.drop(columns="base %") if frame.base.isna().all() else out


NOTE = (
    "AUROC of all kinds, with 95 % intervals over groups and seeds; then of each kind of\n"
    "memorized example, against the negatives of the same kind where there are any"
)


def kinds_of(frame: pd.DataFrame) -> list[str]:
    """ "all", then the kinds by how often an image was shown."""
    return ["all", *sorted(set(frame.kind) - {"all"}, key=natural)]


def _settings(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, bool, str, str], pd.DataFrame]]:
    """The rows of each rung, model, detector and options, in the order of the frame."""
    names = ["value", "control", "detector", "options"]
    yield from frame.groupby(names, sort=False)


def plots(frame: pd.DataFrame) -> list[Plot]:
    """A panel a detector and its options: a line a kind, the control model's hollow.

    x is the base rate where every rung has one, and else the rungs, evenly spaced.
    """
    values = list(dict.fromkeys(frame.value))
    known = bool(frame.base.notna().all())
    if known:
        at = [100 * float(frame.base[frame.value == value].iloc[0]) for value in values]
        x = base_axis(at)
    else:
        at = [float(i) for i in range(len(values))]
        ticks = list(zip(at, values, strict=True))
        x = Axis(frame.swept.iloc[0], 0.0, max(1.0, at[-1]), at=ticks, room=0.06)
    place = dict(zip(values, at, strict=True))
    kinds = kinds_of(frame)
    panels: list[Plot] = []
    for (detector, options), rows in frame.groupby(["detector", "options"], sort=False):
        lines = []
        for i, kind in enumerate(kinds):
            for control in (False, True):
                part = rows[(rows.kind == kind) & (rows.control.astype(bool) == control)]
                part = part.assign(at=part.value.map(place)).sort_values("at")
                if part.empty:
                    continue
                lines.append(
                    whiskered(
                        f"{kind}, control" if control else kind,
                        (i, len(kinds)),
                        control,
                        part["at"].to_numpy(dtype=float),
                        part.auroc.to_numpy(dtype=float),
                        part.auroc_low.to_numpy(dtype=float),
                        part.auroc_high.to_numpy(dtype=float),
                    )
                )
        lines.append(Line("chance", np.array([x.low, x.high]), np.full(2, 0.5), style=CHANCE))
        name = marked(f"{detector} {options}".strip(), status_of(rows.status))
        y = Axis("AUROC", 0.0, 1.0, room=0.03)
        panels.append(Plot(name, f"auroc-{len(panels)}", x, y, lines))
    return panels


def title(frame: pd.DataFrame) -> str:
    """What was run, and what the whiskers are, on two lines."""
    first, most = frame.iloc[0], int(frame.seeds.max())
    hollow = "; hollow: the control model" if frame.control.any() else ""
    return (
        f"AUROC by kind of example on {first.task}, {first.profile} profile, {first.swept}"
        f" {', '.join(dict.fromkeys(frame.value))}\n"
        f"{most} seed{'s' * (most > 1)}; whiskers: 95 % intervals over groups and seeds{hollow}"
    )
