"""Which captions of `sd_webster` return an image that their model was trained on.

    membench run --detector random --task sd_webster --set sd_webster.half=a --runs RUNS
    membench run --detector random --task sd_webster --set sd_webster.half=b --runs RUNS
    python benchmarks/returned.py RUNS [--output FILE.parquet]

Reads runs of ``random`` with images from captions (the default: four a caption). Of each
model and kind of caption it prints how many of them return, in any of their images, a
training image of the model's half (``returned``) and the one that the caption was shown
with (``own``), with 95 % intervals of Wilson, and the median normalised L2 of the nearest
image to that one. A copy is what the task calls one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.identity import given
from membench.boards.mirror import half_of
from membench.datasets.prompts import example_id
from membench.metrics.multiplicity import wilson
from membench.metrics.regions import in_region
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.runs.finished import Run, read_runs
from membench.tasks.sd_webster.world import unique_images, world


def returned(run: Run) -> pd.DataFrame:
    """A row a caption: its kind, whether its model was shown it, and the distance of its
    nearest image to any training image and to its own (NaN where none is stored).
    """
    half = world(half_of(run), int(given(run.info, "world") or 0))
    place = {look: i for i, look in enumerate(unique_images(half))}
    own = {example_id(e.caption): place[e.look] for e in half.entries if e.look in place}
    images, matches = run.found()
    matches = matches.assign(condition=images.condition.to_numpy()[matches.generated])
    mine = matches[matches.training == matches.condition.map(own)]
    found = run.scores[["id", "kind", "source"]].set_index("id")
    found = found.loc[found.index.isin(images.condition)]
    found["nearest"] = matches.groupby("condition").similarity.min()
    found["own"] = mine.groupby("condition").similarity.min()
    found["shown"] = found.index.isin(list(own))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, help="every row's counts, as Parquet")
    args = parser.parse_args()
    rows = []
    for run in read_runs([args.runs]).runs:
        if run.info["detector"] != "random" or run.info["task"] != "sd_webster":
            continue
        for (shown, source, kind), of in returned(run).groupby(["shown", "source", "kind"]):
            rows.append(
                {
                    "world": int(given(run.info, "world") or 0),
                    "half": half_of(run),
                    "kind": kind,
                    "source": source,
                    "shown": shown,
                    "n": len(of),
                    "returned": int(in_region(of.nearest, run.space, run.space.copy).sum()),
                    "own": int(in_region(of.own, run.space, run.space.copy).sum()),
                    # A match that is not stored is farther away than those that are
                    "own_distance": of.own.fillna(np.inf).median(),
                    "weights": run.info["key_parts"]["hashes"]["weights"][:8],
                }
            )
    order = ["world", "half", "kind", "source"]
    frame = pd.DataFrame(rows).sort_values(order, ignore_index=True)
    if args.output:
        frame.to_parquet(args.output)
    print(markdown(tabulated(frame)))


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a model, kind and source of captions."""
    return pd.DataFrame([_told(row) for row in frame.itertuples()])


def _told(row: Any) -> dict[str, Any]:
    def share(hits: int) -> str:
        return interval(hits / row.n, *wilson(hits, row.n))

    return {
        "world": row.world,
        "half": row.half,
        "captions": f"{row.kind}, {row.source}",
        "n": row.n,
        "returned": share(row.returned),
        "own": share(row.own) if row.shown else "",
        "L2 of own": f"{row.own_distance:.2f}" if np.isfinite(row.own_distance) else "",
    }


if __name__ == "__main__":
    main()
