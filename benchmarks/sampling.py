"""Sampling of pixels against diffusers' own DDIMPipeline: the same network, batch and
steps, taking turns in one run, each as it loads it.

Prints images a second of each and their ratio. An unconditional network, which is what
DDIMPipeline can sample; its weights are random, which no time depends on. ``python
benchmarks/sampling.py [--batch N] [--steps N] [--rounds N] [--clock cpu]``; --clock cpu:
seconds of the process, where other programs share the processor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDIMPipeline

from membench.models.pixel import load_pixel_model
from membench.models.sampling import ddim
from membench.tasks.pixels.recipe import PixelRecipe
from membench.tasks.pixels.train import make_scheduler, make_unet
from membench.types import Condition

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    now = CLOCKS[args.clock]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        DDIMPipeline(
            unet=make_unet(32, None, PixelRecipe()), scheduler=make_scheduler()
        ).save_pretrained(folder)
        model = load_pixel_model(Path(folder), 0, batch_size=args.batch)
        pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    null = [Condition("null")] * args.batch

    def ours() -> None:
        x = model.noise([("a", k) for k in range(args.batch)], 0)
        model.decode(ddim(model, x, model.condition(null), steps=args.steps, guidance=1.0))

    def theirs() -> None:
        pipeline(batch_size=args.batch, num_inference_steps=args.steps, output_type="np")

    def seconds(draw: Callable[[], None]) -> float:
        start = now()
        draw()
        return now() - start

    seconds(ours), seconds(theirs)  # warm
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(args.rounds)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"membench {args.batch / a:.1f} images/s, DDIMPipeline {args.batch / b:.1f} images/s, ratio"
        f" {b / a:.3f}"
    )
    print("ratio in each round: " + ", ".join(f"{y / x:.3f}" for x, y in pairs))


if __name__ == "__main__":
    main()
