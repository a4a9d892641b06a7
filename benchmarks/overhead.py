"""What the harness adds: time of the scoring phase over (forwards x time of a bare
U-Net forward), taking turns in one process.

    python benchmarks/overhead.py [--detector cfg_norm] [--batch-size 64] [--limit 128]
        [--rounds 5] [--clock cpu]

A bare forward is the network alone on the same batch and device: no conversion to
epsilon, no guidance, no counting. Each round times bare forwards before and after its
run and takes their mean, so that a machine that slows down for a while slows both.
--clock cpu: seconds of the process, where other programs share the processor. Goal: a
median of at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import membench
from membench.runs.shards import Work
from membench.tasks.sd_webster.task import SdWebster
from membench.types import Condition

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
REPEATS = 8


def bare_forward(batch_size: int, now: Callable[[], float]) -> Callable[[], float]:
    """Measures the seconds an image of the network alone."""
    model = SdWebster().load("mini", batch_size=batch_size).model()
    x = torch.randn(batch_size, *model.shape)
    told = model.condition([Condition("x", "Orvella Basto teal striped area rug, 5x8")])
    embeddings = told.embeddings.expand(batch_size, -1, -1).contiguous()

    def measure() -> float:
        with torch.no_grad():
            model.network(x, 981, embeddings)
            start = now()
            for _ in range(REPEATS):
                model.network(x, 981, embeddings)
            return (now() - start) / REPEATS / batch_size

    return measure


def scoring(args: argparse.Namespace) -> tuple[int, float]:
    """Forwards of one run's scoring phase and its seconds."""
    now, shard, seconds = CLOCKS[args.clock], Work.shard, 0.0

    def timed(work: Work, index: int) -> Any:
        nonlocal seconds
        start = now()
        shard(work, index)
        seconds += (now() - start) * (work.phase == "scores")

    with tempfile.TemporaryDirectory() as out, mock.patch.object(Work, "shard", timed):
        run = membench.run(
            args.detector,
            "sd_webster",
            options=args.options,
            batch_size=args.batch_size,
            limit=args.limit,
            out=out,
            progress=False,
        )
    return run.info["phases"]["scores"]["forwards"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="cfg_norm")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--set", dest="options", action="append", default=["draws=4", "images=0"])
    args = parser.parse_args()
    bare = bare_forward(args.batch_size, CLOCKS[args.clock])
    ratios = []
    for _ in range(args.rounds):
        before = bare()
        forwards, seconds = scoring(args)
        each = (before + bare()) / 2
        ratios.append(seconds / (forwards * each))
        print(
            f"{forwards} forwards in {seconds:.2f} s; bare {each * 1e3:.3f} ms an image: ratio"
            f" {ratios[-1]:.3f}"
        )
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
