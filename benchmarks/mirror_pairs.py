"""How much each snapshot of a mirror pair's models returns, and what detectors and
content alone make of its images.

Of every rung it samples ``--images`` images from the null class and as many from the
classes in turn, and counts (``--output``): those that copy an image of the model's own
half, of the other half, and the images of each kind that came back. OUT/detection.parquet:
AUROC by kind of ``--detector`` on both models, and mirrored. What is finished is found
again.

    python benchmarks/mirror_pairs.py --task cifar10 --out OUT --output rates.parquet
    python benchmarks/mirror_pairs.py --world 1,2 --models 'cifar10-{world}' --rungs 6000 \\
        --out OUT --detector png_size:images=0
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import membench
from membench.datasets.pool import generate
from membench.metrics.mirror import mirrored_auroc
from membench.metrics.multiplicity import natural
from membench.models.pixel import load_pixel_model
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.similarity.l2 import normalised_l2
from membench.similarity.spaces import pixel_space
from membench.storage.files import atomic_write
from membench.storage.hashing import file_hash
from membench.tasks.celeba import task as celeba
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.pixels.mirror_task import pair_of
from membench.tasks.pixels.planted import World
from membench.tasks.shared import HALVES, mirror_of, rung_folder
from membench.types import Condition

TASKS = {"cifar10": cifar10, "celeba": celeba}
CAPTIONS = "sd_webster"  # which has no ladder
WAYS = ("null class", "classes")
SAMPLING = cifar10.Cifar10.info.sampling  # of both tasks


def sampled(folder: Path, world: World, way: str, n: int, cache: Path) -> np.ndarray:
    """Images of a snapshot, kept: ``uint8`` [n, size, size, 3]."""
    if not cache.is_file():
        classes = world.classes
        model = load_pixel_model(folder, classes)
        asked = [
            Condition(
                str(i),
                class_label=i % classes if way == "classes" else None,
                start=("rates", way, str(i)),
            )
            for i in range(n)
        ]
        blocks = [generate(model, asked[i : i + 100], SAMPLING) for i in range(0, n, 100)]
        cache.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(
            cache,
            lambda temporary: Image.fromarray(
                np.concatenate(blocks).reshape(-1, world.size, 3)
            ).save(temporary, "PNG"),
        )
    return np.asarray(Image.open(cache)).reshape(-1, world.size, world.size, 3)


def copies(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Row of the training image that each image is a copy of, or -1."""
    found = normalised_l2(images, training, floor=0.0)
    nearest = found[found["rank"] == 0].sort_values("generated")
    return np.where(nearest.similarity <= pixel_space(images.shape[1]).copy, nearest.training, -1)


