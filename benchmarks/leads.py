"""By how much SIDE is ahead of plain sampling, by the same seed, on each rung of a ladder.

    membench ablate --detector random,side ... --seeds 0,1,2 --extract-only --runs RUNS
    membench ablate ... --set side.count_synthetic=true --runs RUNS
    python benchmarks/leads.py RUNS [--output results/ladder_each.parquet]

Reads the runs of both commands of results/ladder.md on the model itself and prints, a row
a rung, SIDE's lead in copies of 100 images, in different training images among as many
images as the smaller run has, and, with its synthetic images counted, in those of whole
runs of equal evaluations: means over seeds with Student's 95 % intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from membench.boards.board import board
from membench.boards.identity import given
from membench.metrics.trainings import over_trainings
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.runs.finished import Run, read_runs

LEADS = {"ams": "copies of 100", "copied_at_300": "in 300 images", "copied_at_cost": "at cost"}


def each(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a rung, seed and attack."""
    of: dict[tuple[str, int], dict[str, Run]] = {}
    for run in runs:
        if run.info["control"] or run.info["status"] != "complete":
            continue
        rung = given(run.info, "rung")
        counted = run.info["key_parts"]["options"].get("count_synthetic", False)
        name = "counted" if counted else run.info["detector"]
        of.setdefault((rung, run.info["seed"]), {})[name] = run
    rows: list[dict[str, Any]] = []
    for (rung, seed), found in sorted(of.items()):
        [whole] = board([found["counted"]], "attack").frame.unique_copies
        for row in board([found["random"], found["side"]], "attack").frame.itertuples():
            rows.append(
                {
                    "rung": int(rung),
                    "seed": seed,
                    "attack": row.detector,
                    "options": row.options,
                    "n_g": int(row.n_g),
                    "ams": row.ams_cumulative,
                    "unique_copies": int(row.unique_copies),
                    "copied_at_300": row.copied_at_equal_n,
                    "weights": row.weights,
                    "commit": row.commit,
                    "dirty": row.dirty,
                    "copied_at_cost": int(whole if row.detector == "side" else row.unique_copies),
                }
            )
    return pd.DataFrame(rows)


def leads(frame: pd.DataFrame) -> dict[int, dict[str, tuple[float, float, float]]]:
    """Of each rung SIDE's leads: mean, low, high."""
    found: dict[int, dict[str, tuple[float, float, float]]] = {}
    for rung, part in frame.groupby("rung"):
        of = part.pivot(index="seed", columns="attack", values=list(LEADS))
        found[int(str(rung))] = {}
        for name in LEADS:
            lead = (100 if name == "ams" else 1) * (of[name, "side"] - of[name, "random"])
            found[int(str(rung))][name] = lead.mean(), *over_trainings(lead)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, help="every seed's numbers, as Parquet")
    args = parser.parse_args()
    frame = each(read_runs([args.runs]).runs)
    if args.output:
        frame.to_parquet(args.output, index=False)
    told = [
        {"rung": rung} | {LEADS[name]: interval(*ends, digits=1) for name, ends in of.items()}
        for rung, of in leads(frame).items()
    ]
    print(markdown(pd.DataFrame(told)))


if __name__ == "__main__":
    main()
