"""A network that is linear in the state and in what it is told: its Jacobians are
matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler

from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.types import Condition

SHAPE, TOKENS, WIDTH = (1, 3, 4), 2, 3
D = 12


class Linear(torch.nn.Module):
    """The prediction A_k x + B e of prompt number k, whose embedding e begins with k."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.a = torch.nn.Parameter(torch.randn(prompts, D, D, generator=source) / D**0.5)
        self.b = torch.nn.Parameter(torch.randn(D, TOKENS * WIDTH, generator=source))

    def forward(self, x: torch.Tensor, t: int, told: torch.Tensor) -> SimpleNamespace:
        a = self.a[told[:, 0, 0].detach().round().long()]
        out = (a @ x.flatten(1)[:, :, None])[:, :, 0] + told.flatten(1) @ self.b.T
        return SimpleNamespace(sample=out.view_as(x))


class LinearModel(Denoiser):
    """Prompts "1", "2", ...; the null condition is number 0."""

    takes_text = True
    latents = True

    def __init__(self, prediction: str = "epsilon", prompts: int = 4, batch_size: int = 64) -> None:
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        ends = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
        scheduler = DDIMScheduler(**betas, **ends, prediction_type=prediction)
        super().__init__(Linear(prompts), scheduler, shape=SHAPE, batch_size=batch_size)

    def _forward(self, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
        return self._run(x, t, condition.embeddings).sample

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        numbers = [float(c.prompt or 0) for c in conditions]
        rows = torch.zeros(len(numbers), TOKENS, WIDTH)
        rows[:, 0, 0] = torch.tensor(numbers)
        return Conditioning(rows.to(self.dtype))

    def jacobian(self, prompt: str | None, t: int) -> torch.Tensor:
        """Of eps in x, [D, D], in double precision."""
        a = self.network.a[int(prompt or 0)].double()  # type: ignore[union-attr, index]
        alpha, sigma = self.alpha_sigma(t)
        if self.scheduler.config.prediction_type == "v_prediction":
            return alpha * a + sigma * torch.eye(D, dtype=torch.float64)
        return a


def told(*prompts: str) -> list[Condition]:
    return [Condition(f"prompt/{p}", p) for p in prompts]
