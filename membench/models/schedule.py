"""What DDIM takes from a scheduler: the timesteps of a number of steps, and the range
of a predicted x0.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from membench.errors import UserError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

SPACINGS = ("leading", "trailing", "linspace")
PARAMETERISATIONS = ("epsilon", "v_prediction", "sample")
TINY = 2.0**-126  # the least normal number in single precision


def refuse_blind(model: str, prediction_type: str, abar: torch.Tensor) -> None:
    """Raises :class:`UserError` where the network predicts the noise, and a timestep is
    noise alone.

    There x0 = (x - sigma eps) / alpha is 0 / 0. A prediction of v or of x0 says what x0
    is. Below the least normal number abar is as good as 0: it has no digits left.
    """
    if prediction_type == "epsilon" and float(abar.min()) < TINY:
        raise UserError(
            f"{model}: the schedule ends in pure noise (abar = 0; rescale_betas_zero_snr, or betas"
            " that are too large), where prediction_type=epsilon says nothing of the image; such a"
            " model has to predict v_prediction or sample"
        )


def spaced(scheduler: DDIMScheduler, steps: int) -> list[int]:
    """``steps`` timesteps, from noise to data, spaced as the scheduler says.

    Raises :class:`UserError` where they would not begin at the noise that sampling
    begins with (see :func:`_unfit`), with the numbers of steps next to it that do.
    """
    total = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= total:
        raise UserError(f"{steps} sampling steps: choose 1 to {total}")
    found = _spaced(scheduler, steps)
    if not (why := _unfit(scheduler, found)):
        return found
    fit = [
        next((n for n in way if not _unfit(scheduler, _spaced(scheduler, n))), None)
        for way in _around(steps, total)
    ]
    near = " or ".join(str(n) for n in fit if n is not None)
    raise UserError(
        f"{steps} sampling steps: {why}; " + (f"choose {near}" if near else "get the model again")
    )


def _around(steps: int, total: int) -> tuple[range, range]:
    return range(steps - 1, 0, -1), range(steps + 1, total + 1)


def _spaced(scheduler: DDIMScheduler, steps: int) -> list[int]:
    scheduler.set_timesteps(steps)
    # numpy.arange makes one too many, -1, of some trailing steps, whose spacing is no
    # binary fraction.
    return scheduler.timesteps[:steps].long().tolist()


def _unfit(scheduler: DDIMScheduler, timesteps: list[int]) -> str:
    """Why these timesteps cannot be sampled; empty where they can.

    Sampling begins with pure noise, so the first timestep has to be near T. Leading
    spacing begins a spacing of T // steps below it, and where steps does not divide T,
    lower: 600 of 1,000 steps, one apart, would begin at 599. Allowed is a tenth of T,
    or for few steps two spacings, but no more than half of T.
    """
    config = scheduler.config
    total, steps, first = int(config.num_train_timesteps), len(timesteps), timesteps[0]
    named = f"timestep_spacing={config.timestep_spacing}"
    if first >= total:
        return (
            f"steps_offset={config.steps_offset} and {named} would begin at timestep {first}, and"
            f" the last is {total - 1}"
        )
    if timesteps[-1] < 0 or any(a <= b for a, b in pairwise(timesteps)):
        return f"{named} gives timesteps that do not fall"
    if total - 1 - first > max(total / 10, min(2 * total / steps, total / 2)):
        return (
            f"{named} would begin at timestep {first} of {total}, though sampling begins with pure"
            " noise"
        )
    return ""


def limited(scheduler: DDIMScheduler, x0: torch.Tensor) -> torch.Tensor:
    """A predicted x0 [n, *shape] within the range that the scheduler allows.

    ``thresholding`` (Saharia et al. 2022, section 2.3) goes before ``clip_sample``, as
    in diffusers: s is a quantile of |x0| of each image, at least 1 and at most
    ``sample_max_value``, and x0 becomes clamp(x0, -s, s) / s.
    """
    config = scheduler.config
    if config.thresholding:
        # Row by row: quantile takes 16 million numbers at most.
        quantiles = [row.abs().quantile(config.dynamic_thresholding_ratio) for row in x0.flatten(1)]
        if not quantiles:
            return x0
        s = torch.stack(quantiles).clamp(min=1).clamp(max=config.sample_max_value)
        s = s.view(-1, *[1] * (x0.ndim - 1))
        return x0.clamp(-s, s) / s
    if config.clip_sample:
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
    return x0
