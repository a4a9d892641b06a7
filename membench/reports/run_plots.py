"""The plots of one run, and those that a board draws of several in the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from membench.metrics.complexity import bin_edges
from membench.metrics.detection import of_kind
from membench.reports.plots import CHANCE, DOT, LABEL_STYLES, Axis, Line, Plot, Row, ends

LOWEST_FPR = 1e-3

POINTS = 2000  # of a scatter, so that the page stays small

LABELS = {1: "memorized", 0: "not memorized", -1: "unlabelled"}


def run_roc(scores: pd.DataFrame) -> Plot:
    """TPR at the last ROC point with FPR <= x, over log x: of all examples, and of each
    kind as ``of_kind``.
    """
    kinds = sorted(scores.kind[scores.label == 1].unique())
    parts = {"all": scores} | (
        {kind: scores[of_kind(scores.label, scores.kind, kind)] for kind in kinds}
        if len(kinds) > 1
        else {}
    )
    return roc_plot({name: [part] for name, part in parts.items()})


def roc_plot(
    parts: Mapping[str, Sequence[pd.DataFrame]], styles: Mapping[str, int] | None = None
) -> Plot:
    """ROC curves with the low end of FPR on a log axis, a line a name, and chance.

    parts: of each name the scores (columns score, label: 1 or 0) of one or more seeds.
    Several are averaged at each FPR: the mean of their TPR (vertical averaging: Fawcett
    2006, Pattern Recognition Letters 27:861). styles: of each name; default: in order.
    What the fewest negatives cannot show is shaded. Raises ValueError for no names, or
    scores of one label only.
    """
    if not parts:
        raise ValueError("no scores to draw")
    counts = {int((part.label == 0).sum()) for of in parts.values() for part in of}
    n = min(counts)
    lowest = min(LOWEST_FPR, 10.0 ** math.floor(-math.log10(n))) if n else LOWEST_FPR
    lines = []
    for index, (name, of) in enumerate(parts.items()):
        fpr, tpr = mean_roc(of)
        lines.append(
            Line(name, fpr, tpr, style=index if styles is None else styles[name], steps=True)
        )
    chance = np.geomspace(lowest, 1, 60)
    lines.append(Line("chance", chance, chance, style=CHANCE))
    fewest = f"{n:,} negatives{', the fewest of a line,' if len(counts) > 1 else ''}"
    note = f"Shaded: below 1/{n:,}, a false positive rate that {fewest} cannot show."
    x, y = Axis("false positive rate (log)", lowest, 1, log=True), Axis("true positive rate", 0, 1)
    return Plot("ROC", "roc", x, y, lines, shade=1 / n, note=note)


def mean_roc(parts: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """FPR, ascending, and at each the mean over the frames of the TPR of the last ROC
    point with an FPR no greater: float64 [n] each.

    Raises ValueError for a frame of one label only.
    """
    if any(set(part.label) != {0, 1} for part in parts):
        raise ValueError("a ROC curve needs both labels, 1 and 0")
    curves = [roc_curve(part.label, part.score, drop_intermediate=False)[:2] for part in parts]
    at = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    return at, np.mean(
        [tpr[np.searchsorted(fpr, at, side="right") - 1] for fpr, tpr in curves], axis=0
    )


def histogram_plot(scores: pd.DataFrame, title: str = "Scores by kind", bins: int = 48) -> Plot:
    """The scores of each kind, one row a kind on a common scale; each row's fullest bin
    is equally high.

    scores: columns score, label, kind, at least one row.
    """
    low, high = ends(scores.score)
    rows = []
    for (label, kind), part in sorted(
        scores.groupby(["label", "kind"]), key=lambda item: (-item[0][0], item[0][1])
    ):
        counts = np.histogram(part.score, bins=bins, range=(low, high))[0]
        rows.append(
            Row(f"{kind}: {LABELS.get(label, 'unlabelled')}, {len(part):,}", counts, int(label))
        )
    return Plot(title, "scores", Axis("score", low, high), Axis("", 0, 1), rows=rows)


def size_plot(scores: pd.DataFrame, note: str) -> Plot:
    """Score over the PNG size of the example's image, by label.

    With the ends of the matched AUROC's bins where both labels are. scores: columns
    score, label, png_bits, at least one row. Of more than POINTS rows, so many evenly
    spaced ones are drawn.
    """
    x = Axis("PNG size in kilobits", *ends(scores.png_bits / 1000))
    y = Axis("score", *ends(scores.score))
    few = np.linspace(0, len(scores) - 1, min(POINTS, len(scores))).astype(int)
    shown = scores.iloc[few]
    lines = []
    if {0, 1} <= set(scores.label):
        edges = np.unique(bin_edges(scores.png_bits.to_numpy())) / 1000
        up = np.tile([y.low, y.high, np.nan], len(edges))
        lines.append(Line("bins of AUROC matched", np.repeat(edges, 3), up, style=CHANCE))
    for label, name in sorted(LABELS.items()):
        of = shown[shown.label == label]
        at = of.png_bits.to_numpy(float) / 1000, of.score.to_numpy(float)
        lines += (
            [Line(name, *at, style=LABEL_STYLES[label], joined=False, marker=DOT)]
            if len(of)
            else []
        )
    note += f" Drawn: {POINTS:,} of {len(scores):,} examples." if len(shown) < len(scores) else ""
    return Plot("Score over PNG size", "size", x, y, lines, note=note)


def rarefaction_plot(curve: pd.DataFrame) -> Plot:
    """Different training images among n of the run's images. curve: the rows
    ``rarefaction`` of the metrics, by n.
    """
    n, value = curve.n.to_numpy(float), curve.value.to_numpy(float)
    note = (
        "Expected over all choices of so many of the run's images. A curve that still rises at its"
        " end: more images would copy more."
    )
    note = note if value.any() else "No image of this run is a copy."
    x, y = (
        Axis("images generated", 0, float(n[-1])),
        Axis("training images", 0, max(5.0, float(value.max()))),
    )
    return Plot(
        "Unique copied training images",
        "rarefaction",
        x,
        y,
        [Line("", n, value, width=2.4)],
        note=note,
    )
