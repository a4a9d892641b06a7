"""Likelihood of an image, and SIDE's memorization divergence at it (Song et al. 2021,
arXiv 2011.13456; Chen et al. 2024, arXiv 2410.02467).

p is the model's density by its probability-flow ODE (membench/models/likelihood.py).
Without ``epsilon`` the score is log p(x), in nats. With it, minus the pointwise
divergence

    KL(N(x, epsilon^2 I) || p) = -D/2 log(2 pi e epsilon^2) - E log p(x + epsilon n),

over ``noises`` noises n: a model that has memorized x puts a peak there, and the
divergence is small where the peak is as wide as epsilon. epsilon is in units of the
state: of pixels, half the range from black to white is 1.

Each point costs 1.5 steps times (probes JVPs + 1 forward).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.metrics.divergence import pointwise_divergence
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.derivative import Derivative, choose
from membench.models.likelihood import flow_forwards, flow_times, log_density
from membench.models.trace import SMALL, Trace, small
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .base import CONDITION, IMAGES, ByCondition


@dataclass(frozen=True)
class LikelihoodOptions:
    epsilon: float | None = field(
        default=None,
        metadata={
            "help": "of the pointwise divergence; none: log p of the image itself",
            "min": 1e-6,
            "max": 100.0,
        },
    )
    noises: int = field(default=4, metadata={"help": "of the divergence, an image", "min": 1})
    steps: int = field(default=20, metadata={"help": "of the flow", "min": 2, "max": 1000})
    probes: int = field(
        default=4,
        metadata={
            "help": f"Hutchinson's, an image; up to D = {SMALL} the trace is exact",
            "min": 1,
        },
    )
    tolerance: float = field(
        default=0.1,
        metadata={
            "help": "largest error of the steps, nats a dimension; an image beyond it has failed",
            "min": 0.0,
        },
    )
    dequantise: bool = field(
        default=False,
        metadata={
            "help": "uniform noise of one grey level on the image, as for bits per dimension"
        },
    )
    t0: float = field(
        default=0.0,
        metadata={"help": "time of the density, 0: the first timestep", "min": 0, "max": 0.999},
    )
    condition: Literal["auto", "conditional", "unconditional"] = field(
        default="auto", metadata=CONDITION
    )
    derivative: Derivative = field(
        default="auto", metadata={"help": "jvp: forward mode; difference: central, float32"}
    )
    images: int = field(default=1, metadata=IMAGES)


class Likelihood(ByCondition):
    """log p of an image by the probability-flow ODE, or SIDE's pointwise divergence
    (Song et al. 2021; Chen et al. 2024).
    """

    Options: ClassVar[type] = LikelihoodOptions
    version = 1
    access = Access(gradients=True, images=True)
    failure = (
        "the flow did not converge within tolerance (more steps have a smaller error), or the"
        " network returned NaN or infinity"
    )
    usual = "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        choose(model, self.options.derivative)
        if self.options.epsilon is None:
            refuse_unread(self.options, ("noises",), "they are of the divergence; set epsilon")
        if model.latents and self.options.dequantise:
            raise UserError(
                "dequantise is of pixels, and this model's states are latents; leave it out"
            )
        if len(self._times(model)) < 3:
            raise UserError(
                f"t0={self.options.t0:g} leaves no flow between it and noise; choose a lower time"
            )

    def _times(self, model: Denoiser) -> list[int]:
        t0 = self.options.t0
        return flow_times(model, model.timestep(t0) if t0 else 0, self.options.steps)

    def _trace(self, model: Denoiser) -> Trace:
        probes = self.options.probes
        return Trace(model.shape, small(model.shape, probes), probes)

    def log_p(
        self, model: Denoiser, y: torch.Tensor, condition: Conditioning, names: Sequence[str]
    ) -> torch.Tensor:
        """log p [n] at clean states y [n, *shape], NaN where the flow did not converge;
        names: fix the probes of each.
        """
        times, trace = self._times(model), self._trace(model)
        x, vectors = model.alpha_sigma(times[0])[0] * y, trace.vectors(names, self.seed)
        how = self.options.derivative
        found = log_density(model, x, condition, times, vectors, trace, derivative=how)
        converged = found.error <= self.options.tolerance * math.prod(model.shape)
        return torch.where(converged, found.value, math.nan)

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        y, told, o = model.encode(images), self.told(model, conditions), self.options
        if o.dequantise:
            y = y + self._uniform(model, names).to(y) / 127.5
        if o.epsilon is None:
            return self.log_p(model, y, told, names).tolist()
        noise = model.noise([(f"near/{n}", k) for n in names for k in range(o.noises)], self.seed)
        near = y.repeat_interleave(o.noises, dim=0) + o.epsilon * noise
        found = self.log_p(
            model, near, told.repeat(o.noises), [n for n in names for _ in range(o.noises)]
        )
        return (
            -pointwise_divergence(found.view(len(y), o.noises).numpy(), o.epsilon, y[0].numel())
        ).tolist()

    def _uniform(self, model: Denoiser, names: Sequence[str]) -> torch.Tensor:
        """In [-1/2, 1/2], [n, *shape]."""
        normal = model.noise([(f"dequantise/{name}", 0) for name in names], self.seed)
        return torch.special.ndtr(normal.cpu().double()) - 0.5

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        o, count = self.options, self._trace(model).count
        points = 1 if o.epsilon is None else o.noises
        each = flow_forwards(len(self._times(model)), count, choose(model, o.derivative))
        return self.sampling_forwards(model, request) + points * each
