"""Membership tests: PIA and PIAN (Kong et al.), SecMI (Duan et al.), SimA (Rao et al.).

Was an image in the training set? They were made for that question, which is another one
than memorization: on data matched in style they are near chance in print. With z the
encoded image and e_0 = eps(z, 0), the prediction at the unnoised z:

    pia     - sum | e_0 - eps(alpha z + sigma e_0, t) |^4        Kong et al., ICLR 2024
    pian    the same with e_0 scaled to mean | e_0 | = sqrt(2 / pi), that of a normal
    secmi   - || x_t - x~_t ||^2                                 Duan et al., ICML 2023
    sima    - sum | eps(z, t) |^4, z unscaled at every t         Rao et al., TMLR

secmi: DDIM inversion of z from timestep 0 to t in strides of 10, one stride on, and
back. Each is negated: a smaller error is a member. t is 200 for pia and pian, as in
CDI, 100 for secmi; of sima, whose authors sweep t, 100. eps is not guided. Costs 2, 2,
t / stride + 2 and 1 forwards, and an encoding. What the authors' scripts do otherwise
on Stable Diffusion: docs/design/published-detectors.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .base import CONDITION, IMAGES, ByCondition

USUAL_T = {"pia": 200, "pian": 200, "secmi": 100, "sima": 100}


@dataclass(frozen=True)
class MembershipOptions:
    test: Literal["pia", "pian", "secmi", "sima"] = field(
        default="pia", metadata={"help": "which membership test"}
    )
    t: int | None = field(
        default=None,
        metadata={"help": "timestep from 0; none: 200, for secmi and sima 100", "min": 0},
    )
    power: float = field(
        default=4.0,
        metadata={
            "help": "pia, pian, sima: of the error's entries; the papers: 4",
            "min": 1,
            "max": 16,
        },
    )
    stride: int = field(
        default=10, metadata={"help": "secmi: timesteps a step; the paper: 10", "min": 1}
    )
    condition: Literal["auto", "conditional", "unconditional"] = field(
        default="auto", metadata=CONDITION
    )
    images: int = field(default=1, metadata=IMAGES)


class Membership(ByCondition):
    Options: ClassVar[type] = MembershipOptions
    version = 1
    tuning = MappingProxyType(
        {
            "images": {
                "test": ("pia", "pian", "secmi", "sima"),
                "t": (50, 100, 200, 300, 400),
                "condition": ("auto", "unconditional"),
            }
        }
    )
    access = Access(images=True)
    usual = "conditional"

    @property
    def t(self) -> int:
        return USUAL_T[self.options.test] if self.options.t is None else self.options.t

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        o, secmi = self.options, self.options.test == "secmi"
        refuse_unread(o, ("power",) if secmi else ("stride",), f"test={o.test} does not read it")
        model.refuse_pure_noise(self.t + o.stride if secmi else self.t, f"t={self.t}")
        if secmi and (self.t % o.stride or not self.t):
            raise UserError(f"t={self.t} is not a multiple of stride={o.stride}; choose one")
        if secmi and model.dtype != torch.float32:
            raise UserError("secmi needs --dtype float32: rounding would drown what it measures")

    def error(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).abs().pow(self.options.power).sum(dim=1)

    def pia(self, model: Denoiser, z: torch.Tensor, told: Conditioning) -> torch.Tensor:
        first = model.eps(z, 0, told)
        if self.options.test == "pian":
            size = first.flatten(1).abs().mean(dim=1).view(-1, *[1] * (z.ndim - 1))
            first = first / size * math.sqrt(2 / math.pi)
        alpha, sigma = model.alpha_sigma(self.t)
        return self.error(first - model.eps(alpha * z + sigma * first, self.t, told))

    def secmi(self, model: Denoiser, z: torch.Tensor, told: Conditioning) -> torch.Tensor:
        def step(x: torch.Tensor, now: int, after: int) -> torch.Tensor:
            (alpha, sigma), (alpha_after, sigma_after) = map(model.alpha_sigma, (now, after))
            eps = model.eps(x, now, told)
            return alpha_after * (x - sigma * eps) / alpha + sigma_after * eps

        t, stride, x = self.t, self.options.stride, z
        for now in range(0, t, stride):
            x = step(x, now, now + stride)
        back = step(step(x, t, t + stride), t + stride, t)
        return (x - back).flatten(1).pow(2).sum(dim=1)

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        z, told = model.encode(images), self.told(model, conditions)
        if self.options.test == "secmi":
            found = self.secmi(model, z, told)
        elif self.options.test == "sima":
            found = self.error(model.eps(z, self.t, told))
        else:
            found = self.pia(model, z, told)
        return (-found).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        steps = self.t // self.options.stride + 2
        own = {"pia": 2, "pian": 2, "secmi": steps, "sima": 1}[self.options.test]
        return self.sampling_forwards(model, request) + own
