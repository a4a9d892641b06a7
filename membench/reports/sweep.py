"""A sweep as a table and as plots: what a detector's option moves, against it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench.metrics.names import COPIES, DETECTION, INFO
from membench.reports.plot_files import write_files
from membench.reports.plots import CROSS, MARKERS, RUN_INKS, UNLABELLED, Axis, Line, Plot
from membench.reports.text import interval


def write(frame: pd.DataFrame, save: Path, helps: dict[str, str]) -> None:
    """``<save>.parquet``, ``.png``, ``.svg`` and ``.pdf``, each whole or not there. helps:
    option -> its line of help.
    """
    write_files(frame, save, {"": (plots(frame, helps), title(frame))})


# ----------------------------------------------------------------------------- printing


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """What the command prints: a row a point and model, in text; of several seeds the
    mean with the least and the greatest.
    """
    several, shown = frame.seed.nunique() > 1, moved(frame)
    lines = []
    for _, rows in frame.groupby(
        [frame[c].map(repr) for c in (*frame.attrs["swept"].values(), "control")], sort=False
    ):
        line = {
            option: str(rows[column].iloc[0]) for option, column in frame.attrs["swept"].items()
        }
        if frame.control.any():
            line["model"] = "control" if rows.control.iloc[0] else "model"
        for metric in shown:
            found = rows[(rows.metric == metric) & rows.band.isna()]
            how = {"scale": 100, "digits": 1} if metric in COPIES else {"scale": 1, "digits": 3}
            line[INFO[metric].title] = interval(*spread(found, several), **how)
        if not set(shown).isdisjoint(COPIES):
            line["N_G"] = extent(rows[rows.metric == "ams_cumulative"].n)
            line["forwards"] = extent(rows.forwards)
            line |= {"jvps": extent(rows.jvps)} if frame.jvps.gt(0).any() else {}
        refused = rows[rows.status == "refused"]
        status = sorted(set(rows.status) - {"refused"})
        if len(refused):
            seeds = f" for {len(refused)} of {rows.seed.nunique()} seeds" if several else ""
            status.append(
                textwrap.shorten(
                    f"refused{seeds}: {refused.error.iloc[0]}", 140, placeholder=" ..."
                )
            )
        lines.append(line | {"status": "; ".join(status)})
    return pd.DataFrame(lines)


def note(frame: pd.DataFrame) -> str:
    """What the brackets of :func:`summary` are, on one line."""
    seeds = sorted(set(frame.seed))
    if len(seeds) > 1:
        return (
            f"means of seeds {', '.join(map(str, seeds))}; brackets: least and greatest of them, no"
            " interval"
        )
    return f"seed {seeds[0]}; brackets: 95 % intervals over groups"


def moved(frame: pd.DataFrame) -> list[str]:
    """The metrics that the swept options move: of detection, of extraction, or both.

    A group is moved where one of its metrics differs between two points of one seed and
    model. Where none is, or there is one point, every group that has values.
    """
    groups = [[m for m in SCORED if m in DETECTION], list(COPIES)]
    whole = frame[frame.band.isna() & frame.value.notna()]
    there = [[m for m in group if (whole.metric == m).any()] for group in groups]
    rows = whole.groupby(["metric", "seed", "control"])
    differs = {metric for (metric, *_), part in rows if part.value.nunique() > 1}
    found = [group for group in there if differs & set(group)] or there
    return [metric for group in found for metric in group] or list(COPIES)


def spread(rows: pd.DataFrame, several: bool) -> tuple[float, float, float]:
    """Mean, least and greatest of several seeds; of a sweep with one, the value and its
    interval. NaN where there is none.
    """
    values = rows.value.dropna()
    if several or values.empty:
        return values.mean(), values.min(), values.max()
    return values.iloc[0], rows.low.iloc[0], rows.high.iloc[0]


def extent(values: Iterable[int]) -> str:
    """``"804"``, ``"4 to 804"``, ``"n/a"``."""
    found = sorted({int(v) for v in values if pd.notna(v)})
    return " to ".join(f"{v:,}" for v in dict.fromkeys((found[0], found[-1]))) if found else "n/a"


PANELS = {
    "ams": "AMS (% of the generated images)",
    "ums": "UMS (different training images\nper 100 generated images)",
}
SCORED = {
    "auroc": "AUROC (%)",
    "tpr_at_fpr_0.01": "TPR at 1 % FPR (%)",
}


def plots(frame: pd.DataFrame, helps: Mapping[str, str]) -> list[Plot]:
    """A plot of each metric that the options move, such as AMS and UMS, or AUROC: x is
    the first swept option, a style a combination of the others.

    Thick lines: copies, by the task's threshold; thin ones: the bands. Several seeds
    are drawn as their mean, with whiskers from the least to the greatest; one seed with
    its interval, where the metric has one. A cross on the axis: refused. helps: option
    -> its line of help.
    """
    (option, column), *others = frame.attrs["swept"].items()
    values = list(dict.fromkeys(frame[column]))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    place = {v: float(v if numeric else i) for i, v in enumerate(values)}
    rest = (
        frame[[c for _, c in others]].itertuples(index=False, name=None)
        if others
        else [()] * len(frame)
    )
    frame = frame.assign(
        x=[place[v] for v in frame[column]],
        series=[
            ", ".join(f"{name}={v}" for (name, _), v in zip(others, row, strict=True))
            for row in rest
        ],
    )
    label = textwrap.shorten(
        f"{option}: {helps[option]}" if helps.get(option) else option, 75, placeholder=" ..."
    )
    x, found = _axis(label, place, numeric), []
    shown = moved(frame)
    panels = {m: title for m, title in SCORED.items() if m in shown}
    panels |= PANELS if set(COPIES) & set(shown) else {}
    for metric, title in panels.items():
        series = list(dict.fromkeys(frame.series))
        lines = [
            line
            for i, name in enumerate(series)
            for line in _series(frame, metric, name, i, len(series))
        ]
        heights = [values for line in lines for values in (line.y, line.high) if values is not None]
        top = max([1.0, *(float(v) for values in heights for v in values if np.isfinite(v))])
        foot = -0.03 * top
        lines = [
            replace(line, y=np.full(len(line.x), foot)) if line.marker == CROSS else line
            for line in lines
        ]
        y = Axis(title, foot, 1.05 * top)
        found.append(Plot(INFO[metric].title.removesuffix(" %"), metric, x, y, lines))
    return found


def _series(frame: pd.DataFrame, metric: str, name: str, i: int, of: int) -> list[Line]:
    """The lines of one combination of the other options, the i-th.

    Lines above others come later.
    """
    own, several, space = (
        frame[frame.series == name],
        frame.seed.nunique() > 1,
        frame.attrs["space"],
    )
    made = []
    scored = metric in SCORED
    for j, band in enumerate([] if scored else space["bands"]):
        rows = own[(own.metric == metric) & (own.band == band["name"]) & ~own.control]
        # Of one series in a colour of its own, of several in the series' colour.
        style = (i if of > 1 else (1, 4, 2, 3)[j % 4]) % RUN_INKS + RUN_INKS * ((j + 1) % 4)
        key = f"band {band['name']} [{band['low']:g}, {band['high']:g})" if i == 0 else ""
        x, y = _points(rows, several)[:2]
        made.append(Line(key, x, y, style=style, width=0.9))
    copies = (
        f"copies ({space['id'].split('/')[0]} {'≥' if space['higher_is_closer'] else '≤'}"
        f" {space['copy']:g})"
    )
    crosses = []
    for control in (True, False):  # the model above its control
        rows = own[
            (own.metric == (metric if scored else f"{metric}_cumulative"))
            & own.band.isna()
            & (own.control == control)
        ]
        # So that the whiskers of one x stand side by side
        aside = min(5.0, 18 / of) * (i - (of - 1) / 2 + control / 2)
        look: dict[str, Any] = {
            "marker": MARKERS[i % len(MARKERS)],
            "whiskers": True,
            "aside": aside,
        }
        look |= (
            {"style": UNLABELLED, "hollow": True}
            if control
            else {"style": i % RUN_INKS, "width": 2.2}
        )
        what = "all examples" if scored else copies
        key = (
            (f"{'all examples' if scored else 'copies'}, control model" if i == 0 else "")
            if control
            else f"{name}: {what}"
            if name
            else what
        )
        if not control or own.control.any():
            made.append(Line(key, *_points(rows, several), **look))
        refused = own[(own.status == "refused") & (own.control == control)].x.unique()
        look = {"style": look["style"], "joined": False, "marker": CROSS, "aside": aside}
        crosses += (
            [Line("refused", refused, np.full(len(refused), np.nan), **look)]
            if len(refused)
            else []
        )
    return made + crosses


def _points(rows: pd.DataFrame, several: bool) -> np.ndarray:
    """x, value and the ends of the whiskers, in per cent: float64 [4, points]."""
    points = [(x, *spread(part, several)) for x, part in rows[rows.value.notna()].groupby("x")]
    return np.array(points, dtype=float).reshape(-1, 4).T * [[1], [100], [100], [100]]


def _axis(label: str, place: Mapping[Any, float], numeric: bool) -> Axis:
    """Ticks at the swept values, logarithmic over more than a decade; no number's label
    upon another.
    """
    values = sorted(place.values())
    sizes = [abs(v) for v in values if v]
    log = numeric and bool(sizes) and max(sizes) > 10 * min(sizes)
    axis = Axis(
        label, values[0], values[-1], log, min(sizes) if log and values[0] <= 0 else 0.0, room=0.06
    )
    names = [
        f"{v:g}" if numeric else str(name)
        for v, name in sorted((v, name) for name, v in place.items())
    ]
    free = -1.0
    for k, middle in enumerate(axis.share(np.array(values))):
        half = 0.009 * len(names[k])  # of the panel's width
        if numeric and middle - half < free:
            names[k] = ""
        else:
            free = middle + half
    return replace(axis, at=list(zip(values, names, strict=True)))


def title(frame: pd.DataFrame) -> str:
    """What was swept, and what the whiskers are, on two lines."""
    about, seeds = frame.attrs, sorted(set(frame.seed))
    first = f"{about['detector']} on {about['task']}, {about['profile']} profile"
    if settings := [*about.get("task_options", ()), *about["options"]]:
        first += f", {' '.join(settings)}"
    if about["n_examples"] < about["n_task_examples"]:
        first += f", PARTIAL: {about['n_examples']} of {about['n_task_examples']} examples"
    images = extent(frame[frame.metric == "ams_cumulative"].n)
    second = f"N_G = {images}{' (UMS falls as N_G grows)' if ' to ' in images else ''}; "
    if len(seeds) > 1:
        second += f"mean of seeds {', '.join(map(str, seeds))}, whiskers: least and greatest"
    else:
        second += f"seed {seeds[0]}, whiskers: 95 % intervals"
    return f"{textwrap.shorten(first, 150, placeholder=' ...')}\n{second}"
