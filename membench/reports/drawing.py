"""Draws :class:`~membench.reports.plots.Plot` with matplotlib: as PNG, SVG and PDF files,
and as SVG in a page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from membench.plain import plain
from membench.reports.panel import draw_panel, wrapped
from membench.reports.plots import (
    INKS,
    Plot,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "svg", "pdf")  # of files
PAGE_WIDTH = 360  # points, which are the pixels of a narrow screen
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "membench",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: publishers refuse the default, Type 3
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

    kind: one of ``KINDS``. heading: over the panels; it may have several lines.
    """
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context(LOOK):
        made = figure(plots, heading=heading)
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        made.savefig(out, format=kind, dpi=160, metadata=undated.get(kind))
    return out.getvalue()


def noted(heading: str, plots: Sequence[Plot]) -> str:
    """The heading, and below it what the plots' notes say: a file of its own has no page
    around it that would.
    """
    return "\n".join([heading, *dict.fromkeys(plot.note for plot in plots if plot.note)])


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
    names = {wrapped(line.name, 46) for plot in plots for line in plot.lines if line.name}
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
    above = "\n".join(wrapped(line, 38 * columns + 50) for line in heading.splitlines())
    size = (size[0], size[1] + 0.17 * max(0, above.count("\n") - 1))  # there is room for two lines
    made = Figure(figsize=size, layout="constrained")
    panels = made.subplots(down, columns, squeeze=False).ravel()
    letters = int(0.85 * 72 * size[0] / columns / (0.6 * rcParams["font.size"]))
    entries: dict[str, Any] = {}
    for axes, plot in zip(panels, plots, strict=False):
        if not page:
            axes.set_title(wrapped(plot.title, 60), fontsize=10)
        for line, handle in draw_panel(axes, plot, letters):
            entries.setdefault(wrapped(line.name, 46), handle)
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
    if above:
        made.suptitle(above, fontsize=9)
    return made


def _key_columns(names: set[str], room: int) -> int:
    """As many as names, of their longest line, find room, in characters."""
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    return max(1, min(4, len(names), room // (longest + 8)))
