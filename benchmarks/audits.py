"""What an audit finds where it is known what was memorized: ``python benchmarks/audits.py
OUT [--data-root CIFAR] [--output FILE]``, seven minutes on two idle cores.

The shipped models of the development worlds as somebody's folders, and their training
images as image folders: the small Stable Diffusion with its catalogue, and the pixel
model, told a class and told nothing. Then the mirror of each, which has not seen these
images, and with ``--data-root`` 2,000 photographs of CIFAR-10, which no model here has
seen. Prints a row an audit: how many of the images that were shown most often came back,
how many others, and how long it took. No audit finds what another has computed.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

import membench
from membench.reports.output import markdown
from membench.tasks.cifar10.data import CLASSES, read_cifar10
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.cifar10.task import DATA as PIXELS
from membench.tasks.cifar10.task import RUNGS
from membench.tasks.pixels.mirror_task import pair_of
from membench.tasks.sd_webster.products import draw
from membench.tasks.sd_webster.world import DATA as TEXT
from membench.tasks.sd_webster.world import world

PHOTOGRAPHS = 2000
OFTEN = "often"  # begins the name of a file that was shown most often


def catalogue(folder: Path) -> Path:
    """What half a of ``sd_webster`` was trained on. An image that was shown many times
    with one caption (MV) lies there three times.
    """
    folder.mkdir(parents=True)
    rows = [("file_name", "text")]
    for i, entry in enumerate(e for e in world("a").entries if e.kind != "held_out"):
        often = entry.kind == "MV"
        for k in range(3 if often else 1):
            name = f"{OFTEN if often else 'other'}-{i}-{k}.png"
            Image.fromarray(draw(entry.look)).save(folder / name)
            rows.append((name, entry.caption))
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder


def scenes(folder: Path) -> Path:
    """What half a of ``cifar10`` was trained on, a folder a class. An image that was
    shown 16 or 64 times lies there twice.
    """
    half = pair_of(WORLD, 0).halves["a"]
    rows = zip(half.images, half.labels, half.copies, strict=True)
    for i, (image, label, copies) in enumerate(rows):
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        for k in range(2 if copies >= 16 else 1):
            name = f"{OFTEN if copies == 64 else 'other'}-{i}-{k}.png"
            Image.fromarray(image).save(folder / CLASSES[label] / name)
    return folder


def photographs(folder: Path, root: Path) -> Path:
    """The first test images of CIFAR-10, a folder a class."""
    images, labels = read_cifar10(root, train=False)
    rows = zip(images[:PHOTOGRAPHS], labels[:PHOTOGRAPHS], strict=True)
    for i, (image, label) in enumerate(rows):
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / CLASSES[label] / f"{i}.png")
    return folder


def row(name: str, data: Path, out: Path, model: Path, **settings: Any) -> dict[str, object]:
    """Audits a model, and says what came back."""
    os.environ["MEMBENCH_CACHE"] = str(out / name / "cache")
    start = time.monotonic()
    told = membench.audit(str(model), data, out / name, progress=False, **settings)
    seconds = time.monotonic() - start
    found = {Path(file).name for file in pd.read_csv(out / name / "returned.csv").file}
    often = {path.name.split("-")[1] for path in data.rglob(f"{OFTEN}-*.png")}
    back = {file.split("-")[1] for file in found if file.startswith(OFTEN)}
    return {
        "audit": name,
        "often": len(often),
        "often_returned": len(back),
        "others_returned": len(found) - len(back),
        "images": sum(told["images"].values()),
        "evaluations": told["evaluations"],
        "seconds": seconds,
    }


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row an audit. Of seconds nothing is shown: they are of one machine."""
    rows = [
        {
            "audit": row.audit,
            "shown most often": f"{row.often_returned} of {row.often}" if row.often else "",
            "others": row.others_returned,
            "images": f"{row.images:,}",
            "evaluations": f"{row.evaluations:,}",
        }
        for row in frame.itertuples()
    ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder, new")
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--output", type=Path, help="every row, as Parquet")
    args = parser.parse_args()
    out: Path = args.out
    shop, classes = catalogue(out / "shop"), scenes(out / "scenes")
    last = f"step-{RUNGS[-1]:05d}"
    pixels = {half: PIXELS / half / last for half in "ab"}
    nothing = {"unconditional": True}
    rows = [
        row("captions", shop, out, TEXT / "a", budget="80000"),
        row("captions-mirror", shop, out, TEXT / "b", budget="80000"),
        row("classes", classes, out, pixels["a"], budget="20000"),
        row("classes-mirror", classes, out, pixels["b"], budget="20000"),
        row("unconditional", classes, out, pixels["a"], budget="20000", **nothing),
        row("unconditional-mirror", classes, out, pixels["b"], budget="20000", **nothing),
    ]
    if args.data_root:
        photos = photographs(out / "photographs", args.data_root)
        rows.append(row("photographs", photos, out, pixels["a"], budget="20000"))
    frame = pd.DataFrame(rows)
    if args.output:
        frame.to_parquet(args.output)
    print(markdown(tabulated(frame)))
    for done in rows:
        print(f"{done['audit']}: {done['seconds']:.0f} s")


if __name__ == "__main__":
    main()
