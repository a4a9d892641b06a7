"""Anisotropy: guidance norm and angle at pure noise (Asthana, ICLR 2026).

Asthana and Belagiannis; with u = eps(x, t, null), D = eps(x, t, c) - u, both at the
*same pure noise* x_T, whatever t is:

    M = gamma1 mean_n || D(x_T, t1) ||_2 + gamma2 mean_n mean_pixels cos(u, D)(x_T, t2)

t1 is the first timestep, t2 the third from last (981 and 41 of 50 steps); the cosine is
over the channels of a pixel. gamma per model, in the authors' script: (1, 2) for Stable
Diffusion 1, (1, 0.1) for 2 (preset sd2), (2, 1) for Realistic Vision (preset
realistic_vision). A norm grows with the size of the latent and a cosine does not, so
they mean little elsewhere: ``part`` gives either term alone. The code for Stable
Diffusion 2 divides the norm by sigma^2 and takes the cosine of v; here both are of eps.
Costs 4 forwards a noise, 2 of them shared with ``cfg_norm``.

arXiv 2601.20642.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch

from membench.models.denoiser import Denoiser
from membench.models.sampling import pure_noise, timesteps
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .trajectories import IMAGES, Followed, OwnTrajectory, Rows

FROM_LAST = 3  # t2 is the third from last


@dataclass(frozen=True)
class AnisotropyOptions:
    part: Literal["both", "norm", "cosine"] = field(
        default="both", metadata={"help": "both: the weighted sum; a term alone has no weight"}
    )
    gamma1: float = field(
        default=1.0,
        metadata={"help": "weight of the norm in part=both; the authors' script: 1, 1, 2"},
    )
    gamma2: float = field(
        default=2.0,
        metadata={"help": "weight of the cosine in part=both; the authors' script: 2, 0.1, 1"},
    )
    draws: int = field(
        default=4, metadata={"help": "noises per prompt; the paper: 1, 4", "min": 1, "max": 10_000}
    )
    trajectory: int = field(
        default=50,
        metadata={
            "help": "DDIM steps of the schedule that t1 and t2 are taken from",
            "min": 3,
            "max": 1000,
        },
    )
    images: int = field(default=1, metadata=IMAGES)


class Anisotropy(OwnTrajectory):
    Options: ClassVar[type] = AnisotropyOptions
    version = 1
    tuning = MappingProxyType(
        {
            # With gamma1 = 1: their ratio alone changes the order; 0 is the norm alone
            "prompts": {"gamma2": (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0)}
        }
    )
    access = Access()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {"sd2": {"gamma2": 0.1}, "realistic_vision": {"gamma1": 2.0, "gamma2": 1.0}}
    )
    compares = True

    def least(self) -> int:
        return FROM_LAST

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        if self.options.part != "both":
            why = "a term alone has no weight; choose part=both"
            refuse_unread(self.options, ("gamma1", "gamma2"), why)

    def measure(self, model: Denoiser, rows: Rows, x: torch.Tensor, steps: int) -> torch.Tensor:
        """The score of each noise x [n, *shape]."""
        o, told = self.options, model.condition([c for c, _ in rows])
        times = timesteps(model, steps)[pure_noise(model, steps) :]
        norm = cosine = torch.zeros(len(x), device=x.device)
        if o.part != "cosine":
            null, conditional = model.eps_pair(x, times[0], told)
            norm = (conditional - null).flatten(1).norm(dim=1)
        if o.part != "norm":
            null, conditional = model.eps_pair(x, times[-FROM_LAST], told)
            angles = torch.nn.functional.cosine_similarity(null, conditional - null, dim=1)
            cosine = angles.flatten(1).mean(dim=1)
        return o.gamma1 * norm + o.gamma2 * cosine if o.part == "both" else norm + cosine

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        return None, self.measure(model, rows, model.starts(rows, self.seed), steps)

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + (4 if self.options.part == "both" else 2)
