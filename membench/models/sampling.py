"""DDIM over a Denoiser (Song et al. 2021, eq. 12 with eta = 0), from per-sample noise."""

from __future__ import annotations

from collections.abc import Callable

import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.names import named, stepped
from membench.models.schedule import limited, spaced


def timesteps(model: Denoiser, steps: int) -> list[int]:
    """The model's own sampling schedule: Stable Diffusion's leading spacing gives 981,
    961, ..., 1 for 50 steps.

    Raises :class:`UserError` unless 1 <= steps <= T, and where the schedule would not
    begin at the noise that sampling begins with
    (:func:`membench.models.schedule.spaced`).
    """
    return spaced(model.scheduler, steps)


def pure_noise(model: Denoiser, steps: int) -> int:
    """How many of the first timesteps have abar = 0 (zero terminal SNR): there eps is
    x_t, whatever the condition.
    """
    return sum(model.alpha_sigma(t)[0] == 0 for t in timesteps(model, steps))


# (number of the step, timestep, x_t, eps for null, eps for the condition)
Observer = Callable[[int, int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
Visitor = Callable[[int, int, "torch.Tensor", "torch.Tensor | None", "torch.Tensor"], None]
Correction = Callable[["torch.Tensor", int, "torch.Tensor"], "torch.Tensor"]


def ddim_step(
    model: Denoiser,
    x: torch.Tensor,
    prediction: torch.Tensor,
    t: int,
    before: int | None,
    *,
    correct: Correction | None = None,
) -> torch.Tensor:
    """x_t to x_before: alpha' x0 + sigma' eps, with x0 limited as the model says.
    before: the next timestep of the schedule, or None.

    prediction: the network's own, [n, *shape]. After the last timestep alpha' is that
    of ``set_alpha_to_one``: 1, or alpha_0. Computed in double precision, for x0 = (x_t
    - sigma eps) / alpha has lost half its digits where alpha is small.

    correct: changes eps, by a guiding gradient. Then eps is derived again from the
    limited x0, so that both describe the same x_t (``use_clipped_model_output`` of
    diffusers): otherwise each step adds the part of the gradient that the clamp took out
    of x0, and the error feeds back. guided-diffusion and GLIDE clip in another order:
    x0 before the gradient is added, and not again after it. Where x_t is noise alone
    (abar = 0) it says nothing of a class, and the gradient is 0.
    """
    alpha, sigma = model.alpha_sigma(t)
    alpha_before, sigma_before = model.alpha_sigma(before) if before is not None else _final(model)
    exact = _double(x)
    x0, eps = model.x0_eps(_double(prediction), exact, t)
    corrected = correct is not None and alpha > 0
    if correct is not None and corrected:
        eps = _double(correct(x, t, eps.float()))
        x0 = (exact - sigma * eps) / alpha
    x0 = limited(model.scheduler, x0)
    if corrected:
        eps = (exact - alpha * x0) / sigma
    return (alpha_before * x0 + sigma_before * eps).float()


def _double(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.device.type == "mps" else x.double()  # Metal has single precision only


def _final(model: Denoiser) -> tuple[float, float]:
    abar = float(model.scheduler.final_alpha_cumprod)
    return abar**0.5, (1 - abar) ** 0.5


def step_forwards(condition: Conditioning, guidance: float) -> int:
    """Network evaluations of one guided step of one image."""
    return 1 if guidance == 1.0 or condition.embeddings is None else 2


def ddim(
    model: Denoiser,
    x: torch.Tensor,
    condition: Conditioning,
    *,
    steps: int,
    guidance: float,
    stop: int | None = None,
    observe: Observer | None = None,
    visit: Visitor | None = None,
    correct: Correction | None = None,
) -> torch.Tensor:
    """Runs the first ``stop`` (default: all) of ``steps`` guided steps from noise ``x``
    [n, *shape].

    ``observe(k, t, x_t, eps_null, eps_cond)`` is called before the k-th update with
    both predictions, unscaled by the guidance; asking for it costs two forwards an
    image and step whatever the guidance (of a model without a condition one: both are
    the same). The state after the last observed step is not computed when ``stop`` <
    ``steps``: nobody reads it.

    ``visit`` is called there too, with the same, and costs nothing: eps_null is None at
    a step that needs one prediction only (guidance 1, or no condition).

    ``correct(x_t, t, eps)`` returns the epsilon to go on with: classifier guidance puts
    its gradient there.
    """
    stop = steps if stop is None else stop
    times = timesteps(model, steps)
    for k, t in enumerate(times[:stop]):
        if observe is None and step_forwards(condition, guidance) == 1:
            null, conditional = None, model.prediction(x, t, condition)
            raw = conditional
        else:
            null, conditional = both(model, x, t, condition)
            if observe is not None:
                observe(k, t, x, model.to_eps(null, x, t), model.to_eps(conditional, x, t))
            raw = conditional if null is conditional else null + guidance * (conditional - null)
        if visit is not None:
            eps_null = None if null is None else model.to_eps(null, x, t)
            visit(k, t, x, eps_null, model.to_eps(conditional, x, t))
        if k + 1 < stop or stop == steps or observe is None:
            before = times[k + 1] if k + 1 < steps else None
            # One prediction rounds otherwise than two that guidance 1 makes one of
            mixed = None if raw is conditional else guidance
            # What a gradient makes of a state, the step alone does not say
            names = None if correct else stepped(x, condition.keys, model.number, t, before, mixed)
            x = named(ddim_step(model, x, raw, t, before, correct=correct), names)
    return x


def both(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning
) -> tuple[torch.Tensor, torch.Tensor]:
    """(prediction for the null condition, for the condition); of a model without a
    condition, its one prediction twice.
    """
    if condition.embeddings is None:
        raw = model.prediction(x, t, condition)
        return raw, raw
    return model.prediction_pair(x, t, condition)


def ddim_invert(
    model: Denoiser, x0: torch.Tensor, condition: Conditioning, *, t: int, steps: int
) -> torch.Tensor:
    """Carries clean states [n, *shape] to timestep ``t`` by the deterministic forward
    ODE, in ``steps`` equal steps of time.

    DDIM's update (Song et al. 2021, eq. 12, eta = 0) read from clean to noisy: at each
    step eps is taken where the step begins, at the first one at timestep 0. No
    guidance. Costs ``steps`` forwards an image. Raises :class:`UserError` unless 1 <=
    steps <= t + 1.
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
