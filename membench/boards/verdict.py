"""What a run has shown, in one sentence, by one rule.

A detector **finds** memorization where the 95 % interval of its AUROC lies above 0.5
and, on the same examples, that of the difference, AUROC on the model less AUROC on the
model that has not seen them, lies above 0. The examples' groups are resampled once for
both. On a mirror pair the other model is the mirror model, whose AUROC for the first
one's labels is 1 - its own; the difference is then twice the mirrored AUROC less 1.
That content explains what it tells is said where that interval ends below 0.05; that a
detector does not find memorization where the interval of its AUROC ends below 0.6, for a
wider one that holds 0.5 has shown nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from membench.boards.collect import about
from membench.boards.identity import pair_key
from membench.metrics.mirror import over_control
from membench.runs.finished import Run

Level = Literal["finds", "content", "unsure", "chance", "few", "open", "attack", "control", "none"]
EXPLAINED = 0.05  # of AUROC: what content leaves over is less than that
CHANCE = 0.6  # a detector whose AUROC is surely less is of no use
MIRROR, CONTROL = "the mirror model", "the control model"
UNSEEN = "a model that has not seen them"


@dataclass(frozen=True)
class Verdict:
    """level: it finds memorization; what it finds, content explains; too few examples
    tell whether content does; it is not better than chance; too few examples tell
    whether it is; the other model has not been asked; images were extracted and nothing
    scored; the run is of the control model, so that it is not judged; there is no AUROC.
    text: a sentence. difference: AUROC on the model less AUROC on the other, with the
    ends of its 95 % interval; None where the other has not been asked. other: what that
    model is called.
    """

    level: Level
    text: str
    difference: tuple[float, float, float] | None = None
    other: str = UNSEEN


@dataclass(frozen=True)
class Reached:
    """What a detector reached on one model. auroc: value, low, high; of an interval
    that the data cannot support NaN. tpr: at 1 % FPR; NaN: not supported.
    """

    detector: str
    auroc: tuple[float, float, float]
    tpr: float


def verdict(
    reached: Reached,
    what: str,
    name: str,
    other: float | None = None,
    difference: tuple[float, float, float] | None = None,
) -> Verdict:
    """The sentence and its level. what: "captions" or "images". name: of the other
    model. other: AUROC on it; None: it has not been asked. difference: of both, paired,
    with its interval.
    """
    _, low, high = reached.auroc
    text = _interval(*reached.auroc)
    tpr = (
        "" if pd.isna(reached.tpr) else f". At 1 % false alarms it finds {100 * reached.tpr:.0f} %"
    )
    # Of a mirror model it tells why that lies below 0.5
    seen = ", which has seen the others," if name == MIRROR else ""
    beside = "" if other is None else f"; on {name}{seen} {other:.3f}"
    if not low > 0.5:
        surely = high < CHANCE
        found = "does not find" if surely else "is not shown to find"
        why = "no interval, too few groups" if pd.isna(low) else "too few examples to tell"
        said = (
            f"{reached.detector} {found} memorized {what}: AUROC {text}{beside}, and"
            f" {'chance is 0.5' if surely else why}"
        )
        return Verdict("chance" if surely else "few", said, difference, name)
    if other is None or difference is None:
        return Verdict(
            "open",
            f"{reached.detector} tells memorized {what} from others: AUROC {text}{tpr}. Only"
            f" {name} can tell whether content alone explains it",
            other=name,
        )
    if difference[1] > 0:
        return Verdict(
            "finds",
            f"{reached.detector} finds memorized {what}: AUROC {text}{beside}: not explained by"
            f" content{tpr}",
            difference,
            name,
        )
    explained = difference[2] < EXPLAINED
    return Verdict(
        "content" if explained else "unsure",
        f"{reached.detector} tells memorized {what} from others: AUROC {text}{beside}: "
        + (
            "content alone explains it"
            if explained
            else f"a difference of {_interval(*difference)}, so that content alone may explain it"
        ),
        difference,
        name,
    )


def mirror_verdict(row: pd.Series, what: str, half: str) -> Verdict:
    """Of a row of ``boards.mirror`` on all kinds. half: whose model the sentence is of,
    "a" or "b".
    """
    auroc = tuple(float(row[f"auroc_{half}{end}"]) for end in ("", "_low", "_high"))
    difference = tuple(2 * float(row[f"mirrored{end}"]) - 1 for end in ("", "_low", "_high"))
    reached = Reached(row.detector, auroc, float(row[f"tpr_{half}"]))  # type: ignore[arg-type]
    other = 1 - float(row.auroc_b if half == "a" else row.auroc_a)
    return verdict(reached, what, MIRROR, other, difference)  # type: ignore[arg-type]


def control_verdict(row: pd.Series, what: str, name: str, runs: Sequence[Run]) -> Verdict:
    """Of a row of ``boards.collect``, or of it over seeds, with its control's columns.

    what: "captions" or "images". name: what the other model is called. runs: those that
    the board was made of.
    """
    if row.extract_only:
        on = f" from {CONTROL}" if row.control else ""
        # Those that did not fail: the share is of them
        text = f"{row.detector} extracted {row.n_ok or row.n_g:,.0f} images{on}"
        if not row.n_ok:
            text += ", none of which could be compared with training images"
        elif pd.isna(row.ams_cumulative):
            text += " by the task's own sampling, so that they say nothing of its score"
        else:
            text += f", {_share(row.ams_cumulative)} of them copies of training images"
        beside = row.get("control_ams")
        if beside is not None and not pd.isna(beside):
            text += f"; from {CONTROL} {_share(beside)}"
        return Verdict("control" if row.control else "attack", text)
    if pd.isna(row.auroc):
        counts = f"{row.positives:,.0f} memorized, {row.negatives:,.0f} not"
        counts += f", {row.unlabelled:,.0f} unlabelled" if row.unlabelled else ""
        return Verdict(
            "none",
            f"{row.detector} scored {counts}: no AUROC, which needs both labels (--negatives names"
            f" {what} that are not memorized)",
        )
    auroc = (float(row.auroc), float(row.auroc_low), float(row.auroc_high))
    if row.control:
        text = f"{row.detector} on {CONTROL}: AUROC {_interval(*auroc)}"
        return Verdict("control", text)
    control = row.get("control_auroc")
    asked = control is not None and not pd.isna(control)
    # None, too, where the two have failed on different examples and share none of a label
    difference = over_control(_pairs(row, runs)) if asked else None
    return verdict(
        Reached(row.detector, auroc, float(row["tpr_at_fpr_0.01"])),
        what,
        CONTROL if asked else name,
        float(control) if difference else None,
        difference,
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _pairs(row: pd.Series, runs: Sequence[Run]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Scores on the model and on the control of each seed that both have, of the
    setting of a row.

    Which weights counts, too: a pair's key leaves them out, so runs of other models
    with the same data and control bear the same.
    """
    over_seeds = "seeds" in row
    weights = {False: row.weights, True: row.control_weights}
    found: dict[bool, dict[int, Run]] = {False: {}, True: {}}
    for run in runs:
        same = (
            pair_key(run.info, "seed") == row.pair_settings
            if over_seeds
            else pair_key(run.info) == row.pair
        )
        control = bool(run.info["control"])
        if same and about(run)["weights"] == weights[control]:
            found[control][run.info["seed"]] = run
    return [
        (found[False][seed].scores, found[True][seed].scores)
        for seed in sorted(set(found[False]) & set(found[True]))
    ]
