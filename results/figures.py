"""Draws the figures of docs/findings.md and docs/questions.md from the Parquet files
here: ``python results/figures.py``, some seconds. Writes ``docs/figures/NAME.png``; each
holds the numbers that it shows, which a test compares with the Parquet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tables import parsed, script

ROOT = Path(__file__).resolve().parent.parent
HERE, FOLDER = ROOT / "results", ROOT / "docs" / "figures"
INK, GREY, LINE = "#1f5fa8", "#8a8a8a", "#bbbbbb"
COLOURS = ("#1f5fa8", "#c8553d", "#3a7d44", "#8e5ea2", "#444444")
KINDS = ("x1", "x4", "x16", "x64")


def captions() -> Figure:
    """AUROC of the controls that read captions alone, on four published prompt sets."""
    board = pd.read_parquet(HERE / "sd_webster_full_captions.parquet")
    sets = list(board.data_name.unique())
    figure, axes = _figure(6.4, 2.6)
    for shift, (name, part) in zip(
        (-0.22, 0.0, 0.22), board.groupby("detector", sort=True), strict=True
    ):
        at = np.array([sets.index(of) for of in part.data_name]) + shift
        _dots(axes, at, part, "auroc", COLOURS[round(shift / 0.22) + 1], str(name))
    axes.set_yticks(range(len(sets)), [str(of) for of in sets], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("AUROC of memorized against other prompts, no model asked", fontsize=8)
    _finish(axes, legend=False)
    figure.legend(fontsize=7, frameon=False, loc="outside upper center", ncols=3)
    return figure


def multiplicity() -> Figure:
    """Mirrored AUROC against how often an image was shown, on the worlds and on
    real images.
    """
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    boards = (
        ("mirror_development", "development world"),
        ("worlds", "worlds 1 and 2"),
        ("cifar10_pair", "real CIFAR-10"),
    )
    panels = figure.subplots(1, len(boards), sharey=True)
    for axes, (file, title) in zip(panels, boards, strict=True):
        board = pd.read_parquet(HERE / f"{file}.parquet")
        board = board[(board.task == "cifar10") & (board.options == "images=0")]
        for name, colour in zip(
            ("loss", "membership", "clid", "flipd", "cfg_norm"), COLOURS, strict=True
        ):
            part = board[board.detector == name].set_index("kind").loc[list(KINDS)]
            value, ends = _ends(part, "mirrored")
            axes.errorbar(
                range(len(KINDS)),
                value,
                yerr=ends,
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.2,
                label=name,
            )
        axes.axhline(0.5, color=LINE, linestyle="--", linewidth=1)
        axes.set_xticks(range(len(KINDS)), [kind[1:] for kind in KINDS], fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        _finish(axes, legend=axes is panels[0])
    panels[1].set_xlabel("times an image was shown in an epoch", fontsize=8)
    panels[0].set_ylabel("AUROC, mirrored", fontsize=8)
    return figure


def attacks() -> Figure:
    """The share of copies of each attack and of plain sampling on cifar10, on the model and
    its mirror, and how many different training images are copied.
    """
    board = pd.read_parquet(HERE / "attacks.parquet")
    board = board[(board.task == "cifar10") & ~board.control.astype(bool)]
    board = board.sort_values("ams_cumulative")
    figure = Figure(figsize=(6.4, 2.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(board))
    _dots(left, at, board, "ams_cumulative", INK, "model")
    left.scatter(100 * board.control_ams.astype(float), at, c=GREY, s=22, label="mirror", zorder=3)
    left.set_yticks(at, list(board.detector), fontsize=8)
    left.set_xlabel("copies among 300 images, %", fontsize=8)
    right.scatter(board.copied_at_equal_n, at, c=INK, s=22)
    right.set_xlim(left=0)
    right.set_xlabel("different training images among them", fontsize=8)
    _finish(left)
    _finish(right, legend=False)
    return figure


def ladder() -> Figure:
    """What SIDE, with its clusters and with true labels, and plain sampling copy against
    how much the model memorizes, rung by rung of cifar10, on the model and its mirror.
    """
    frame = pd.read_parquet(HERE / "ladder.parquet").sort_values("base")
    base = frame[~frame.control.astype(bool)].groupby("value").base.first()
    oracle = pd.read_parquet(HERE / "ladder_oracle.parquet")
    oracle = oracle[oracle.detector == "side"].assign(base=lambda rows: rows.value.map(base))
    oracle = oracle.sort_values("base")
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    bases = 100 * np.unique(frame.base.to_numpy(float))
    left.plot(bases, bases, color=LINE, linestyle="--", linewidth=1, zorder=1)
    for name, colour, names in (
        ("side", COLOURS[0], ("SIDE", "both, on the mirror")),
        ("random", COLOURS[1], ("plain sampling", "")),
    ):
        part = frame[frame.detector == name]
        for control in (False, True):
            rows = part[part.control.astype(bool) == control]
            at = 100 * rows.base.to_numpy(float)
            value, ends = _ends(rows, "ams_cumulative", 100)
            left.errorbar(
                at,
                value,
                yerr=ends,
                color=GREY if control else colour,
                linestyle="" if control else "-",
                marker="o",
                markerfacecolor="white" if control else colour,
                markersize=4,
                linewidth=1.2,
                label=names[control],
            )
        own = part[~part.control.astype(bool)]
        right.plot(
            100 * own.base.to_numpy(float),
            own.copied_at_equal_n.to_numpy(float),
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
        )
    for axes, value, scale, label in (
        (left, "ams_cumulative", 100, "SIDE, true labels"),
        (right, "copied_at_equal_n", 1, ""),
    ):
        axes.plot(
            100 * oracle.base.to_numpy(float),
            scale * oracle[value].to_numpy(float),
            color=COLOURS[0],
            linestyle=":",
            linewidth=1.2,
            label=label,
        )
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(bases, [f"{base:.1f}" for base in bases])
        axes.minorticks_off()
        axes.set_xlabel("copies among plain unconditional images, %", fontsize=8)
    left.set_ylabel("copies among its images, %", fontsize=8)
    right.set_ylabel("different training images in 300", fontsize=8)
    right.set_ylim(bottom=0)
    _finish(left, at="upper left")
    _finish(right, legend=False)
    return figure


def tuned() -> Figure:
    """What six tries promised on the development world, and what other worlds and real
    images say of it.
    """
    tried = pd.read_parquet(HERE / "tuned_cifar10.parquet")
    asked = set(pd.read_parquet(HERE / "worlds.parquet").detector)
    names = [name for name in tried.detector.unique() if name in asked]
    chosen = {
        row.detector: parsed(row.detector, row.options) for row in tried[tried.chosen].itertuples()
    }
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    titles = ("development world", "worlds 1 and 2", "real CIFAR-10")
    panels = figure.subplots(1, len(titles), sharey=True, sharex=True)
    for k, name in enumerate(names):
        of = tried[tried.detector == name]
        _arrow(panels[0], k, of[of.number == 0].auroc.iloc[0], of[of.chosen].auroc.iloc[0])
    for axes, file in zip(panels[1:], ("worlds", "cifar10_pair"), strict=True):
        board = pd.read_parquet(HERE / f"{file}.parquet")
        board = board[board.kind == "all"]
        for k, name in enumerate(names):
            mine = board[board.detector == name].set_index("options").mirrored
            other = [v for options, v in mine.items() if parsed(name, options) == chosen[name]]
            _arrow(axes, k, mine["images=0"], other[0] if other else mine["images=0"])
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
        _finish(axes, legend=False)
    panels[1].set_xlabel("AUROC, mirrored: defaults (○) and tuned (●)", fontsize=8)
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    return figure


def labels() -> Figure:
    """What labels and their perturbation do to memorization, and to quality."""
    return script("perturbed_labels").plotted(pd.read_parquet(HERE / "perturbed_labels.parquet"))


FIGURES: dict[str, Callable[[], Figure]] = {
    made.__name__: made for made in (captions, multiplicity, attacks, ladder, tuned, labels)
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _ends(part: pd.DataFrame, name: str, scale: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values [n], and how far their intervals reach below and above them, [2, n]."""
    value, low, high = (
        scale * part[column].to_numpy(float) for column in (name, f"{name}_low", f"{name}_high")
    )
    return value, np.stack([value - low, high - value]).clip(0)


