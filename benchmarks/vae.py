"""What the VAE of mini `sd_webster` alone costs a copy: its reconstructions of the
training images against these.

    python benchmarks/vae.py [--half a]

Prints the median PSNR and, with the deciles, the normalised L2 from a training image to
its own reconstruction. No U-Net brings a copy nearer than that, whatever it has memorized.
"""

from __future__ import annotations

import argparse

import numpy as np

from membench.models.image_values import from_uint8
from membench.similarity.l2 import normalised_l2
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SPACE, SdWebster
from membench.tasks.sd_webster.vae import psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--half", choices=("a", "b"), default="a")
    args = parser.parse_args()
    task = SdWebster(SdWebsterOptions(half=args.half)).load("mini")
    model, images = task.model(), task.training.images()
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
