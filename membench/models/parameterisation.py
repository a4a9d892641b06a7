"""Times of a schedule, and every prediction as epsilon.

Every detector asks for epsilon, whatever the network was trained to predict, so that a
norm means the same thing on every model: with alpha_t = sqrt(abar_t) and sigma_t =
sqrt(1 - abar_t) of the model's own scheduler (Salimans and Ho 2022, appendix D), v =
alpha_t eps - sigma_t x0 and x_t = alpha_t x0 + sigma_t eps give

    eps = alpha_t v + sigma_t x_t          (v_prediction)
    eps = (x_t - alpha_t x0) / sigma_t     (sample)

A difference of two predictions at one x_t scales alike: eps_c - eps_0 = alpha_t (v_c -
v_0). Where x_t is noise alone (abar_t = 0, zero terminal SNR) eps is x_t, whatever the
network says; what it says of the image is in its raw prediction, which is what DDIM
reads.
"""

from __future__ import annotations

from typing import Any

import torch

from membench.errors import UserError
from membench.models.schedule import PARAMETERISATIONS, refuse_blind


class Parameterised:
    """What a network was trained to predict, and on which schedule.

    Raises :class:`UserError` for a prediction that membench does not know, and for one
    that says nothing of the image somewhere on the schedule.
    """

    def __init__(self, scheduler: Any) -> None:
        kind = scheduler.config.prediction_type
        if kind not in PARAMETERISATIONS:
            raise UserError(
                f"this model predicts {kind!r}; membench knows {', '.join(PARAMETERISATIONS)}"
            )
        self.scheduler = scheduler
        # The scheduler's own table, in double precision on the host: scalars are looked
        # up from it.
        self.alphas_cumprod = scheduler.alphas_cumprod.double().cpu()
        refuse_blind("this model", kind, self.alphas_cumprod)

    @property
    def steps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    def alpha_sigma(self, t: int) -> tuple[float, float]:
        """sqrt(abar_t) and sqrt(1 - abar_t).

        Raises :class:`UserError` outside the schedule.
        """
        if not 0 <= t < self.steps:
            raise UserError(f"timestep {t} is outside the model's schedule [0, {self.steps - 1}]")
        abar = float(self.alphas_cumprod[t])
        return abar**0.5, (1.0 - abar) ** 0.5

    def refuse_pure_noise(self, t: int, what: str) -> None:
        """Raises :class:`UserError` where x_t is noise alone, so that its eps is x_t
        itself and measures nothing.
        """
        if self.alpha_sigma(t)[0] == 0:
            raise UserError(
                f"{what}: this model's timestep {t} is pure noise (abar = 0), which holds no image;"
                " choose a lower time"
            )

    def timestep(self, t: float) -> int:
        """The index of continuous time t in (0, 1]: round(t T) - 1, since abar_i is the
        product of i + 1 factors.

        Raises :class:`UserError` outside the schedule.
        """
        index = round(t * self.steps) - 1
        if not 0 <= index < self.steps:
            raise UserError(
                f"time {t:g} is outside the model's schedule: choose {1 / self.steps:g} (its first"
                " step) to 1"
            )
        return index

    def to_eps(self, prediction: torch.Tensor, x: torch.Tensor, t: int) -> torch.Tensor:
        """The raw prediction at (x, t) as epsilon (module docstring)."""
        alpha, sigma = self.alpha_sigma(t)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return alpha * prediction + sigma * x
        if kind == "sample":
            return (x - alpha * prediction) / sigma
        return prediction

    def x0_eps(
        self, prediction: torch.Tensor, x: torch.Tensor, t: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The raw prediction at (x, t) as (x0, eps), of which no v divides by alpha."""
        alpha, sigma = self.alpha_sigma(t)
        eps = self.to_eps(prediction, x, t)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return alpha * x - sigma * prediction, eps
        return prediction if kind == "sample" else (x - sigma * eps) / alpha, eps

    def target(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network was trained to predict at x_t. t: int [n]."""
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return self.scheduler.get_velocity(x0, noise, t)
        return x0 if kind == "sample" else noise

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, by the model's own scheduler.
        t: int [n].
        """
        return self.scheduler.add_noise(x0, noise, t)
