"""The charts of the report, as numbers in pixels that the template draws in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from membench.metrics.complexity import bin_edges

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


def roc_chart(scores: pd.DataFrame) -> Chart:
    """TPR at the last ROC point with FPR <= x, over log x: all positives, and those of each kind, against all negatives."""
    negative = scores.label == 0
    kinds, n = sorted(scores.kind[~negative].unique()), int(negative.sum())
    parts = {"all": scores} | ({kind: scores[negative | (scores.kind == kind)] for kind in kinds} if len(kinds) > 1 else {})
    lines = []
    for index, (name, part) in enumerate(parts.items()):
        fpr, tpr, _ = roc_curve(part.label, part.score, drop_intermediate=False)
        lines.append((name, _path(_fpr_pixel(fpr), _y(tpr, 1), "HV"), f"c{index % 6}"))
    chance = np.geomspace(LOWEST_FPR, 1, 60)
    lines.append(("chance", _path(_fpr_pixel(chance), _y(chance, 1)), "chance"))
    ticks = [(float(x), text) for x, text in zip(_fpr_pixel(np.array([0.001, 0.01, 0.1, 1])), ("0.001", "0.01", "0.1", "1"), strict=True)]
    note = f"Shaded: below 1/{n:,}, a false positive rate that {n:,} negatives cannot show."
    shade = float(_fpr_pixel(np.array([1 / n]))[0])
    return Chart("ROC", "false positive rate (log)", "true positive rate", ticks, _yticks(1), lines, shade=shade, note=note)


def histograms(scores: pd.DataFrame, bins: int = 48) -> Chart:
    """The scores of each kind, one row a kind on a common scale; each row's fullest bin is equally high."""
    low, high = _ends(scores.score)
    wide = (RIGHT - LEFT) / bins
    bars, labels, bases = [], [], []
    groups = sorted(scores.groupby(["label", "kind"]), key=lambda item: (-item[0][0], item[0][1]))
    for index, ((label, kind), part) in enumerate(groups):
        counts, base = np.histogram(part.score, bins=bins, range=(low, high))[0], TOP + (index + 1) * ROW
        labels.append((LEFT, base - ROW + 14, f"{kind}: {LABELS.get(label, 'unlabelled')}, {len(part):,}"))
        bases.append((base, ""))
        for at in np.flatnonzero(counts):
            tall = max(1.0, counts[at] / counts.max() * (ROW - 20))
            bars.append((round(LEFT + at * wide, 1), round(base - tall, 1), round(wide - 0.5, 1), round(tall, 1), f"label{label}"))
    ticks = _xticks(low, high)
    height = TOP + len(groups) * ROW + BOTTOM
    return Chart("Scores by kind", "score", "", ticks, bases, bars=bars, labels=labels, height=height)


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
    ticks = _ticks(low, high)
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
    ticks = [(round(LEFT + x * scale, 1), f"{x:,g}") for x in _ticks(0, n[-1])]
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
    ticks = _ticks(low, high)
    return list(zip(_x(np.array(ticks), low, high).tolist(), (f"{x:g}" for x in ticks), strict=True))


def _fpr_pixel(fpr: np.ndarray) -> np.ndarray:
    share = 1 - np.log(np.maximum(fpr, LOWEST_FPR)) / math.log(LOWEST_FPR)
    return np.round(LEFT + share * (RIGHT - LEFT), 1)


def _y(values: np.ndarray, top: float) -> np.ndarray:
    return HEIGHT - BOTTOM - values / top * (HEIGHT - BOTTOM - TOP)


def _yticks(top: float) -> list[tuple[float, str]]:
    return [(round(float(_y(np.array(y), top)), 1), f"{y:,g}") for y in _ticks(0, top)]


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about ``count``."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= (high - low) / count * 0.8)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _path(x: np.ndarray, y: np.ndarray, move: str = "L ") -> str:
    """SVG path through the points, of which the last of a pixel counts. move "HV": y changes only where x does."""
    (x0, y0), *rest = dict(zip(np.round(x, 1).tolist(), np.round(y, 1).tolist(), strict=True)).items()
    return f"M{x0} {y0}" + "".join(f"{move[0]}{px}{move[1]}{py}" for px, py in rest)
