"""What runs will take, as a table or as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from membench.reports.lines import folded
from membench.reports.terminal import laid_out
from membench.reports.text import number
from membench.runs.gpu_rate import TOLD
from membench.runs.price import BACKWARD, COUNTED, JVP, TIMED, Price


def price_table(prices: Sequence[Price], room: int | None) -> str:
    """A row a detector and task, with the number of its seeds; below it the sum."""
    counted = any(price.flop is not None for price in prices)
    several = len({price.task for price in prices}) > 1
    frame = pd.DataFrame(
        [
            ({"task": p.task} if several else {})
            | {
                "detector": p.detector,
                "examples": number(p.examples),
                "seeds": str(p.seeds) if p.seeds > 1 else "",
                "images": "?" if p.images is None else number(p.images),
                "evaluations": f"{p.prepare:,} + ?"
                if p.evaluations is None
                else number(p.evaluations),
                **_minutes(p, counted),
                "": p.note,
            }
            for p in prices
        ]
    )
    shown = frame.loc[:, (frame != "").any()]
    title = f"{prices[0].task}: what a run takes" if not several else "what a run takes"
    known = [p for p in prices if p.evaluations is not None]
    # Of what is not known yet at least the preparation
    total = sum((p.prepare if p.evaluations is None else p.evaluations) * p.seeds for p in prices)
    minutes = sum(((p.gpu_seconds if counted else p.seconds) or 0.0) * p.seeds for p in known) / 60
    words = f"{total:,} evaluations and {minutes:.1f} {'GPU ' * counted}min"
    if len(known) < len(prices):
        words = f"at least {total:,} evaluations; their minutes are not known yet"
        if known:
            words += f", but {minutes:.1f} {'GPU ' * counted}min of those with a number"
    how = (
        f"counted on {COUNTED} examples of each on a network of the same layers. {TOLD}; a JVP"
        f" counts as {JVP} evaluations, a backward pass as {BACKWARD}. Text, decoding, loading"
        " and comparing images come on top"
        if counted
        else f"timed on {TIMED} examples of each, apart from loading and comparing images"
    )
    note = f"in all {words}, {how}; detectors of one command share evaluations. Nothing was stored."
    lines = "".join(f"{line}\n" for line in folded(note, room))
    return laid_out(title, shown, room) + lines


def _minutes(p: Price, counted: bool) -> dict[str, str]:
    seconds = p.gpu_seconds if counted else p.seconds
    if counted and p.evaluations == 0:
        seconds = 0.0
    text = "?" if seconds is None else f"{seconds / 60:.1f}"
    return {"GPU minutes" if counted else "minutes": text}


def price_json(prices: Sequence[Price]) -> str:
    """A list of objects; evaluations and seconds are null where they are not known, and
    gpu_seconds where evaluations were timed.
    """
    rows = [
        asdict(p)
        | {"evaluations": p.evaluations, "total_seconds": p.seconds}
        | {"gpu_seconds": p.gpu_seconds}
        for p in prices
    ]
    return json.dumps(rows, indent=1) + "\n"
