"""How much there is to extract from a model: the share of copies among plain unconditional
images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from membench.boards.identity import BOARD
from membench.runs.finished import Run

BASE = {"extraction": "unconditional"}  # options of the attack that measures the base rate


def is_base(run: Run) -> bool:
    """Whether the run's images are those of plain unconditional sampling of the model."""
    info = run.info
    plain = info["detector"] == "random" and BASE.items() <= info["options"].items()
    return bool(plain and run.n_ok and not info["control"])


def with_base(frame: pd.DataFrame, same: Sequence[str] = BOARD) -> pd.DataFrame:
    """Adds ``base``, ``base_low`` and ``base_high`` to rows of attacks over seeds: AMS of
    plain unconditional sampling of the model, by the row of the most images; NaN where
    there is none.

    same: the columns in which a row and that of its base rate agree.
    """
    plain = [
        row.detector == "random" and BASE.items() <= json.loads(row.resolved).items()
        for row in frame.itertuples()
    ]
    bases = frame[pd.Series(plain, index=frame.index) & ~frame.control.astype(bool)]
    bases = bases.sort_values("n_ok").drop_duplicates(list(same), keep="last")
    names = {f"ams_cumulative{end}": f"base{end}" for end in ("", "_low", "_high")}
    found = bases[[*same, *names]].rename(columns=names)
    return frame.merge(found, "left", list(same)).set_axis(frame.index)
