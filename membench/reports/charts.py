"""The charts of the report, as numbers in pixels that the template draws in SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from membench.metrics.complexity import bin_edges
from membench.metrics.detection import of_kind
from membench.reports.plots import CHANCE, COLOURS, DASHES, Axis, Line, Plot, Row, round_values

WIDTH, HEIGHT, ROW = 360, 240, 46  # of a chart, and the height of one histogram in it


LEFT, RIGHT, TOP, BOTTOM = 44, WIDTH - 12, 10, 38  # edges of the plot; BOTTOM counts from below


LOWEST_FPR = 1e-3


POINTS = 2000  # of a scatter, so that the page stays small


LABELS = {1: "memorized", 0: "not memorized", -1: "unlabelled"}


@dataclass(frozen=True)
class Chart:
    """Ticks: (pixel, text). lines: (name, SVG path, class). bars: (x, y, width, height, class). labels: (x, y, text).

    absent: what is missing from it; command: what adds that.
    """

    title: str
    x_label: str
    y_label: str
    xticks: Sequence[tuple[float, str]]
    yticks: Sequence[tuple[float, str]]
    lines: Sequence[tuple[str, str, str]] = ()
    bars: Sequence[tuple[float, float, float, float, str]] = ()
    labels: Sequence[tuple[float, float, str]] = ()
    shade: float = LEFT  # the plot is shaded up to this pixel
    height: float = HEIGHT
    note: str = ""
    absent: str = ""
    command: str = ""


def chart(plot: Plot) -> Chart:
    """The plot in pixels. A band is a line of class ``band`` under the lines; a mark one of class ``mark``, with its word beside it."""
    xticks = [(_pixel(plot.x, x), text) for x, text in plot.x.ticks()]
    if plot.rows:
        bases = [(float(TOP + (index + 1) * ROW), "") for index in range(len(plot.rows))]
        labels = [(LEFT, base - ROW + 14, row.name) for row, (base, _) in zip(plot.rows, bases, strict=True)]
        height = TOP + len(plot.rows) * ROW + BOTTOM
        return Chart(plot.title, plot.x.label, "", xticks, bases, bars=_bars(plot), labels=labels, height=height, note=plot.note)
    lines, words = [], []
    for line in plot.lines:
        if line.low is not None and line.high is not None:
            lines.append(("", _band(plot, line.x, line.low, line.high), f"band {css_class(line.style)}"))
    for x, word in plot.marks:
        pixel, wide = _pixel(plot.x, x), 5.6 * len(word) + 4
        lines.append(("", f"M{pixel} {TOP}V{HEIGHT - BOTTOM}", "mark"))
        words.append((round(pixel + 4 if pixel + wide < RIGHT else pixel - wide, 1), TOP + 11, word))
    for line in plot.lines:
        along, up, move = _along(plot.x, line.x), _up(plot.y, line.y), "HV" if line.steps else "L "
        path = "".join(_path(along[of], up[of], move) for of in _runs(np.isfinite(line.y)))
        lines.append((line.name, path, css_class(line.style)))
    yticks = [(round(float(_up(plot.y, np.array([y]))[0]), 1), text) for y, text in plot.y.ticks()]
    shade = LEFT if plot.shade is None else _pixel(plot.x, plot.shade)
    return Chart(plot.title, plot.x.label, plot.y.label, xticks, yticks, lines, labels=words, shade=shade, note=plot.note)


def _bars(plot: Plot) -> list[tuple[float, float, float, float, str]]:
    bars = []
    for index, row in enumerate(plot.rows):
        base, wide = TOP + (index + 1) * ROW, (RIGHT - LEFT) / len(row.counts)
        for at in np.flatnonzero(row.counts):
            tall = max(1.0, float(row.counts[at] / row.counts.max()) * (ROW - 20))
            x = round(LEFT + float(at) * wide, 1)
            bars.append((x, round(base - tall, 1), round(wide - 0.5, 1), round(tall, 1), f"label{row.label}"))
    return bars


def css_class(style: int) -> str:
    """The classes of a plot's style: its colour, and its dashes if it has any."""
    if style == CHANCE:
        return "chance"
    dashed = style // len(COLOURS) % len(DASHES)
    return f"c{style % len(COLOURS)}" + (f" d{dashed}" if dashed else "")


