"""What a terminal shows of a board: the columns that decide, and in the heading what is
the same in every row. ``--wide`` shows all columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from membench.boards.board import Board, By, Part
from membench.boards.identity import differing
from membench.metrics.names import DETECTION, NUMBERS, RARE
from membench.reports.text import number

# A column of the full tables by its title, and whether its interval is shown.
DETECTED = {"AUROC": True, "control AUROC": False, "TPR@1%FPR": False}
CONTROL = {"control AUROC": "on control"}
COPIED = {
    "N_G": True,
    "AMS copies %": True,
    "UMS copies %": True,
    "copied": True,
    "per 1k eval": True,
}
PAIRS = {f"difference in {title}": True for title in DETECTION.values()}
BANDS = dict.fromkeys(("region", "AMS %", "UMS %"), True)
PUBLISHED = dict.fromkeys(("paper", "model", "metric", "reported", "measured", "verdict"), True)
# By what a row of the board is of; of several the first that a table has a column of. A
# board that is not here has small tables.
SHOWN: dict[By, Sequence[Mapping[str, bool]]] = {
    "run": [DETECTED, COPIED],
    "seeds": [DETECTED, COPIED],
    "kind": [{"kind": True} | DETECTED],
    "source": [{"source": True} | DETECTED],
    "band": [BANDS],
    "difference": [PAIRS | {"p (Holm)": True, "significant": True}],
    "published": [PUBLISHED],
}
NAMES = ("detector", "options", "seed", "seeds", "better", "worse")
# What a heading says of all rows: settings and how many were scored, never a result.
SAME = ("options", "seed", "seeds", "sees", "commit", "scored", "N_G")


def shortened(by: By, body: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that decide of a full table (``body``, text) of a board by ``by``;
    options stand behind their detector. frame: the numbers of its rows; their cost
    stands last.
    """
    shown = next((of for of in SHOWN.get(by, ()) if not body.columns.intersection(of).empty), None)
    if shown is None:
        return _behind(body)
    kept = {
        title: body[title] if title in NAMES or shown[title] else body[title].map(_value)
        for title in body.columns
        if title in NAMES or title in shown
    }
    out = pd.DataFrame(kept, index=body.index)
    if shown is DETECTED and "forwards_per_example" in frame:
        costs = frame.forwards_per_example + frame.jvps_per_example
        out["eval/ex"] = costs.loc[body.index].map(number)
    if "scored" in body and (body.scored.nunique() == 1 or "unlabelled" in str(set(body.scored))):
        out["scored"] = body.scored
    return _behind(out).rename(columns=CONTROL)


def _behind(body: pd.DataFrame) -> pd.DataFrame:
    """The table with the options, where they differ, behind their detector."""
    if "detector" not in body or "options" not in body or body.options.nunique() < 2:
        return body
    named = (body.detector + " " + body.options).str.strip()
    return body.assign(detector=named).drop(columns="options")


def _value(cell: str) -> str:
    """A cell without its interval: ``0.912`` of ``0.912 [0.884, 0.936]``; what else it
    says, such as ``(2 of 3 seeds)``, stays.
    """
    return re.sub(r" \[.*?\]| \(needs .*?\)", "", cell)


def told_apart(body: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table without the settings that are the same in every row, and these as
    words for its heading: ``seed 0, scored 804/804``; empty ones are left out.
    """
    same = [
        title
        for title in body.columns
        if title in SAME and len(body) and body[title].nunique(dropna=False) == 1
    ]
    words = [f"{title} {value}" for title in same if (value := str(body[title].iloc[0]))]
    return body.drop(columns=same), ", ".join(words)


def short_titles(board: Board) -> dict[str, str]:
    """A title for each part of a board, by its full one: task, profile and model; of
    two that would read alike, with the fields in which they differ.
    """
    plain = {part.title: _short_title(part.fields) for part in board.parts}
    found = {}
    for part in board.parts:
        alike = [p for p in board.parts if plain[p.title] == plain[part.title]]
        found[part.title] = plain[part.title] + _differing(part, alike)
    return found


def _short_title(fields: Mapping[str, Any]) -> str:
    model = ", CONTROL model" if fields["control"] else ""
    precise = "" if fields["dtype"] == "float32" else f", {fields['dtype']}"
    return (
        f"{fields['task']} v{fields['task_version']}, {fields['profile']} profile{model}{precise}"
    )


def _differing(part: Part, alike: Sequence[Part]) -> str:
    names = differing([p.fields for p in alike])
    return "".join(f", {name} {part.fields[name]}" for name in names)


def notes_of(body: pd.DataFrame, notes: Iterable[str]) -> list[str]:
    """The notes below a short table: none on columns that it has not, and what a TPR
    that is missing needs.
    """
    title = DETECTION["tpr_at_fpr_0.01"]
    lacking = title in body and ((body[title] == "n/a") & (body["AUROC"] != "n/a")).any()
    absent = [name for name in (RARE | NUMBERS).values() if name not in body]
    told = [note for note in notes if not note.startswith(tuple(absent))]
    return [*told, *([f"{title} n/a: it needs at least 100 negatives"] if lacking else [])]
