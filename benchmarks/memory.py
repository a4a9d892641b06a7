"""Peak memory of runs, pages and boards against the number of images.

    python benchmarks/memory.py [--images 2000,20000] [--side 64] [--board 1000]

A stand-in detector returns images of random noise, which no PNG makes smaller, at once;
all else is what ``membench run`` does: shards, scores by the images, matches, metrics,
tables and the page. Each line is a process of its own: the run; the same, ended in the
middle by SIGKILL and taken up again; its page made again. Then a board over many runs of
64 images. Its table holds the largest resident memory of each process, and what that is
beyond the process of the fewest images. docs/scale.md reads it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stand_ins import Made, Silent, Took, measured

import membench
from membench.detector import Detector
from membench.reports.run_page import write_report
from membench.runs.finished import load
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import (
    Access,
    Band,
    Condition,
    Example,
    Request,
    Sample,
    Space,
    Training,
)

IMAGES = int(os.environ.get("MEMORY_IMAGES", "0"))
SIDE = int(os.environ.get("MEMORY_SIDE", "64"))
RUNS = int(os.environ.get("MEMORY_RUNS", "0"))
STOP = int(os.environ.get("MEMORY_STOP", "0"))  # shards after which the process ends itself
DRAWS = 4
SMALL = 64  # images of a run of the board


def noise(*words: int) -> np.ndarray:
    rng = np.random.default_rng(words)
    return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


class StandIn(Task):
    """Prompts, DRAWS images each, half of them called memorized."""

    info = TaskInfo(
        "stand_in",
        1,
        ("mini",),
        Space("l2/noise", False, (Band("high", 0.0, 1.0),), 1.0, 1.0, source="none"),
    )

    def load(self, profile: str, **how: Any) -> LoadedTask:
        examples = [
            Example(
                Condition(f"{i:08x}", f"noise {i}"), i % 2, "MV" if i % 2 else "N", f"g{i}", "s"
            )
            for i in range(IMAGES // DRAWS)
        ]
        known = np.stack([noise(1, i) for i in range(64)])
        return LoadedTask(
            info=self.info,
            profile=profile,
            examples=examples,
            training=Training(lambda: known, [f"t{i}" for i in range(64)], [1] * 64),
            model=Silent,  # type: ignore[arg-type]
            hashes={"weights": "w", "data": "d", "prompts": f"{IMAGES}/{SIDE}"},
        )


class Noise(Detector):
    """Scores by its own images, each prompt's DRAWS far apart in the plan."""

    version = 1
    access = Access(images=True)
    shards = 0

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, draw) for draw in range(DRAWS) for c in conditions]

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        self.shards += 1
        if self.shards == STOP:
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            Sample(r.condition, r.draw, noise(2, int(r.condition.id, 16), r.draw), float(r.draw))
            for r in requests
        ]

    def score(
        self,
        model: Any,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        return [float(np.mean([s.image.mean() for s in extracted[c.id]])) for c in conditions]


def many(root: Path, count: int) -> None:
    """``count`` runs: one that is made, and its tables under other seeds."""
    made = Made(membench.run(Noise, StandIn, out=root, batch_size=64, progress=False), root)
    for seed in range(1, count):
        made.again({}, seed=seed)


def act(what: str, root: Path) -> None:
    """What a process does."""
    if what == "run":
        membench.run(Noise, StandIn, out=root, batch_size=64, progress=False)
    elif what == "page":
        [folder] = root.glob("*/*/*/*")
        write_report(load(folder, verified=False))
    elif what == "many":
        many(root, RUNS)


def sized(command: Sequence[str], **settings: int) -> Took:
    """What a process of these sizes took."""
    return measured(command, **{f"MEMORY_{name.upper()}": n for name, n in settings.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="2000,20000")
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--board", type=int, default=0, metavar="RUNS")
    parser.add_argument("--act", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.act:
        act(args.act, args.root)
        return

    first: dict[str, int] = {}

    def told(what: str, label: str, command: Sequence[str], **settings: int) -> None:
        code, seconds, _, peak = sized(command, **settings)
        assert code == 0, f"{what} of {label} ended with {code}"
        more = peak - first.setdefault(what, peak)
        print(
            f"{label:>16}  {what:<12} {peak:>6} MiB  {more:>+6} MiB  {seconds:>7.1f} s", flush=True
        )

    own = [sys.executable, str(Path(__file__).resolve())]
    with tempfile.TemporaryDirectory() as name:
        for images in [int(n) for n in args.images.split(",")]:
            root, label = Path(name, str(images)), f"{images:,} images"
            size = {"images": images, "side": args.side}
            told("run", label, [*own, "--act", "run", "--root", str(root / "whole")], **size)
            told("page", label, [*own, "--act", "page", "--root", str(root / "whole")], **size)
            again = [*own, "--act", "run", "--root", str(root / "again")]
            code, *_ = sized(again, **size, stop=images // 64 // 2)
            assert code == -signal.SIGKILL, code
            told("resumed", label, again, **size)
            files = [next((root / of).glob("*/*/*/*/samples.parquet")) for of in ("whole", "again")]
            assert files[0].read_bytes() == files[1].read_bytes(), "resumed: other samples"
            mb = files[0].stat().st_size / 2**20
            print(f"{label:>16}  samples.parquet holds {mb:,.0f} MiB", flush=True)
            shutil.rmtree(root)
        for runs in [args.board // 10, args.board] if args.board else []:
            root, label = Path(name, "board"), f"{runs:,} runs"
            making = [*own, "--act", "many", "--root", str(root)]
            code, *_ = sized(making, images=SMALL, side=8, runs=runs)
            assert code == 0, code
            board = [sys.executable, "-m", "membench", "leaderboard", "--runs", str(root)]
            told("board", label, board)
            told("by seeds", label, [*board, "--by", "seeds"])
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
