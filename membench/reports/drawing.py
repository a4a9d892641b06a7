"""Draws :class:`~membench.reports.plots.Plot` with matplotlib: as PNG and SVG files,
and as SVG in a page.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

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
    from matplotlib.figure import Figure

PAGE_WIDTH = 360  # points, which are the pixels of a narrow screen
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "membench",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,
    "path.simplify_threshold": 0.2,
    "axes.titlecolor": INKS["c0"][0],
    "axes.linewidth": 0.8,
    **dict.fromkeys(["axes.edgecolor", "grid.color"], INKS["line"][0]),
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"], INKS["soft"][0]
    ),
    **dict.fromkeys(["xtick.major.size", "ytick.major.size"], 0),
    **dict.fromkeys(["xtick.major.pad", "ytick.major.pad"], 5),
}


def draw(plots: Sequence[Plot], kind: str, *, heading: str = "") -> bytes:
    """A file with one plot, or with several as panels.

    The same bytes for the same plots.

    kind: ``png`` or ``svg``. heading: over the panels; it may have several lines.
    """
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context(LOOK):
        made = figure(plots, heading=heading)
        made.savefig(out, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def inline(plot: Plot) -> Markup:
    """The plot as an SVG element for a page, without its title; the same text for the
    same plot.

    It is as wide as its parent, its colours are the page's CSS variables of ``INKS``,
    its text has the page's font, and it has no id and no reference.
    """
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context(LOOK | {"font.size": 11}):
        figure([plot], page=True).savefig(
            out, format="svg", metadata={"Date": None}, transparent=True
        )
    root = ElementTree.fromstring(out.getvalue())
    shapes = {
        node.get("id"): node.get("d", "") for node in root.iter(f"{SVG}path") if node.get("id")
    }
    made = ElementTree.Element(
        "svg", {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": described(plot)}
    )
    made.extend(list(_simple(root, shapes)))
    return Markup(ElementTree.tostring(made, encoding="unicode"))


def described(plot: Plot) -> str:
    """What the plot shows, in a sentence for those who do not see it."""
    axes = (
        plot.x.label
        if plot.rows
        else f"{plot.y.label} against {plot.x.label}"
        if plot.x.label
        else plot.y.label
    )
    names = [row.name for row in plot.rows] or [line.name for line in plot.lines if line.name]
    return plain(
        f"{plot.title}: {axes.replace(chr(10), ' ')}."
        + (f" Shown: {'; '.join(names)}." if names else "")
    )


# ---------------------------------------------------------------------------- in a page

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
VARIABLES = {light: f"var(--{name})" for name, (light, _) in INKS.items()}


def _simple(
    node: ElementTree.Element, shapes: dict[str | None, str]
) -> Iterator[ElementTree.Element]:
    """What is drawn below a node of matplotlib's SVG: paths and texts, without groups
    and ids.
    """
    for child in node:
        kind = child.tag.removeprefix(SVG)
        if kind == "g":
            yield from _simple(child, shapes)
        elif kind == "path" and child.get("d") and (style := _style(child)) != "fill:none":
            yield ElementTree.Element("path", {"d": _short(child.attrib["d"]), "style": style})
        elif kind == "use":  # a marker
            shift = f"translate({_short(child.attrib['x'])} {_short(child.attrib['y'])})"
            shape = _short(shapes[child.attrib[LINK].removeprefix("#")], 2)
            yield ElementTree.Element(
                "path", {"d": shape, "transform": shift, "style": _style(child)}
            )
        elif kind == "text":
            kept = {
                name: _short(child.attrib[name])
                for name in ("x", "y", "transform")
                if name in child.attrib
            }
            if kept.get("transform", "").startswith("rotate(0 "):
                del kept["transform"]
            text = ElementTree.Element("text", kept | {"style": _style(child)})
            text.text = child.text
            yield text


def _style(node: ElementTree.Element) -> str:
    """The style of a node in the page's colours and font."""
    given = dict(
        part.strip().split(": ", 1) for part in node.get("style", "").split(";") if part.strip()
    )
    font = given.pop("font", None)
    given.pop("font-family", None)
    if font:
        given["font-size"] = re.findall(r"[\d.]+px", font)[0]
    return ";".join(
        f"{name}:{re.sub('#[0-9a-f]{6}', lambda m: VARIABLES[m[0]], value)}"
        for name, value in given.items()
    )


def _short(path: str, digits: int = 1) -> str:
    """The path, or other text, with rounded numbers; a line to where it already is has
    no length.
    """
    path = re.sub(r"-?\d[\d.]*(e-?\d+)?", lambda m: f"{round(float(m[0]), digits) + 0.0:g}", path)
    path = re.sub(r"\s*([MLCQz])\s*", r"\1", path.strip())
    return re.sub(r"M([\d.-]+ [\d.-]+)L\1(?=[Mz]|$)", r"M\1h0", path)


# ------------------------------------------------------------------------------ figures


def figure(plots: Sequence[Plot], *, heading: str = "", page: bool = False) -> Figure:
    """The plots as panels of one figure, with one key for all. page: one plot, for a
    page.
    """
    from matplotlib import rcParams
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    columns = min(3, len(plots))
    down = math.ceil(len(plots) / columns)
    names = {_wrapped(line.name, 46) for plot in plots for line in plot.lines if line.name}
    across = _key_columns(names, 50 if page else 100 * columns)
    most = max(len(plot.rows) for plot in plots)
    if most:
        size = (3.4 * columns + 1.2 * (columns == 1), down * (0.9 + 0.45 * most) + 0.3)
    else:
        key = 0.17 * sum(1 + name.count("\n") for name in names) / across
        size = (6.4 * columns, down * 4.0 + key + 0.17)
    if page:
        size = (PAGE_WIDTH / 72, 0.6 + 0.6 * most if most else 3.2 + 1.25 * key)
    tall = max(plot.height for plot in plots)
    if tall:
        size = (size[0], tall + (1.25 if page else 1.0) * key)
    made = Figure(figsize=size, layout="constrained")
    panels = made.subplots(down, columns, squeeze=False).ravel()
    letters = int(0.85 * 72 * size[0] / columns / (0.6 * rcParams["font.size"]))
    entries: dict[str, Any] = {}
    for axes, plot in zip(panels, plots, strict=False):
        if not page:
            axes.set_title(_wrapped(plot.title, 60), fontsize=10)
        for line, handle in _panel(axes, plot, letters):
            entries.setdefault(_wrapped(line.name, 46), handle)
    for axes in panels[len(plots) :]:
        axes.set_axis_off()
    if entries:
        made.legend(
            entries.values(),
            entries,
            loc="outside lower center",
            ncols=across,
            frameon=False,
            fontsize=10 if page else 8,
            handlelength=3.2,
            columnspacing=1.4,
        )
    if heading:
        made.suptitle(
            "\n".join(_wrapped(line, 38 * columns + 50) for line in heading.splitlines()),
            fontsize=9,
        )
    return made


def _key_columns(names: set[str], room: int) -> int:
    """As many as names, of their longest line, find room, in characters."""
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    return max(1, min(4, len(names), room // (longest + 8)))


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(plain(text), width)


def _panel(axes: Axes, plot: Plot, letters: int) -> list[tuple[Line, Any]]:
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
