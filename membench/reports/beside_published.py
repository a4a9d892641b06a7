"""What papers published of the settings of runs that have just ended, beside what was
measured, and whether it was reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from membench.boards import published_table
from membench.boards.collect import collect
from membench.boards.published import read
from membench.boards.reproduced import OPEN, RULE, judged, sentence
from membench.boards.seeds import over_seeds
from membench.plain import plain
from membench.reports.lines import folded
from membench.reports.terminal import laid_out
from membench.reports.text import interval
from membench.runs.finished import Run


def beside_published(runs: Sequence[Run], room: int | None) -> str:
    """A table a paper, model and prompt sets of the numbers that can be judged; below
    them a line a reason of those that cannot, unless all are of another model or other
    prompts, and a sentence. "" where no run is of the
    full profile, nothing is published of its detectors, or membench was installed
    without the published numbers.

    room: columns of the terminal; None: any.
    """
    full = [run for run in runs if run.info["profile"] == "full"]
    if not full or not published_table.PUBLISHED.is_file():
        return ""
    frame = over_seeds(collect(full), full)
    found = judged(read(published_table.PUBLISHED), frame.assign(space=frame.space_id))
    if found.empty:
        return ""
    others = found[~found.asked]
    # Of another model or other prompts, unless there is nothing else to say
    found = found if len(others) == len(found) else found[found.asked]
    measured = found[(found.verdict != OPEN) | found.ours.notna()]
    parts = [
        laid_out(f"{paper}: {model}, {data}", _rows(part), room)
        for (paper, model, data), part in measured.groupby(["paper", "model", "data"], sort=False)
    ]
    lines = [RULE + "."] if len(measured) else []
    # Of another model the sentence says it all
    if found.asked.any() or len(measured):
        lines += [f"{OPEN}: {text}" for text in _reasons(found[found.verdict == OPEN])]
    lines.append(f"{sentence(found)}.")
    more = (
        f"{len(others)} more are of other models or data: "
        if found.asked.any() and len(others)
        else ""
    )
    lines.append(f"{more}membench leaderboard --by published")
    folds = [line for text in lines for line in folded(plain(text), room)]
    return "\n".join([*parts, *folds]) + "\n"


def _rows(part: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "detector": f"{r.detector} {published_table.options_text(r.options)}".strip(),
                "metric": r.metric,
                "published": _printed(r.published, r.rounding),
                "ours": interval(r.ours, r.low, r.high),
                "verdict": r.verdict,
            }
            for r in part.itertuples()
        ]
    )


def _printed(value: float, half: float) -> str:
    """With the digits that its paper prints; half: half a unit of the last."""
    return f"{value:.{round(-math.log10(2 * half))}f}"


def _reasons(open_: pd.DataFrame) -> list[str]:
    """A line a reason, with the detectors and how many numbers it is of."""
    short = open_.why.where(~open_.why.str.startswith("no run has "), "no run has their options")
    return [
        f"{len(part)} of {', '.join(dict.fromkeys(part.detector))}: {why}"
        for why, part in open_.groupby(short, sort=False)
    ]
