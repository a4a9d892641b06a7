"""What a run has shown, in one sentence, by one rule.

A detector **finds** memorization where the 95 % interval of its AUROC lies above 0.5
and, if the same run on a control model is there, the AUROC on the control lies below
that interval. On a mirror pair the mirrored AUROC decides alone: what can be seen in an
example without a model has 0.5 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

Level = Literal["finds", "content", "chance", "open", "none"]


@dataclass(frozen=True)
class Verdict:
    """level: it finds memorization; what it finds, content explains; it is not better
    than chance; the other model has not been asked; there is no AUROC. text: a
    sentence.
    """

    level: Level
    text: str


def mirror_verdict(row: pd.Series, what: str) -> Verdict:
    """Of a row of ``boards.mirror`` on all kinds. what: "captions" or "images"."""
    reached = _auroc(row.mirrored, row.mirrored_low, row.mirrored_high)
    if not row.mirrored_low > 0.5:
        return Verdict(
            "chance",
            f"{row.detector} does not find memorized {what}: AUROC mirrored {reached}, and chance"
            " is 0.5",
        )
    return Verdict(
        "finds",
        f"{row.detector} finds memorized {what}: AUROC mirrored {reached}, which content cannot"
        f" explain{_found(row.mirrored_tpr)}",
    )


def verdict(row: pd.Series, what: str, other: str) -> Verdict:
    """Of a row of ``boards.collect``, or of it over seeds, with its control's columns.
    what: "captions" or "images". other: what the model is called that the run has not
    asked yet.
    """
    if pd.isna(row.auroc):
        counts = f"{row.positives:,.0f} memorized, {row.negatives:,.0f} not"
        counts += f", {row.unlabelled:,.0f} unlabelled" if row.unlabelled else ""
        return Verdict(
            "none",
            f"{row.detector} scored {counts}: no AUROC, which needs both labels (--negatives names"
            f" {what} that are not memorized)",
        )
    reached = _auroc(row.auroc, row.auroc_low, row.auroc_high)
    if row.control:
        return Verdict("open", f"{row.detector} on the control model: AUROC {reached}")
    if not row.auroc_low > 0.5:
        return Verdict(
            "chance",
            f"{row.detector} does not find memorized {what}: AUROC {reached}, and chance is 0.5",
        )
    found = _found(row["tpr_at_fpr_0.01"])
    control = row.get("control_auroc")
    if control is None or pd.isna(control):
        return Verdict(
            "open",
            f"{row.detector} tells memorized {what}: AUROC {reached}{found}. Whether"
            f" content alone tells them, {other} would say",
        )
    if control < row.auroc_low:
        return Verdict(
            "finds",
            f"{row.detector} finds memorized {what}: AUROC {reached}; on the control model"
            f" {control:.3f}: not explained by content{found}",
        )
    return Verdict(
        "content",
        f"{row.detector} tells memorized {what}: AUROC {reached}; on the control model"
        f" {control:.3f}: content alone explains it",
    )


def _auroc(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _found(tpr: float) -> str:
    return "" if pd.isna(tpr) else f". At 1 % false alarms it finds {100 * tpr:.0f} %"
