"""Difference of two Hessian-score products, "Metric 2" (anonymous, ICML 2026
submission).

From the code beside DSM (randomnameforicml/icml-2026): the gradient in the state of
half the squared prediction, J' eps with J = d eps / dx, with and without the prompt,

    m = || J_c' eps_c - J_0' eps_0 ||^2

at the first step of the trajectory, in eps units. With s = -eps / sigma_t and H its
Jacobian it is sigma_t^4 || H_c' s_c - H_0' s_0 ||^2. One noise per prompt, averaged
where there are more. A draw costs 2 forwards and 2 backwards.

Gradients of a sum of squares overflow in float16; here the vector of each product is
brought to a mean square of 1 beforehand, and what is not finite all the same is a
failed example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from membench.models.denoiser import Denoiser
from membench.models.derivative import vjp
from membench.models.sampling import ddim, pure_noise, timesteps
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class HessianDifferenceOptions:
    draws: int = field(
        default=1, metadata={"help": "noises per prompt; the code: 1", "min": 1, "max": 10_000}
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


class HessianDifference(OwnTrajectory):
    """Difference of Hessian-score products, Metric 2 of the DSM code (anonymous, 2026)."""

    Options: ClassVar[type] = HessianDifferenceOptions
    version = 1
    access = Access(gradients=True)
    compares = True

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        if not pure_noise(model, self.way()[0]):
            why = "the first step of a trajectory comes before any guidance"
            refuse_unread(self.options, ("guidance",), why)

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        condition, blind = model.condition([c for c, _ in rows]), pure_noise(model, steps)
        x, t = model.starts(rows, self.seed), timesteps(model, steps)[blind]
        x = ddim(model, x, condition, steps=steps, guidance=guidance, stop=blind)
        unconditional = model.null_like(condition, len(rows))
        told, null = (vjp(model, x, t, c, lambda eps: eps)[1] for c in (condition, unconditional))
        return None, (told - null).flatten(1).pow(2).sum(dim=1)

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        before = 2 * pure_noise(model, self.steps)
        return self.sampling_forwards(model, request) + before + 2
