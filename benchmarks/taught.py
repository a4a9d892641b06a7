"""What `combined` has learned on a development world: the `weights` that its rows on the
further worlds take.

    membench run --detector combined --task sd_webster --set sd_webster.half=a ... --runs RUNS
    python benchmarks/taught.py RUNS [--output results/taught.parquet]

A row a run without ``weights`` of its own. results/worlds.runs.yaml and
results/worlds_sd_webster.runs.yaml hold the same text; a test compares them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from membench.boards.identity import given
from membench.boards.mirror import half_of
from membench.runs.finished import Run, read_runs


def taught(run: Run) -> dict[str, object]:
    """One run's row: what was combined, with which options, and what came of it."""
    info = run.info
    passed = dict(text.split("=", 1) for text in info["options_passed"])
    return {
        "task": info["task"],
        "world": int(given(info, "world") or 0),
        "half": half_of(run),
        "detectors": passed["detectors"],
        "settings": passed.get("settings", ""),
        "weights": info["prepared"]["weights"],
        "examples": info["n_examples"],
        "model": info["key_parts"]["hashes"]["weights"][:8],
        "commit": info["membench"]["commit"][:8],
        "dirty": info["membench"]["dirty"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, help="every row, as Parquet")
    args = parser.parse_args()
    runs = [r for r in read_runs([args.runs]).runs if r.info["detector"] == "combined"]
    rows = [taught(run) for run in runs if "weights" in run.info.get("prepared", {})]
    if not rows:
        parser.error(f"{args.runs} has no run of combined without weights of its own")
    frame = pd.DataFrame(rows).sort_values(["task", "world", "half"], ignore_index=True)
    if args.output:
        frame.to_parquet(args.output)
    for row in frame.itertuples():
        print(f"{row.task}, half {row.half}, {row.examples:,} examples\n  weights: {row.weights}")


if __name__ == "__main__":
    main()
