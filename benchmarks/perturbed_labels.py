"""Do random labels raise memorization, does perturbing labels lower it, and at what
price in quality?

Trains small models on both halves of a drawn world, for each kind of label, share of
perturbed labels and seed; generates the same number of images from each, from its
labels in turn and from the null class; and writes OUT/perturbed_labels.parquet, .md and
.png: memorization (AMS, UMS, and the AUROC of two detectors that tell the images of the
model's half from those of its mirror) against quality, with intervals over trainings.
What is finished is found again.

    python benchmarks/perturbed_labels.py --out OUT --steps 1000 --seeds 0,1
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from membench.detectors.flipd import Flipd, FlipdOptions
from membench.detectors.loss import Loss, LossOptions
from membench.features.loading import load_features
from membench.metrics.extraction import ams, ums
from membench.metrics.likelihood_divergence import likelihood_divergence
from membench.metrics.quality import density_coverage, frechet_distance, kid, precision_recall
from membench.metrics.trainings import over_trainings
from membench.models.downstream import downstream_accuracy
from membench.models.pixel import load_pixel_model
from membench.models.sampling import ddim
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.similarity.l2 import normalised_l2
from membench.similarity.spaces import pixel_space
from membench.storage.files import atomic_write
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.pixels.labels import make_labels
from membench.tasks.pixels.mirror import Pair, build_pair
from membench.tasks.pixels.mirror_task import mirror_examples
from membench.tasks.pixels.planted import World, halved
from membench.tasks.pixels.recipe import MirrorRecipe
from membench.tasks.pixels.train import TrainingSet, told_record, train_pixels
from membench.types import Condition

# Few different images: those that are shown 16 times as often as the others are learnt
# by heart within some 1,000 steps.
COUNTS = {1: 40, 16: 20}
CHANNELS = {16: (16, 32, 64), 8: (24, 48)}  # by the side of an image
SAMPLING = {"steps": 20, "guidance": 1.0}
WAYS = ("labels", "null")
PERCENT = ("AMS", "UMS")
# The others of the figures lie in [0, 1]
UNBOUNDED = ("FD", "FD shrunk", "KID", "density", "FLD gap")
SETTING = ("labels", "perturb", "from", "seed", "half", "side", "steps")
PLOTTED = (
    ("AMS", "AMS, copies %", 100.0),
    ("flipd x1", "AUROC of FLIPD, images shown once", 1.0),
)
AT_IMAGES = {**SAMPLING, "examples": "images"}


def world_of(side: int) -> World:
    """The scenes of ``cifar10`` at 16 pixels a side, or at 8."""
    draw = WORLD.draw if side == WORLD.size else halved(WORLD.draw)
    return replace(WORLD, size=side, draw=draw, counts=COUNTS, near=0, held_out=1000, paired=False)


def name_of(labels: str, perturb: float, seed: int, half: str) -> str:
    return f"{labels}-{perturb:g}-{seed}-{half}"


def steps_of(folder: Path) -> int:
    """How long a model was trained; 0 where there is none."""
    file = folder / "training.json"
    return int(json.loads(file.read_bytes())["steps"]) if file.is_file() else 0


def trained(
    args: argparse.Namespace, pair: Pair, labels: str, perturb: float, seed: int, name_of_half: str
) -> Path:
    """The folder of a model on a half, trained unless it is there."""
    half, name = pair.halves[name_of_half], name_of(labels, perturb, seed, name_of_half)
    work = args.out / f"models-{args.side}-{args.steps}"
    if steps_of(work / name) == args.steps:
        return work / name
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
    train_pixels(work, name, data, recipe, progress=False)
    return work / name


def generated(args: argparse.Namespace, folder: Path, labels: str, way: str) -> np.ndarray:
    """Images ``uint8`` [n, h, w, 3] of a model, from its labels in turn or from none.
    The noise of an image is the same for every model.
    """
    work = args.out / f"images-{args.side}-{args.steps}"
    file = work / f"{folder.name}-{way}-{args.images}.npy"
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


def figures(images: np.ndarray, pair: Pair, name_of_half: str) -> dict[str, float]:
    """Copies of a half, and quality against held-out images by pixels."""
    half, side = pair.halves[name_of_half], images.shape[1]
    space = pixel_space(side)
    found = normalised_l2(images, half.images, floor=space.floor)
    describe = load_features("pixels")
    made, seen, unseen = (
        describe(x).astype(np.float64) for x in (images, half.images, pair.held_out.images)
    )
    shrunk = len(images) <= made.shape[1]
    return {
        "AMS": ams(found, len(images), space, space.copy),
        "UMS": ums(found, len(images), space, space.copy),
        "FD shrunk" if shrunk else "FD": frechet_distance(made, unseen, shrunk=shrunk),
        "KID": kid(made, unseen)[0],
        **precision_recall(unseen, made),
        **density_coverage(unseen, made),
        "FLD gap": likelihood_divergence(seen, unseen, made)["fld_gap"],
    }


def accuracy(images: np.ndarray, labels: str, pair: Pair) -> float:
    """What a classifier learns of images and the labels in turn that they were generated
    from; NaN where these are no classes. Random labels are what the user of such a model
    would take for classes.
    """
    if labels not in ("class", "random"):
        return math.nan
    told = np.arange(len(images)) % WORLD.classes
    return downstream_accuracy(images, told, pair.held_out.images, pair.held_out.labels)[0]


def detected(folder: Path, labels: str, pair: Pair, half: str) -> dict[str, float]:
    """AUROC of each detector between the images of the model's half and those of its
    mirror that were shown as often, all asked for without a label.
    """
    model = load_pixel_model(folder, 0 if labels == "none" else WORLD.classes, batch_size=64)
    examples = [e for e in mirror_examples(pair, half) if e.source != "held_out"]
    kinds, is_own = (np.array([getattr(e, of) for e in examples]) for of in ("kind", "memorized"))
    found = {}
    for name, detector in (
        ("loss", Loss(LossOptions(t=400, condition="unconditional"), seed=0, sampling=AT_IMAGES)),
        ("flipd", Flipd(FlipdOptions(condition="unconditional"), seed=0, sampling=AT_IMAGES)),
    ):
        scores = np.array(detector.score(model, [e.condition for e in examples], {}))
        for times in sorted(COUNTS):
            of = kinds == f"x{times}"
            found[f"{name} x{times}"] = float(roc_auc_score(is_own[of], scores[of]))
    return found


def tabulated(found: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over trainings, of each setting, as text."""
    values = [name for name in found if name not in SETTING]
    rows = []
    for (labels, perturb, way), part in found.groupby(["labels", "perturb", "from"], sort=False):
        row = {"labels": labels, "perturb": f"{perturb:g}", "from": way, "n": str(len(part))}
        for name in values:
            scale, digits = (100, 1) if name in PERCENT else (1, 3)
            mean, low, high = mean_interval(name, part[name])
            row[name + (" %" if scale == 100 else "")] = interval(
                mean, low, high, scale=scale, digits=digits
            )
        rows.append(row)
    return pd.DataFrame(rows)


