"""FLIPD: local intrinsic dimension from one trace of the Jacobian (Kamkari et al., NeurIPS
2024; Ross et al., ICLR 2025).

    LID = D - sigma tr(d eps / d x) + || eps ||^2, both at (alpha x, t0): no noise is added

A model that has memorized an image has learned a manifold of too low a dimension there.
The score is minus the LID: higher = more memorized. A simple image has a low LID without
having been memorized, so read it beside ``png_size`` and the complexity-matched AUROC.
Through a U-Net the LID is a rank, not a dimension: it can be negative, or greater than D.

arXiv 2406.03537 and 2411.00113.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.derivative import Derivative, Probe, choose, forms_price, quadratic_forms
from membench.models.trace import SMALL, Trace, small
from membench.options import refuse_unread
from membench.storage.images import png_bits
from membench.types import Access, Condition, Request

from .base import IMAGES, ByCondition

EXACT_LIMIT = 4096  # largest D whose trace is taken exactly: D JVPs an image


@dataclass(frozen=True)
class FlipdOptions:
    t0: float | None = field(
        default=None,
        metadata={
            "help": (
                "time in (0, 1]; none: 0.3 in latents (the paper's, for Stable Diffusion), 0.01 in"
                " pixels"
            ),
            "min": 0,
            "max": 1,
        },
    )
    condition: Literal["auto", "conditional", "unconditional", "ratio", "difference"] = field(
        default="auto",
        metadata={
            "help": (
                "ratio: LID_c / LID_0, of no meaning where a LID is negative; difference: LID_c -"
                " LID_0 (membench's own); auto: conditional; unconditional of a model without a"
                " condition"
            )
        },
    )
    per_png_bit: bool = field(
        default=False,
        metadata={
            "help": (
                "LID / bits of the image's PNG, against complexity; not with ratio or difference"
            )
        },
    )
    trace: Literal["auto", "exact", "hutchinson"] = field(
        default="auto",
        metadata={
            "help": (
                f"exact: D JVPs, up to D = {EXACT_LIMIT:,}; auto: exact up to D = {SMALL}, or where"
                " D <= probes"
            )
        },
    )
    probes: int = field(
        default=4, metadata={"help": "Hutchinson's probes an image; the paper: 1 or 50", "min": 1}
    )
    probe: Probe = field(default="rademacher", metadata={"help": "distribution of the probes"})
    derivative: Derivative = field(
        default="auto",
        metadata={
            "help": (
                "jvp: forward mode; difference: central, float32; auto: jvp where the attention"
                " allows it"
            )
        },
    )
    images: int = field(default=1, metadata=IMAGES)

    def __post_init__(self) -> None:
        if self.per_png_bit and self.condition in ("ratio", "difference"):
            raise ValueError(
                f"per_png_bit and condition={self.condition} are two ways to cancel complexity;"
                " choose one"
            )


class Flipd(ByCondition):
    """Local intrinsic dimension by FLIPD, negated (Kamkari et al., NeurIPS 2024; Ross
    et al., ICLR 2025).

    arXiv 2406.03537 and 2411.00113.
    """

    Options: ClassVar[type] = FlipdOptions
    version = 2
    tuning = MappingProxyType(
        {
            "images": {
                "t0": (None, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3),
                "condition": ("auto", "unconditional", "difference"),
            }
        }
    )
    access = Access(gradients=True, images=True)
    usual = "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.refuse_pure_noise(self._index(model), f"t0={self.options.t0}")
        size = math.prod(model.shape)
        if self.options.trace == "exact" and size > EXACT_LIMIT:
            raise UserError(
                f"trace=exact takes D = {size:,} JVPs an image, and membench stops at D ="
                f" {EXACT_LIMIT:,}; choose trace=hutchinson"
            )
        if self.options.trace == "exact":
            why = "trace=exact takes no probes; choose trace=hutchinson"
            refuse_unread(self.options, ("probes", "probe"), why)
        choose(model, self.options.derivative)

    def _index(self, model: Denoiser) -> int:
        default = 0.3 if model.latents else 0.01
        return model.timestep(default if self.options.t0 is None else self.options.t0)

    def _trace(self, model: Denoiser) -> Trace:
        o = self.options
        exact = o.trace == "exact" or (o.trace == "auto" and small(model.shape, o.probes))
        return Trace(model.shape, exact, o.probes, o.probe)

    def lid(
        self, model: Denoiser, x0: torch.Tensor, condition: Conditioning, names: Sequence[str]
    ) -> torch.Tensor:
        """LID [n] of clean states x0 [n, *shape], in double precision; names: fix the
        probes of each.
        """
        o, size = self.options, math.prod(model.shape)
        t = self._index(model)
        alpha, sigma = model.alpha_sigma(t)
        trace, how = self._trace(model), choose(model, o.derivative)
        vectors = trace.vectors(names, self.seed)
        eps, forms = quadratic_forms(model, alpha * x0, t, condition, vectors, trace.count, how)
        return size - sigma * trace.of(forms) + eps.cpu().double().flatten(1).pow(2).sum(dim=1)

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        x0, told = model.encode(images), model.condition(conditions)
        kind = self.variant(model)
        if kind in ("conditional", "unconditional"):
            lid = self.lid(
                model,
                x0,
                told if kind == "conditional" else model.null_like(told, len(images)),
                names,
            )
        else:
            # The same probes
            lid_c, lid_0 = (
                self.lid(model, x0, c, names) for c in (told, model.null_like(told, len(images)))
            )
            lid = lid_c / lid_0 if kind == "ratio" else lid_c - lid_0
        if self.options.per_png_bit:
            lid = lid / torch.tensor([png_bits(image) for image in images])
        return (-lid).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        """A JVP counts as one evaluation."""
        each = forms_price(self._trace(model).count, choose(model, self.options.derivative))
        times = 2 if self.variant(model) in ("ratio", "difference") else 1
        return self.sampling_forwards(model, request) + times * each
