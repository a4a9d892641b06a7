"""NeMo's score: predictions that look alike (Hintersdorf et al., NeurIPS 2024).

"Finding NeMo: Localizing Neurons Responsible For Memorization in Diffusion Models".
What the first step removes from pure noise, for 10 noises of a prompt,

    d_i = eps(x_T^i, t, c) - x_T^i,  each channel scaled to [0, 1] over its pixels,
    score = the largest MS-SSIM(d_i, d_j) over pairs        (memorized: above 0.428)

t is the *second* timestep of 50 (961), at the unstepped noise. MS-SSIM has a Gaussian
kernel of 11 pixels, 3 scales with exponents 0.33, and so needs a latent of 44 pixels a
side: ``scales`` and ``kernel`` make smaller variants, whose values are other ones. The
range of a pair is its own, that of its finest scale: the authors' code takes it over
all pairs of a call, at each scale anew, so that a pair's value depends on its company.
Costs 10 forwards a prompt.

arXiv 2406.02366.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar

import torch

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import pure_noise, timesteps
from membench.types import Access, Condition, Sample

WIDTH = 1.5 / 11  # standard deviation of the Gaussian, in kernels
EXPONENT = 0.33  # of each scale
STABLE = (0.01, 0.03)  # SSIM's k1 and k2


@dataclass(frozen=True)
class NemoSsimOptions:
    draws: int = field(
        default=10, metadata={"help": "noises per prompt; the paper: 10", "min": 2, "max": 1000}
    )
    scales: int = field(default=3, metadata={"help": "scales; the paper: 3", "min": 1, "max": 5})
    kernel: int = field(
        default=11, metadata={"help": "pixels of the Gaussian; the paper: 11", "min": 1}
    )
    trajectory: int = field(
        default=50,
        metadata={"help": "steps of the schedule whose second timestep is taken", "min": 2},
    )


def scaled(x: torch.Tensor) -> torch.Tensor:
    """Each channel to [0, 1] over its pixels; a constant one to 0."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    width = high - low
    return (x - low) / torch.where(width > 0, width, torch.ones_like(width))


def ms_ssim(a: torch.Tensor, b: torch.Tensor, *, kernel: int, scales: int) -> torch.Tensor:
    """Multi-scale SSIM (Wang et al. 2003) of each pair of [n, channels, h, w], [n]."""
    spread = torch.maximum(a.amax(dim=(1, 2, 3)), b.amax(dim=(1, 2, 3)))
    spread = spread - torch.minimum(a.amin(dim=(1, 2, 3)), b.amin(dim=(1, 2, 3)))
    c1, c2 = ((k * spread).pow(2).view(-1, 1, 1, 1) for k in STABLE)
    places = torch.arange(kernel, dtype=a.dtype) - (kernel - 1) / 2
    line = torch.exp(-((places / (WIDTH * kernel)) ** 2) / 2)
    window = torch.outer(line, line) / line.sum() ** 2
    weights = window.expand(a.shape[1], 1, kernel, kernel)

    def blur(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, weights, groups=x.shape[1])

    product = torch.ones(len(a), dtype=a.dtype)
    for scale in range(scales):
        if scale:
            a, b = torch.nn.functional.avg_pool2d(a, 2), torch.nn.functional.avg_pool2d(b, 2)
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        both = blur(a * b) - mean_a * mean_b
        contrast = (2 * both + c2) / (var_a.clamp(min=0) + var_b.clamp(min=0) + c2)
        last = scale + 1 == scales
        light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) if last else 1.0
        product = product * (light * contrast).mean(dim=(1, 2, 3)).clamp(min=0) ** EXPONENT
    return product


class NemoSsim(Detector):
    Options: ClassVar[type] = NemoSsimOptions
    version = 1
    access = Access()

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        o = self.options
        if self.examples == "images" or any(c.image is not None for c in conditions):
            raise UserError(
                "nemo_ssim compares what several noises of a prompt have in common, and an image "
                "was generated from one; choose dsm"
            )
        if not model.has_condition:
            raise UserError("this model has no condition that its noises could have in common")
        side, needed = min(model.shape[1:]), o.kernel * 2 ** (o.scales - 1)
        if side < needed:
            raise UserError(
                f"states of {side} pixels a side are too small: {o.scales} scales of a kernel of "
                f"{o.kernel} need {needed}; a variant for small ones is scales=1 with a kernel of "
                f"at most {side}"
            )
        if pure_noise(model, o.trajectory) + 2 > len(timesteps(model, o.trajectory)):
            raise UserError(f"{o.trajectory} steps have no second one that is not from pure noise")

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        o = self.options
        rows = [(c, draw) for c in conditions for draw in range(o.draws)]
        t = timesteps(model, o.trajectory)[pure_noise(model, o.trajectory) + 1]
        x = model.starts(rows, self.seed)
        eps = model.eps(x, t, model.condition([c for c, _ in rows]))
        removed = scaled((eps - x).cpu().double()).unflatten(0, (len(conditions), o.draws))
        first, second = zip(*combinations(range(o.draws), 2), strict=True)
        return [
            float(ms_ssim(d[list(first)], d[list(second)], kernel=o.kernel, scales=o.scales).max())
            for d in removed
        ]
