"""Norm of the text-conditional noise prediction (Wen et al., ICLR 2024).

"Detecting, Explaining, and Mitigating Memorization in Diffusion Models", section 3:

    d = mean over steps and draws of || eps(x_t, c) - eps(x_t, null) ||_2

over all dimensions of one latent, before the guidance multiplies it, on the model's own
guided DDIM trajectory from noise. No training image and no decoding is needed. An
example that is a generated image is scored on the very trajectory that generated it:
its own noise, the task's steps and weight, the first ``image_steps`` of them: late on
that way a model that has memorized the image needs no class to generate it, and the
norm is smallest for copies (docs/design/pixel-tasks.md). Of a training image no noise
is known: it is scored at ``alpha_t x + sigma_t noise``, over ``image_draws`` noises at
time ``image_t``. ``steps=k`` looks at the first k of 50 steps and stops there (a
scheduler of one step would look at t = 1 instead of 981). One step and one draw cost 2
forwards. A step from pure noise (zero terminal SNR) does not count as one of the k:
there eps is x_t whatever the prompt, and the norm 0.

arXiv 2407.21720.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, pure_noise
from membench.options import refuse_unread
from membench.types import Access, Condition, Request, Sample

from .base import Draws, noised, own_draws, own_images, samples, unstarted
from .trajectories import GUIDANCE, IMAGES, TRAJECTORY


@dataclass(frozen=True)
class CfgNormOptions:
    draws: int = field(
        default=4,
        metadata={"help": "noises per prompt; the authors' code: 4", "min": 1, "max": 10_000},
    )
    steps: int = field(
        default=1,
        metadata={
            "help": "look at the first k of the trajectory's steps; the paper: 1, 10, 50",
            "min": 1,
        },
    )
    image_steps: int = field(
        default=5,
        metadata={
            "help": "for an image: the first k steps of its own trajectory; 0: all",
            "min": 0,
        },
    )
    image_draws: int = field(
        default=4,
        metadata={
            "help": "for an image whose noise is unknown: noises added to it",
            "min": 1,
            "max": 10_000,
        },
    )
    image_t: float = field(
        default=0.7,
        metadata={"help": "time in (0, 1] at which these are added", "min": 0, "max": 1},
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


class CfgNorm(Draws):
    Options = CfgNormOptions
    version = 1
    tuning = MappingProxyType(
        {
            "prompts": {"steps": (1, 2, 5, 10)},
            "images": {"image_t": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)},
        }
    )
    access = Access()

    def __init__(self, options: CfgNormOptions, *, seed: int, sampling: Mapping[str, Any]) -> None:
        if options.steps > options.trajectory:
            raise ValueError(f"steps={options.steps} is more than trajectory={options.trajectory}")
        super().__init__(options, seed=seed, sampling=sampling)

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if not model.has_condition:
            raise UserError(
                "this model has no condition: cfg_norm scores what a condition changes; choose"
                " flipd or score_norm"
            )
        if not model.has_null:
            raise UserError(
                "this model has no null class, so cfg_norm has nothing to compare its classes with;"
                " choose flipd"
            )
        if any(c.class_label is None and c.prompt is None for c in conditions):
            raise UserError(
                "these images come without a condition: cfg_norm scores what a condition changes;"
                " choose flipd or score_norm"
            )
        of_images = self.examples == "images"
        prompted = ("steps", "guidance", "trajectory")
        if any(unstarted(c) for c in conditions):
            if not all(unstarted(c) for c in conditions):
                raise UserError(
                    "of some of these images the noise is known and of others not; score them apart"
                )
            why = (
                "an image that was not generated is scored with noise added; set image_draws or"
                " image_t"
            )
            refuse_unread(self.options, (*prompted, "draws", "image_steps"), why)
            model.refuse_pure_noise(
                model.timestep(self.options.image_t), f"image_t={self.options.image_t}"
            )
        elif of_images:
            why = (
                "an image is scored on the trajectory that generated it, as the task samples; set"
                " image_steps"
            )
            # Where only its caption is known, an image has ``draws`` noises
            own = ("draws",) if own_draws(conditions, 2) == 1 else ()
            refuse_unread(self.options, (*prompted, *own, "image_draws", "image_t"), why)
        else:
            refuse_unread(
                self.options,
                ("image_steps", "image_draws", "image_t"),
                "the examples are prompts; set steps",
            )
            if self.options.steps == 1 and not pure_noise(model, self.options.trajectory):
                why = "steps=1 looks before a step is taken, which it would guide; take more steps"
                refuse_unread(self.options, ("guidance",), why)
        trajectories = [] if of_images else [(self.options.trajectory, self.options.steps)]
        trajectories += [(self.steps, 1)] if of_images or self.options.images else []
        for steps, looked in trajectories:
            if (blind := pure_noise(model, steps)) and blind + looked > steps:
                raise UserError(
                    f"the first of {steps} steps is from pure noise (abar = 0), where no condition"
                    " changes eps; take more"
                )

    def _norms(
        self,
        model: Denoiser,
        rows: Sequence[tuple[Condition, int]],
        stop: int | None,
        guidance: float,
        steps: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final (or last observed) state, and the mean norm over the observed steps
        [n].
        """
        norms: list[torch.Tensor] = []
        blind = pure_noise(model, steps)
        looked = self._looked()

        def observe(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor, conditional: torch.Tensor
        ) -> None:
            if blind <= k < blind + looked:
                norms.append((conditional - null).flatten(1).norm(dim=1))

        x = model.starts(rows, self.seed)
        stop = None if stop is None else min(blind + stop, steps)
        x = ddim(
            model,
            x,
            model.condition([c for c, _ in rows]),
            steps=steps,
            guidance=guidance,
            stop=stop,
            observe=observe,
        )
        return x, torch.stack(norms).mean(dim=0)

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        o = self.options
        if unstarted(conditions[0]):
            return self._noised(model, conditions)
        n = own_draws(conditions, o.draws)
        rows = [(c, draw) for c in conditions for draw in range(n)]
        if self.examples == "prompts":
            _, norms = self._norms(model, rows, o.steps, o.guidance, o.trajectory)
        else:
            _, norms = self._norms(model, rows, self._looked(), self.weight, self.steps)
        return norms.view(len(conditions), n).mean(dim=1).tolist()

    def _noised(self, model: Denoiser, conditions: Sequence[Condition]) -> list[float]:
        """At noised versions of images that were not generated."""
        n, t = self.options.image_draws, model.timestep(self.options.image_t)
        x = noised(
            model, own_images(conditions), [c.id for c in conditions], t=t, draws=n, seed=self.seed
        )
        null, conditional = model.eps_pair(x, t, model.condition(conditions).repeat(n))
        return (
            (conditional - null)
            .flatten(1)
            .norm(dim=1)
            .view(len(conditions), n)
            .mean(dim=1)
            .tolist()
        )

    def _looked(self) -> int:
        """How many first steps count: of a prompt's trajectory, or of an image's own."""
        o = self.options
        return (
            min(o.image_steps or self.steps, self.steps) if self.examples == "images" else o.steps
        )

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return 2 * self.steps

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Samples as the task samples, each as sure as the norm on its own first steps."""
        x, norms = self._norms(
            model, [(r.condition, r.draw) for r in requests], None, self.weight, self.steps
        )
        return samples(requests, x, model.decode(x), norms.tolist())
