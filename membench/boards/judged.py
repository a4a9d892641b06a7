"""The verdict of one run, with the same run on the other model where it lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from membench.boards.attacks import is_attack
from membench.boards.collect import about
from membench.boards.counterparts import counterparts
from membench.boards.identity import given, pair_key
from membench.boards.mirror import half_of, mirror_rows, paired
from membench.boards.verdict import MIRROR, UNSEEN, Verdict, control_verdict, mirror_verdict
from membench.runs.finished import Run


def judged(run: Run) -> Verdict:
    """What one run has shown (``boards.verdict``), against the run on the mirror model
    or the control model of the same seed, if that is found beside it.
    """
    return against(run, counterparts([run]))


def against(run: Run, found: Sequence[Run]) -> Verdict:
    """The same, of the other models' runs among ``found``; of several on mirror models
    the last counts.
    """
    others = [other for other in found if other.info["seed"] == run.info["seed"]]
    mirrors = [o for o in others if half_of(o) != half_of(run) and not o.info["control"]]
    pairs, _ = paired([*mirrors[-1:], run])
    if pairs:
        rows = mirror_rows(pairs)
        every = rows[rows.kind == "all"]
        if len(every):
            return mirror_verdict(every.iloc[0], what_of(run), half_of(run))
    controls = [] if run.info["control"] else [o for o in others if o.info["control"]]
    row = _row(run) | {"pair": pair_key(run.info)}
    if controls:
        control = _row(controls[-1])
        row |= {"control_auroc": control["auroc"], "control_weights": control["weights"]}
        row["control_ams"] = control["ams_cumulative"]
    return control_verdict(pd.Series(row), what_of(run), other_name(run), [run, *controls[-1:]])


def _row(run: Run) -> dict[str, Any]:
    """What a verdict needs of a run, as in a board's row; a metric that it lacks is NaN."""
    # A metric at several n, such as rarefaction, is not asked for
    held = run.overall.drop_duplicates("metric").set_index("metric")[["value", "low", "high"]]
    ends = held.astype(float).reindex(["auroc", "tpr_at_fpr_0.01", "ams_cumulative"])
    good = run.scored
    counts = {"positives": 1, "negatives": 0, "unlabelled": -1}
    return {
        "detector": run.info["detector"],
        "control": run.info["control"],
        "weights": about(run)["weights"],
        "extract_only": bool(run.info.get("extract_only", False)),
        "n_g": len(run.samples),
        "n_ok": run.n_ok,
        "auroc": ends.value["auroc"],
        "auroc_low": ends.low["auroc"],
        "auroc_high": ends.high["auroc"],
        "tpr_at_fpr_0.01": ends.value["tpr_at_fpr_0.01"],
        # As on a board: of another detector's images it says nothing of the detector
        "ams_cumulative": ends.value["ams_cumulative"] if is_attack(run) else float("nan"),
        **{name: int((good.label == label).sum()) for name, label in counts.items()},
    }


def what_of(run: Run) -> str:
    """What a run's examples are: ``captions`` or ``images``."""
    return "captions" if len(run.scores) and run.scores.prompt.notna().any() else "images"


def other_name(run: Run) -> str:
    """What the model is called that has not seen a run's memorized examples, by what the
    run says of itself: the task, which would know of halves, is not imported.
    """
    return MIRROR if given(run.info, "half") else UNSEEN
