"""What the VAE of mini `sd_webster` alone costs a copy: its reconstructions of the
training images against these.

    python benchmarks/vae.py [--half a] [--times]

Prints the median PSNR and, with the deciles, the normalised L2 from a training image to
its own reconstruction. No U-Net brings a copy nearer than that, whatever it has memorized.
--times: in place of it, how long 64 images take, all at once or as many at a time as
membench takes, with PyTorch's threads and with one: medians of five turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from membench.models.image_values import from_uint8
from membench.models.latent import LatentDenoiser
from membench.similarity.l2 import normalised_l2
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SPACE, SdWebster
from membench.tasks.sd_webster.vae import psnr


def times(model: LatentDenoiser) -> None:
    """Prints milliseconds of the decoder and of the encoder."""
    height, width = model.pixels()
    few = model._at_once(height * width)
    works: dict[str, tuple[Callable[[torch.Tensor], object], torch.Tensor]] = {
        "decode": (model.vae.decode, torch.randn(64, *model.shape)),
        "encode": (model.vae.encode, torch.randn(64, 3, height, width)),
    }
    for threads in sorted({1, torch.get_num_threads()}, reverse=True):
        torch.set_num_threads(threads)
        for name, (work, images) in works.items():
            taken: dict[int, list[float]] = {len(images): [], few: []}
            for _ in range(5):
                for rows, of in taken.items():
                    start = time.perf_counter()
                    for part in images.split(rows):
                        work(part)
                    of.append(1000 * (time.perf_counter() - start))
            medians = {rows: statistics.median(of) for rows, of in taken.items()}
            told = ", ".join(f"{rows} at once {ms:.0f}" for rows, ms in medians.items())
            print(f"threads {threads}, {name} {len(images)} images, ms: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--half", choices=("a", "b"), default="a")
    parser.add_argument("--times", action="store_true", help="of decoding and encoding alone")
    args = parser.parse_args()
    task = SdWebster(SdWebsterOptions(half=args.half)).load("mini")
    model, images = task.model(), task.training.images()
    if args.times:
        with torch.no_grad():
            return times(model)
    made = model.decode(model.encode(images))
    error = (from_uint8(made) - from_uint8(images)).flatten(1).pow(2).mean(dim=1)
    found = normalised_l2(made, images, floor=SPACE.floor)
    own = found[found.generated == found.training].similarity
    low, middle, high = np.quantile(own, [0.1, 0.5, 0.9])
    print(
        f"half {args.half}: {len(images):,} training images, of {len(own):,} a distance is stored"
    )
    print(f"median PSNR {psnr(error).median():.1f} dB")
    print(f"normalised L2, median {middle:.2f}, deciles {low:.2f} and {high:.2f}")


if __name__ == "__main__":
    main()
