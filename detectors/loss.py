"""Denoising loss (Carlini et al., USENIX Security 2023; as CDI computes it, CVPR 2025).

A model denoises what it was trained on better than what it was not:

    score = - mean_n || eps(alpha z + sigma n, t, c) - n ||_2

with z the encoded image. CDI ("Copyrighted Data Identification in Diffusion Models")
takes t = 100 and 5 noises. The unconditional form is told the null condition. Costs a
forward a noise and an encoding; at the same t and noises it shares ``clid``'s.

arXiv 2301.13188.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.models.denoiser import Denoiser
from membench.types import Access, Condition, Request

from .base import CONDITION, IMAGES, ByCondition, with_noise


@dataclass(frozen=True)
class LossOptions:
    t: int = field(default=100, metadata={"help": "timestep from 0; CDI: 100", "min": 0})
    noises: int = field(default=5, metadata={"help": "noises per image; CDI: 5", "min": 1})
    condition: Literal["auto", "conditional", "unconditional"] = field(
        default="auto", metadata=CONDITION
    )
    images: int = field(default=1, metadata=IMAGES)


class Loss(ByCondition):
    Options: ClassVar[type] = LossOptions
    version = 1
    tuning = MappingProxyType(
        {
            "images": {
                "t": (20, 50, 100, 200, 300, 400, 500, 700),
                "condition": ("auto", "unconditional"),
            }
        }
    )
    access = Access(images=True)
    usual = "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.refuse_pure_noise(self.options.t, f"t={self.options.t}")

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        o, x0, told = self.options, model.encode(images), self.told(model, conditions)
        errors = []
        for draw in range(o.noises):
            keys = [(name, draw) for name in names]
            x, noise = with_noise(model, x0, keys, o.t, self.seed)
            errors.append((model.eps(x, o.t, told) - noise).flatten(1).norm(dim=1))
        return (-torch.stack(errors).mean(dim=0)).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + self.options.noises
