"""AMS and UMS in each band, as text."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from membench.printing import interval, marked

TITLES = {"ams": "AMS %", "ums": "UMS %", "ums_nearest": "UMS nearest %"}


def bands_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(title, text, notes) of one board's rows of ``leaderboard.collect_bands``."""
    regions = [
        f"copies (to {r.edge:g})" if not r.band else f"to the end of {r.band} ({r.edge:g})" if r.form == "cumulative" else r.band
        for r in part.itertuples()
    ]
    named = [marked(name, status) for name, status in zip(part.detector, part.status, strict=True)]
    out = pd.DataFrame({"detector": named, "options": part.options, "seed": part.seed.astype(str), "region": regions})
    for metric, title in TITLES.items():
        out[title] = [
            interval(value, low, high, scale=100, digits=2)
            for value, low, high in zip(part[metric], part[f"{metric}_low"], part[f"{metric}_high"], strict=True)
        ]
    out["N_G"] = [f"{n:,}" for n in part.n]
    yield "bands", out, [f"similarity: {part.space_id.iloc[0]}; 95 % intervals over groups; UMS depends on N_G"]
