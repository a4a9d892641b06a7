"""One panel of a figure: the axes, lines and histograms of a
:class:`~membench.reports.plots.Plot` in matplotlib.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from membench.plain import plain
from membench.reports.plots import (
    CHANCE,
    CROSS,
    DOT,
    INKS,
    LABEL_STYLES,
    Axis,
    Line,
    Plot,
    dashes,
    ink,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def wrapped(text: str, width: int) -> str:
    return textwrap.fill(plain(text), width)


def draw_panel(axes: Axes, plot: Plot, letters: int) -> list[tuple[Line, Any]]:
    """Draws a plot; returns the lines that have a name, each with what stands for it in
    the key.

    letters: as many find room beside each other along x.
    """
    axes.grid(linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    _axis(axes, "x", plot.x, letters)
    if plot.rows:
        _histograms(axes, plot)
        return []
    _axis(axes, "y", plot.y, letters)
    if plot.shade is not None and plot.shade > plot.x.low:
        axes.axvspan(
            plot.x.low, min(plot.shade, plot.x.high), color=INKS["box"][0], zorder=0, linewidth=0
        )
    soft = INKS["soft"][0]
    for x, word in plot.marks:
        axes.axvline(x, color=soft, linewidth=0.9, linestyle=(0, (2, 2)))
        right = plot.x.share(np.array([x]))[0] > 0.7
        side: dict[str, Any] = {"ha": "right" if right else "left", "va": "top"}
        axes.annotate(
            plain(word),
            (x, 1),
            (-4 if right else 4, -4),
            axes.get_xaxis_transform(),
            "offset points",
            **side,
        )
    if not any(np.isfinite(line.y).any() for line in plot.lines if line.marker != CROSS):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
    return [
        (line, handle)
        for line in plot.lines
        if (handle := _line(axes, plot, line)) is not None and line.name
    ]


def _axis(axes: Axes, which: str, axis: Axis, letters: int) -> None:
    """Its scale, ends, label and ticks."""
    scale: dict[str, Any] = {"value": "linear"}
    if axis.log:
        scale = (
            {"value": "symlog", "linthresh": axis.linear, "linscale": 0.5}
            if axis.linear
            else {"value": "log"}
        )
    axes.set(**{f"{which}label": "\n".join(map(plain, axis.label.split("\n")))})
    (axes.set_xscale if which == "x" else axes.set_yscale)(**scale)
    of = axes.xaxis if which == "x" else axes.yaxis
    first, last = of.get_transform().transform(np.array([axis.low, axis.high], dtype=float))
    room = axis.room * (last - first) if last > first else 0.5
    ends = of.get_transform().inverted().transform(np.array([first - room, last + room]))
    (axes.set_xlim if which == "x" else axes.set_ylim)(*ends)
    ticks = axis.ticks()
    labels = ["\n".join(map(plain, text.split("\n"))) for _, text in ticks]
    wide = sum(max(map(len, label.split("\n"))) + 2 for label in labels if label)
    crowded = which == "x" and wide > letters
    turned: dict[str, Any] = {"rotation": 25, "ha": "right"} if crowded else {}
    of.set_ticks([at for at, _ in ticks], labels, **turned)
    of.minorticks_off()


def _line(axes: Axes, plot: Plot, line: Line) -> Any:
    """Draws it, what lies beyond an axis at its end; returns what stands for it in the
    key.
    """
    from matplotlib.transforms import ScaledTranslation

    def on(axis: Axis, values: np.ndarray) -> np.ndarray:
        return np.clip(np.asarray(values, dtype=float), axis.low, axis.high)

    x, y = on(plot.x, line.x), on(plot.y, line.y)
    colour = INKS[ink(line.style)][0]
    if line.marker == DOT:
        return _dots(axes, plot.x, x, y, colour)
    beside = axes.transData + ScaledTranslation(line.aside / 72, 0, axes.figure.dpi_scale_trans)
    pattern: Any = (0, dashes(line.style)) if dashes(line.style) else "-"
    look: dict[str, Any] = {
        "color": colour,
        "linestyle": pattern if line.joined else "",
        "linewidth": line.width if line.style != CHANCE else 1.0,
        "drawstyle": "steps-post" if line.steps else "default",
        "marker": line.marker,
        "markersize": 7 if line.marker == CROSS else 5.5,
        "markerfacecolor": INKS["bg"][0] if line.hollow else colour,
        "markeredgewidth": 1.8 if line.hollow or line.marker == CROSS else 0,
        "clip_on": line.joined,
        # A marker at the edge lies over the frame, which matplotlib draws at 2.5
        "zorder": 2 if line.joined else 3,
        "transform": beside,
    }
    if line.low is None or line.high is None:
        [drawn] = axes.plot(x, y, **look)
        return drawn
    along, at = (plot.x, x) if line.across else (plot.y, y)
    low, high = on(along, line.low), on(along, line.high)
    if line.whiskers:
        reach = np.nan_to_num(np.maximum([at - low, high - at], 0))
        edge = look.pop("markeredgewidth")  # else it is the caps', too
        bars = axes.errorbar(
            x,
            y,
            xerr=reach if line.across else None,
            yerr=None if line.across else reach,
            elinewidth=1,
            capsize=2.5,
            capthick=1,
            **look,
        )
        bars.lines[0].set_markeredgewidth(edge)
        return bars
    step = "post" if line.steps else None
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, step=step)  # type: ignore[arg-type]
    [drawn] = axes.plot(x, y, **look)
    return drawn


def _dots(axes: Axes, axis: Axis, x: np.ndarray, y: np.ndarray, colour: str) -> Any:
    """Many points as one path, which is a tenth of the size of as many markers in SVG."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    # Of no length, it is not drawn
    end = x * (1 + 1e-9) if axis.log else x + 1e-9 * (axis.high - axis.low)
    corners = np.stack([np.stack([x, y], 1), np.stack([end, y], 1)], 1).reshape(-1, 2)
    path = Path(corners, [Path.MOVETO, Path.LINETO] * len(x))
    path.should_simplify = False
    look: dict[str, Any] = {
        "linewidth": 4.5,
        "capstyle": "round",
        "alpha": 0.6,
        "edgecolor": colour,
    }
    if len(x):
        axes.add_patch(PathPatch(path, fill=False, clip_on=False, snap=False, **look))
    return Line2D([], [], linestyle="", marker="o", markersize=5.5, markeredgewidth=0, color=colour)


def _histograms(axes: Axes, plot: Plot) -> None:
    """Rows from the top; each is labelled above its bars."""
    edges = np.linspace(plot.x.low, plot.x.high, len(plot.rows[0].counts) + 1)
    for index, row in enumerate(plot.rows):
        base = len(plot.rows) - 1 - index
        tall = 0.6 * row.counts / max(1, row.counts.max())
        tall = np.where(row.counts > 0, np.maximum(tall, 0.02), 0)  # a single one can be seen
        colour = INKS[ink(LABEL_STYLES.get(row.label, LABEL_STYLES[-1]))][0]
        axes.stairs(base + tall, edges, baseline=base, fill=True, color=colour, linewidth=0)
        axes.axhline(base, color=INKS["line"][0], linewidth=0.6)
        where, small = axes.get_yaxis_transform(), "small"
        axes.annotate(
            plain(row.name),
            (0, base + 0.95),
            (2, 0),
            where,
            "offset points",
            fontsize=small,
            va="top",
        )
    axes.set_ylim(0, len(plot.rows))
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
