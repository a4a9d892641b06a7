"""Transition step: when the attraction basin of a prompt ends (Jain et al., CVPR 2025).

"Classifier-Free Guidance Inside the Attraction Basin May Cause Memorization": guided
inside the basin of a memorized image, every noise ends in it. The sampler follows the
conditional prediction alone (w = 1) until d_k = || eps(x_k, c) - eps(x_k, null) || has
had its first local minimum, which shows one step late,

    d_{k-2} > d_{k-1} < d_k,        score = the first such k (from 0; 2 is the least)

after which the paper turns the guidance on. A prompt without a minimum gets -1, and so
lies below every prompt that has one. The authors' code has the timestep in place of k,
which falls: there -1 comes after every minimum. It samples by DPM-Solver. Its norm is
of a whole batch, which is of one image there. Costs 2 forwards a step up to k, on a
trajectory that no other detector follows. The paper mitigates; that a basin that lasts
is a sign of memorization is a reading of it.

arXiv 2411.16738.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from membench.models.denoiser import Denoiser
from membench.models.sampling import both, ddim_step, pure_noise, timesteps
from membench.types import Access, Request

from .trajectories import IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows

NEVER = -1.0  # the score of a trajectory without a minimum


@dataclass(frozen=True)
class TransitionStepOptions:
    draws: int = field(default=1, metadata={"help": "noises per prompt", "min": 1, "max": 10_000})
    trajectory: int = field(default=50, metadata=TRAJECTORY | {"min": 3})
    images: int = field(default=1, metadata=IMAGES)


class TransitionStep(OwnTrajectory):
    Options: ClassVar[type] = TransitionStepOptions
    version = 1
    access = Access()
    compares = True

    def least(self) -> int:
        return 3

    def steps_of(self, model: Denoiser, rows: Rows, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Of each noise x [n, *shape]; NaN where eps is not finite."""
        told = model.condition([c for c, _ in rows])
        times, blind = timesteps(model, steps), pure_noise(model, steps)
        found = torch.full((len(x),), NEVER)
        going = torch.arange(len(x))  # the rows that have had no minimum yet
        norms: list[torch.Tensor] = []
        for k, t in enumerate(times):
            null, conditional = both(model, x, t, told)
            gap = model.to_eps(conditional, x, t) - model.to_eps(null, x, t)
            norms = [*norms[-2:], gap.flatten(1).norm(dim=1).cpu()]
            if k < blind:
                norms = []
            failed = ~gap.flatten(1).isfinite().all(dim=1).cpu()
            over = torch.zeros(len(x), dtype=torch.bool)
            if len(norms) == 3:
                over = (norms[0] > norms[1]) & (norms[1] < norms[2])
            found[going[over]] = float(k)
            found[going[failed]] = torch.nan
            on = torch.nonzero(~(over | failed)).flatten()
            if not len(on) or k + 1 == steps:
                break
            x = ddim_step(model, x, conditional, t, times[k + 1])[on.to(x.device)]
            told, going = told[on.to(x.device)], going[on]
            norms = [norm[on] for norm in norms]
        return found

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        return None, self.steps_of(model, rows, model.starts(rows, self.seed), steps)

    def image_forwards(self, model: Denoiser, request: Request) -> None:
        return None  # as many as the trajectory takes to its minimum
