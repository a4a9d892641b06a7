"""The conditional attack that SIDE is compared with: guidance by a time-independent
classifier (Carlini et al. 2023; SIDE, table 1).

All is as in SIDE but the classifier: it is trained on clean images and knows no
timestep. SIDE's paper does not say at which point it is asked. ``at=xt`` asks it at the
noisy x_t, ``at=x0`` at the prediction x0^ = (x_t - sigma_t eps) / alpha_t with eps held
fixed, so that grad_{x_t} = grad_{x0^} / alpha_t: images that it was trained for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from membench.models.denoiser import Denoiser
from membench.types import Access

from .side import Side
from .side_options import SideOptions


@dataclass(frozen=True)
class CarliniConditionalOptions(SideOptions):
    surrogate: Literal["classifier"] = field(
        default="classifier", metadata={"help": "a classifier that knows no timestep"}
    )
    guidance: float = field(
        default=1.0, metadata={"help": "weight of the classifier's gradient", "min": 0.0}
    )
    at: Literal["xt", "x0"] = field(
        default="xt",
        metadata={"help": "where the classifier is asked: at x_t or at the predicted x0"},
    )


class CarliniConditional(Side):
    Options: ClassVar[type] = CarliniConditionalOptions
    version = 3
    access = Access(images=True)  # the gradient is its own classifier's
    timed = False

    def _gradient(
        self, model: Denoiser, x: torch.Tensor, t: int, eps: torch.Tensor, c: torch.Tensor
    ) -> torch.Tensor:
        from .surrogate.classifier import log_prob_gradient

        if self.options.at == "xt":
            return log_prob_gradient(self.classifier, x, t, c, model.cost, model.batch_size)
        alpha, sigma = model.alpha_sigma(t)
        return (
            log_prob_gradient(
                self.classifier, (x - sigma * eps) / alpha, t, c, model.cost, model.batch_size
            )
            / alpha
        )