def roc_chart(scores: pd.DataFrame) -> Chart:
    """TPR at the last ROC point with FPR <= x, over log x: all examples, and those of each kind."""
    negative = scores.label == 0
    kinds = sorted(scores.kind[~negative].unique())
    parts = {"all": scores} | ({kind: scores[of_kind(scores.label, scores.kind, kind)] for kind in kinds} if len(kinds) > 1 else {})
    return chart(roc_plot({name: [part] for name, part in parts.items()}))


def roc_plot(parts: Mapping[str, Sequence[pd.DataFrame]], styles: Mapping[str, int] | None = None) -> Plot:
    """ROC curves with the low end of FPR on a log axis, a line a name, and chance.

    parts: of each name the scores (columns score, label: 1 or 0) of one or more seeds. Several are averaged at each FPR: the mean of
    their TPR (vertical averaging: Fawcett 2006, Pattern Recognition Letters 27:861). styles: of each name; default: in order.
    What the fewest negatives cannot show is shaded. Raises ValueError for no names, or scores of one label only.
    """
    if not parts:
        raise ValueError("no scores to draw")
    n = min(int((part.label == 0).sum()) for of in parts.values() for part in of)
    lowest = min(LOWEST_FPR, 10.0 ** math.floor(-math.log10(n))) if n else LOWEST_FPR
    lines = []
    for index, (name, of) in enumerate(parts.items()):
        fpr, tpr = mean_roc(of)
        lines.append(Line(name, fpr, tpr, style=index if styles is None else styles[name], steps=True))
    chance = np.geomspace(lowest, 1, 60)
    lines.append(Line("chance", chance, chance, style=CHANCE))
    note = f"Shaded: below 1/{n:,}, a false positive rate that {n:,} negatives cannot show."
    x, y = Axis("false positive rate (log)", lowest, 1, log=True), Axis("true positive rate", 0, 1)
    return Plot("ROC", "roc", x, y, lines, shade=1 / n, note=note)


