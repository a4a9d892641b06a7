"""Score norms and local intrinsic dimension (Ross et al., ICLR 2025; FLIPD: Kamkari et al., NeurIPS 2024).

A model that has memorized an image x has learned a manifold of too low a dimension there: LID(x), the local intrinsic dimension, is
small, and the score s(x_t, t) = -eps(x_t, t) / sigma_t, which points back to that manifold, is large. Three ways to see it, with
alpha = sqrt(abar_t) and sigma = sqrt(1 - abar_t) of the model's own scheduler (the reference code assumes a linear schedule):

    score_norm      || eps(x_t, t, c) ||, conditional or guided: eps_0 + w (eps_c - eps_0), w = 7.5
    flipd           LID = D - sigma tr(d eps / d x) + || eps ||^2, both at (alpha x, t0): no noise is added
    normal_bundle   LID = D - the number of large singular values of eps at 4 D noised copies of x

A detector's score is the norm, or minus the LID: higher = more memorized. A simple image has a low LID without having been memorized,
so read these beside ``png_size`` and the complexity-matched AUROC. Through a U-Net the LID is a rank, not a dimension: it can be
negative, or greater than D.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.denoiser import Conditioning, Denoiser
from membench.derivative import Derivative, Probe, basis, choose, quadratic_forms, random_probes
from membench.drawing import MeasuresImages, samples
from membench.errors import UserError
from membench.sampling import ddim, ddim_invert, timesteps
from membench.seeds import generator
from membench.tables import png_bits
from membench.types import Access, Condition, Request, Sample

EXACT_LIMIT = 4096  # largest D whose trace is taken exactly: D JVPs an image
BUNDLE_LIMIT = 4096  # largest D of a normal bundle: 4 D forwards an image

IMAGES = {"help": "images to extract per condition; a prompt's score is the mean over them", "min": 0}


def conditional(model: Denoiser, wanted: str, default: str) -> str:
    """``wanted``, or what "auto" means for the model. Raises :class:`UserError` where the model has no condition."""
    if wanted == "auto":
        return default if model.has_condition else "unconditional"
    if wanted != "unconditional" and not model.has_condition:
        raise UserError(f"this model has no condition, so condition={wanted} is not defined for it; choose condition=unconditional")
    return wanted


# ------------------------------------------------------------------------------------------------ score_norm


@dataclass(frozen=True)
class ScoreNormOptions:
    at: Literal["auto", "trajectory", "image"] = field(
        default="auto",
        metadata={
            "help": "trajectory: x_t on the model's own way from noise; image: the image carried to t by the deterministic "
            "forward ODE; auto: image where the example is one"
        },
    )
    t: float | None = field(
        default=None, metadata={"help": "time in (0, 1]; none: 1 on the trajectory (its first step), 0.5 from an image", "min": 0, "max": 1}
    )
    norm: Literal["eps", "score"] = field(default="eps", metadata={"help": "eps: ||eps||; score: ||s|| = ||eps|| / sigma_t"})
    condition: Literal["auto", "conditional", "unconditional", "guided", "difference"] = field(
        default="auto",
        metadata={"help": "guided: eps_0 + w (eps_c - eps_0); difference: eps_c - eps_0; auto: guided, unconditional where it must be"},
    )
    weight: float = field(default=7.5, metadata={"help": "w of condition=guided, and of the trajectory", "min": 0.0})
    draws: int = field(default=4, metadata={"help": "trajectory: noises per condition", "min": 1, "max": 10_000})
    trajectory: int = field(default=50, metadata={"help": "DDIM steps of the whole trajectory", "min": 1, "max": 1000})
    ode_steps: int = field(default=10, metadata={"help": "image: steps of the forward ODE", "min": 1, "max": 1000})
    images: int = field(default=1, metadata=IMAGES)


class ScoreNorm(MeasuresImages):
    """Norm of the score on a trajectory from noise, or at an image (Ross et al., ICLR 2025)."""

    Options: ClassVar[type] = ScoreNormOptions
    version = 1
    access = Access()

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        requests = super().plan(conditions)
        self.access = self.access if self._by_image(conditions) else Access()
        return requests

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        conditional(model, self.options.condition, "guided")
        if self._by_image(conditions):
            super().check(model, conditions)
            if self.options.ode_steps > self._index(model, True) + 1:
                raise UserError(f"ode_steps={self.options.ode_steps} is more than there are timesteps up to t; lower it")
        else:
            self._index(model, False)

    def _by_image(self, conditions: Sequence[Condition]) -> bool:
        return self.options.at == "image" or (self.options.at == "auto" and conditions[0].image is not None)

    def _index(self, model: Denoiser, image: bool) -> int:
        default = 0.5 if image else 1.0
        return model.timestep(default if self.options.t is None else self.options.t)

    def _norm(self, model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
        """The norm at (x, t) [n], in one or two forwards an image."""
        kind = conditional(model, self.options.condition, "guided")
        if kind in ("conditional", "unconditional"):
            null = model.null_like(condition, len(x))
            eps = model.eps(x, t, condition if kind == "conditional" else null)
        else:
            null_eps, eps = model.eps_pair(x, t, condition)
            eps = null_eps + self.options.weight * (eps - null_eps) if kind == "guided" else eps - null_eps
        norm = eps.flatten(1).norm(dim=1)
        return norm / model.alpha_sigma(t)[1] if self.options.norm == "score" else norm

    # (a) on the trajectory

    def _on_trajectory(
        self, model: Denoiser, rows: Sequence[tuple[Condition, int]], steps: int, weight: float
    ) -> tuple[torch.Tensor, int, torch.Tensor]:
        """(x_t, k, norm [n]) at the step k of ``steps`` guided ones from noise that is nearest to t."""
        x, condition = model.noise([(c.id, draw) for c, draw in rows], self.seed), model.condition([c for c, _ in rows])
        times, k = timesteps(model, steps), self._step(model, steps)
        x = ddim(model, x, condition, steps=steps, guidance=weight, stop=k)
        return x, k, self._norm(model, x, times[k], condition)

    def _step(self, model: Denoiser, steps: int) -> int:
        wanted = self._index(model, False)
        return min(range(steps), key=lambda k: abs(timesteps(model, steps)[k] - wanted))

    def score(self, model: Denoiser, conditions: Sequence[Condition], extracted: Mapping[str, Sequence[Sample]]) -> list[float]:
        if self._by_image(conditions):
            return super().score(model, conditions, extracted)
        o = self.options
        _, _, norms = self._on_trajectory(model, [(c, draw) for c in conditions for draw in range(o.draws)], o.trajectory, o.weight)
        return norms.view(len(conditions), o.draws).mean(dim=1).tolist()

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """On the trajectory an image is as sure as the norm on its own way, which is the task's."""
        conditions = [r.condition for r in requests]
        if self._by_image(conditions):
            return super().extract(model, requests)
        rows = [(r.condition, r.draw) for r in requests]
        x, k, norms = self._on_trajectory(model, rows, self.steps, self.weight)
        x = ddim(model, x, model.condition(conditions), steps=self.steps, guidance=self.weight, start=k)
        return samples(requests, x, model.decode(x), norms.tolist())

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        kind = conditional(model, self.options.condition, "guided")
        norm = 1 if kind in ("conditional", "unconditional") else 2
        ode = self.options.ode_steps if self._by_image([request.condition]) else 0
        return self.sampling_forwards(model, request) + ode + norm

    # (b) from an image

    def measure(self, model: Denoiser, images: np.ndarray, conditions: Sequence[Condition], names: Sequence[str]) -> list[float]:
        condition, t = model.condition(conditions), self._index(model, True)
        if conditional(model, self.options.condition, "guided") == "unconditional":
            condition = model.null_like(condition, len(images))
        x = ddim_invert(model, model.encode(images), condition, t=t, steps=self.options.ode_steps)
        return self._norm(model, x, t, model.condition(conditions)).tolist()


