"""The forward ODE of DDIM, by a model whose epsilon is always the same: then x_t is
alpha_t x0 + sigma_t eps whatever the steps.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from membench.models.sampling import ddim_invert


class Same:
    """Its epsilon, and the timesteps that it was asked at."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.noise = torch.full((2, 3), 0.5, dtype=torch.float64)

    def alpha_sigma(self, t: int) -> tuple[float, float]:
        abar = 1 - (t + 1) / 1001
        return abar**0.5, (1 - abar) ** 0.5

    def eps(self, x: torch.Tensor, t: int, condition: Any) -> torch.Tensor:
        self.asked.append(t)
        return self.noise


@pytest.mark.parametrize(
    ("t", "steps", "asked"),
    [(999, 4, [0, 249, 499, 749]), (9, 3, [0, 2, 6]), (3, 4, [0, 0, 1, 2]), (0, 1, [0])],
)
def test_each_step_begins_where_the_last_has_ended(t: int, steps: int, asked: list[int]) -> None:
    model: Any = Same()
    x0 = torch.arange(6, dtype=torch.float64).view(2, 3)
    found = ddim_invert(model, x0, None, t=t, steps=steps)  # type: ignore[arg-type]
    alpha, sigma = model.alpha_sigma(t)
    assert model.asked == asked
    torch.testing.assert_close(found, alpha * x0 + sigma * model.noise)
