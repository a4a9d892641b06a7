"""Published numbers as a table beside what was measured, and beside the rows of a
board.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from membench.boards.published import (
    BANDED,
    BANDS,
    EVIDENCE,
    METRICS,
    NOT_MEASURED,
    SETTING,
    ordered,
    read,
)
from membench.boards.reported import numbers_of, same_setting, settings_of, title_of, with_reported
from membench.boards.reproduced import judged, verdict_of
from membench.errors import UserError

# What makes judged numbers those of one line: SETTING less how its evidence is worded
JUDGED = tuple(name for name in SETTING if name != "evidence")

# Of the checkout that membench lies in: a file beside a folder of runs could be
# anybody's.
PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published.parquet"


def published_path() -> Path:
    """The published numbers that come with membench's repository.

    Raises :class:`UserError` where it was installed without.
    """
    if not PUBLISHED.is_file():
        raise UserError(
            f"{PUBLISHED} is not there: it comes with membench's repository; run membench from a"
            " checkout of it"
        )
    return PUBLISHED


def with_published(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows over seeds, with ``reported_...`` columns where a paper reports a number for
    the very setting of a row (never of a mini one).
    """
    if not PUBLISHED.is_file() or (frame.profile == "mini").all():
        return frame
    known = with_reported(frame.assign(space=frame.space_id), read(PUBLISHED))
    numbers = [
        name
        for name in known
        if name.startswith("reported_") and name != "reported_source" and known[name].notna().any()
    ]
    return frame.assign(
        **{name: known[name] for name in [*numbers, *(["reported_source"] if numbers else [])]}
    )


def published_table(
    published: pd.DataFrame, board: pd.DataFrame | None, tasks: Sequence[str] | None = None
) -> pd.DataFrame:
    """The published numbers as text for people, one line a setting and source, in the
    order of :func:`ordered`.

    board: as for :func:`with_reported`; None: nothing was measured. tasks: only these.
    Columns paper, model, data, detector, options, metric, reported, measured, verdict,
    source, evidence, note. AMS and UMS of the bands stand in one cell, in per cent.
    measured: in the same form, n/a for what a row lacks; apart where several rows of the
    board are of that setting, for they differ in what no paper states (weights, number
    type, version), so that a mean would be of nothing; "not measured here" without any. verdict: of
    :mod:`membench.boards.reproduced`, empty where no run is of that detector.
    """
    runs = [] if board is None else list(settings_of(board))
    compared = judged(published, pd.DataFrame() if board is None else board)
    chosen = ordered(published if tasks is None else published[published.task.isin(tasks)])
    lines = []
    for _, part in chosen.groupby(list(SETTING), sort=False):
        rows = numbers_of(part)
        own = compared[(compared[list(JUDGED)] == part[list(JUDGED)].iloc[0]).all(axis=1)]
        values = [
            {
                row["column"]: float(run[row["column"]])
                for row in rows
                if same_setting(run, row) and not pd.isna(run.get(row["column"]))
            }
            for run in runs
        ]
        found = [_published_line(rows, of)[1] for of in values if of]
        measured = " or ".join(found) + (f" ({len(found)} boards)" if len(found) > 1 else "")
        measured = measured or NOT_MEASURED
        metric, reported = _published_line(rows, {row["column"]: row["value"] for row in rows})
        first = rows[0]
        lines.append(
            {name: first[name] for name in ("paper", "model", "data", "detector")}
            | {
                "options": options_text(first["options"]),
                "metric": metric,
                "reported": reported,
                "measured": measured,
                "verdict": verdict_of(own),
                "source": first["source"],
            }
            | {
                "evidence": EVIDENCE[first["evidence"]],
                "note": "; ".join(dict.fromkeys(row["note"] for row in rows if row["note"])),
            }
        )
    names = (
        "paper",
        "model",
        "data",
        "detector",
        "options",
        "metric",
        "reported",
        "measured",
        "verdict",
        "source",
        "evidence",
        "note",
    )
    return pd.DataFrame(lines, columns=list(names))


def _published_line(
    rows: Sequence[Mapping[str, Any]], values: Mapping[str, float]
) -> tuple[str, str]:
    """Title and cell of one setting's numbers: those of the bands together, then the
    others.

    ``AMS/UMS % low, mid, high; p95 L2`` and ``7.83/2.73, 3.83/1.19, 2.61/0.76; 1.41``,
    or ``AUROC / TPR@1%FPR`` and ``0.976 / 0.896``.
    """
    metrics = [m for m in BANDED if any(row["metric"] == m for row in rows)]
    bands = [b for b in BANDS if any(row["band"] == b for row in rows)]
    others = [row for row in rows if not row["band"]]

    def text(name: str, scale: int = 1, digits: int = 4) -> str:
        value = values.get(name, math.nan)
        return "n/a" if math.isnan(value) else f"{scale * value:.{digits}g}"

    title = [f"{'/'.join(METRICS[m] for m in metrics)} % {', '.join(bands)}"] if bands else []
    cell = (
        [", ".join("/".join(text(f"{m}_in_{b}", 100, 5) for m in metrics) for b in bands)]
        if bands
        else []
    )
    title += [" / ".join(map(title_of, others))] if others else []
    cell += [" / ".join(text(row["column"]) for row in others)] if others else []
    return "; ".join(title), "; ".join(cell)


def options_text(options: str) -> str:
    """``draws=4 steps=1`` of a JSON object; ``draws=?`` where the source leaves it open."""
    parsed: dict[str, Any] = json.loads(options)
    return " ".join(
        f"{name}={'?' if value is None else json.dumps(value).strip(chr(34))}"
        for name, value in parsed.items()
    )
