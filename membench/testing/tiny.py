"""Tiny models with random weights, and the kinds of task that a detector may meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.image_values import from_uint8, to_uint8
from membench.models.pixel import PixelDenoiser
from membench.seeds import generator
from membench.types import Condition


class TinyTextModel(Denoiser):
    """A UNet2DConditionModel of 4x4x4 latents with random weights, v-prediction.

    Captions are told apart by a hash of their text.
    """

    takes_text = True
    latents = True

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        return self._run(x, t, encoder_hidden_states=condition.embeddings).sample

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        rows = [
            torch.randn(6, 16, generator=generator("caption", c.prompt or "")) for c in conditions
        ]
        return Conditioning(torch.stack(rows) if rows else None)

    def token_counts(self, conditions: Sequence[Condition]) -> list[int]:
        return [min(len((c.prompt or "").split()) + 2, 6) for c in conditions]

    def decode(self, x: torch.Tensor) -> np.ndarray:
        self.cost.decodes += len(x)
        return to_uint8(torch.nn.functional.interpolate(x[:, :3].float(), scale_factor=2) / 3)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        if images.shape[1:] != (8, 8, 3):
            raise UserError(
                f"images of {images.shape[1:]} are not of this model's 8x8; resize them"
            )
        self.cost.encodes += len(images)
        x = torch.nn.functional.avg_pool2d(from_uint8(images), 2) * 3
        return torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1)


def tiny_text_model(seed: int = 0) -> Denoiser:
    """States [4, 4, 4], images ``uint8`` [8, 8, 3]. seed: of its weights."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    ends = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    scheduler = DDIMScheduler(**betas, **ends, prediction_type="v_prediction")
    return TinyTextModel(network.eval().requires_grad_(False), scheduler, shape=(4, 4, 4))


def tiny_pixel_model(classes: int = 3, seed: int = 0) -> Denoiser:
    """A UNet2DModel of 8x8 pixels with random weights, epsilon-prediction.

    classes: how many, with a null class after them; 0: unconditional.
    """
    from diffusers import DDIMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            num_class_embeds=classes + 1 if classes else None,
        )
    network = network.eval().requires_grad_(False)
    return PixelDenoiser(network, DDIMScheduler(), shape=(3, 8, 8), classes=classes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A kind of task that a detector may meet."""

    name: str
    examples: str
    model: Denoiser
    other: Denoiser
    conditions: tuple[Condition, ...]


def settings(n: int = 4) -> Iterator[Setting]:
    """Captions; images with a class; images of an unconditional model."""
    captions = tuple(Condition(f"caption/{i}", f"A tiny Caption number {i}") for i in range(n))
    yield Setting("captions", "prompts", tiny_text_model(), tiny_text_model(1), captions)
    noise = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    for name, classes in (("images with a class", 3), ("images without a class", 0)):
        told = [
            Condition(f"image/{i}", None, noise[i], i % 3 if classes else None, ("start", str(i)))
            for i in range(n)
        ]
        yield Setting(
            name, "images", tiny_pixel_model(classes), tiny_pixel_model(classes, 1), tuple(told)
        )
