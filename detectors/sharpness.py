"""Sharpness of the condition's log-density (Jeon et al., ICML 2025).

"Understanding and Mitigating Memorization in Generative Models via Sharpness of
Probability Landscapes": where a prompt is memorized, its density is sharper than the
unconditional one already at the first step, along the very direction in which the two
scores differ,

    h = mean over draws and steps of || (H_c - H_0)(s_c - s_0) ||^2

with the score s = -eps / sigma_t and its Jacobian H = ds/dx, the Hessian of log p. In
eps

    (H_c - H_0)(s_c - s_0) = (J_c - J_0)(eps_c - eps_0) / sigma_t^2,    J = d eps / dx

The default is what the paper's code computes, the mean of the norms; the paper squares
them (``squared=true``), which ranks alike for one draw only. The setting: n = 1 or 4
draws, the first step of 50, w = 7.5. One draw and step cost 2 forwards and 2 JVPs, or 8
forwards by central differences.

``product=vjp`` is what the code of DSM (2026) runs under this paper's name: the
transposed product without sigma, || (J_c - J_0)'(eps_c - eps_0) ||, which it squares.
A network's J is not symmetric, so it ranks otherwise. It costs 4 forwards and 2
backwards.

arXiv 2412.04140.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.derivative import Derivative, choose, jvp, vjp
from membench.models.sampling import ddim, pure_noise
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class SharpnessOptions:
    draws: int = field(
        default=4, metadata={"help": "noises per prompt; the paper: 1, 4", "min": 1, "max": 10_000}
    )
    steps: int = field(
        default=1, metadata={"help": "look at the first k of the trajectory's steps", "min": 1}
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    squared: bool = field(
        default=False, metadata={"help": "mean of squared norms, as the paper writes it"}
    )
    product: Literal["jvp", "vjp"] = field(
        default="jvp",
        metadata={"help": "vjp: the transposed product, not divided by sigma^2 (DSM's rerun)"},
    )
    derivative: Derivative = field(
        default="auto",
        metadata={
            "help": "of product=jvp: jvp: forward mode; difference: central, float32; auto: "
            "jvp where the network allows it"
        },
    )
    images: int = field(default=1, metadata=IMAGES)

    def __post_init__(self) -> None:
        if self.steps > self.trajectory:
            raise ValueError(f"steps={self.steps} is more than trajectory={self.trajectory}")


class Sharpness(OwnTrajectory):
    """Sharpness of the conditional log-density (Jeon et al., ICML 2025)."""

    Options: ClassVar[type] = SharpnessOptions
    version = 1
    tuning = MappingProxyType(
        {"prompts": {"steps": (1, 2, 5), "product": ("jvp", "vjp"), "squared": (False, True)}}
    )
    access = Access(gradients=True)
    compares = True

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        for steps, _ in self.ways():
            if self.options.steps > steps - pure_noise(model, steps):
                raise UserError(
                    f"steps={self.options.steps} is more than the {steps} steps of a trajectory, "
                    "less those from pure noise; lower it"
                )
        o = self.options
        if o.product == "jvp":
            choose(model, o.derivative)
        else:
            why = "product=vjp has one way, backward; choose product=jvp"
            refuse_unread(o, ("derivative",), why)
        if self.examples == "prompts" and o.steps == 1 and not pure_noise(model, o.trajectory):
            why = "steps=1 looks before a step is taken, which it would guide; take more steps"
            refuse_unread(o, ("guidance",), why)

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        condition, blind = model.condition([c for c, _ in rows]), pure_noise(model, steps)
        unconditional = model.null_like(condition, len(rows))
        found: list[torch.Tensor] = []

        def product(x: torch.Tensor, t: int, difference: torch.Tensor) -> torch.Tensor:
            """(J_c - J_0)(eps_c - eps_0) / sigma^2, or its transposed kind."""
            if self.options.product == "vjp":
                told, null = (
                    vjp(model, x, t, c, difference)[1] for c in (condition, unconditional)
                )
                return told - null
            how = self.options.derivative
            told, null = (
                jvp(model, x, t, c, difference, derivative=how)[1]
                for c in (condition, unconditional)
            )
            return (told - null) / model.alpha_sigma(t)[1] ** 2

        def observe(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor, conditional: torch.Tensor
        ) -> None:
            if k < blind:
                return
            norm = product(x, t, conditional - null).flatten(1).norm(dim=1)
            found.append(norm**2 if self.options.squared else norm)

        x, stop = model.starts(rows, self.seed), blind + self.options.steps
        ddim(model, x, condition, steps=steps, guidance=guidance, stop=stop, observe=observe)
        return None, torch.stack(found).mean(dim=0)

    def price(self, model: Denoiser, steps: int) -> int:
        """Evaluations that the score of one noise takes, JVPs among them."""
        o = self.options
        if o.product == "vjp":
            each = 4
        else:
            each = 4 if choose(model, o.derivative) == "jvp" else 8
        return 2 * pure_noise(model, steps) + each * o.steps

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + self.price(model, self.steps)
