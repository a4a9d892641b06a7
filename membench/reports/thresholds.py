"""The ablation of thresholds: sentences, tables and plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from membench.boards.identity import BOARD, boards
from membench.boards.thresholds import COMPARED, named_settings, span_of
from membench.metrics.thresholds import threshold
from membench.reports.plot_files import write_files
from membench.reports.plots import Axis, Line, Plot
from membench.reports.text import interval


def write(swept: pd.DataFrame, settings: pd.DataFrame, save: Path) -> None:
    """``<save>.parquet``, and ``.png``, ``.svg`` and ``.pdf`` of each board, that of a
    control as ``<save>-control``; each whole or not there.
    """
    figures = {}
    several = settings.control.nunique() > 1
    for title, part in boards(settings):
        panels = [plots_of(part, metric) for metric in shown(part)]
        note = panels[0].note
        key = "-control" if part.control.iloc[0] and several else ""
        figures[key] = (panels, f"{title}; {note}" if note else title)
    write_files(swept, save, figures)


def sentences(found: pd.DataFrame) -> Iterator[str]:
    """``AMS: side leads random for thresholds in [0.4, 0.55]; the order flips between
    0.55 and 0.6; random leads ...``, a line a pair.
    """
    for names, part in found.groupby([*BOARD, "metric", "a", "b"], dropna=False, sort=False):
        first, (metric, a, b) = part.iloc[0], names[-3:]
        words: list[str] = []
        last: tuple[str, float] | None = None
        for row in part.itertuples():
            span = span_of(row.first, row.last)
            if not row.leader:
                words.append(f"tied {span}")
                continue
            if last and last[0] != row.leader:
                words.append(f"the order flips between {last[1]:g} and {row.first:g}")
            where = "throughout" if row.sure == span else row.sure
            sure = f" (95 % interval of the difference above 0 {where})" if row.sure else ""
            words.append(
                f"{row.leader} leads {b if row.leader == a else a} for thresholds {span}{sure}"
            )
            last = (row.leader, row.last)
        if metric == "ams" and last and not part.sure.any():
            words.append(
                "no lead is sure: the 95 % interval of the difference nowhere leaves out 0"
            )
        board = f"{first.task} ({first['profile']}{', control' if first.control else ''})"
        yield f"{board}, {COMPARED[metric]}: {'; '.join(words)}"


def shown(settings: pd.DataFrame) -> list[str]:
    """The metrics to plot of one board: UMS at equal N_G, which has no intervals,
    beside UMS only where N_G differs.
    """
    cumulative = settings[settings.form == "cumulative"]
    alike = set(cumulative[cumulative.metric == "ums"].n) == set(
        cumulative[cumulative.metric == "ums_equal_n"].n
    )
    return ["ams", "ums"] if alike else ["ams", "ums", "ums_equal_n"]


def plots_of(settings: pd.DataFrame, metric: str = "ams") -> Plot:
    """Cumulative ``metric`` against the threshold, a line a setting of one board, with
    its interval where it has one.
    """
    part = settings[(settings.form == "cumulative") & (settings.metric == metric)]
    lines, tops = [], [1.0]
    for i, (name, of) in enumerate(named_settings(part).items()):
        of = of.assign(at=threshold(of)).sort_values("at")
        ends = (
            {end: 100 * of[end].to_numpy(float) for end in ("low", "high")}
            if of.low.notna().any()
            else {}
        )
        lines.append(
            Line(name, of["at"].to_numpy(float), 100 * of.value.to_numpy(float), style=i, **ends)
        )
        tops += [
            float(100 * of.value.max()),
            *(float(values[np.isfinite(values)].max()) for values in ends.values()),
        ]
    closer = bool(part.higher_is_closer.iloc[0])
    x, sizes = threshold(part), sorted(set(part.n))
    images = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    titles = {
        "ams": "AMS",
        "ums": f"UMS of {images} images",
        "ums_equal_n": f"UMS at {images} images each",
    }
    label = (
        f"threshold: {'similarity at least' if closer else 'distance at most'}"
        f" ({part.space_id.iloc[0].split('/')[0]})"
    )
    y = Axis(
        "% of the images" if metric == "ams" else "images per 100 images", 0.0, 1.02 * max(tops)
    )
    several = part.seeds.max() > 1
    note = [f"mean of {int(part.seeds.max())} seeds"] if several else []
    note += (
        [f"bands: 95 % intervals{'' if several else ' over groups'}"]
        if any(line.low is not None for line in lines)
        else []
    )
    heading = f"{titles[metric]} against the threshold"
    marks = [(float(at), "copy") for at in sorted(set(part["copy"])) if x.min() < at < x.max()]
    return Plot(
        heading,
        metric,
        Axis(label, float(x.min()), float(x.max())),
        y,
        lines,
        marks=marks,
        note="; ".join(note),
    )


def summary(settings: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """Text of one board: a row a threshold (``most`` of them), AMS of each setting in
    per cent with its interval.
    """
    part = settings[(settings.form == "cumulative") & (settings.metric == "ams")]
    part = part.assign(at=threshold(part))
    edges = np.unique(part["at"])
    shown = (
        edges
        if len(edges) <= most
        else edges[np.unique(np.linspace(0, len(edges) - 1, most).round().astype(int))]
    )
    closer = bool(part.higher_is_closer.iloc[0])
    out = pd.DataFrame({"threshold": [f"{'≥' if closer else '≤'} {edge:g}" for edge in shown]})
    for name, of in named_settings(part).items():
        rows = of.set_index("at").loc[shown]
        out[f"{name}: AMS %"] = [
            interval(r.value, r.low, r.high, scale=100, digits=1) for r in rows.itertuples()
        ]
    return out
