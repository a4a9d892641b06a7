"""What ``membench tune`` prints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from membench.reports.lines import folded, width
from membench.reports.terminal import table
from membench.reports.text import interval, number


def told(frame: pd.DataFrame, asked: int, where: Path) -> str:
    """A table with a row a detector, and what to do with it. frame: of
    ``collect_tries``; asked: tries of each detector.
    """
    rows, commands, short = [], [], []
    task = frame.task.iloc[0]
    for name, of in frame.groupby("detector", sort=False):
        first, best = of[of.number == 0].iloc[0], of[of.chosen]
        if len(of) < asked:
            short.append(f"{name} has {len(of)} settings in all")
        if best.empty:
            none = {"options": "no try has an AUROC", "eval/ex": "n/a"}
            rows.append({"detector": name, "defaults": "n/a", "tuned": "n/a", **none})
            continue
        chosen = best.iloc[0]
        rows.append(
            {
                "detector": name,
                "defaults": _auroc(first),
                "tuned": _auroc(chosen),
                "options": chosen.options if chosen.number else "the defaults",
                "eval/ex": number(chosen.evaluations),
            }
        )
        commands.append(chosen.command)
    many = int((frame.status == "refused").sum())
    refused_line = (
        f"{many} {'try was' if many == 1 else 'tries were'} refused: column error of the file has"
        f" the {'reason' if many == 1 else 'reasons'}."
    )
    lines = [
        f"{asked} tries of each detector on both halves of the development world; the best of them"
        " is too good by the choice: report it on another world.",
        *(f"{text}." for text in short),
        *([refused_line] if many else []),
        f"files: {where}",
        "next, on a world on which nothing was chosen:",
        *(commands or ["membench ablate"]),
    ]
    text = [part for line in lines for part in folded(line, width())]
    return "\n".join([table(f"tuned on {task}: AUROC mirrored", pd.DataFrame(rows)), *text])


def _auroc(row: pd.Series) -> str:
    return "n/a" if pd.isna(row.auroc) else interval(row.auroc, row.low, row.high)
