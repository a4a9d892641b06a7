"""What a model is told of an image, and how much of its training set it then gives
back: the experiment that SIDE's reviewers asked for.

Trains one model a kind of label (class, random, cluster, none) on the same subset of
real CIFAR-10 with the same recipe, draws ``--images`` from each, conditionally and from
the null class, and writes ``OUT/labels.parquet`` and ``OUT/labels.md``. Trained models
and finished runs are found again.

    python benchmarks/labels.py --data-root DATA --work WORK \\
        --set subset=256 --set duplicate=0.1:20 --set steps=2500
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import membench
from membench.options import parse_options
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.storage.files import atomic_write
from membench.tasks.cifar10.task import Cifar10
from membench.tasks.cifar10.train import SubsetRecipe

KINDS = ("class", "random", "cluster", "none")
SHOWN = {"ams_cumulative": "AMS copies %", "ums_cumulative": "UMS copies %"}


def rows_of(kind: str, extraction: str, run: membench.Run, copies: int) -> dict[str, object]:
    m = run.metrics
    row: dict[str, object] = {"labels": kind, "drawn from": extraction, "images": len(run.samples)}
    wanted = [(metric, "all", title) for metric, title in SHOWN.items()]
    wanted += [
        ("extracted_share", f"kind=x{copies}", f"x{copies} returned %"),
        ("extracted_share", "kind=x1", "x1 returned %"),
    ]
    for metric, subset, title in wanted:
        found = m[(m.metric == metric) & (m.subset == subset) & m.band.isna()].iloc[0]
        row |= {title: found["value"], f"{title} low": found.low, f"{title} high": found.high}
    return row | {
        "weights": run.info["hashes"]["weights"],
        "commit": run.info["membench"]["commit"],
        "run": run.path.name,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--output", type=Path, default=Path("results/cifar10_subset"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="options", action="append", default=[])
    args = parser.parse_args()
    recipe = parse_options(SubsetRecipe, args.options, owner="recipe of cifar10")
    rows = []
    for kind in KINDS:
        folder = args.work / f"cifar10-{recipe.subset}-{kind}"
        if not (folder / "training.json").is_file():
            Cifar10.train(
                args.work,
                None,
                [*args.options, f"labels={kind}", f"data_root={args.data_root}"],
                profile="full",
            )
        # A pool of one image a class: it is not scored, and says which classes are
        # drawn from.
        task = [f"model={folder}", f"data_root={args.data_root}", "pool=10"]
        null = ["extraction=unconditional", f"generations={args.images}"]
        ways = (
            {"the model": null}
            if kind == "none"
            else {"its labels": [f"draws={args.images // 10}"], "the null class": null}
        )
        for way, options in ways.items():
            run = membench.run(
                "random",
                "cifar10",
                "full",
                options=options,
                task_options=task,
                seed=args.seed,
                extract_only=True,
                out=args.work / "runs",
            )
            rows.append(rows_of(kind, way, run, max(times for _, times in recipe.duplicates())))
    frame = pd.DataFrame(rows)
    args.output.mkdir(parents=True, exist_ok=True)
    atomic_write(args.output / "labels.parquet", lambda temporary: frame.to_parquet(temporary))
    titles = [c for c in frame.columns if c.endswith("%")]
    shown = pd.DataFrame(
        [
            {"labels": r["labels"], "drawn from": r["drawn from"], "images": f"{r['images']:,}"}
            | {
                t: interval(r[t], r[f"{t} low"], r[f"{t} high"], scale=100, digits=1)
                for t in titles
            }
            for _, r in frame.iterrows()
        ]
    )
    atomic_write(
        args.output / "labels.md", lambda temporary: temporary.write_text(markdown(shown) + "\n")
    )
    print(markdown(shown))


if __name__ == "__main__":
    main()
