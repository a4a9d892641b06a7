"""Plots as data. :mod:`membench.reports.drawing` draws them, for pages and for files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What is drawn has one of these colours: a CSS variable's name, its value on a light
# and on a dark page. c0 ... c5 tell runs apart.
INKS = {
    "c0": ("#1f2937", "#f1f3f5"),
    "c1": ("#d1495b", "#ff8095"),
    "c2": ("#0f7b8a", "#4cc9d9"),
    "c3": ("#b7791f", "#e9b44c"),
    "c4": ("#6d4fc2", "#b09bff"),
    "c5": ("#3c8d40", "#7fd083"),
    "neg": ("#2f6fb5", "#74b0f4"),
    "soft": ("#5d646d", "#a2a9b2"),
    "line": ("#d9dde2", "#343a41"),
    "box": ("#f5f6f8", "#1e2125"),
    "bg": ("#ffffff", "#15171a"),
}

RUN_INKS = 6

# Lengths of dash and gap, in line widths.
DASHES: tuple[tuple[float, ...], ...] = ((), (4.0, 2.0), (1.2, 1.6), (6.0, 1.6, 1.2, 1.6))

# A style i >= 0 has ink c{i % 6} and dashes i // 6 % 4: 24 that can be told apart.
# These stand for what no run made (chance, bounds), and for the two sides of a task and
# what is on neither.
CHANCE, POSITIVE, NEGATIVE, UNLABELLED = -1, -2, -3, -4
NAMED_INKS = {CHANCE: "soft", POSITIVE: "c1", NEGATIVE: "neg", UNLABELLED: "soft"}
LABEL_STYLES = {1: POSITIVE, 0: NEGATIVE, -1: UNLABELLED}

DOT, CROSS = ".", "x"  # markers: of many points; of a point that has no value
MARKERS = "osD^vPX"  # of runs, which they tell apart without colours, too


@dataclass(frozen=True)
class Axis:
    """An axis from low to high.

    log: logarithmic; then low > 0, unless ``linear`` > 0, up to whose size it is linear
    (for values that include 0). at: (value, label) of each tick; default: round values.
    A label may have several lines. room: the share of the axis left free at either end.
    """

    label: str
    low: float
    high: float
    log: bool = False
    linear: float = 0.0
    at: Sequence[tuple[float, str]] | None = None
    room: float = 0.0

    def share(self, values: np.ndarray) -> np.ndarray:
        """Where the values [n] lie, 0 at the beginning and 1 at the end: float64 [n].

        On a log axis, what lies below low lies at low.
        """
        low, high, at = (self._scaled(v) for v in (self.low, self.high, values))
        inner = (at - low) / (high - low) if high > low else np.full(at.shape, 0.5)
        return (inner + self.room) / (1 + 2 * self.room)

    def _scaled(self, values: np.ndarray | float) -> np.ndarray:
        values = np.asarray(values, dtype=float)
        if not self.log:
            return values
        if not self.linear:
            return np.log10(np.maximum(values, self.low))
        # As matplotlib's symlog with linscale 0.5: from 0 to linear it takes half a
        # decade / 0.9.
        size = np.abs(values) / self.linear
        return np.sign(values) * np.where(size <= 1, size, 1 + 1.8 * np.log10(np.maximum(size, 1)))

    def ticks(self) -> list[tuple[float, str]]:
        """Values on the axis and their labels: those given, or about five that are
        round.
        """
        if self.at is not None:
            return list(self.at)
        if not self.log:
            return [(x, tick_label(x)) for x in round_values(self.low, self.high)]
        first, last = (
            math.ceil(math.log10(self.low) - 1e-9),
            math.floor(math.log10(self.high) + 1e-9),
        )
        step = math.ceil((last - first + 1) / 7)
        found = [10.0**k for k in range(first, last + 1, max(1, step))]
        if len(found) < 3:
            every = (m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5))
            found = [x for x in every if self.low * (1 - 1e-9) <= x <= self.high * (1 + 1e-9)]
        return [(x, tick_label(x)) for x in found]


@dataclass(frozen=True)
class Line:
    """y [n] over x [n], as a line, as points, or both. NaN in y breaks the line.

    low, high [n]: intervals, where given and not NaN; drawn as a band, or with whiskers
    as error bars. style: see ``CHANCE``. steps: y keeps its value until the next x.
    joined: the points are joined. marker: of each point, of matplotlib's or ``DOT``;
    empty: none. hollow: the markers are outlines. width: of the line, in points. aside:
    points by which it is drawn to the right, so that several share an x. across:
    intervals are of x, and lie along it. Without a name it is not in the key.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    style: int = 0
    steps: bool = False
    joined: bool = True
    marker: str = ""
    hollow: bool = False
    whiskers: bool = False
    width: float = 1.6
    aside: float = 0.0
    across: bool = False


@dataclass(frozen=True)
class Row:
    """One histogram of several on a common axis.

    counts [bins]: of equal width over the whole x axis. label: 1, 0 or -1.
    """

    name: str
    counts: np.ndarray
    label: int


@dataclass(frozen=True)
class Plot:
    """Lines over two axes, or rows of histograms over one.

    With rows, y is not drawn: each row's fullest bin is equally high. slug: safe in a
    file name. height: in inches, without the key; 0: as usual. shade: x up to which the
    plot is shaded. marks: (x, word), vertical lines. note: what to know to read it.
    absent, command: what is missing from it, and the command that adds that.
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
    absent: str = ""
    command: str = ""
    height: float = 0.0


def ink(style: int) -> str:
    """The name in ``INKS`` of a style's colour."""
    return NAMED_INKS[style] if style < 0 else f"c{style % RUN_INKS}"


def dashes(style: int) -> tuple[float, ...]:
    """Lengths of dash and gap in line widths; empty for a solid line."""
    if style < 0:
        return (2.0, 2.0) if style == CHANCE else ()
    return DASHES[style // RUN_INKS % len(DASHES)]


def round_values(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about ``count``."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= (high - low) / count * 0.8)
    return [
        round(k * step, 12)
        for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def tick_label(value: float) -> str:
    """A number for an axis: ``0.001``, ``2,000``, ``200k``, ``3M``."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= max(10**power, 1e5):
            return f"{value / 10**power:,g}{letter}"
    return f"{value:,g}"


def ends(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest of the values, so far apart and so near 0 that a scale between
    them can be divided.
    """
    low, high = (float(np.clip(end(values), -1e300, 1e300)) for end in (np.min, np.max))
    apart = max(1e-9 * max(abs(low), abs(high)), 1e-300)
    if high - low > apart:
        return low, high
    half = max(0.5, apart)
    return low - half, high + half
