"""What tuning found: a row a try, and the best of each detector."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pandas as pd

from membench.boards.control import run_words
from membench.boards.identity import passed
from membench.boards.mirror import collect_mirror
from membench.runs.finished import Run
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
    """A row a try, with the columns ``boards.other_tables.TUNED``."""
    rows = []
    for t in done:
        row = {"task": t.spec.task, "detector": t.spec.detector, "number": t.number}
        options = (*t.spec.options, *t.settings)
        row |= {"options": " ".join(options), "error": t.refused, "command": ""}
        if t.runs:
            board = collect_mirror(t.runs)
            [of_all] = board[board.kind == "all"].to_dict("records")
            row |= {new: of_all[old] for old, new in KEPT.items()}
            row["command"] = _elsewhere(t.runs[0])
        else:
            row["status"] = "refused"
        rows.append(row)
    frame = pd.DataFrame(rows).reindex(
        columns=["task", "detector", "number", "options", *KEPT.values(), "error", "command"]
    )
    numbers = [c for c in KEPT.values() if c != "status"]
    frame[numbers] = frame[numbers].astype(float)
    best = frame.dropna(subset="auroc").groupby("detector", sort=False).auroc.idxmax()
    frame["chosen"] = frame.index.isin(best)
    return frame


def _elsewhere(run: Run) -> str:
    """The command of a whole run with the same options on a world to be filled in."""
    info = run.info
    asked = {
        "task_options_passed": [*passed(info, "half"), "world=1", "models=FOLDER"],
        "n_examples": info["n_task_examples"],
    }
    return shlex.join(run_words({**info, **asked}))
