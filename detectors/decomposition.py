"""Decomposition of the states into image and noise (Kim et al.).

"How Diffusion Models Memorize", 2025. Each state x_t of the guided trajectory,
flattened, is fitted by least squares by what the trajectory ends and begins with,

    x_t ~ w_0(t) x_0 + w_T(t) x_T,

of which the schedule alone would make sqrt(abar_t) and sqrt(1 - abar_t). A memorized
image shows too early, and the noise is forgotten too early:

    weight=image    D1 =  sum_t (mean_n w_0 - sqrt(abar_t))
    weight=noise    D2 = -sum_t (mean_n w_T - sqrt(1 - abar_t))

summed over the states after each step, abar of the state's own timestep. The authors'
code (yupeeee/Diffusion-Memorization) has the weights and the curves, abar one timestep
earlier, which shifts all scores alike; the sums are a third party's. Costs nothing
beyond the trajectory: 2 forwards a step.

arXiv 2509.25705.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import torch

from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, timesteps
from membench.types import Access, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class DecompositionOptions:
    weight: Literal["image", "noise"] = field(
        default="image", metadata={"help": "image: D1, by w_0; noise: D2, by w_T"}
    )
    draws: int = field(default=1, metadata={"help": "noises per prompt", "min": 1, "max": 10_000})
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


def decompose(
    state: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """w_0 and w_T [n] of flat states, by the normal equations of two unknowns."""
    a, b, c = ((u * v).sum(dim=1) for u, v in ((x0, x0), (x0, noise), (noise, noise)))
    p, q = ((u * state).sum(dim=1) for u in (x0, noise))
    determinant = a * c - b * b
    return (c * p - b * q) / determinant, (a * q - b * p) / determinant


class Decomposition(OwnTrajectory):
    Options: ClassVar[type] = DecompositionOptions
    version = 1
    tuning = MappingProxyType({"prompts": {"weight": ("image", "noise")}})
    access = Access()

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        states: list[torch.Tensor] = []

        def visit(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor | None, conditional: torch.Tensor
        ) -> None:
            states.append(x)

        told = model.condition([c for c, _ in rows])
        x = model.starts(rows, self.seed)
        x = ddim(model, x, told, steps=steps, guidance=guidance, visit=visit)
        noise, *later = [state.flatten(1).cpu().double() for state in [*states, x]]
        total = torch.zeros(len(x), dtype=torch.float64)
        ends = [float(model.alphas_cumprod[t]) for t in timesteps(model, steps)[1:]]
        for state, abar in zip(
            later, [*ends, float(model.scheduler.final_alpha_cumprod)], strict=True
        ):
            image, left = decompose(state, later[-1], noise)
            if self.options.weight == "image":
                total += image - abar**0.5
            else:
                total -= left - (1 - abar) ** 0.5
        return x, total

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request)
