"""Plots as data, and as PNG and SVG files. ``report_charts.chart`` draws the same data for a page."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from membench.plain import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A line's style i has colour i % 6 and dashes i // 6 % 4: 24 that can be told apart. Lengths of dash and gap, in line widths.
COLOURS = ("#1f2937", "#d1495b", "#0f7b8a", "#b7791f", "#6d4fc2", "#3c8d40")


DARK_COLOURS = ("#f1f3f5", "#ff8095", "#4cc9d9", "#e9b44c", "#b09bff", "#7fd083")  # on a dark page


DASHES: tuple[tuple[float, ...], ...] = ((), (4.0, 2.0), (1.2, 1.6), (6.0, 1.6, 1.2, 1.6))


LABEL_COLOURS = {1: "#d1495b", 0: "#2f6fb5", -1: "#5d646d"}  # memorized, not memorized, unlabelled


CHANCE = -1  # the style of a line that no run made


@dataclass(frozen=True)
class Axis:
    """An axis from low to high. log: logarithmic; then low > 0, and what lies below low is drawn at low."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, values: np.ndarray) -> np.ndarray:
        """Where the values [n] lie, 0 at low and 1 at high: float64 [n]."""
        values = np.asarray(values, dtype=float)
        if self.log:
            return np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values on the axis, about five, and their labels."""
        if not self.log:
            return [(x, tick_label(x)) for x in round_values(self.low, self.high)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = math.ceil((last - first + 1) / 7)
        found = [10.0**k for k in range(first, last + 1, max(1, step))]
        if len(found) < 3:
            every = (m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5))
            found = [x for x in every if self.low * (1 - 1e-9) <= x <= self.high * (1 + 1e-9)]
        return [(x, tick_label(x)) for x in found]


@dataclass(frozen=True)
class Line:
    """y [n] over x [n]; low, high [n]: its interval, drawn as a band, where given and not NaN. NaN in y breaks the line.

    style: CHANCE, or a number (see COLOURS). steps: y keeps its value until the next x. Lines without a name have no key.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    style: int = 0
    steps: bool = False


@dataclass(frozen=True)
class Row:
    """One histogram of several on a common axis. counts [bins] of equal width over the whole x axis; label: 1, 0 or -1."""

    name: str
    counts: np.ndarray
    label: int


@dataclass(frozen=True)
class Plot:
    """Lines over two axes, or rows of histograms over one (then y is not drawn: each row's fullest bin is equally high).

    slug: safe in a file name. shade: x up to which the plot is shaded. marks: (x, word), vertical lines.
    """

    title: str
    slug: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    rows: Sequence[Row] = ()
    shade: float | None = None
    marks: Sequence[tuple[float, str]] = ()
    note: str = ""


def colour(style: int) -> str:
    """The colour of a style on white, as ``#rrggbb``."""
    return "#5d646d" if style == CHANCE else COLOURS[style % len(COLOURS)]


