"""What runs will take, as a table or as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from membench.reports.lines import folded
from membench.reports.terminal import laid_out
from membench.reports.text import number
from membench.runs.price import TIMED, Price


def price_table(found: Sequence[tuple[Price, int]], room: int | None) -> str:
    """A row a detector and task, with the number of its seeds; below it the sum."""
    prices = [price for price, _ in found]
    several = len({price.task for price in prices}) > 1
    frame = pd.DataFrame(
        [
            ({"task": p.task} if several else {})
            | {
                "detector": p.detector,
                "examples": number(p.examples),
                "seeds": str(seeds) if seeds > 1 else "",
                "images": "?" if p.images is None else number(p.images),
                "evaluations": f"{p.prepare:,} + ?"
                if p.evaluations is None
                else number(p.evaluations),
                "minutes": "?" if p.seconds is None else f"{p.seconds / 60:.1f}",
                "": p.note,
            }
            for p, seeds in found
        ]
    )
    shown = frame.loc[:, (frame != "").any()]
    title = f"{prices[0].task}: what a run takes" if not several else "what a run takes"
    known = [(p, seeds) for p, seeds in found if p.evaluations is not None]
    total = sum((p.evaluations or 0) * seeds for p, seeds in known)
    minutes = sum((p.seconds or 0.0) * seeds for p, seeds in known) / 60
    words = f"{total:,} evaluations and {minutes:.1f} min"
    words += "" if len(known) == len(prices) else ", and what is not known yet"
    note = (
        f"in all {words}, timed on {TIMED} examples of each, apart from loading and comparing"
        " images; detectors of one command share evaluations. Nothing was stored."
    )
    lines = "".join(f"{line}\n" for line in folded(note, room))
    return laid_out(title, shown, room) + lines


def price_json(found: Sequence[tuple[Price, int]]) -> str:
    """A list of objects; evaluations and seconds are null where they are not known."""
    rows = [
        asdict(p) | {"evaluations": p.evaluations, "total_seconds": p.seconds, "seeds": seeds}
        for p, seeds in found
    ]
    return json.dumps(rows, indent=1) + "\n"
