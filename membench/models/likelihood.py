"""Log-densities of a diffusion model by its probability-flow ODE (Song et al. 2021, arXiv
2011.13456, section 4.3).

With y = x / alpha and s = sigma / alpha the flow of a variance-preserving model is

    dy / ds = eps(alpha y, t(s)),    d log p / ds = -alpha tr(d eps / d x),

so that log p(y at s_0) = log N(x_T; 0, I) + D log alpha_T + integral of alpha tr ds.
Only the timesteps that the network was trained on are asked: an adaptive solver would
ask between them. The state moves by Heun's rule in s, in which the flow of a single
point is a straight line; the trace is summed by trapezoids in log s, in which it is a
constant there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .conditioning import Conditioning
from .denoiser import Denoiser
from .derivative import Derivative, Vectors, choose, forms_price, quadratic_forms
from .trace import Trace


@dataclass(frozen=True)
class LogDensity:
    """Natural logarithms, [n] in double precision.

    ``value``: of the density of x / alpha at the first timestep. ``error``: how far off
    the steps of the flow leave it, from half as many. ``spread``: standard error over
    random probes; 0 where the trace is exact, NaN of a single probe.
    """

    value: torch.Tensor
    error: torch.Tensor
    spread: torch.Tensor


def flow_times(model: Denoiser, first: int, steps: int) -> list[int]:
    """Up to ``steps`` + 1 timesteps from ``first`` to the last that holds an image,
    evenly spaced in log s as far as whole timesteps are.
    """
    abar = model.alphas_cumprod.double().cpu().numpy()
    last = int(np.flatnonzero(abar > 0)[-1])
    s = 0.5 * np.log((1 - abar[first : last + 1]) / abar[first : last + 1])
    wanted = np.linspace(s[0], s[-1], steps + 1)
    return sorted({first + int(np.abs(s - w).argmin()) for w in wanted})


def flow_forwards(times: int, vectors: int, how: str) -> int:
    """Evaluations a row of :func:`log_density` over that many timesteps; a JVP counts
    as one.
    """
    each = forms_price(vectors, how)
    coarse = len(_every_other(list(range(times))))
    return times * each + times - 1 + coarse * each + coarse - 1


def log_density(
    model: Denoiser,
    x: torch.Tensor,
    condition: Conditioning,
    times: list[int],
    vectors: Vectors,
    trace: Trace,
    *,
    derivative: Derivative = "auto",
) -> LogDensity:
    """log p of states x [n, *shape] of timestep ``times[0]`` under the condition.

    vectors: of the trace, for these rows.
    """
    how = choose(model, derivative)

    def solved(at: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        prior, forms = _flow(model, x, condition, at, vectors, trace.count, how)
        return prior + trace.of(forms), forms

    (value, forms), (less, _) = solved(times), solved(_every_other(times))
    spread = torch.zeros_like(value)
    if not trace.exact and trace.count == 1:
        spread = torch.full_like(value, math.nan)
    elif not trace.exact:
        spread = forms.std(dim=0) / math.sqrt(trace.count)
    # Both rules are of second order: of twice the step the error is four times as large
    return LogDensity(value, (value - less).abs() / 3, spread)


def _every_other(times: list[int]) -> list[int]:
    return sorted({*times[::2], times[-1]})


def _flow(
    model: Denoiser,
    x: torch.Tensor,
    condition: Conditioning,
    times: list[int],
    vectors: Vectors,
    count: int,
    how: Literal["jvp", "difference"],
) -> tuple[torch.Tensor, torch.Tensor]:
    """log N(x_T; 0, I) + D log alpha_T [n], and the integral of each probe's form
    [count, n].
    """
    alphas, sigmas = zip(*(model.alpha_sigma(t) for t in times), strict=True)
    s = [sigma / alpha for alpha, sigma in zip(alphas, sigmas, strict=True)]
    y = x.cpu().double() / alphas[0]  # on the host: Metal has no double precision
    total = torch.zeros(count, len(x), dtype=torch.float64)
    before: torch.Tensor | None = None  # sigma times the forms, at the timestep before
    for i, t in enumerate(times):
        eps, forms = quadratic_forms(
            model, (alphas[i] * y).to(x), t, condition, vectors, count, how
        )
        forms = sigmas[i] * forms
        if before is not None:
            total += (before + forms) / 2 * math.log(s[i] / s[i - 1])
        before = forms
        if i + 1 < len(times):
            step = s[i + 1] - s[i]
            begin = eps.cpu().double()
            there = (alphas[i + 1] * (y + step * begin)).to(x)
            end = model.eps(there, times[i + 1], condition, remember=False)
            y = y + step * (begin + end.cpu().double()) / 2
    size = y[0].numel()
    last = (alphas[-1] * y).flatten(1)
    prior = -0.5 * last.pow(2).sum(dim=1) - size / 2 * math.log(2 * math.pi)
    return prior + size * math.log(alphas[-1]), total
