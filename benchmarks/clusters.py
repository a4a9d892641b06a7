"""What share of the images of SIDE's kept clusters are copies of training images, by K,
``keep`` and features, without a surrogate.

Draws N_syn images from the null condition as the detector does (and finds those that a
run has drawn), clusters them under each setting, and prints how many images the kept
clusters hold, how many of these are copies, and of how many training images. The
detector itself sees no training image: this is for choosing options, on half ``b`` of a
mini world.

    python benchmarks/clusters.py --task cifar10 --set rung=4 --synthetic 1600 [--output FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from membench import registry
from membench.detectors.side import Side
from membench.detectors.surrogate.conditions import NULL, cluster, describe, synthesize
from membench.options import parse_options
from membench.reports.output import markdown
from membench.similarity.l2 import normalised_l2
from membench.storage.workspace import Workspace

PER_CLUSTER = (8, 16, 32)
KEEP = (0.05, 0.1, 0.15, 0.3, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("cifar10", "celeba", "sd_webster"), default="cifar10")
    parser.add_argument("--half", choices=("a", "b"), default="b")
    parser.add_argument("--set", dest="options", action="append", default=[], help="of the task")
    parser.add_argument("--synthetic", type=int, default=800)
    parser.add_argument("--features", default="bottleneck,pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--output", type=Path, help="every row, as Parquet")
    args = parser.parse_args()

    task_class = registry.tasks().load(args.task)
    given = [f"half={args.half}", *args.options]
    task = task_class(parse_options(task_class.Options, given, owner=args.task)).load("mini")
    sampling = dict(task.info.sampling)
    identity = {
        "weights": task.hashes["weights"],
        "dtype": "float32",
        "sampling": sampling,
        "seed": args.seed,
    }
    workspace = Workspace(args.runs / args.task / "mini" / "prepared", identity, progress=True)
    model, steps = task.model(), int(sampling["steps"])
    synthetic = synthesize(
        model, [NULL], workspace, n=args.synthetic, seed=args.seed, steps=steps, guidance=1.0
    )

    found = normalised_l2(model.decode(synthetic.x0), task.training.images(), floor=0.0)
    nearest = found[found["rank"] == 0].sort_values("generated")
    copied = np.where(nearest.similarity <= task.info.space.copy, nearest.training, -1)
    drawn = {
        "task": args.task,
        "half": args.half,
        "options": " ".join(args.options),
        "seed": args.seed,
        "weights": str(task.hashes["weights"])[:8],
        "synthetic": args.synthetic,
        "synthetic_copies": int(np.sum(copied >= 0)),
        "synthetic_different": distinct(copied),
        "synthetic_twice": int(np.sum(np.unique(copied[copied >= 0], return_counts=True)[1] > 1)),
    }
    rows = []
    for features in args.features.split(","):
        z = describe(model, synthetic, workspace, features=features, weights="", seed=args.seed)
        for per in PER_CLUSTER:
            for keep in KEEP:
                k, members = args.synthetic // per, Side.Options().min_members
                of = copied[cluster(z, k=k, seed=args.seed, min_members=members, keep=keep).members]
                rows.append(
                    drawn
                    | {"features": features, "clusters": k, "keep": keep, "images": len(of)}
                    | {"copies": int(np.sum(of >= 0)), "different": distinct(of)}
                )
    frame = pd.DataFrame(rows)
    if args.output:
        frame.to_parquet(args.output)
    print(
        f"{args.task}, half {args.half}: {drawn['synthetic_copies'] / args.synthetic:.1%} of"
        f" {args.synthetic} images are copies, of {drawn['synthetic_different']} images,"
        f" {drawn['synthetic_twice']} of them more than once\n"
    )
    print(markdown(tabulated(frame)))


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of features and K, a column a share kept: what of the images of the
    kept clusters are copies, and of how many training images.
    """
    rows = []
    for (features, k), of in frame.groupby(["features", "clusters"], sort=False):
        rows.append(
            {"features": features, "K": k}
            | {
                f"keep={row.keep:g}": f"{100 * row.copies / row.images:.1f} % of"
                f" {row.images:,}, {row.different}"
                for row in of.itertuples()
            }
        )
    return pd.DataFrame(rows)


def distinct(copied: np.ndarray) -> int:
    """How many training images are copied; -1 stands for none."""
    return len(set(copied[copied >= 0].tolist()))


if __name__ == "__main__":
    main()
