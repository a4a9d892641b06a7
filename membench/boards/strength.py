"""What detectors tell against how much a model has memorized: AUROC of each kind of
example, rung by rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from membench.boards.collect import collect_kinds
from membench.boards.ladder import at_rungs
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.metrics.multiplicity import natural
from membench.runs.finished import Run
from membench.runs.ladder import Rung


def has_auroc(run: Run) -> bool:
    """Whether examples of both labels have scores."""
    return bool((run.metrics.metric == "auroc").any())


def strength(rungs: Sequence[Rung], option: str, bases: Mapping[str, float]) -> pd.DataFrame:
    """One row a rung, detector, its options, model (``control``) and kind of memorized
    example ("all" first, then by how often an image was shown), over seeds: the columns
    of ``seeds.over_seeds``, with

    - ``swept``, ``value``: the task's option and its value at the rung;
    - ``base``: that value's of ``bases``, the share of copies among plain images; NaN where
      it has none.

    A kind is compared with the negatives of its own kind, where there are any. Rungs stand
    in the order given. Raises :class:`UserError` where no run has an AUROC, or two rungs
    are one model.
    """
    runs = [run for rung in rungs for run in rung.runs if has_auroc(run)]
    frame = at_rungs(over_seeds(collect_kinds(runs), runs, Resampler()), rungs, option)
    frame["base"] = [bases.get(value, np.nan) for value in frame.value]
    places = {rung.value: i for i, rung in enumerate(rungs)}

    def place(i: int) -> tuple[object, ...]:
        row = frame.loc[i]
        kind = (row.kind != "all", natural(row.kind))
        return places[row.value], bool(row.control), row.detector, row.options, kind

    return frame.loc[sorted(frame.index, key=place)].reset_index(drop=True)