def _dots(
    axes: Axes, at: np.ndarray, part: pd.DataFrame, name: str, colour: str, label: str
) -> None:
    value, ends = _ends(part, name, 1 if name == "auroc" else 100)
    axes.errorbar(
        value,
        at,
        xerr=ends,
        fmt="o",
        color=colour,
        markersize=4.5,
        elinewidth=1.2,
        label=label,
    )


def _arrow(axes: Axes, at: int, first: float, last: float) -> None:
    axes.plot([first, last], [at, at], color=LINE, linewidth=1.5, zorder=1)
    axes.scatter([first], [at], facecolors="white", edgecolors=INK, s=26, zorder=2)
    axes.scatter([last], [at], c=INK, s=26 if first != last else 0, zorder=2)


def _finish(axes: Axes, *, legend: bool = True, at: str = "best") -> None:
    axes.tick_params(axis="both", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        axes.legend(fontsize=7, frameon=False, loc=at)


def said(figure: Figure) -> str:
    """Every number that the figure shows, kept in the PNG."""
    numbers = []
    for axes in figure.axes:
        for line in axes.get_lines():
            numbers += [*np.ravel(line.get_xdata()), *np.ravel(line.get_ydata())]
        for shown in axes.collections:
            if (points := np.ravel(shown.get_offsets())).size:
                numbers += list(points)
            for segment in getattr(shown, "get_segments", list)():
                numbers += list(np.ravel(segment))
    return " ".join(f"{float(number):.3f}" for number in numbers)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, made in FIGURES.items():
        figure = made()
        figure.savefig(FOLDER / f"{name}.png", dpi=150, metadata={"Description": said(figure)})
