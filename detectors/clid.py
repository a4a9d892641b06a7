"""CLiD: what the condition adds to the likelihood (Zhai et al., NeurIPS 2024).

"Membership Inference on Text-to-Image Diffusion Models via Conditional Likelihood
Discrepancy", the plain form:

    CLiD(z, c) = E_{t, n} [ || u - n ||^2 - || c - n ||^2 ] / D

with u and c the null and the conditional eps at alpha z + sigma n and z the encoded
image. The paper adds the conditional loss, weighted after robust scaling on a shadow
model's members, and averages over shortened captions beside the null one: those parts
are left out. Each t (440, 450 and 460 in the authors' code) has a noise of its own. Costs 2
forwards a (t, noise) and an encoding; of an image that the model has generated for the
caption itself it says what the caption adds there, as ``cfg_norm`` does at pure noise.

arXiv 2405.14800.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.types import Access, Condition, Request

from .base import IMAGES, MeasuresImages, with_noise


@dataclass(frozen=True)
class ClidOptions:
    t: tuple[int, ...] = field(
        default=(440, 450, 460),
        metadata={"help": "timesteps from 0; the authors' code: 440, 450, 460", "min": 0},
    )
    noises: int = field(
        default=1, metadata={"help": "noises per timestep; the authors' code: 1", "min": 1}
    )
    images: int = field(default=1, metadata=IMAGES)

    def __post_init__(self) -> None:
        if not self.t:
            raise ValueError("t names no timestep; give at least one")


class Clid(MeasuresImages):
    Options = ClidOptions
    version = 1
    tuning = MappingProxyType(
        {
            "images": {
                "t": (
                    (90, 100, 110),
                    (190, 200, 210),
                    (290, 300, 310),
                    (440, 450, 460),
                    (640, 650, 660),
                )
            }
        }
    )
    access = Access(images=True)

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if not model.has_condition:
            raise UserError(
                "this model has no condition, and clid scores what a condition adds; choose loss"
            )
        if not model.has_null:
            raise UserError("this model has no null class to compare its classes with; choose loss")
        if any(c.prompt is None and c.class_label is None for c in conditions):
            raise UserError(
                "these images have no prompt and no class, and clid scores what they add; "
                "choose loss with condition=unconditional"
            )
        super().check(model, conditions)
        for t in self.options.t:
            model.refuse_pure_noise(t, f"t={t}")

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        o, x0, told = self.options, model.encode(images), model.condition(conditions)
        gaps = []
        for i, t in enumerate(o.t):
            for draw in range(i * o.noises, (i + 1) * o.noises):
                keys = [(name, draw) for name in names]
                x, noise = with_noise(model, x0, keys, t, self.seed)
                null, conditional = (
                    (eps - noise).flatten(1).pow(2).mean(dim=1)
                    for eps in model.eps_pair(x, t, told)
                )
                gaps.append(null - conditional)
        return torch.stack(gaps).mean(dim=0).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        pairs = len(self.options.t) * self.options.noises
        return self.sampling_forwards(model, request) + 2 * pairs
