"""What the harness adds: wall time of the scoring phase over (forwards x time of a bare
U-Net forward), in one run.

    python benchmarks/overhead.py [--detector cfg_norm] [--batch-size 64] [--limit N]

The bare forward is timed before and after the run on the same model, batch and device,
and the faster one is used, so that a busy machine cannot make the harness look good.
Goal: at most 1.15.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch

import membench
from membench.tasks.sd_webster.task import SdWebster
from membench.types import Condition


def bare_forward(batch_size: int, repeats: int) -> float:
    """Seconds per image of the network alone: no epsilon conversion, no guidance, no
    counting.
    """
    model = SdWebster().load("mini", batch_size=batch_size).model()
    x = torch.randn(batch_size, *model.shape)
    embeddings = model.condition(
        [Condition("x", "Orvella Basto teal striped area rug, 5x8")]
    ).embeddings
    embeddings = embeddings.expand(batch_size, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(3):
            model.network(x, 981, embeddings)
        start = time.perf_counter()
        for _ in range(repeats):
            model.network(x, 981, embeddings)
        return (time.perf_counter() - start) / repeats / batch_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="cfg_norm")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--set", dest="options", action="append", default=["draws=4", "images=0"])
    args = parser.parse_args()
    before = bare_forward(args.batch_size, 40)
    with tempfile.TemporaryDirectory() as out:
        run = membench.run(
            args.detector,
            "sd_webster",
            options=args.options,
            batch_size=args.batch_size,
            limit=args.limit,
            out=out,
            progress=False,
        )
    bare = min(before, bare_forward(args.batch_size, 40))
    phase = run.info["phases"]["scores"]
    ratio = phase["seconds"] / (phase["forwards"] * bare)
    print(
        f"{phase['forwards']} forwards in {phase['seconds']:.2f} s; bare {bare * 1e3:.3f} ms an"
        f" image: ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
