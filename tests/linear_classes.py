"""A denoiser whose eps is linear in x and differs from one timestep to the next, of which
detectors have closed forms.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from membench.models.pixel import PixelDenoiser
from membench.types import Condition

KINDS = ("epsilon", "v_prediction")
CONDITIONS = [Condition("p", class_label=0), Condition("q", class_label=1)]
# Of diffusers' default schedule, written out: betas rise linearly.
ABAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def alpha_sigma(t: int) -> tuple[float, float]:
    return float(ABAR[t]) ** 0.5, float(1 - ABAR[t]) ** 0.5


def pace(t: int) -> float:
    """What the eps of timestep t is multiplied with: another number at each, so that one
    that is asked for at a wrong timestep is seen.
    """
    return 1 + 0.05 * float(np.sin(t))


class Linear(torch.nn.Module):
    """eps(x, t, c) = pace(t) M_c x, as the scheduler predicts; null's matrix is the last."""

    def __init__(self, matrices: np.ndarray, kind: str) -> None:
        super().__init__()
        self.matrices = torch.from_numpy(matrices)
        self.kind = kind
        self.config: Any = {"num_class_embeds": len(matrices)}
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, x: torch.Tensor, t: int, labels: torch.Tensor | None = None
    ) -> SimpleNamespace:
        told = torch.zeros(len(x), dtype=torch.long) if labels is None else labels
        flat = x.double().flatten(1)
        eps = pace(int(t)) * torch.einsum("nij,nj->ni", self.matrices[told], flat)
        if self.kind == "v_prediction":
            alpha, sigma = alpha_sigma(int(t))
            eps = (eps - sigma * flat) / alpha
        return SimpleNamespace(sample=eps.view_as(x).to(x.dtype))


def matrices(classes: int, size: int, *, null: bool = True, seed: int = 0) -> np.ndarray:
    """Near the identity, the eps of a standard normal, so that states stay small."""
    rng = np.random.default_rng(seed)
    return np.eye(size) + 0.1 * rng.normal(size=(classes + null, size, size)) / size**0.5


def linear(
    shape: tuple[int, ...] = (2, 4, 4),
    kind: str = "epsilon",
    classes: int = 2,
    null: bool = True,
    batch_size: int = 64,
) -> tuple[PixelDenoiser, np.ndarray]:
    """The denoiser and its matrices [classes and null, D, D]; else one matrix."""
    made = matrices(classes or 1, int(np.prod(shape)), null=null and classes > 0)
    scheduler = DDIMScheduler(clip_sample=False, prediction_type=kind)
    net = Linear(made, kind)
    return PixelDenoiser(net, scheduler, shape=shape, classes=classes, batch_size=batch_size), made


def trajectory(
    x: np.ndarray, told: np.ndarray, null: np.ndarray, *, steps: int, guidance: float
) -> tuple[list[int], list[np.ndarray]]:
    """Timesteps and states of guided DDIM from the flat noise ``x``, by hand."""
    times = [1000 // steps * k for k in range(steps)][::-1]
    states = [x.astype(float)]
    for t, before in zip(times, [*times[1:], None], strict=True):
        alpha, sigma = alpha_sigma(t)
        after, left = alpha_sigma(before) if before is not None else (1.0, 0.0)
        eps = pace(t) * (null @ states[-1] + guidance * (told - null) @ states[-1])
        states.append(after * (states[-1] - sigma * eps) / alpha + left * eps)
    return times, states
