"""DDIM over a Denoiser (Song et al. 2021, eq. 12 with eta = 0), from per-sample noise."""

from __future__ import annotations

from collections.abc import Callable

import torch

from membench.denoiser import Conditioning, Denoiser
from membench.errors import UserError


def timesteps(model: Denoiser, steps: int) -> list[int]:
    """The model's own sampling schedule: Stable Diffusion's leading spacing gives 981, 961, ..., 1 for 50 steps.

    Raises :class:`UserError` unless 1 <= steps <= T.
    """
    if not 1 <= steps <= model.steps:
        raise UserError(f"{steps} sampling steps: choose 1 to {model.steps}")
    model.scheduler.set_timesteps(steps)
    return [int(t) for t in model.scheduler.timesteps]


def ddim_step(model: Denoiser, x: torch.Tensor, eps: torch.Tensor, t: int, steps: int, *, corrected: bool = False) -> torch.Tensor:
    """x_t to x_{t - T/steps}: alpha' x0 + sigma' eps with x0 = (x_t - sigma eps) / alpha, clipped where the model says so.

    corrected: eps carries a guiding gradient. Then it is derived again from the clipped x0, so that both describe the same x_t (as
    guided-diffusion and GLIDE do; ``use_clipped_model_output`` of diffusers): otherwise each step adds the part of the gradient that the
    clamp took out of x0, and the error feeds back.
    """
    alpha, sigma = model.alpha_sigma(t)
    before = t - model.steps // steps
    # Below the schedule diffusers uses abar = 1 (set_alpha_to_one) or abar_0; so do we, to end on the same image.
    alpha_before, sigma_before = model.alpha_sigma(before) if before >= 0 else _final(model)
    x0 = (x - sigma * eps) / alpha
    if model.scheduler.config.clip_sample:
        limit = model.scheduler.config.clip_sample_range
        x0 = x0.clamp(-limit, limit)
        if corrected:
            eps = (x - alpha * x0) / sigma
    return alpha_before * x0 + sigma_before * eps


def _final(model: Denoiser) -> tuple[float, float]:
    abar = float(model.scheduler.final_alpha_cumprod)
    return abar**0.5, (1 - abar) ** 0.5


def step_forwards(condition: Conditioning, guidance: float) -> int:
    """Network evaluations of one guided step of one image."""
    return 1 if guidance == 1.0 or condition.embeddings is None else 2


Observer = Callable[[int, torch.Tensor, torch.Tensor], None]
Correction = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]


def ddim(
    model: Denoiser,
    x: torch.Tensor,
    condition: Conditioning,
    *,
    steps: int,
    guidance: float,
    stop: int | None = None,
    observe: Observer | None = None,
    correct: Correction | None = None,
) -> torch.Tensor:
    """Runs the first ``stop`` (default: all) of ``steps`` guided steps from noise ``x`` [n, *shape].

    ``observe(k, eps_null, eps_cond)`` is called before the k-th update with both predictions, unscaled by the
    guidance; asking for it costs two forwards an image and step whatever the guidance (of a model without a condition one: both are
    the same). The state after the last observed step is not computed when ``stop`` < ``steps``: nobody reads it.

    ``correct(x_t, t, eps)`` returns the epsilon to go on with: classifier guidance puts its gradient there.
    """
    stop = steps if stop is None else stop
    for k, t in enumerate(timesteps(model, steps)[:stop]):
        if observe is None:
            eps = model.guided(x, t, condition, guidance)
        else:
            null, conditional = both(model, x, t, condition)
            observe(k, null, conditional)
            eps = null + guidance * (conditional - null)
        if correct is not None:
            eps = correct(x, t, eps)
        if k + 1 < stop or stop == steps or observe is None:
            x = ddim_step(model, x, eps, t, steps, corrected=correct is not None)
    return x


def both(model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
    """(eps of the null condition, eps of the condition); of a model without a condition, its one eps twice."""
    if condition.embeddings is None:
        eps = model.eps(x, t, condition)
        return eps, eps
    return model.eps_pair(x, t, condition)


def ddim_invert(model: Denoiser, x0: torch.Tensor, condition: Conditioning, *, t: int, steps: int) -> torch.Tensor:
    """Carries clean states [n, *shape] to timestep ``t`` by the deterministic forward ODE, in ``steps`` equal steps of time.

    DDIM's update (Song et al. 2021, eq. 12, eta = 0) read from clean to noisy: at each step eps is taken where the step begins,
    at the first one at timestep 0. No guidance. Costs ``steps`` forwards an image.
    Raises :class:`UserError` unless 1 <= steps <= t + 1.
    """
    if not 1 <= steps <= t + 1:
        raise UserError(f"{steps} steps to timestep {t}: choose 1 to {t + 1}")
    x, alpha, sigma, at = x0, 1.0, 0.0, 0
    for k in range(1, steps + 1):
        after = round(k * (t + 1) / steps) - 1
        eps = model.eps(x, at, condition)
        alpha_after, sigma_after = model.alpha_sigma(after)
        x = alpha_after * (x - sigma * eps) / alpha + sigma_after * eps
        alpha, sigma, at = alpha_after, sigma_after, after
    return x