def dashes(style: int) -> tuple[float, ...]:
    """Lengths of dash and gap in line widths; empty for a solid line."""
    return (2.0, 2.0) if style == CHANCE else DASHES[style // len(COLOURS) % len(DASHES)]


def round_values(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about ``count``."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= (high - low) / count * 0.8)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """A number for an axis: ``0.001``, ``2,000``, ``200k``, ``3M``."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= max(10**power, 1e5):
            return f"{value / 10**power:,g}{letter}"
    return f"{value:,g}"


# --------------------------------------------------------------------------------------------------- files


def draw(plots: Sequence[Plot], kind: str, *, heading: str = "") -> bytes:
    """A file with one plot, or with several as panels: ``kind`` is png or svg. The same bytes for the same plots."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "membench", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}):
        figure = _figure(plots, heading)
        figure.savefig(out, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _figure(plots: Sequence[Plot], heading: str) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    columns = min(3, len(plots))
    lines = math.ceil(len(plots) / columns)
    if any(plot.rows for plot in plots):
        size = (3.4 * columns + 1.2 * (columns == 1), lines * (0.9 + 0.45 * max(len(plot.rows) for plot in plots)) + 0.3)
    else:
        entries = max(len(plot.lines) for plot in plots)
        size = (6.4 * columns, lines * (4.0 + 0.17 * math.ceil(entries / 2)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, plot in zip(panels, plots, strict=False):
        _panel(axes, plot)
    for axes in panels[len(plots) :]:
        axes.set_axis_off()
    if heading:
        figure.suptitle(textwrap.fill(plain(heading), 38 * columns + 50), fontsize=9)
    return figure


def _panel(axes: Axes, plot: Plot) -> None:
    axes.set_title(plain(plot.title), fontsize=10)
    axes.set_xlabel(plain(plot.x.label))
    if plot.x.log:
        axes.set_xscale("log")
    axes.set_xlim(plot.x.low, plot.x.high)
    _ticks(axes, "x", plot.x)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    if plot.rows:
        _histograms(axes, plot)
        return
    axes.set_ylabel(plot.y.label)
    if plot.y.log:
        axes.set_yscale("log")
    axes.set_ylim(plot.y.low, plot.y.high)
    _ticks(axes, "y", plot.y)
    if plot.shade is not None and plot.shade > plot.x.low:
        axes.axvspan(plot.x.low, min(plot.shade, plot.x.high), color="0.94", zorder=0)
    for x, word in plot.marks:
        axes.axvline(x, color="0.35", linewidth=0.9, linestyle=(0, (2, 2)))
        side: dict[str, Any] = {"ha": "right" if plot.x.share(np.array([x]))[0] > 0.7 else "left", "va": "top"}
        axes.annotate(word, (x, 1), (-4 if side["ha"] == "right" else 4, -4), axes.get_xaxis_transform(), "offset points", **side)
    handles = [handle for line in plot.lines for handle in _line(axes, plot, line)]
    if handles:
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8, handlelength=3.2)


def _ticks(axes: Axes, which: str, axis: Axis) -> None:
    at = axis.ticks()
    (axes.set_xticks if which == "x" else axes.set_yticks)([x for x, _ in at], [text for _, text in at])
    (axes.xaxis if which == "x" else axes.yaxis).minorticks_off()


def _line(axes: Axes, plot: Plot, line: Line) -> list[Any]:
    """Draws it; returns its entry of the legend, if it has a name."""
    x = np.maximum(line.x, plot.x.low) if plot.x.log else line.x
    if line.low is not None and line.high is not None:
        axes.fill_between(x, line.low, line.high, color=colour(line.style), alpha=0.13, linewidth=0, step="post" if line.steps else None)
    pattern: Any = (0, dashes(line.style)) if dashes(line.style) else "-"
    style: dict[str, Any] = {"linestyle": pattern, "linewidth": 1.0 if line.style == CHANCE else 1.6}
    style |= {"drawstyle": "steps-post" if line.steps else "default", "label": textwrap.fill(plain(line.name), 46)}
    drawn = axes.plot(x, line.y, color=colour(line.style), **style)
    return drawn if line.name else []


def _histograms(axes: Axes, plot: Plot) -> None:
    """Rows from the top; each is labelled above its bars."""
    edges = np.linspace(plot.x.low, plot.x.high, len(plot.rows[0].counts) + 1)
    for index, row in enumerate(plot.rows):
        base = len(plot.rows) - 1 - index
        tall = 0.6 * row.counts / max(1, row.counts.max())
        axes.stairs(base + tall, edges, baseline=base, fill=True, color=LABEL_COLOURS.get(row.label, LABEL_COLOURS[-1]))
        axes.axhline(base, color="0.8", linewidth=0.6)
        axes.annotate(plain(row.name), (0, base + 0.95), (2, 0), axes.get_yaxis_transform(), "offset points", fontsize=7.5, va="top")
    axes.set_ylim(0, len(plot.rows))
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
