"""The page of an audit: the answer and the pairs first, then what they rest on.

Made from ``audit.json`` and ``copies.parquet`` alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from membench.reports.page import Section, Table, rendered
from membench.storage.files import atomic_write
from membench.storage.tables import read_table

PAIRS = 60  # of different training images
ROWS = 200  # of the table


def write_audit_page(folder: Path, told: Mapping[str, Any]) -> Path:
    """Writes ``report.html`` beside an audit's tables and returns its path. told: its
    ``audit.json``. Raises :class:`UserError` if the disk refuses.
    """
    page = render_audit(told, read_table(folder / "copies.parquet", "audit_copies"))
    path = folder / "report.html"
    atomic_write(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def render_audit(told: Mapping[str, Any], copies: pd.DataFrame) -> str:
    """The page as text. copies: ``copies.parquet``, nearest first."""
    return rendered(
        "audit.html",
        told=told,
        measure="similarity" if told["similarity"]["higher_is_closer"] else "distance",
        pairs=_pairs(told, copies),
        shown=copies.training_id.nunique(),
        sections=[_returned(told), _controls(told), _not_judged(told), _how(told)],
    )


def _pairs(told: Mapping[str, Any], copies: pd.DataFrame) -> list[dict[str, Any]]:
    """Each training image with its nearest image, as the template shows them."""
    first = copies.drop_duplicates("training_id")[:PAIRS]
    return [
        {
            "place": i,
            "similarity": row.similarity,
            "copied": True,
            "prompt": row.prompt if isinstance(row.prompt, str) else "",
            "generated": base64.b64encode(row.image).decode("ascii"),
            "training": base64.b64encode(row.training_image).decode("ascii"),
            "made_by": f"{row.copies:,}x in the data" if row.copies > 1 else "",
            "kind": "another's caption"
            if not row.own and told["model"]["kind"] == "text"
            else "own caption"
            if told["model"]["kind"] == "text"
            else row.asked,
            "draw": row.draw,
            "confidence": None,
            "training_id": row.file,
        }
        for i, row in enumerate(first.itertuples(), 1)
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _rate(row: Mapping[str, Any]) -> str:
    """Empty for captions that were asked once: they are here because they returned it."""
    if row["rate"] is None:
        return ""
    return f"{_percent(row['rate'])} [{_percent(row['low'])}, {_percent(row['high'])}]"


def _returned(told: Mapping[str, Any]) -> Section:
    rows = [
        [
            str(r["file"]),
            f"{r['copies']:,}",
            f"{r['times']} of {r['of']}",
            _rate(r),
            f"{r['best']:.3f}",
            str(r["caption"])[:120],
        ]
        for r in told["returned"][:ROWS]
    ]
    header = ["training image", "in the data", "came back", "rate", "nearest", "caption"]
    more = int(told["numbers"]["copies"]) - len(rows)  # audit.json itself lists the first alone
    note = (
        "came back: of the images of the captions that returned it, which are here because they"
        " did; the rate, with its 95 % interval, is of captions that were asked several times."
    )
    note += f" {more:,} more are in returned.csv." if more > 0 else ""
    tables = [Table("", header, rows, note)] if rows else []
    return Section("Training images that came back", tables=tables, absent="" if rows else "none")


def _controls(told: Mapping[str, Any]) -> Section:
    rows = []
    for c in told["controls"]:
        low, high = c["interval"]
        rows.append(
            [
                c["name"],
                f"{c['images']:,}",
                f"{c['within']:,}",
                f"{100 * c['within'] / c['images']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
                f"{c['nearest']:.3f}",
                "yes" if c["used"] else "no: it may have seen the data",
            ]
        )
    s = told["similarity"]
    header = ["control", "images", "within the published threshold", "rate", "nearest", "counts"]
    note = f"published threshold {s['published']:g}, used {s['threshold']:.4g} ({s['space']})"
    tables = [Table("Images that cannot be copies", header, rows, note)] if rows else []
    r = told["ranking"]
    if r["unseen"] and r["scored"]:
        tables.append(
            Table(
                "Ranking of the captions",
                ["captions", "asked", "returned a copy"],
                [
                    ["flagged", f"{r['flagged_asked']:,}", f"{r['flagged_returned']:,}"],
                    ["others", f"{r['others_asked']:,}", f"{r['others_returned']:,}"],
                ],
                f"flagged: above {r['above']} unseen captions; by chance {r['expected']:g} of"
                f" {r['scored']:,}, found {r['flagged']:,}",
            )
        )
    absent = "" if rows else "There is no control: a copy is what the published threshold says."
    return Section("How sure this is", tables=tables, absent=absent)


def _not_judged(told: Mapping[str, Any]) -> Section:
    rows = [[line] for line in told["not_judged"]]
    return Section(
        "What could not be judged",
        tables=[Table("", [], rows)] if rows else [],
        absent="" if rows else "nothing was left out",
    )


def _how(told: Mapping[str, Any]) -> Section:
    plan = [list(map(str, line)) for line in told["plan"]]
    cost = [[stage, f"{seconds:,.1f} s"] for stage, seconds in told["seconds"].items()]
    cost.append(["evaluations", f"{told['evaluations']:,}"])
    cost += [[f"images, {k}", f"{n:,}"] for k, n in told["images"].items()]
    return Section("What was done", tables=[Table("Plan", [], plan), Table("Cost", [], cost)])