def rates(
    models: Path, task: str, number: int, step: int, half: str, n: int, out: Path
) -> list[dict[str, object]]:
    world, began = TASKS[task].WORLD, time.monotonic()
    pair, folder = pair_of(world, number), rung_folder(models / half, step)
    own, other = pair.halves[half], pair.halves[mirror_of(half)]
    weights = file_hash(folder / "unet" / "diffusion_pytorch_model.safetensors")[:8]
    model = {"task": task, "world": number, "half": half, "step": step, "weights": weights}
    rows: list[dict[str, object]] = []
    back: set[int] = set()

    def row(way: str, what: str, hits: int, of: int) -> None:
        rows.append(model | {"way": way, "what": what, "hits": hits, "n": of})

    for way in WAYS:
        cache = out / "images" / f"{task}-{weights}-{way.replace(' ', '-')}-{n}.png"
        images = sampled(folder, world, way, n, cache)
        mine = copies(images, own.images)
        back |= set(mine[mine >= 0].tolist())
        row(way, "copies", int((mine >= 0).sum()), n)
        row(way, "mirror", int((copies(images, other.images) >= 0).sum()), n)
    for kind in sorted(set(own.kinds), key=natural):
        rows_of = [i for i, k in enumerate(own.kinds) if k == kind]
        row("both", kind, len(back & set(rows_of)), len(rows_of))
    print(f"{task}, world {number}, {half}, {step}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a world and rung: shares in % on model a / on model b."""
    rows = []
    for (world, step), of in frame.groupby(["world", "step"], sort=False):
        row = {"world": str(world), "steps": f"{step:,}"}
        for (way, what), pair in of.groupby(["way", "what"], sort=False):
            title = f"copies, {way}" if what == "copies" else f"{what} returned"
            if what != "mirror":
                row[title] = " / ".join(
                    f"{100 * r.hits / r.n:.1f}" for r in pair.sort_values("half").itertuples()
                )
        mirror = of[of.what == "mirror"]
        row["of the mirror's"] = f"{mirror.hits.sum()} of {mirror.n.sum():,}"
        rows.append(row)
    return pd.DataFrame(rows)


def detection(name: str, task: str, settings: list[str], out: Path) -> pd.DataFrame:
    detector, _, options = name.partition(":")
    given = [o for o in options.split(",") if o]
    runs = [
        membench.run(
            detector, task, options=given, task_options=[*settings, f"half={h}"], out=out / "runs"
        )
        for h in HALVES
    ]
    held = [
        float(
            r.metrics[
                (r.metrics.metric == "auroc") & (r.metrics.subset == "source=held_out")
            ].value.iloc[0]
        )
        for r in runs
    ]
    found = mirrored_auroc(*(run.scores for run in runs))
    return found.assign(detector=detector, options=options, held_out_a=held[0], held_out_b=held[1])


def show(frame: pd.DataFrame, value: str, columns: list[str], index: list[str]) -> str:
    cells = frame.assign(
        cell=[
            interval(v, lo, hi)
            for v, lo, hi in zip(frame[value], frame.low, frame.high, strict=True)
        ]
    )
    return markdown(
        cells.pivot_table(index=index, columns=columns, values="cell", aggfunc="first", sort=False)
        .fillna("")
        .reset_index()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[*TASKS, CAPTIONS], default="cifar10")
    parser.add_argument(
        "--models", help="pixel tasks: folder with a/ and b/, of {world}; none: what ships"
    )
    parser.add_argument("--world", default="0", help="pixel tasks: seeds of the generator")
    parser.add_argument(
        "--rungs", help="steps of the snapshots whose rates are measured; none: the task's five"
    )
    parser.add_argument(
        "--half", action="append", choices=HALVES, help="rates only of this half's model"
    )
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--detector", action="append", default=[], metavar="NAME[:KEY=VALUE,...]")
    parser.add_argument("--rung", type=int, default=0, help="whose detection is measured; 0: last")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="the counts, as Parquet")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, object]] = []
    settings = {"": ["examples=mirror"]}
    if args.task != CAPTIONS:
        module = TASKS[args.task]
        worlds = {
            int(w): Path((args.models or str(module.DATA)).format(world=w))
            for w in args.world.split(",")
        }
        settings = {
            f"world {world}": [
                "examples=training",
                f"models={models}",
                f"world={world}",
                f"rung={args.rung}",
            ]
            for world, models in worlds.items()
        }
        steps = module.RUNGS if args.rungs is None else [int(s) for s in args.rungs.split(",") if s]
        found = [
            row
            for world, models in worlds.items()
            for step in steps
            for half in args.half or HALVES
            for row in rates(models, args.task, world, step, half, args.images, args.out)
        ]
    if found:
        frame = pd.DataFrame(found)
        if args.output:
            frame.to_parquet(args.output)
        print(markdown(tabulated(frame)))
    tables = []
    for name, (world, given) in itertools.product(args.detector, settings.items()):
        tables.append(detection(name, args.task, given, args.out).assign(world=world))
        print(markdown(tables[-1].round(3).astype(str)), flush=True)
    if tables:
        frame = pd.concat(tables)
        frame.to_parquet(args.out / "detection.parquet")
        print(show(frame, "mirrored", ["kind"], ["world", "detector", "options"]))


if __name__ == "__main__":
    main()
