"""Figures of quality as columns of a board: ``membench leaderboard --by attack
--quality``.

A column is named like its metric, with its features behind ``@``; figures of different
features stand in columns of their own and are never compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from membench.errors import UserError
from membench.metrics.names import QUALITY
from membench.metrics.quality import SEPARATOR
from membench.runs.finished import Run
from membench.runs.quality_file import read_quality

ERROR = "_error"  # behind the name of a metric: its standard error
MIRROR = "control_"  # before it: of the run on the control model
COLUMN = re.compile(rf"({MIRROR})?({'|'.join(m.name for m in QUALITY)})({ERROR})?{SEPARATOR}(.+)")


def with_quality(frame: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """The frame of ``collect`` with a column a figure that its runs hold.

    Raises :class:`UserError` where no run holds any.
    """
    rows = {}
    for run in runs:
        found = read_quality(run)
        row = dict(zip(found.metric, found.value, strict=True))
        for metric, error in zip(found.metric, found.error, strict=True):
            name, _, features = metric.partition(SEPARATOR)
            if pd.notna(error):
                row[f"{name}{ERROR}{SEPARATOR}{features}"] = error
        rows[str(run.path)] = row
    held = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    if held.empty:
        raise UserError(
            "no run of an attack has figures of quality; the same commands with --quality"
            " pixels add them to finished runs"
        )
    return frame.join(held, on="run")


def with_mirror(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of ``seeds.over_seeds`` with the figures of the same settings on the
    control model, where they are of the same features and of one control.

    A model's images may be nearer to any image than held-out ones are, being smoother:
    only what its mirror's are not is a sign of copies.
    """
    held = [name for name in frame if (m := COLUMN.fullmatch(str(name))) and not m[1]]
    mirrors = frame[frame.control.astype(bool)].drop_duplicates("pair_settings", keep=False)
    values = mirrors.set_index("pair_settings")[held].add_prefix(MIRROR)
    return frame.join(values, on="pair_settings")


def features_of(frame: pd.DataFrame) -> list[str]:
    """The features of a frame's figures that any row has, in the order of its columns."""
    return list(
        dict.fromkeys(
            m[4]
            for name in frame
            if (m := COLUMN.fullmatch(str(name))) and frame[name].notna().any()
        )
    )
