"""The picture of a sweep: AMS and UMS against a detector's option."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from membench.metrics.names import COPIES
from membench.reports.text import interval
from membench.storage.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write(frame: pd.DataFrame, save: Path, helps: dict[str, str]) -> None:
    """``<save>.parquet``, ``.png`` and ``.svg``, each whole or not there. helps: option -> its line of help."""
    if save.suffix in (".parquet", ".png", ".svg"):
        save = save.with_suffix("")
    atomic_write(save.with_name(f"{save.name}.parquet"), lambda path: frame.to_parquet(path, index=False))
    for kind in ("png", "svg"):
        picture = draw(frame, helps, kind)
        atomic_write(save.with_name(f"{save.name}.{kind}"), lambda path, picture=picture: path.write_bytes(picture))  # type: ignore[misc]
    print(f"membench: {len(frame)} rows written to {save}.parquet, plots to {save}.png and {save}.svg", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ printing


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """What the command prints: a row a point and model, in text; of several seeds the mean with the least and the greatest."""
    several = frame.seed.nunique() > 1
    lines = []
    for _, rows in frame.groupby([frame[c].map(repr) for c in (*frame.attrs["swept"].values(), "control")], sort=False):
        line = {option: str(rows[column].iloc[0]) for option, column in frame.attrs["swept"].items()}
        if frame.control.any():
            line["model"] = "control" if rows.control.iloc[0] else "model"
        for metric, title in COPIES.items():
            copies = rows[(rows.metric == metric) & rows.band.isna()]
            line[title] = interval(*spread(copies, several), scale=100, digits=1)
        line |= {"N_G": extent(rows[rows.metric == "ams_cumulative"].n), "forwards": extent(rows.forwards)}
        line |= {"jvps": extent(rows.jvps)} if frame.jvps.gt(0).any() else {}
        refused = rows[rows.status == "refused"]
        status = sorted(set(rows.status) - {"refused"})
        if len(refused):
            seeds = f" for {len(refused)} of {rows.seed.nunique()} seeds" if several else ""
            status.append(textwrap.shorten(f"refused{seeds}: {refused.error.iloc[0]}", 140, placeholder=" ..."))
        lines.append(line | {"status": "; ".join(status)})
    return pd.DataFrame(lines)


def spread(rows: pd.DataFrame, several: bool) -> tuple[float, float, float]:
    """Mean, least and greatest of several seeds; of a sweep with one, the value and its interval. NaN where there is none."""
    values = rows.value.dropna()
    if several or values.empty:
        return values.mean(), values.min(), values.max()
    return values.iloc[0], rows.low.iloc[0], rows.high.iloc[0]


def extent(values: Iterable[int]) -> str:
    """``"804"``, ``"4 to 804"``, ``"n/a"``."""
    found = sorted({int(v) for v in values if pd.notna(v)})
    return " to ".join(f"{v:,}" for v in dict.fromkeys((found[0], found[-1]))) if found else "n/a"


PANELS = {"ams": "AMS (% of the generated images)", "ums": "UMS (different training pictures\nper 100 generated images)"}


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, without the yellow


MARKERS = "osD^vPX"


DASHES: tuple[Any, ...] = ((0, (6, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


CONTROL: dict[str, Any] = {"color": "0.5", "linestyle": "--", "linewidth": 1.6, "markerfacecolor": "white"}


def draw(frame: pd.DataFrame, helps: Mapping[str, str], kind: str) -> bytes:
    """The picture's file, ``png`` or ``svg``; the same bytes for the same frame. helps: option -> its line of help."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "membench", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}):
        plot(frame, helps).savefig(out, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def plot(frame: pd.DataFrame, helps: Mapping[str, str]) -> Figure:
    """A panel AMS, a panel UMS: x is the first swept option, a colour a combination of the others.

    Thick lines: copies, by the task's threshold; thin ones: the bands. Several seeds are drawn as their mean, with
    whiskers from the least to the greatest; one seed with its interval, where the metric has one.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    (option, column), *others = frame.attrs["swept"].items()
    values = list(dict.fromkeys(frame[column]))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    place = {v: v if numeric else i for i, v in enumerate(values)}
    rest = frame[[c for _, c in others]].itertuples(index=False, name=None) if others else [()] * len(frame)
    frame = frame.assign(
        x=[place[v] for v in frame[column]],
        series=[", ".join(f"{name}={v}" for (name, _), v in zip(others, row, strict=True)) for row in rest],
    )
    series, several = list(dict.fromkeys(frame.series)), frame.seed.nunique() > 1
    bands = [band["name"] for band in frame.attrs["space"]["bands"]]
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        tops = [_series(axes, frame[frame.series == name], metric, bands, i, len(series), several) for i, name in enumerate(series)]
        axes.set_ylim(-0.03 * max(1.0, *tops), 1.05 * max(1.0, *tops))
        if not frame[frame.metric == metric].value.notna().any():
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        axes.set_ylabel(title)
        axes.set_xlabel(textwrap.shorten(f"{option}: {helps[option]}" if helps.get(option) else option, 75, placeholder=" ..."))
        _scales(axes, place, numeric)
    handles = _legend(frame, series)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    figure.suptitle(_title(frame), fontsize=10)
    return figure


def _series(axes: Axes, own: pd.DataFrame, metric: str, bands: Sequence[str], i: int, of: int, several: bool) -> float:
    """The lines and crosses of one combination of the other options, the i-th; returns how high they reach."""
    from matplotlib.transforms import ScaledTranslation

    tops = []
    colour, marker = COLOURS[i % 7], MARKERS[i % 7]
    for j, band in enumerate(bands):
        rows = own[(own.metric == metric) & (own.band == band) & ~own.control]
        tops += _line(axes, rows, several, False, zorder=3, **_thin(j, colour, of))
    copies = own[(own.metric == f"{metric}_cumulative") & own.band.isna()]
    for control in (True, False):  # the model above its control
        style = CONTROL if control else {"color": colour, "linewidth": 2.2}
        points = min(5.0, 18 / of) * (i - (of - 1) / 2 + control / 2)  # so that the whiskers of one x stand side by side
        beside = ScaledTranslation(points / 72, 0, cast("Figure", axes.figure).dpi_scale_trans)
        rows = copies[copies.control == control]
        tops += _line(axes, rows, several, True, marker=marker, transform=axes.transData + beside, **style)
        refused = own[(own.status == "refused") & (own.control == control)].x.unique()
        if len(refused):
            cross: dict[str, Any] = {"marker": "x", "s": 45, "linewidths": 2, "clip_on": False, "zorder": 5}
            where = axes.get_xaxis_transform() + beside
            axes.scatter(refused, [0] * len(refused), color=style["color"], transform=where, **cross).set_in_layout(False)
    return max(tops, default=0.0)


def _line(axes: Axes, rows: pd.DataFrame, several: bool, whiskers: bool, **style: Any) -> list[float]:
    points = [(x, *spread(part, several)) for x, part in rows[rows.value.notna()].groupby("x")]
    table = pd.DataFrame(points, columns=["x", "value", "low", "high"]).astype(float)
    if points:
        reach = [(100 * (a - b)).clip(lower=0).fillna(0) for a, b in ((table.value, table.low), (table.high, table.value))]
        axes.errorbar(table.x, 100 * table.value, yerr=reach if whiskers else None, elinewidth=1, capsize=2.5, markersize=5, **style)
    return (100 * table[["value", "high"] if whiskers else ["value"]]).max().dropna().tolist()


def _thin(j: int, colour: str, of: int) -> dict[str, Any]:
    """A band's line: of one series in a colour of its own, of several in the series' colour."""
    return {"color": colour if of > 1 else COLOURS[(1, 4, 2, 3)[j % 4]], "linestyle": DASHES[j % 4], "linewidth": 0.9}


def _scales(axes: Axes, place: Mapping[Any, Any], numeric: bool) -> None:
    """A logarithmic x over more than a decade, with ticks at the swept values and no label upon another."""
    at = sorted(place.values())
    sizes = [abs(v) for v in at if v]
    if numeric and sizes and max(sizes) > 10 * min(sizes):
        if min(at) > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(sizes), linscale=0.5)
    ends = axes.xaxis.get_transform().transform(np.array([at[0], at[-1]], dtype=float))
    room = 0.06 * (ends[1] - ends[0]) or 0.5
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(ends + np.array([-room, room])))
    labels = [f"{v:g}" if numeric else str(name) for v, name in sorted((v, name) for name, v in place.items())]
    where = axes.transAxes.inverted().transform(axes.transData.transform([(v, 0) for v in at]))[:, 0]
    free = -1.0
    for k, left in enumerate(where):
        half = 0.009 * len(labels[k])  # of the panel's width
        if numeric and left - half < free:
            labels[k] = ""
        else:
            free = left + half
    turned: dict[str, Any] = {"rotation": 25, "ha": "right"} if not numeric and sum(map(len, labels)) > 50 else {}
    axes.set_xticks(at, labels, **turned)
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def _legend(frame: pd.DataFrame, series: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    space = frame.attrs["space"]
    copies = f"copies ({space['id'].split('/')[0]} {'≥' if space['higher_is_closer'] else '≤'} {space['copy']:g})"
    entries: list[dict[str, Any]] = [
        {"color": COLOURS[i % 7], "marker": MARKERS[i % 7], "linewidth": 2.2, "label": f"{name}: {copies}" if name else copies}
        for i, name in enumerate(series)
    ]
    for j, band in enumerate(space["bands"]):
        label = f"band {band['name']} [{band['low']:g}, {band['high']:g})"
        entries.append(_thin(j, "0.2", len(series)) | {"label": label})
    if frame.control.any():
        entries.append({**CONTROL, "marker": MARKERS[0] if len(series) == 1 else "", "label": "copies, control model"})
    if (frame.status == "refused").any():
        entries.append({"color": "black", "linestyle": "", "marker": "x", "markeredgewidth": 2, "label": "refused"})
    return [Line2D([], [], **entry) for entry in entries]


def _title(frame: pd.DataFrame) -> str:
    about, seeds = frame.attrs, sorted(set(frame.seed))
    first = f"{about['detector']} on {about['task']}, {about['profile']} profile"
    if settings := [*about.get("task_options", ()), *about["options"]]:
        first += f", {' '.join(settings)}"
    if about["n_examples"] < about["n_task_examples"]:
        first += f", PARTIAL: {about['n_examples']} of {about['n_task_examples']} examples"
    images = extent(frame[frame.metric == "ams_cumulative"].n)
    second = f"$N_G$ = {images}{' (UMS falls as $N_G$ grows)' if ' to ' in images else ''}; "
    if len(seeds) > 1:
        second += f"mean of seeds {', '.join(map(str, seeds))}, whiskers: least and greatest"
    else:
        second += f"seed {seeds[0]}, whiskers: 95 % intervals"
    return f"{textwrap.shorten(first, 150, placeholder=' ...')}\n{second}"