def mean_roc(parts: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """FPR, ascending, and at each the mean over the frames of the TPR of the last ROC point with an FPR no greater: float64 [n] each.

    Raises ValueError for a frame of one label only.
    """
    if any(set(part.label) != {0, 1} for part in parts):
        raise ValueError("a ROC curve needs both labels, 1 and 0")
    curves = [roc_curve(part.label, part.score, drop_intermediate=False)[:2] for part in parts]
    at = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    return at, np.mean([tpr[np.searchsorted(fpr, at, side="right") - 1] for fpr, tpr in curves], axis=0)


def histograms(scores: pd.DataFrame) -> Chart:
    """The scores of each kind: :func:`histogram_plot`."""
    return chart(histogram_plot(scores))


def histogram_plot(scores: pd.DataFrame, title: str = "Scores by kind", bins: int = 48) -> Plot:
    """The scores of each kind, one row a kind on a common scale; each row's fullest bin is equally high.

    scores: columns score, label, kind, at least one row.
    """
    low, high = _ends(scores.score)
    rows = []
    for (label, kind), part in sorted(scores.groupby(["label", "kind"]), key=lambda item: (-item[0][0], item[0][1])):
        counts = np.histogram(part.score, bins=bins, range=(low, high))[0]
        rows.append(Row(f"{kind}: {LABELS.get(label, 'unlabelled')}, {len(part):,}", counts, int(label)))
    return Plot(title, "scores", Axis("score", low, high), Axis("", 0, 1), rows=rows)


def size_chart(scores: pd.DataFrame, note: str) -> Chart:
    """Score over the PNG size of the example's image, by label, with the ends of the matched AUROC's bins where both labels are.

    scores: columns score, label, png_bits, at least one row. Of more than POINTS rows, so many evenly spaced ones are drawn.
    """
    (left, right), (low, high) = _ends(scores.png_bits / 1000), _ends(scores.score)
    shown = scores if len(scores) <= POINTS else scores.iloc[np.linspace(0, len(scores) - 1, POINTS).astype(int)]
    x, y = _x(shown.png_bits.to_numpy() / 1000, left, right), _y(shown.score.to_numpy() - low, high - low)
    lines = []
    if {0, 1} <= set(scores.label):
        edges = _x(np.unique(bin_edges(scores.png_bits.to_numpy())) / 1000, left, right)
        lines.append(("bins of AUROC matched", "".join(f"M{at} {TOP}V{HEIGHT - BOTTOM}" for at in edges), "chance"))
    for label, name in sorted(LABELS.items()):
        of = (shown.label == label).to_numpy()
        path = "".join(f"M{at} {up:.1f}h0" for at, up in zip(x[of], y[of], strict=True))
        lines += [(name, path, f"dot label{label}")] if path else []
    ticks = round_values(low, high)
    wide = max(len(f"{tick:g}") for tick in ticks)
    power = math.floor(math.log10(max(map(abs, ticks)))) if wide > 5 else 0  # would be cut at the edge
    yticks = [(round(float(_y(np.array(t - low), high - low)), 1), f"{t / 10**power:.4g}") for t in ticks]
    note += f" Drawn: {POINTS:,} of {len(scores):,} examples." if len(shown) < len(scores) else ""
    y_label = f"score / 1e{power}" if power else "score" if wide < 5 else ""  # it would stand on the ticks
    return Chart("Score over PNG size", "PNG size in kilobits", y_label, _xticks(left, right), yticks, lines, note=note)


def rarefaction_chart(curve: pd.DataFrame) -> Chart:
    """curve: the rows ``rarefaction`` of the metrics, by n."""
    n, value = curve.n.to_numpy(float), curve.value.to_numpy(float)
    top, scale = max(5.0, float(value.max())), (RIGHT - LEFT) / n[-1]
    ticks = [(round(LEFT + x * scale, 1), f"{x:,g}") for x in round_values(0, n[-1])]
    note = "Expected over all choices of so many of the run's images. A curve that still rises at its end: more images would copy more."
    note = note if value.any() else "No image of this run is a copy."
    lines = [("", _path(LEFT + n * scale, _y(value, top)), "c0")]
    return Chart("Unique copied training pictures", "images drawn", "training pictures", ticks, _yticks(top), lines, note=note)


def _ends(values: pd.Series) -> tuple[float, float]:
    """Least and greatest, apart."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _x(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round(LEFT + (values - low) / (high - low) * (RIGHT - LEFT), 1)


def _xticks(low: float, high: float) -> list[tuple[float, str]]:
    ticks = round_values(low, high)
    return list(zip(_x(np.array(ticks), low, high).tolist(), (f"{x:g}" for x in ticks), strict=True))


def _along(axis: Axis, values: np.ndarray) -> np.ndarray:
    return np.round(LEFT + np.clip(axis.share(values), 0, 1) * (RIGHT - LEFT), 1)


def _pixel(axis: Axis, x: float) -> float:
    return float(_along(axis, np.array([x]))[0])


def _up(axis: Axis, values: np.ndarray) -> np.ndarray:
    return _y(np.clip(axis.share(values), 0, 1), 1)


def _runs(good: np.ndarray) -> list[slice]:
    """The stretches of True."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    return [slice(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True)]


def _band(plot: Plot, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The outline of what lies between low and high, closed, a piece a stretch without NaN."""
    path = ""
    for of in _runs(np.isfinite(low) & np.isfinite(high)):
        at = np.concatenate([_along(plot.x, x[of]), _along(plot.x, x[of])[::-1]])
        up = np.round(np.concatenate([_up(plot.y, low[of]), _up(plot.y, high[of])[::-1]]), 1)
        path += "M" + "L".join(f"{px} {py}" for px, py in zip(at.tolist(), up.tolist(), strict=True)) + "Z"
    return path


def _y(values: np.ndarray, top: float) -> np.ndarray:
    return HEIGHT - BOTTOM - values / top * (HEIGHT - BOTTOM - TOP)


def _yticks(top: float) -> list[tuple[float, str]]:
    return [(round(float(_y(np.array(y), top)), 1), f"{y:,g}") for y in round_values(0, top)]


def _path(x: np.ndarray, y: np.ndarray, move: str = "L ") -> str:
    """SVG path through the points, of which the last of a pixel counts. move "HV": y changes only where x does."""
    (x0, y0), *rest = dict(zip(np.round(x, 1).tolist(), np.round(y, 1).tolist(), strict=True)).items()
    return f"M{x0} {y0}" + "".join(f"{move[0]}{px}{move[1]}{py}" for px, py in rest)
