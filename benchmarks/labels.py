"""What a model is told of an image, and how much of its training set it then gives
back: the experiment that SIDE's reviewers asked for.

Of each seed, trains one model a kind of label (class, random, cluster, none) on the same
subset of real CIFAR-10 with the same recipe, and draws ``--images`` from each, from its
labels in turn and from the null class; of the model without labels by SIDE, too. Writes a
row a training and way, and prints means with Student's 95 % intervals over the trainings,
each of which has other images, weights, batches and noise. Trained models and finished
runs are found again, so that several processes can share the seeds.

    python benchmarks/labels.py --data-root DATA --work WORK --seeds 0,1,2 \\
        --set subset=128 --set duplicate=0.1:20 --set steps=1500
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd

import membench
from membench.metrics.trainings import over_trainings
from membench.options import parse_options
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.storage.files import atomic_write
from membench.tasks.cifar10.task import Cifar10
from membench.tasks.cifar10.train import SubsetRecipe

KINDS = ("class", "random", "cluster", "none")
CLASSES = 10
SHOWN = {"ams": "AMS %", "ums": "UMS %", "most": "shown most, returned %", "once": "once %"}


def ways_of(kind: str, images: int) -> dict[str, tuple[str, str | None, list[str]]]:
    """Detector, preset and options, by what the images are drawn from."""
    null = ("random", None, ["extraction=unconditional", f"generations={images}"])
    if kind == "none":
        return {"null": null, "SIDE": ("side", "mini", [f"generations={images}"])}
    return {"labels": ("random", None, [f"draws={images // CLASSES}"]), "null": null}


def row_of(kind: str, way: str, seed: int, run: membench.Run, copies: int) -> dict[str, Any]:
    """Shares of the images that are copies and of the training images that came back."""

    def value(metric: str, subset: str = "all") -> float:
        m = run.metrics
        found = m[(m.metric == metric) & (m.subset == subset) & m.band.isna()]
        return float(found["value"].iloc[0])

    return {
        "labels": kind,
        "from": way,
        "seed": seed,
        "n_g": len(run.samples),
        "ams": value("ams_cumulative"),
        "ums": value("ums_cumulative"),
        "most": value("extracted_share", f"kind=x{copies}"),
        "once": value("extracted_share", "kind=x1"),
        "weights": run.info["hashes"]["weights"],
        "data": run.info["hashes"]["data"],
        "commit": run.info["membench"]["commit"],
        "dirty": run.info["membench"]["dirty"],
    }


def tabulated(found: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval over trainings, of each kind and way, as text."""
    rows = []
    for (kind, way), part in found.groupby(["labels", "from"], sort=False):
        row = {"labels": kind, "from": way, "n": str(len(part))}
        for name, title in SHOWN.items():
            values = part[name].tolist()
            low, high = math.nan, math.nan
            if len(values) > 1:  # UMS is no share: its sum over training images may exceed 1
                low, high = over_trainings(values, logit=max(values) <= 1)
            row[title] = interval(part[name].mean(), low, high, scale=100, digits=1)
        rows.append(row)
    return pd.DataFrame(rows)


def measured(args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """The rows of one seed's four models, trained unless they are there."""
    recipe = parse_options(SubsetRecipe, args.options, owner="recipe of cifar10")
    most = max(times for _, times in recipe.duplicates())
    work = args.work / f"seed-{seed}"
    rows = []
    for kind in KINDS:
        folder = work / f"cifar10-{recipe.subset}-{kind}"
        if not (folder / "training.json").is_file():
            told = [f"labels={kind}", f"seed={seed}", f"data_root={args.data_root}"]
            Cifar10.train(work, None, [*args.options, *told], profile="full")
        # A pool of one image a class: it is not scored, and says which classes are
        # drawn from.
        task = [f"model={folder}", f"data_root={args.data_root}", f"pool={CLASSES}"]
        for way, (detector, preset, options) in ways_of(kind, args.images).items():
            run = membench.run(
                detector,
                "cifar10",
                "full",
                options=options,
                task_options=task,
                preset=preset,
                seed=seed,
                extract_only=True,
                out=args.work / "runs",
            )
            rows.append(row_of(kind, way, seed, run, most))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--output", type=Path, default=Path("results/labels.parquet"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
    parser.add_argument("--set", dest="options", action="append", default=[])
    args = parser.parse_args()
    found = pd.DataFrame([row for seed in args.seeds for row in measured(args, seed)])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(args.output, lambda temporary: found.to_parquet(temporary, index=False))
    print(markdown(tabulated(found)))


if __name__ == "__main__":
    main()
