"""Which captions of `sd_webster` return an image that their model was trained on.

    membench run --detector random --task sd_webster --set sd_webster.half=a --runs RUNS
    membench run --detector random --task sd_webster --set sd_webster.half=b --runs RUNS
    python benchmarks/returned.py RUNS

Reads runs of ``random`` with images from captions (the default: four a caption). Of each
model and kind of caption it prints how many of them return, in any of their images, a
training image of the model's half (``returned``) and the one that the caption was shown
with (``own``), with 95 % intervals of Wilson, and the median normalised L2 of the nearest
image to that one. A copy is what the task calls one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from membench.boards.identity import given
from membench.boards.mirror import half_of
from membench.datasets.prompts import example_id
from membench.metrics.multiplicity import wilson
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.runs.finished import Run, read_runs
from membench.tasks.sd_webster.world import unique_images, world


def returned(run: Run) -> pd.DataFrame:
    """A row a caption: its kind, whether its model was shown it, and the distance of its
    nearest image to any training image and to its own (NaN for a caption without one).
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
    args = parser.parse_args()
    rows = []
    for run in read_runs([args.runs]).runs:
        if run.info["detector"] != "random" or run.info["task"] != "sd_webster":
            continue
        copy = run.space.copy
        for (shown, source, kind), of in returned(run).groupby(["shown", "source", "kind"]):
            hits, n = int((of.nearest < copy).sum()), len(of)
            mine = int((of.own < copy).sum())
            rows.append(
                {
                    "world": given(run.info, "world") or "0",
                    "half": half_of(run),
                    "captions": f"{kind}, {source}",
                    "n": n,
                    "returned": interval(hits / n, *wilson(hits, n)),
                    "own": interval(mine / n, *wilson(mine, n)) if shown else "",
                    "L2 of own": f"{of.own.median():.2f}" if of.own.notna().any() else "",
                }
            )
    order = ["world", "half", "captions"]
    print(markdown(pd.DataFrame(rows).sort_values(order, ignore_index=True)))


if __name__ == "__main__":
    main()
