"""Malformed leaderboards in Parquet: a column that is gone, renamed, of another type or
of absurd values, and damaged bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from boards import make
from malformed import damaged
from malformed_words import command

from membench.cli.main import main

Call = Callable[[], object]
VIEWS = ["run", "seeds", "kind", "source", "attack", "band", "example", "difference", "summary"]
VIEWS += ["leaders", "mirror", "published"]
ABSURD: list[Any] = [
    *("x\x1b[31m<b>|", "", None, float("nan"), float("inf"), -1.0, 2**62, 1e308, True, b"\xff"),
    *([1, 2], {"a": 1}, pd.Timestamp(0), "9" * 5000, "a\nb"),
]


def boards(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    """Each board as it was written, with one thing of it wrong, read back."""
    for seed in (0, 1):
        for detector in ("random", "side"):
            make(folder / "runs", [0, 1, None, 0], detector=detector, seed=seed)
            make(folder / "runs", [None, 0, 0], detector=detector, seed=seed, control=True)
    for view in rng.sample(VIEWS, 5):
        whole = folder / f"{view}.parquet"
        words = ["leaderboard", "--runs", str(folder / "runs"), "--by", view]
        if main([*words, "--format", "parquet", "--output", str(whole)]) != 0:
            continue  # a view that these runs have nothing for, or that is text
        frame, data = pd.read_parquet(whole), whole.read_bytes()
        for k in range(3):
            file = folder / f"{view}{k}.parquet"
            told = odd(rng, frame, file) if k else "bytes"
            if not k:
                file.write_bytes(damaged(rng, data))
            read = ["leaderboard", "--runs", str(file)]
            read += rng.choice([[], ["--by", view], ["--by", rng.choice(VIEWS)], ["--wide"]])
            read += rng.choice([[], [], ["--format", rng.choice(["csv", "json", "md", "card"])]])
            yield f"board of {view}, {told}, {' '.join(read[3:])}", lambda w=read: command(*w)


def odd(rng: random.Random, frame: pd.DataFrame, file: Path) -> str:
    """Writes the frame with one thing of it wrong; what that is."""
    column = rng.choice(list(frame.columns))
    how = rng.choice(["values", "values", "one value", "gone", "renamed", "twice", "no rows"])
    made = frame.copy()
    value = rng.choice(ABSURD)
    if how == "values":
        made[column] = pd.Series([value] * len(made), dtype=object)
    elif how == "one value":
        column_values = made[column].astype(object).tolist()
        column_values[rng.randrange(len(made))] = value
        made[column] = pd.Series(column_values, dtype=object)
    elif how == "gone":
        made = made.drop(columns=column)
    elif how == "renamed":
        made = made.rename(columns={column: rng.choice([column.upper(), f"{column} ", "x"])})
    elif how == "twice":
        made = pd.concat([made, made])
    else:
        made = made.iloc[:0]
    try:
        made.to_parquet(file)
    except Exception:  # values of two kinds, which no column can hold: as text then
        made[column] = made[column].map(str)
        made.to_parquet(file)
    return f"{how} {column} {str(value)[:20]!r}" if "value" in how else f"{how} {column}"
