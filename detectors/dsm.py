"""DSM: how far the conditional prediction moves in one step (anonymous, ICML 2026).

"Early Detection of Memorization in Diffusion Models", Dynamical Singularity Metric:

    DSM(k -> k+1) = || eps(x_{k+1}, t_{k+1}, c) - eps(x_k, t_k, c) ||_2^2

over all dimensions of one latent, x_k on the model's own guided DDIM trajectory of 50
steps with weight 7.5. The null prediction only guides: the last of the k + 2
evaluations is of the condition alone, so that 0 -> 1 costs 3 forwards a noise and 1 ->
2 costs 5, all shared with ``cfg_norm`` over the first 3 steps. The paper takes one
noise a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, pure_noise, timesteps
from membench.types import Access, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class DsmOptions:
    step: int = field(
        default=0,
        metadata={"help": "k of the step k -> k+1 that is measured; the paper: 0, 1", "min": 0},
    )
    draws: int = field(
        default=1, metadata={"help": "noises per prompt; the paper: 1", "min": 1, "max": 10_000}
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY | {"min": 2})
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


class Dsm(OwnTrajectory):
    Options = DsmOptions
    version = 1
    tuning = MappingProxyType({"prompts": {"step": (0, 1, 2, 5, 10)}})
    access = Access()

    def least(self) -> int:
        return self.options.step + 2

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        first = pure_noise(model, steps) + self.options.step
        told = model.condition([c for c, _ in rows])
        eps: dict[int, torch.Tensor] = {}

        def visit(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor | None, conditional: torch.Tensor
        ) -> None:
            if k in (first, first + 1):
                eps[k] = conditional

        x = model.starts(rows, self.seed)
        stop = None if whole else first + 1
        x = ddim(model, x, told, steps=steps, guidance=guidance, stop=stop, visit=visit)
        if not whole:
            eps[first + 1] = model.eps(x, timesteps(model, steps)[first + 1], told)
        return x, (eps[first + 1] - eps[first]).flatten(1).pow(2).sum(dim=1)

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request)
