"""The p-Laplacian of log p around an image, as a flux (Brokman et al., SSVM 2025).

"Identifying Memorization of Diffusion Models through p-Laplace Analysis". Through the
sphere of N points p_i = alpha z + sigma sqrt(D) n_i around the encoded image, n_i unit
directions (each point is the image noised by a noise of norm sqrt(D)), flows

    flux_p = mean_i || F(p_i) ||^(p - 2)  F(p_i) . n_i

(p = 1: mean_i cos(F(p_i), n_i)).

F is +eps, the score turned round, so the flux is minus the p-Laplacian and *larger*
where log p has a sharp peak: at a memorized image. The authors' code takes p = 1, N =
128, t = 0.01 T and the caption without guidance; their later gap, F = c - u, takes N =
16. No sign is changed. For p other than 1 their code weights the cosine by
|| F ||^(p - 2), which is one power less than the flux. The VAE encodes by its mean,
there by a sample. Costs N forwards an image (2 N for the gap) and an encoding. For p =
1 it is a denoising loss up to norms: read it beside ``loss``.

arXiv 2505.08246.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.types import Access, Condition, Request

from .base import IMAGES, ByCondition


@dataclass(frozen=True)
class PLaplaceOptions:
    p: float = field(default=1.0, metadata={"help": "p of the p-Laplacian; the paper: 1"})
    t: int = field(
        default=10,
        metadata={"help": "timestep from 0; the authors' code: 0.01 T, of T = 1000", "min": 0},
    )
    samples: int = field(
        default=128,
        metadata={"help": "points per image; the authors' code: 128, gap: 16", "min": 1},
    )
    condition: Literal["auto", "conditional", "unconditional", "gap"] = field(
        default="auto",
        metadata={
            "help": "F: eps_c, eps_0, or their gap; auto: eps_c; eps_0 of a model without one"
        },
    )
    images: int = field(default=1, metadata=IMAGES)


class PLaplace(ByCondition):
    Options: ClassVar[type] = PLaplaceOptions
    version = 1
    tuning = MappingProxyType(
        {"images": {"t": (10, 50, 100, 200, 300), "condition": ("auto", "gap", "unconditional")}}
    )
    access = Access(images=True)
    usual = "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.refuse_pure_noise(self.options.t, f"t={self.options.t}")

    def vectors(self, model: Denoiser, points: torch.Tensor, told: Conditioning) -> torch.Tensor:
        """F at points [n, *shape]. Past the memo: nobody else asks about them."""
        t = self.options.t
        found = model.eps(points, t, told, remember=False)
        if self.variant(model) != "gap":
            return found
        null = model.null_like(told, len(points))
        return found - model.eps(points, t, null, remember=False)

    def flux(
        self, model: Denoiser, z: torch.Tensor, told: Conditioning, noise: torch.Tensor
    ) -> float:
        """Of one image z [*shape], told in one row, by noises [N, *shape]."""
        alpha, sigma = model.alpha_sigma(self.options.t)
        flat = noise.flatten(1)
        directions = flat / flat.norm(dim=1, keepdim=True)
        radius = sigma * flat.shape[1] ** 0.5
        points = alpha * z + radius * directions.view_as(noise)
        f = self.vectors(model, points, told.repeat(len(points))).flatten(1)
        norms = f.norm(dim=1).clamp(min=1e-12)
        along = (f * directions).sum(dim=1)
        return float((norms ** (self.options.p - 2) * along).mean())

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        x0, told = model.encode(images), self.told(model, conditions)
        found = []
        for i, name in enumerate(names):
            noise = model.noise([(name, k) for k in range(self.options.samples)], self.seed)
            found.append(self.flux(model, x0[i], told[slice(i, i + 1)], noise))
        return found

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        each = 2 if self.variant(model) == "gap" else 1
        return self.sampling_forwards(model, request) + each * self.options.samples
