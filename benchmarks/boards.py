"""CPU seconds and memory of boards and pages over many runs.

    python benchmarks/boards.py [--settings 33] [--seeds 3] [--examples 1608] [--images N]
        [--boards difference,seeds,report] [--keep DIR]

Stand-ins: one run is made, of a detector that returns noise and copies of training images;
the others are its tables under other options and seeds, with scores of their own. Each
board is a command of its own, as a user calls it. Of each its CPU seconds and the largest
resident memory are printed, and a hash of what it wrote: the same before and after a
change that changes no number. --keep: a folder in which the runs stay and are found again.
docs/scale.md reads it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stand_ins import Made, Silent, measured

import membench
from membench.detector import Detector
from membench.metrics.table import run_metrics
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Access, Band, Condition, Example, Request, Sample, Space, Training

SIDE, KNOWN = 32, 256
EXAMPLES = int(os.environ.get("BOARDS_EXAMPLES", "0"))


def noise(*words: int) -> np.ndarray:
    """An image whose PNG is the larger, the more of it is noise."""
    rng = np.random.default_rng(words)
    image = np.full((SIDE, SIDE, 3), rng.integers(256), np.uint8)
    rows = 1 + rng.integers(SIDE)
    image[:rows] = rng.integers(0, 256, (rows, SIDE, 3))
    return image


class StandIn(Task):
    """Prompts in groups, half of them memorized, of three kinds and two sources."""

    info = TaskInfo(
        "stand_in",
        1,
        ("mini",),
        Space("l2/noise", False, (Band("high", 0.0, 0.7),), 1.0, 1.0, source="none"),
    )

    def load(self, profile: str, **how: Any) -> LoadedTask:
        known = np.stack([noise(1, i) for i in range(KNOWN)])
        return LoadedTask(
            info=self.info,
            profile=profile,
            examples=[_example(i) for i in range(EXAMPLES)],
            training=Training(lambda: known, [f"t{i}" for i in range(KNOWN)], [1] * KNOWN),
            model=Silent,  # type: ignore[arg-type]
            hashes={"weights": "w", "data": "d", "prompts": str(EXAMPLES)},
        )


def _example(i: int) -> Example:
    kind = ("MV", "TV", "RV")[i // 2 % 3] if i % 2 else "none"
    return Example(
        Condition(f"{i:08x}", f"noise {i}"),
        i % 2,
        kind,
        f"g{i % 2} {i // 6}",
        ("held", "other")[i % 4 // 2],
    )


@dataclass(frozen=True)
class Options:
    which: int = field(default=0, metadata={"help": "one of many settings"})
    images: int = field(default=1, metadata={"help": "0 or 1: an image an example"})


class Noise(Detector):
    """Copies of training images for a quarter of what is memorized, noise for the rest."""

    Options = Options
    version = 1
    access = Access(images=True)
    attack = True

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, 0) for c in conditions] if self.options.images else []

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        found = []
        for r in requests:
            i = int(r.condition.id, 16)
            words = (1, i // 8 % KNOWN) if i % 8 == 1 else (2, i)
            found.append(Sample(r.condition, r.draw, noise(*words), float(i % 97)))
        return found

    def score(
        self,
        model: Any,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        rng = np.random.default_rng(0)
        return [float(rng.normal()) for _ in conditions]


def make(root: Path, settings: int, seeds: int, extra: int, images: int) -> None:
    """settings x seeds runs and ``extra`` ones of a setting more."""
    made = membench.run(
        Noise, StandIn, options={"images": images}, out=root, batch_size=64, progress=False
    )
    source = Made(made, root)
    scores, matches = source.tables["scores"], source.tables["matches"]
    every = [(which, seed) for which in range(settings) for seed in range(seeds)]
    for which, seed in [*every, *((settings, seed) for seed in range(extra))][1:]:
        rng = np.random.default_rng((which, seed))
        strength = 2 * which / max(1, settings)
        own = scores.assign(score=strength * scores.label + rng.normal(size=len(scores)))
        # Intervals of few resamples: a board by run shows them, and no more
        metrics = run_metrics(own, made.samples, matches, made.space, evaluations=0, resamples=20)
        options = made.info["key_parts"]["options"] | {"which": which}
        named = {"options": options, "options_passed": [f"which={which}"]}
        source.again({"scores": own, "metrics": metrics}, seed=seed, **named)


def written(path: Path) -> str:
    """A hash of a file, or of the texts in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.md"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=33)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--extra", type=int, default=0, help="runs of one setting more")
    parser.add_argument("--examples", type=int, default=1608)
    parser.add_argument("--images", type=int, default=1, choices=(0, 1), help="an example")
    parser.add_argument("--boards", default="run,seeds,difference,report")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--act", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.act:
        make(args.act, args.settings, args.seeds, args.extra, args.images)
        return
    runs = args.settings * args.seeds + args.extra
    with tempfile.TemporaryDirectory() as name:
        root = (args.keep or Path(name)) / f"{runs}-{args.examples}-{args.images}"
        if not root.exists():
            own = [sys.executable, str(Path(__file__).resolve()), "--act", str(root)]
            sizes = [f"--{n}={getattr(args, n)}" for n in ("settings", "seeds", "extra", "images")]
            took = measured([*own, *sizes], BOARDS_EXAMPLES=args.examples)
            assert took.code == 0, took.code
        for board in args.boards.split(","):
            out = Path(name, board if board == "report" else f"{board}.parquet")
            how = ["report"] if board == "report" else ["leaderboard", "--by", board]
            how += [] if board == "report" else ["--format", "parquet"]
            command = [sys.executable, "-m", "membench", *how]
            took = measured([*command, "--runs", str(root), "--output", str(out)])
            assert took.code == 0, f"{board} ended with {took.code}"
            print(
                f"{runs:>5} runs  {args.examples:>6} examples  {board:<12} {took.cpu:>7.1f} s"
                f"  {took.peak:>6} MiB  {written(out)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
