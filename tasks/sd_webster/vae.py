"""The mini models' VAE: how it is trained, and what it makes of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from membench.models.image_values import from_uint8
from membench.models.training import Plan, fit
from membench.storage.files import replace_files
from membench.types import Tracker

from . import catalogue
from .architecture import make_vae
from .recipe import Recipe


def pixels(images: np.ndarray) -> torch.Tensor:
    """``uint8`` [n, h, w, 3] to float [n, 3, h, w] in [-1, 1]."""
    return from_uint8(images).contiguous()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The posterior means, not scaled: [n, 4, 8, 8]."""
    return torch.cat([vae.encode(x).latent_dist.mean for x in images.split(64)])


def psnr(error: torch.Tensor) -> torch.Tensor:
    """Decibels, of mean squared errors of pixels in [-1, 1], whose range is 2."""
    return 10 * torch.log10(4 / error)


def train_vae(
    work: Path, recipe: Recipe, progress: bool, tracker: Tracker | None = None
) -> dict[str, Any]:
    """Trains the VAE on the public split and saves it with the scale that gives latents
    unit variance.
    """
    half = catalogue.build("public")
    data = pixels(half.images())
    torch.manual_seed(recipe.seed)
    vae = make_vae()

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        x = data[torch.randint(len(data), (recipe.vae_batch,), generator=gen)]
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=gen)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return F.mse_loss(vae.decode(z).sample, x) + recipe.kl_weight * kl

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        return (
            warm
            * recipe.vae_rate
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.vae_steps))))
        )

    plan = Plan(
        "vae",
        {"vae": vae},
        loss,
        recipe.vae_steps,
        rate,
        recipe.seed,
        ema_decay=0.99,
        record={
            "data": half.content_hash(),
            # vae_steps, too: the learning rate of each step depends on it
            "recipe": {
                name: getattr(recipe, name)
                for name in ("vae_batch", "vae_rate", "kl_weight", "vae_steps")
            },
        },
    )
    report = fit(plan, work, progress=progress, tracker=tracker)
    latents = encode(vae, data[:1024])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    with torch.no_grad():
        held_out = pixels(catalogue.build("a").images()[:256])
        error = (
            (vae.decode(encode(vae, held_out)).sample.clamp(-1, 1) - held_out)
            .flatten(1)
            .pow(2)
            .mean(dim=1)
        )
        report["rmse_on_half_a"] = round(float(error.mean().sqrt()), 4)
        report["psnr_on_half_a"] = round(float(psnr(error).median()), 2)
    replace_files(work / "vae", vae.save_pretrained)
    return report