# ----------------------------------------------------------------------------------------------------- flipd


@dataclass(frozen=True)
class FlipdOptions:
    t0: float = field(
        default=0.3, metadata={"help": "time in (0, 1]; the paper: 0.3 for Stable Diffusion, its code: 0.01", "min": 0, "max": 1}
    )
    condition: Literal["auto", "conditional", "unconditional", "ratio", "difference"] = field(
        default="auto",
        metadata={
            "help": "ratio: LID_c / LID_0; difference: LID_c - LID_0 (membench's own); auto: conditional, unconditional where it must be"
        },
    )
    per_png_bit: bool = field(default=False, metadata={"help": "divide the LID by the bits of the image's PNG, against complexity"})
    trace: Literal["auto", "exact", "hutchinson"] = field(
        default="auto", metadata={"help": f"exact: D JVPs, up to D = {EXACT_LIMIT:,}; auto: exact where D is no more than probes"}
    )
    probes: int = field(default=4, metadata={"help": "Hutchinson's probes an image; the paper: 1 or 50", "min": 1})
    probe: Probe = field(default="rademacher", metadata={"help": "distribution of the probes"})
    derivative: Derivative = field(
        default="auto", metadata={"help": "jvp: forward mode; difference: central, float32; auto: jvp where the attention allows it"}
    )
    images: int = field(default=1, metadata=IMAGES)


