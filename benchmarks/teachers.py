"""Does a classifier that has seen the training images leak them? SIDE's first version
distilled a given teacher, and its reviewers asked.

Trains two image classifiers on the classes of the development world of mini `cifar10`,
one on the images of half a, which the model under test was trained on too, and one on
those of half b, its mirror's. Then SIDE distils each, on the model and on the mirror.
What the first extracts beyond the second is what a teacher of the training data gives
away; what either extracts from the mirror is the teacher's alone.

    python benchmarks/teachers.py --out OUT --set cifar10.rung=4 --set generations=300 --seeds 3

What is finished is found again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BitImageProcessor, ResNetConfig, ResNetForImageClassification

import membench
from membench.boards.board import board
from membench.metrics.trainings import over_trainings
from membench.reports.output import in_markdown
from membench.runs.finished import Run
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.pixels.mirror import HALVES
from membench.tasks.pixels.mirror_task import pair_of

STEPS, BATCH, RATE = 300, 64, 1e-3


def teacher(half: str, folder: Path) -> Path:
    """A classifier of the half's classes, in transformers' layout; tells how many of
    its own and of the other half's images it classifies rightly.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    pair = pair_of(WORLD, 0)
    torch.manual_seed(0)
    network = ResNetForImageClassification(
        ResNetConfig(
            num_labels=WORLD.classes,
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 1, 1],
            layer_type="basic",
        )
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    x, y = _tensors(pair.halves[half])
    source = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=source)
        loss = network(pixel_values=x[rows], labels=y[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for name in HALVES:
            images, labels = _tensors(pair.halves[name])
            right = (network(pixel_values=images).logits.argmax(dim=1) == labels).float().mean()
            print(f"teacher of half {half}: {100 * right:.1f} % of half {name}")
    network.save_pretrained(folder)
    # As _tensors does: to [-1, 1], at the images' own size
    BitImageProcessor(
        do_resize=False,
        do_center_crop=False,
        do_convert_rgb=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)
    return folder


def _tensors(half: object) -> tuple[torch.Tensor, torch.Tensor]:
    images: np.ndarray = half.images  # type: ignore[attr-defined]
    pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    return pixels, torch.from_numpy(half.labels.astype(np.int64))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="options", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    of_task = [o.partition(".")[2] for o in args.options if o.startswith("cifar10.")]
    of_side = [o for o in args.options if not o.startswith("cifar10.")]
    runs = []
    for half in HALVES:
        folder = teacher(half, args.out / f"teacher-{half}")
        for control in (False, True):
            for seed in range(args.seeds):
                options = [*of_side, "labels=teacher", f"teacher={folder}"]
                runs.append(
                    membench.run(
                        "side",
                        "cifar10",
                        options=options,
                        task_options=of_task,
                        seed=seed,
                        control=control,
                        extract_only=True,
                        out=args.out / "runs",
                        progress=False,
                    )
                )
    print(in_markdown(board(runs, "attack")))
    if args.seeds > 1:
        n = args.seeds  # of each half its runs on the model, then those on the mirror
        print(ahead([copied(run) for run in runs[:n]], [copied(run) for run in runs[2 * n :][:n]]))


def copied(run: Run) -> float:
    """The share of a run's images that are copies."""
    found = run.metrics[(run.metrics.metric == "ams_cumulative") & run.metrics.band.isna()]
    return float(found[found.subset == "all"].value.iloc[0])


def ahead(own: Sequence[float], other: Sequence[float]) -> str:
    """What the first teacher makes more than the second, by the same seed of noise, clusters
    and surrogate: percentage points, with Student's t over the seeds.
    """
    more = 100 * (np.array(own) - np.array(other))
    low, high = over_trainings(more)
    return f"a's teacher makes {more.mean():.1f} points [{low:.1f}, {high:.1f}] more copies"


if __name__ == "__main__":
    main()
