"""The scores of every example, of any number of runs: one row an example and run."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from membench.boards.collect import about
from membench.boards.identity import BOARD
from membench.errors import UserError
from membench.runs.finished import Run

OF_SCORES = {
    "id": "example",
    "kind": "kind",
    "group": "group",
    "source": "source",
    "prompt": "prompt",
    "label": "label",
    "score": "score",
    "png_bits": "png_bits",
    "status": "score_status",
}


def collect_examples(runs: Sequence[Run]) -> pd.DataFrame:
    """Columns: those of ``identity.BOARD``, detector, options, seed, status (of the
    run), run, and of the example those of ``OF_SCORES``.

    Raises :class:`UserError` where no run has scored anything.
    """
    parts = []
    for run in runs:
        if run.scores.empty:
            continue
        row = about(run)
        names = [*BOARD, "detector", "options", "seed", "status", "run"]
        own = run.scores[list(OF_SCORES)].rename(columns=OF_SCORES)
        of_run = pd.DataFrame({name: [row[name]] * len(own) for name in names}, index=own.index)
        parts.append(pd.concat([of_run, own], axis=1))
    if not parts:
        raise UserError("none of these runs has scored an example: they extracted images alone")
    return pd.concat(parts, ignore_index=True)