class Flipd(MeasuresImages):
    """Local intrinsic dimension by FLIPD, negated (Kamkari et al., NeurIPS 2024; Ross et al., ICLR 2025)."""

    Options: ClassVar[type] = FlipdOptions
    version = 1
    access = Access(gradients=True, images=True)

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.timestep(self.options.t0)
        conditional(model, self.options.condition, "conditional")
        size = math.prod(model.shape)
        if self.options.trace == "exact" and size > EXACT_LIMIT:
            raise UserError(
                f"trace=exact takes D = {size:,} JVPs an image, and membench stops at D = {EXACT_LIMIT:,}; choose trace=hutchinson"
            )
        choose(model, self.options.derivative)

    def lid(self, model: Denoiser, x0: torch.Tensor, condition: Conditioning, names: Sequence[str]) -> torch.Tensor:
        """LID [n] of clean states x0 [n, *shape], in double precision; names: fix the probes of each."""
        o, size = self.options, math.prod(model.shape)
        t = model.timestep(o.t0)
        alpha, sigma = model.alpha_sigma(t)
        exact = o.trace == "exact" or (o.trace == "auto" and size <= o.probes)
        count = size if exact else o.probes
        vectors = basis(model.shape, len(x0)) if exact else random_probes(model.shape, list(names), self.seed, count, o.probe)
        eps, forms = quadratic_forms(model, alpha * x0, t, condition, vectors, count, choose(model, o.derivative))
        trace = forms.sum(dim=0) if exact else forms.mean(dim=0)
        return size - sigma * trace + eps.double().flatten(1).pow(2).sum(dim=1).cpu()

    def measure(self, model: Denoiser, images: np.ndarray, conditions: Sequence[Condition], names: Sequence[str]) -> list[float]:
        x0, told = model.encode(images), model.condition(conditions)
        null = model.null_like(told, len(images))
        kind = conditional(model, self.options.condition, "conditional")
        if kind in ("conditional", "unconditional"):
            lid = self.lid(model, x0, told if kind == "conditional" else null, names)
        else:
            lid_c, lid_0 = (self.lid(model, x0, c, names) for c in (told, null))  # the same probes
            lid = lid_c / lid_0 if kind == "ratio" else lid_c - lid_0
        if self.options.per_png_bit:
            lid = lid / torch.tensor([png_bits(image) for image in images])
        return (-lid).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        """A JVP counts as one evaluation."""
        o, size = self.options, math.prod(model.shape)
        count = size if o.trace == "exact" or (o.trace == "auto" and size <= o.probes) else o.probes
        each = count if choose(model, o.derivative) == "jvp" else 2 * count + 1
        times = 2 if conditional(model, o.condition, "conditional") in ("ratio", "difference") else 1
        return self.sampling_forwards(model, request) + times * each


# --------------------------------------------------------------------------------------------- normal_bundle


@dataclass(frozen=True)
class NormalBundleOptions:
    t0: float = field(
        default=0.01, metadata={"help": "time in (0, 1] of the noise on the copies; the paper's code: 0.01", "min": 0, "max": 1}
    )
    condition: Literal["auto", "conditional", "unconditional"] = field(
        default="auto", metadata={"help": "auto: conditional, unconditional where it must be"}
    )
    images: int = field(default=1, metadata=IMAGES)


class NormalBundle(MeasuresImages):
    """Local intrinsic dimension by the normal bundle, negated (Stanczuk et al. 2022; Ross et al., ICLR 2025).

    The score at points near a manifold is normal to it.
    """

    Options: ClassVar[type] = NormalBundleOptions
    version = 1
    access = Access(images=True)

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.timestep(self.options.t0)
        conditional(model, self.options.condition, "conditional")
        size = math.prod(model.shape)
        if size > BUNDLE_LIMIT:
            raise UserError(
                f"normal_bundle takes 4 D = {4 * size:,} evaluations an image of this model, and membench stops at D = {BUNDLE_LIMIT:,}; "
                "choose flipd"
            )

    def lid(self, model: Denoiser, x0: torch.Tensor, condition: Conditioning, names: Sequence[str]) -> list[int]:
        """LID of clean states x0 [n, *shape]: D less the place of the widest gap between singular values, an integer in [1, D - 1]."""
        t, size = model.timestep(self.options.t0), math.prod(model.shape)
        alpha, sigma = model.alpha_sigma(t)
        found = []
        for row, name in enumerate(names):
            source = generator(self.seed, "bundle", name)
            noise = torch.randn((4 * size, *model.shape), generator=source).to(x0)
            copies = alpha * x0[row] + sigma * noise
            eps = model.eps(copies, t, condition[slice(row, row + 1)].repeat(len(copies)))
            values = torch.linalg.svdvals(eps.flatten(1).double().cpu())
            found.append(size - 1 - int((values[:-1] - values[1:]).argmax()))
        return found

    def measure(self, model: Denoiser, images: np.ndarray, conditions: Sequence[Condition], names: Sequence[str]) -> list[float]:
        told = model.condition(conditions)
        if conditional(model, self.options.condition, "conditional") == "unconditional":
            told = model.null_like(told, len(images))
        return [-float(d) for d in self.lid(model, model.encode(images), told, names)]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + 4 * math.prod(model.shape)
