"""Do random labels raise memorization, does perturbing labels lower it, and at what
price in quality?

Trains small models on one half of a drawn world, for each kind of label, share of
perturbed labels and seed; generates the same number of images from each, from its
labels in turn and from the null class; and writes OUT/perturbed_labels.parquet, .md and
.png: copies (AMS, UMS) against quality, with intervals over trainings. What is finished
is found again.

    python benchmarks/perturbed_labels.py --out OUT --steps 1000 --seeds 0,1
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from membench.models.pixel import load_pixel_model
from membench.models.sampling import ddim
from membench.storage.files import atomic_write
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.pixels.labels import make_labels
from membench.tasks.pixels.mirror import Pair, build_pair
from membench.tasks.pixels.planted import World, halved
from membench.tasks.pixels.train import MirrorRecipe, TrainingSet, told_record, train_pixels
from membench.types import Condition

# Few different images: those that are shown 16 times as often as the others are learnt
# by heart within some 1,000 steps.
COUNTS = {1: 40, 16: 20}
CHANNELS = {16: (16, 32, 64), 8: (24, 48)}  # by the side of an image
SAMPLING = {"steps": 20, "guidance": 1.0}
WAYS = ("labels", "null")


def world_of(side: int) -> World:
    """The scenes of ``cifar10`` at 16 pixels a side, or at 8."""
    draw = WORLD.draw if side == WORLD.size else halved(WORLD.draw)
    return replace(WORLD, size=side, draw=draw, counts=COUNTS, near=0, held_out=1000, paired=False)


def name_of(labels: str, perturb: float, seed: int) -> str:
    return f"{labels}-{perturb:g}-{seed}"


def steps_of(folder: Path) -> int:
    """How long a model was trained; 0 where there is none."""
    file = folder / "training.json"
    return int(json.loads(file.read_bytes())["steps"]) if file.is_file() else 0


def trained(args: argparse.Namespace, pair: Pair, labels: str, perturb: float, seed: int) -> Path:
    """The folder of a model on half a, trained unless it is there."""
    half, name = pair.halves["a"], name_of(labels, perturb, seed)
    folder = args.out / "models" / name
    if steps_of(folder) >= args.steps:
        return folder
    told = make_labels(labels, half.images, half.labels, WORLD.classes, seed)  # type: ignore[arg-type]
    recipe = MirrorRecipe(
        steps=args.steps,
        channels=CHANNELS[args.side],
        labels=labels,  # type: ignore[arg-type]
        perturb=perturb,
        seed=seed,
        grid_every=0,
    )
    record = {"hash": half.content_hash(), **told_record(recipe.labels, told)}
    data = TrainingSet(half.images, half.copies, told, WORLD.classes, record)
    train_pixels(args.out / "models", name, data, recipe, progress=False)
    return folder


def generated(args: argparse.Namespace, folder: Path, labels: str, way: str) -> np.ndarray:
    """Images ``uint8`` [n, h, w, 3] of a model, from its labels in turn or from none.
    The noise of an image is the same for every model.
    """
    file = args.out / "images" / f"{folder.name}-{way}-{steps_of(folder)}-{args.images}.npy"
    if file.is_file():
        return np.load(file, allow_pickle=False)
    classes = 0 if labels == "none" else WORLD.classes
    model = load_pixel_model(folder, classes, batch_size=64)
    told = [i % classes if classes and way == "labels" else None for i in range(args.images)]
    conditions = [Condition(f"{i}", class_label=label) for i, label in enumerate(told)]
    images = []
    for start in range(0, args.images, 64):
        part = conditions[start : start + 64]
        x = model.noise([(c.id, 0) for c in part], 0)
        images.append(model.decode(ddim(model, x, model.condition(part), **SAMPLING)))
    file.parent.mkdir(parents=True, exist_ok=True)
    found = np.concatenate(images)
    atomic_write(file, lambda temporary: np.save(temporary.open("wb"), found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", default="class,random,none")
    parser.add_argument("--perturb", default="0,0.3")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--side", type=int, choices=CHANNELS, default=16, help="of an image")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", type=int, default=500, help="of a model and way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair = build_pair(world_of(args.side))
    for seed in (int(s) for s in args.seeds.split(",")):
        for perturb in (float(p) for p in args.perturb.split(",")):
            for labels in args.labels.split(","):
                if labels == "none" and perturb:
                    continue
                folder = trained(args, pair, labels, perturb, seed)
                for way in WAYS if labels != "none" else ("null",):
                    generated(args, folder, labels, way)


if __name__ == "__main__":
    main()
