"""Published numbers beside those of a board: which setting of a paper is a row's own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.published import BANDED, BANDS, EVIDENCE, METRICS, SIMILARITIES

# Column of a published table, and the board's column that must be equal.
KEYS = {
    "task": "task",
    "profile": "profile",
    "model": "model",
    "data": "data_name",
    "detector": "detector",
}


REPORTED = (
    "auroc",
    "tpr_at_fpr_0.01",
    "best_p95",
    *(f"{metric}_in_{band}" for metric in BANDED for band in BANDS),
)


def with_reported(board: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Adds what was published for each row's setting: ``reported_<metric>`` for each of
    REPORTED that the board has.

    board: one row a run or setting. Columns task, profile, model, data_name (the last
    two worded as in the published table), detector, resolved (JSON of the options that
    the run resolved to). Optional: control and status (a control run, or one that is
    not complete, is never a published setting); space (id of its ``Space``) and bands
    (JSON, ``{"high": [0.6, 1.0]}``), without which AMS, UMS and ``best_p95`` match
    nothing: values of two similarities or bands are not comparable. AMS of a band is
    ``ams_in_high``.

    A published number is of the same setting if task, profile, model, data and detector
    are equal and each of its options is among the resolved ones with an equal value,
    which null never is. Of a band, both ends must be stated and equal. Of several
    numbers the one of the best evidence counts (then the first by paper and source);
    ``reported_source`` says where those of the row are from, and names the others with
    their values. Without a match: NaN and "". A board that lacks a required column
    matches nothing, nor does a row in which one is missing: no error, since older runs
    name no model. Raises ValueError for broken JSON.
    """
    columns = [name for name in REPORTED if name in board]
    values: dict[str, list[float]] = {f"reported_{name}": [] for name in columns}
    sources = []
    rows = numbers_of(published)
    for run in settings_of(board):
        kept: list[str] = []
        others: list[str] = []
        for name in columns:
            found = sorted(
                (row for row in rows if row["column"] == name and same_setting(run, row)), key=_rank
            )
            values[f"reported_{name}"].append(found[0]["value"] if found else math.nan)
            kept += [_source(row) for row in found[:1]]
            others += [f"{title_of(row)} {row['value']:g} by {_source(row)}" for row in found[1:]]
        sources.append("; ".join([*dict.fromkeys(kept), *(f"also {other}" for other in others)]))
    return board.assign(
        **{name: np.array(column, dtype=float) for name, column in values.items()},
        reported_source=np.array(sources, dtype=object),
    )


def numbers_of(published: pd.DataFrame) -> list[dict[str, Any]]:
    """Records with the board's column of each number and the parsed options."""
    return [
        {str(name): value for name, value in record.items()}
        | {
            "column": record["metric"] + (f"_in_{record['band']}" if record["band"] else ""),
            "parsed": json.loads(record["options"]),
        }
        for record in published.to_dict("records")
    ]


def settings_of(board: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """The board's rows with parsed JSON.

    ``comparable``: whether a published number can be of this row at all.
    """
    needed = (*KEYS.values(), "resolved")
    for record in board.to_dict("records"):
        run = {str(name): value for name, value in record.items()}
        whole = not run.get("control", False) and run.get("status", "complete") == "complete"
        run["comparable"] = whole and all(name in run and not pd.isna(run[name]) for name in needed)
        if run["comparable"]:
            run["resolved"] = json.loads(run["resolved"])
            for name in ("space", "bands"):
                run[name] = "" if name not in run or pd.isna(run[name]) else run[name]
            run["bands"] = json.loads(run["bands"] or "{}")
        yield run


def same_setting(run: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a published number is of the setting of a run."""
    if not run["comparable"] or any(run[theirs] != row[ours] for ours, theirs in KEYS.items()):
        return False
    if not all(stated(value, run["resolved"].get(name)) for name, value in row["parsed"].items()):
        return False
    if row["similarity"] and not run["space"].startswith(row["similarity"]):
        return False
    # An unstated end is NaN
    return not row["band"] or run["bands"].get(row["band"]) == [row["band_from"], row["band_to"]]


def stated(value: Any, resolved: Any) -> bool:
    """Whether an option's published value is the resolved one, as JSON: 1 is 1.0 but
    not true, and null, which is not known, equals nothing.
    """
    return (
        value is not None
        and isinstance(value, bool) == isinstance(resolved, bool)
        and value == resolved
    )


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return list(EVIDENCE).index(row["evidence"]), row["paper"], row["source"], row["options"]


def _source(row: Mapping[str, Any]) -> str:
    return f"{row['paper']}, {row['source']} ({EVIDENCE[row['evidence']]})"


def title_of(row: Mapping[str, Any]) -> str:
    about = SIMILARITIES[row["similarity"]][0] if row["metric"] == "best_p95" else row["band"]
    return f"{METRICS[row['metric']]} {about}".strip()