def mean_interval(name: str, values: pd.Series) -> tuple[float, float, float]:
    """Mean over trainings of a figure and Student's 95 % interval of it, on the logit scale
    for one in [0, 1]; NaN where there are too few.
    """
    mean = float(values.mean(skipna=False))
    if len(values) < 2 or math.isnan(mean):
        return mean, math.nan, math.nan
    return mean, *over_trainings(values, logit=name not in UNBOUNDED)


def plotted(found: pd.DataFrame) -> Figure:
    """AMS, and what a detector sees, against the distance, of images from labels: a point
    a training, a cross the mean of a setting with its intervals.
    """
    distance = next(name for name in found if name.startswith("FD"))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    used = found[(found["from"] == "labels") | (found.labels == "none")]
    for axes, (what, title, scale) in zip(figure.subplots(1, 2), PLOTTED, strict=True):
        for k, (key, part) in enumerate(used.groupby(["labels", "perturb"], sort=False)):
            labels, perturb = key
            told = f"{labels}, {100 * perturb:g} % perturbed" if perturb else labels
            axes.scatter(part[distance], scale * part[what], color=f"C{k}", alpha=0.4, s=16)
            (x, *ends_x), (y, *ends_y) = (
                by * np.array(mean_interval(name, part[name]))
                for name, by in ((distance, 1.0), (what, scale))
            )
            axes.errorbar(
                x,
                y,
                xerr=[[x - ends_x[0]], [ends_x[1] - x]],
                yerr=[[y - ends_y[0]], [ends_y[1] - y]],
                color=f"C{k}",
                marker="x",
                capsize=3,
                label=told,
            )
        axes.set(xlabel=f"{distance} to held-out images, pixels", ylabel=title)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def settings_of(text: str) -> list[tuple[str, float]]:
    """Kinds of labels and shares that are perturbed, of ``class,random,class:0.3``."""
    parts = (word.partition(":") for word in text.split(","))
    return [(labels, float(share or 0)) for labels, _, share in parts]


def written(rows: list[dict[str, object]], file: Path) -> str:
    """Writes numbers, text and plot of the models so far; the text."""
    found = pd.DataFrame(rows).sort_values(["from", "labels", "perturb"], kind="stable")
    atomic_write(file.with_suffix(".parquet"), lambda temporary: found.to_parquet(temporary))
    figure = plotted(found)
    atomic_write(
        file.with_suffix(".png"), lambda temporary: figure.savefig(temporary, format="png", dpi=130)
    )
    text = markdown(tabulated(found)) + "\n"
    atomic_write(file.with_suffix(".md"), lambda temporary: temporary.write_text(text))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--settings",
        default="class,random,cluster,none,class:0.3",
        help="LABELS or LABELS:SHARE that is perturbed",
    )
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--side", type=int, choices=CHANNELS, default=16, help="of an image")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", type=int, default=500, help="of a model and way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair = build_pair(world_of(args.side))
    rows: list[dict[str, object]] = []
    text = ""
    seeds = [int(s) for s in args.seeds.split(",")]
    todo = list(itertools.product(seeds, pair.halves, settings_of(args.settings)))
    for seed, half, (labels, perturb) in tqdm(todo, desc="models"):
        folder = trained(args, pair, labels, perturb, seed, half)
        told_apart = detected(folder, labels, pair, half)
        for way in WAYS if labels != "none" else ("null",):
            images = generated(args, folder, labels, way)
            setting = {
                "labels": labels,
                "perturb": perturb,
                "from": way,
                "seed": seed,
                "half": half,
                "side": args.side,
                "steps": args.steps,
            }
            found = figures(images, pair, half) | told_apart
            if way == "labels":
                found["accuracy"] = accuracy(images, labels, pair)
            rows.append(setting | found)
        text = written(rows, args.out / "perturbed_labels")
    print(text)


if __name__ == "__main__":
    main()
