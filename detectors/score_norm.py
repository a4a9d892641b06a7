"""Score norm (Ross et al., ICLR 2025).

Near a memorized image the score s(x_t, t) = -eps(x_t, t) / sigma_t, which points back
to a manifold of too low a dimension, is large. With alpha = sqrt(abar_t) and sigma =
sqrt(1 - abar_t) of the model's own scheduler (the reference code assumes a linear
schedule):

    score = || eps(x_t, t, c) ||, conditional or guided: eps_0 + w (eps_c - eps_0), w = 7.5

at x_t on a trajectory from noise, or at an image. Higher = more memorized. The authors'
code scores an image by the conditional form, at t = 0.5 after 10 steps; the guided form,
the default for captions, is from its mitigation. Its sisters, which estimate the
dimension, are flipd.py and normal_bundle.py.

arXiv 2411.00113.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, ddim_invert, pure_noise, timesteps
from membench.options import refuse_unread
from membench.types import Access, Condition, Request, Sample

from .base import IMAGES, ByCondition, noised, own_draws, samples


@dataclass(frozen=True)
class ScoreNormOptions:
    at: Literal["auto", "trajectory", "image", "noised"] = field(
        default="auto",
        metadata={
            "help": (
                "trajectory: x_t on the model's own path from noise; image: the image carried to t"
                " by the deterministic forward ODE; noised: the image with noise added, averaged"
                " over draws; auto: image where the example is one"
            )
        },
    )
    t: float | None = field(
        default=None,
        metadata={
            "help": (
                "time in (0, 1]; none: 1 on a trajectory, whose nearest step counts; "
                "from an image 0.5 in latents, in pixels 0.2 (noised: 0.1)"
            ),
            "min": 0,
            "max": 1,
        },
    )
    norm: Literal["eps", "score"] = field(
        default="eps", metadata={"help": "eps: ||eps||; score: ||s|| = ||eps|| / sigma_t"}
    )
    condition: Literal["auto", "conditional", "unconditional", "guided", "difference"] = field(
        default="auto",
        metadata={
            "help": (
                "guided: eps_0 + w (eps_c - eps_0); difference: eps_c - eps_0; auto: guided for"
                " captions, conditional for classes, unconditional of a model without a condition"
            )
        },
    )
    weight: float = field(
        default=7.5,
        metadata={"help": "w of condition=guided, and of a prompt's trajectory", "min": 0.0},
    )
    draws: int = field(
        default=4,
        metadata={
            "help": "trajectory: noises per prompt; noised: noises per image",
            "min": 1,
            "max": 10_000,
        },
    )
    trajectory: int = field(
        default=50,
        metadata={
            "help": "DDIM steps of the whole trajectory of a prompt's score",
            "min": 1,
            "max": 1000,
        },
    )
    ode_steps: int = field(
        default=10, metadata={"help": "image: steps of the forward ODE", "min": 1, "max": 1000}
    )
    images: int = field(default=1, metadata=IMAGES)


class ScoreNorm(ByCondition):
    """Norm of the score on a trajectory from noise, or at an image (Ross et al., ICLR
    2025).
    """

    Options: ClassVar[type] = ScoreNormOptions
    version = 3
    tuning = MappingProxyType(
        {
            "images": {
                "at": ("image", "noised"),
                "t": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
                "norm": ("eps", "score"),
                "condition": ("conditional", "unconditional", "difference"),
            },
            "prompts": {
                "t": (None, 0.9, 0.7, 0.5),
                "condition": ("auto", "conditional", "difference"),
            },
        }
    )
    access = Access()

    usual = "guided"

    def __init__(
        self, options: ScoreNormOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.access = Access(
            images=options.at in ("image", "noised") and self.examples == "prompts"
        )

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        o = self.options
        by_image = self._by_image()
        at = o.at if o.at != "auto" else "image" if by_image else "trajectory"
        unread = {
            "trajectory": ("ode_steps",),
            "image": ("draws", "trajectory"),
            "noised": ("trajectory", "ode_steps"),
        }
        refuse_unread(o, unread[at], f"at={at} does not read it")
        # Of a prompt's trajectory w is the guidance, too
        if (at != "trajectory" or self.examples == "images") and self.variant(model) != "guided":
            refuse_unread(o, ("weight",), f"condition={self.variant(model)} does not read it")
        if by_image:
            super().check(model, conditions)
        else:  # a prompt needs no image here
            super().check(model, [c for c in conditions if c.image is not None])
            if own_draws(conditions, 2) == 1:
                refuse_unread(
                    o,
                    ("draws", "trajectory"),
                    "an image is scored on the trajectory that generated it, as the task samples",
                )
            if own_draws(conditions, 2) > 1:
                steps_before, _ = self._step(model, o.trajectory)
                if not steps_before and self.variant(model) != "guided":
                    why = "the norm is taken before a step is, which it would guide; choose a lower"
                    refuse_unread(o, ("weight",), f"{why} t, or condition=guided")
            if own_draws(conditions, 2) == 1 or o.images:
                self._step(model, self.steps)
        if by_image:
            model.refuse_pure_noise(self._index(model, True), f"t={o.t}")
            if o.at != "noised" and o.ode_steps > self._index(model, True) + 1:
                raise UserError(
                    f"ode_steps={o.ode_steps} is more than there are timesteps up to t; lower it"
                )

    def _by_image(self) -> bool:
        return self.options.at in ("image", "noised") or (
            self.options.at == "auto" and self.examples == "images"
        )

    def _index(self, model: Denoiser, image: bool) -> int:
        pixels = 0.1 if self.options.at == "noised" else 0.2
        default = (0.5 if model.latents else pixels) if image else 1.0
        return model.timestep(default if self.options.t is None else self.options.t)

    def _norm(
        self, model: Denoiser, t: int, null: torch.Tensor, told: torch.Tensor
    ) -> torch.Tensor:
        """The norm [n] of two predictions at timestep t, of which a variant may need
        one.
        """
        eps = {
            "unconditional": lambda: null,
            "conditional": lambda: told,
            "guided": lambda: null + self.options.weight * (told - null),
            "difference": lambda: told - null,
        }[self.variant(model)]()
        norm = eps.flatten(1).norm(dim=1)
        return norm / model.alpha_sigma(t)[1] if self.options.norm == "score" else norm

    def _norm_at(
        self, model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning
    ) -> torch.Tensor:
        """The norm [n] at (x, t), in one forward an image or two."""
        variant = self.variant(model)
        if variant in ("guided", "difference"):
            return self._norm(model, t, *model.eps_pair(x, t, condition))
        eps = model.eps(
            x, t, condition if variant == "conditional" else model.null_like(condition, len(x))
        )
        return self._norm(model, t, eps, eps)

    # (a) on the trajectory

    def _step(self, model: Denoiser, steps: int) -> tuple[int, int]:
        """(number, timestep) of the one of ``steps`` that is nearest to t, but for pure
        noise, whose norm is not a prediction's.
        """
        wanted, times = self._index(model, False), list(enumerate(timesteps(model, steps)))
        if not (seen := times[pure_noise(model, steps) :]):
            raise UserError(
                f"each of the {steps} steps begins at pure noise (abar = 0), where eps is x_t"
                " itself; take more steps"
            )
        return min(seen, key=lambda step: abs(step[1] - wanted))

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        if self._by_image():
            return super().score(model, conditions, extracted)
        o = self.options
        n = own_draws(conditions, o.draws)
        rows = [(c, draw) for c in conditions for draw in range(n)]
        x, told = model.starts(rows, self.seed), model.condition([c for c, _ in rows])
        # A generated image's own way is the task's.
        steps, weight = (
            (self.steps, self.weight)
            if all(c.start is not None for c in conditions)
            else (o.trajectory, o.weight)
        )
        k, t = self._step(model, steps)
        x = ddim(model, x, told, steps=steps, guidance=weight, stop=k)
        return self._norm_at(model, x, t, told).view(len(conditions), n).mean(dim=1).tolist()

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """On the trajectory an image is as sure as the norm on its own way, which is
        the task's.
        """
        conditions = [r.condition for r in requests]
        if self._by_image():
            return super().extract(model, requests)
        wanted, _ = self._step(model, self.steps)
        norms = torch.empty(0)

        def observe(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor, told: torch.Tensor
        ) -> None:
            nonlocal norms
            if k == wanted:
                norms = self._norm(model, t, null, told)

        x, told = (
            model.starts([(r.condition, r.draw) for r in requests], self.seed),
            model.condition(conditions),
        )
        x = ddim(model, x, told, steps=self.steps, guidance=self.weight, observe=observe)
        return samples(requests, x, model.decode(x), norms.tolist())

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        if not self._by_image():
            return self.steps * (2 if model.has_condition else 1)
        each = 2 if self.variant(model) in ("guided", "difference") else 1
        measured = (
            self.options.draws * each
            if self.options.at == "noised"
            else self.options.ode_steps + each
        )
        return self.sampling_forwards(model, request) + measured

    # (b) from an image

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        o, condition, t = self.options, model.condition(conditions), self._index(model, True)
        if o.at == "noised":
            x = noised(model, images, names, t=t, draws=o.draws, seed=self.seed)
            return (
                self._norm_at(model, x, t, condition.repeat(o.draws))
                .view(len(images), o.draws)
                .mean(dim=1)
                .tolist()
            )
        way = (
            model.null_like(condition, len(images))
            if self.variant(model) == "unconditional"
            else condition
        )
        x = ddim_invert(model, model.encode(images), way, t=t, steps=o.ode_steps)
        return self._norm_at(model, x, t, condition).tolist()
