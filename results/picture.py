"""Draws the picture of README.md: ``python results/picture.py``, under a minute.

Left, images that the mini Stable Diffusion generates for captions of its catalogue,
beside their nearest training images. Right, the mirrored AUROC of each detector, from
``mirror_development.parquet``. Writes ``docs/picture.png``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import membench
from membench.runs.nearest import frame_of, stored_nearest
from membench.storage.images import png_image

ROOT = Path(__file__).resolve().parent.parent
BOARD = ROOT / "results" / "mirror_development.parquet"
PICTURE = ROOT / "docs" / "picture.png"
CONTENT = ("png_size", "caption_length", "caption_case", "caption_ngrams")
TASKS = {"sd_webster": "Captions (mini Stable Diffusion)", "cifar10": "Images (mini pixel model)"}
INK, GREY, LINE = "#1f5fa8", "#8a8a8a", "#bbbbbb"


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Generated and training image, uint8 [h, w, 3] each: the middle ones of the copies
    of different training images, so that neither the best nor the worst is shown.
    """
    with tempfile.TemporaryDirectory() as out:
        run = membench.run("random", "sd_webster", out=out, limit=96, progress=False)
        frame, training = frame_of(run), stored_nearest(run)
        copies = frame[frame.copied & frame.training_id.isin(list(training))].drop_duplicates(
            "training_id"
        )
        first = max(0, (len(copies) - count) // 2)
        chosen = copies[first : first + count]
        images = run.images(chosen.sample_id)
        return [
            (png_image(images[r.sample_id]), png_image(training[r.training_id]))
            for r in chosen.itertuples()
        ]


def draw(shown: list[tuple[np.ndarray, np.ndarray]], board: pd.DataFrame) -> Figure:
    """The figure, 8 inches wide."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.2))
    cells = left.subplots(len(shown), 2, squeeze=False)
    for row, pair in zip(cells, shown, strict=True):
        for axes, image in zip(row, pair, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set_axis_off()
    for axes, title in zip(cells[0], ("generated", "training"), strict=True):
        axes.set_title(title, fontsize=9)
    rows = {
        task: board[(board.task == task) & (board.kind == "all")].sort_values("mirrored")
        for task in TASKS
    }
    panels = right.subplots(2, 1, height_ratios=[len(part) for part in rows.values()], sharex=True)
    for axes, (task, part) in zip(panels, rows.items(), strict=True):
        at = np.arange(len(part))
        value = part.mirrored.to_numpy(float)
        whiskers = np.stack([value - part.mirrored_low, part.mirrored_high - value]).clip(0)
        colours = [GREY if name in CONTENT else INK for name in part.detector]
        axes.axvline(0.5, color=LINE, linestyle="--", linewidth=1)
        axes.errorbar(value, at, xerr=whiskers, fmt="none", ecolor=colours, elinewidth=1.2)
        axes.scatter(value, at, c=colours, s=22, zorder=3)
        axes.set_yticks(at, list(part.detector), fontsize=7)
        axes.set_title(TASKS[task], fontsize=9, loc="left")
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlim(0.35, 1.01)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1].set_xlabel(
        "AUROC, mirrored; dashed: what an example alone can tell (grey: no model)", fontsize=8
    )
    return figure


def said(board: pd.DataFrame) -> str:
    """The numbers that the figure shows, kept in the PNG: a test compares them."""
    rows = board[(board.kind == "all") & board.task.isin(TASKS)].sort_values(["task", "detector"])
    numbers = rows[["mirrored", "mirrored_low", "mirrored_high"]].to_numpy(float)
    named = zip(rows.task, rows.detector, numbers, strict=True)
    return "; ".join(f"{t} {d} {' '.join(f'{v:.3f}' for v in of)}" for t, d, of in named)


if __name__ == "__main__":
    board = pd.read_parquet(BOARD)
    draw(pairs(4), board).savefig(PICTURE, dpi=160, metadata={"Description": said(board)})
