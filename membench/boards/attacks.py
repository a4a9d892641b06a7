"""Attacks side by side: what the images hold that an attack has extracted.

A row is an attack and its options, over seeds. Detectors that score and only extract the
task's own images are not here: their images are all the same, and say nothing of the
score.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from membench.boards.collect import collect
from membench.boards.identity import BOARD
from membench.boards.quality import with_mirror, with_quality
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.errors import UserError
from membench.runs.finished import Run

MAKE_ONE = (
    "make one: membench run --detector random,side --task cifar10 --extract-only, and the same"
    " with --control"
)


def is_attack(run: Run) -> bool:
    """Whether the run's detector chooses or guides the images that it extracts."""
    return bool(run.info.get("attack", False))


def collect_attacks(
    runs: Sequence[Run], resampler: Resampler | None = None, *, quality: bool = False
) -> pd.DataFrame:
    """One row an attack, its options and model: ``seeds.over_seeds`` of the runs of
    attacks alone, which set the terms of equal N_G and equal cost among themselves.

    The runs on a control model are columns of the rows on the model (``control_ams``,
    ``excess_ams`` ...), and no rows. quality: with their figures of quality
    (``boards.quality``). Highest AMS first. Raises :class:`UserError` where no
    attack has images of a model that has seen the training images.
    """
    attacks = [run for run in runs if is_attack(run) and run.n_ok]
    if not attacks:
        raise UserError(
            f"no run is of an attack (attack = True) that has extracted images; {MAKE_ONE}"
        )
    frame = collect(attacks)
    frame = with_quality(frame, attacks) if quality else frame
    frame = over_seeds(frame, attacks, resampler or Resampler())
    frame = with_mirror(frame) if quality else frame
    frame = frame[~frame.control.astype(bool)]
    if frame.empty:
        raise UserError(f"attacks have runs on control models alone; {MAKE_ONE}")
    order = [*BOARD, "ams_cumulative", "detector", "options"]
    return frame.sort_values(
        order, ascending=[name != "ams_cumulative" for name in order], ignore_index=True
    )
