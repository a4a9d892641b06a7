"""What tuning found: a row a try, and the best of each detector."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from membench.boards.mirror import collect_mirror
from membench.runs.tuning import Try

KEPT = {
    "mirrored": "auroc",
    "mirrored_low": "low",
    "mirrored_high": "high",
    "auroc_a": "auroc_a",
    "auroc_b": "auroc_b",
    "mirrored_tpr": "tpr",
    "evaluations_per_example": "evaluations",
    "n": "n",
    "status": "status",
}


def collect_tries(done: Sequence[Try]) -> pd.DataFrame:
    """Columns task, detector, number, options, those of ``KEPT`` (its values), error,
    and ``chosen``: the highest mirrored AUROC of its detector, of equal ones the first.
    """
    rows = []
    for t in done:
        row = {"task": t.spec.task, "detector": t.spec.detector, "number": t.number}
        row |= {"options": " ".join(t.settings), "error": t.refused}
        if t.runs:
            board = collect_mirror(t.runs)
            [of_all] = board[board.kind == "all"].to_dict("records")
            row |= {new: of_all[old] for old, new in KEPT.items()}
        else:
            row["status"] = "refused"
        rows.append(row)
    frame = pd.DataFrame(rows).reindex(
        columns=["task", "detector", "number", "options", *KEPT.values(), "error"]
    )
    numbers = [c for c in KEPT.values() if c != "status"]
    frame[numbers] = frame[numbers].astype(float)
    best = frame.dropna(subset="auroc").groupby("detector", sort=False).auroc.idxmax()
    frame["chosen"] = frame.index.isin(best)
    return frame
