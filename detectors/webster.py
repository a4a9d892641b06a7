"""Denoising confidence and edge consistency after one step (Webster 2023, arXiv
2305.08694).

A memorized caption decides the image at once: one guided step from pure noise lands
on it, sharp, whatever the noise.

    dcs    mean((z - D(z; sigma_max))^2)
           = sigma_max^2 || eps_0 + w (eps_c - eps_0) ||^2 / D          (white box)
    edge   the share of pixels that are an edge in more than half of
           the one-step images                                          (black box)

with z = sigma_max * noise in the units of the variance-exploding process, sigma_max =
sqrt((1 - abar_T) / abar_T) (14.6 for Stable Diffusion) and D its denoised image. One
Heun step to sigma = 0 is one Euler step: two evaluations (one at w = 1), at timestep T
- 1. The published scores of dcs are sums, not means: divide them by D = 16,384.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import step_forwards
from membench.options import refuse_unread
from membench.types import Access, Condition, Request, Sample

from .base import IMAGES, Draws, own_draws, refuse_untold, samples


class OneStep(Draws):
    """One guided step from noise, and what two scores make of it."""

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if not model.has_condition:
            raise UserError(
                "this model has no condition: dcs and edge score what a condition makes of noise;"
                " choose flipd or score_norm"
            )
        if not model.has_null and self.options.weight != 1:
            raise UserError(
                "this model has no null class, so nothing can be guided away from; choose weight=1"
            )
        if own_draws(conditions, 2) == 1:
            refuse_untold(conditions, "dcs scores what a condition makes of noise; choose flipd")
            refuse_unread(self.options, ("draws",), "an image was sampled from one noise")
        if model.alpha_sigma(model.steps - 1)[0] == 0:
            raise UserError(
                "this model's schedule ends in pure noise (abar = 0), where one step has no finite"
                " sigma to start from"
            )

    def step(
        self, model: Denoiser, rows: Sequence[tuple[Condition, int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_T = sqrt(1 - abar_T) noise, as z is scaled for the network, and the guided
        eps there, [n, *shape] each.
        """
        t = model.steps - 1
        x = model.alpha_sigma(t)[1] * model.starts(rows, self.seed)
        return x, model.guided(x, t, model.condition([c for c, _ in rows]), self.options.weight)

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + step_forwards(
            model.condition([request.condition]), self.options.weight
        )

    def sure(self, model: Denoiser, rows: Sequence[tuple[Condition, int]]) -> Sequence[float]:
        """How sure each noise on its own makes us."""
        raise NotImplementedError

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Samples as the task samples, each as sure as one step from its own noise."""
        x = self.draw(model, requests)
        return samples(
            requests,
            x,
            model.decode(x),
            self.sure(model, [(r.condition, r.draw) for r in requests]),
        )


@dataclass(frozen=True)
class DcsOptions:
    draws: int = field(
        default=4,
        metadata={"help": "noises per condition, averaged; the paper: 1", "min": 1, "max": 10_000},
    )
    weight: float = field(default=7.5, metadata={"help": "w of the guidance", "min": 0.0})
    images: int = field(default=1, metadata=IMAGES)


class Dcs(OneStep):
    """Denoising confidence of one step from noise (Webster 2023, white box)."""

    Options: ClassVar[type] = DcsOptions
    version = 1
    tuning = MappingProxyType({"prompts": {"weight": (0.0, 1.0, 3.0, 7.5, 15.0)}})
    access = Access()

    def sure(self, model: Denoiser, rows: Sequence[tuple[Condition, int]]) -> list[float]:
        alpha, sigma = model.alpha_sigma(model.steps - 1)
        _, eps = self.step(model, rows)
        return ((sigma / alpha) ** 2 * eps.flatten(1).pow(2).mean(dim=1)).tolist()

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        n = own_draws(conditions, self.options.draws)
        values = self.sure(model, [(c, draw) for c in conditions for draw in range(n)])
        return np.reshape(values, (len(conditions), n)).mean(axis=1).tolist()


@dataclass(frozen=True)
class EdgeOptions:
    draws: int = field(
        default=4,
        metadata={"help": "one-step images per condition; the paper: 4", "min": 1, "max": 10_000},
    )
    weight: float = field(default=7.5, metadata={"help": "w of the guidance", "min": 0.0})
    size: int = field(
        default=256,
        metadata={"help": "pixels a side at which edges are looked for; the paper: 256", "min": 2},
    )
    strength: float = field(
        default=1.5,
        metadata={
            "help": "least Sobel gradient of an edge, summed over RGB in [0, 1]; the paper: 1.5",
            "min": 0.0,
        },
    )
    images: int = field(default=1, metadata=IMAGES)


class Edge(OneStep):
    """Edges that several one-step images have in common (Webster 2023, black box)."""

    Options: ClassVar[type] = EdgeOptions
    version = 1
    access = Access()

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        if self.examples == "images":
            raise UserError(
                "edge compares what several noises of a prompt have in common, and an image was"
                " sampled from one; choose dcs"
            )

    def edges(
        self, model: Denoiser, rows: Sequence[tuple[Condition, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where each one-step image has an edge, bool [n, size, size], and which steps
        are finite, bool [n].
        """
        alpha, sigma = model.alpha_sigma(model.steps - 1)
        x, eps = self.step(model, rows)
        state = (x - sigma * eps) / alpha
        maps = [self.edge_map(image) for image in model.decode(state)]
        return np.stack(maps), state.flatten(1).isfinite().all(dim=1).cpu().numpy()

    def edge_map(self, image: np.ndarray) -> np.ndarray:
        from scipy import ndimage

        o = self.options
        pixels = (
            np.asarray(Image.fromarray(image).resize((o.size, o.size), Image.Resampling.LANCZOS))
            / 255
        )
        # On the [h, w, 3] array, as published: Sobel's smoothing then runs over the
        # channels too.
        gradient = np.hypot(ndimage.sobel(pixels, axis=0), ndimage.sobel(pixels, axis=1))
        return gradient.sum(axis=2) > o.strength

    def sure(self, model: Denoiser, rows: Sequence[tuple[Condition, int]]) -> list[float]:
        maps, finite = self.edges(model, rows)
        return np.where(finite, maps.mean(axis=(1, 2)), np.nan).tolist()

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        n = self.options.draws
        maps, finite = self.edges(model, [(c, draw) for c in conditions for draw in range(n)])
        counts = maps.reshape(len(conditions), n, *maps.shape[1:]).sum(axis=1)
        share = (2 * counts > n).mean(axis=(1, 2))
        return np.where(finite.reshape(-1, n).all(axis=1), share, np.nan).tolist()
