"""Local intrinsic dimension by the normal bundle (Stanczuk et al. 2022, as used by Ross
et al., ICLR 2025).

Near a manifold the score is normal to it. At K = 4 D noised copies alpha x + sigma z of
one image, the K x D matrix of eps has as many large singular values as the manifold has
normal directions: LID = D - the place of the widest gap between singular values. The
score is its negative. 4 D evaluations an image: for small models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.seeds import generator
from membench.types import Access, Condition, Request

from .base import CONDITION, IMAGES, ByCondition

LIMIT = 4096  # largest D: 4 D forwards and 32 D^2 bytes (0.5 GB) an image


@dataclass(frozen=True)
class NormalBundleOptions:
    t0: float = field(
        default=0.01,
        metadata={
            "help": "time in (0, 1] of the noise on the copies; the paper's code: 0.01",
            "min": 0,
            "max": 1,
        },
    )
    condition: Literal["auto", "conditional", "unconditional"] = field(
        default="auto", metadata=CONDITION
    )
    images: int = field(default=1, metadata=IMAGES)


class NormalBundle(ByCondition):
    """Local intrinsic dimension by the normal bundle, negated (Stanczuk et al. 2022;
    Ross et al., ICLR 2025).
    """

    Options: ClassVar[type] = NormalBundleOptions
    version = 1
    access = Access(images=True)
    usual = "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.refuse_pure_noise(model.timestep(self.options.t0), f"t0={self.options.t0}")
        size = math.prod(model.shape)
        if size > LIMIT:
            raise UserError(
                f"normal_bundle takes 4 D = {4 * size:,} evaluations an image of this model, and"
                f" membench stops at D = {LIMIT:,}; choose flipd"
            )

    def lid(
        self, model: Denoiser, x0: torch.Tensor, condition: Conditioning, names: Sequence[str]
    ) -> list[float]:
        """LID of clean states x0 [n, *shape]: D less the place of the widest gap
        between singular values, 1 to D - 1; NaN if eps is.
        """
        t, size = model.timestep(self.options.t0), math.prod(model.shape)
        alpha, sigma = model.alpha_sigma(t)
        found = []
        for row, name in enumerate(names):
            source = generator(self.seed, "bundle", name)
            noise = torch.randn((4 * size, *model.shape), generator=source).to(x0)
            copies = alpha * x0[row] + sigma * noise
            eps = model.eps(
                copies, t, condition[slice(row, row + 1)].repeat(len(copies)), remember=False
            ).flatten(1)
            if not bool(eps.isfinite().all()):  # of which there are no singular values
                found.append(math.nan)
                continue
            values = torch.linalg.svdvals(eps.cpu().double())
            found.append(float(size - 1 - int((values[:-1] - values[1:]).argmax())))
        return found

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        return [
            -d for d in self.lid(model, model.encode(images), self.told(model, conditions), names)
        ]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + 4 * math.prod(model.shape)
