"""A text-to-image model of the same layers, a few channels wide: it takes as many
evaluations as the model itself, and next to no time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from membench.models.conditioning import Conditioning
from membench.models.latent import LatentDenoiser
from membench.models.loading import halvings
from membench.types import Condition

CHANNELS, SIDE = 8, 16  # of each block; of a latent


def narrowed(model: LatentDenoiser) -> LatentDenoiser:
    """The model with a U-Net of CHANNELS channels a block and random weights, latents
    of SIDE a side and a decoder to match, on the CPU; text encoders, schedule, layers
    and their names are its own. Its numbers mean nothing. Which evaluations a detector
    asks for depends on none of what was made smaller, but for one that asks for as many
    as a state has dimensions.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    network: Any = model.network
    config = dict(network.config)
    blocks = len(config["block_out_channels"])
    unet = UNet2DConditionModel.from_config(
        config
        | {
            "sample_size": SIDE,
            "_diffusers_version": None,  # an old one's size is not taken at its word
            "block_out_channels": (CHANNELS,) * blocks,
            "norm_num_groups": 2,
            "attention_head_dim": 2,
            "num_attention_heads": None,
        }
    )
    pipeline = model.pipeline
    factor = model.pixels()[0] // model.shape[1]

    def load_vae() -> Any:
        halves = factor.bit_length()
        made = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * halves,
            up_block_types=("UpDecoderBlock2D",) * halves,
            block_out_channels=(4,) * halves,
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=model.shape[0],
            mid_block_add_attention=False,
        )
        assert halvings(made.config) == factor
        return torch.nn.Module.to(made, model.dtype).eval().requires_grad_(False)

    made = replace(
        pipeline,
        unet=torch.nn.Module.to(unet, model.dtype),  # diffusers' own warns
        load_vae=load_vae,
        size=(SIDE * factor, SIDE * factor),
    )
    return LatentDenoiser(made, batch_size=model.batch_size)


def flop(model: LatentDenoiser) -> float:
    """Floating-point operations of one evaluation of the U-Net for one row: counted on
    a device that computes nothing, a multiply-add as two, attention as its two
    products.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(model.network.config)
    meta = LatentDenoiser(replace(model.pipeline, unet=unet))
    given = model.condition([Condition("one", "one")])
    told = Conditioning(*map(_shape, (given.embeddings, given.pooled)))
    x, t = torch.empty(1, *model.shape, device="meta"), torch.zeros((), device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        meta._forward(x, t, told)
    return float(counter.get_total_flops())


def _shape(part: torch.Tensor | None) -> torch.Tensor | None:
    return None if part is None else torch.empty(part.shape, device="meta")
