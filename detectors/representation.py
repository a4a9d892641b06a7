"""Spread of a network's features at an image ("balanced representations", ICLR 2026,
arXiv 2512.20963).

A model that has memorized an image represents it by a few strong features, one that has
generalised by many balanced ones. The image is noised to a low timestep and evaluated
under the empty prompt; of one layer's output h, each channel's maximum over space, and
of those

    std          the population standard deviation over channels
    norm_ratio   || h ||_4 / || h ||_2

Layers of the published code: up_blocks.0.resnets.{0,1,2}.nonlinearity and
up_blocks.1.resnets.0.nonlinearity. A resnet runs its nonlinearity twice, and the second
output counts. The code's default is t = 10, the reported setting t = 50. An image costs
one forward. ``condition=conditional`` tells the network the image's prompt or class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from membench.models.denoiser import Denoiser
from membench.models.internals import features, named_layer
from membench.types import Access, Condition, Request

from .base import IMAGES, ByCondition, with_noise


@dataclass(frozen=True)
class RepresentationOptions:
    t: int = field(default=50, metadata={"help": "timestep; the paper: 50, its code: 10", "min": 0})
    layer: str = field(
        default="up_blocks.0.resnets.0.nonlinearity",
        metadata={"help": "whose output is taken, by its name in the network"},
    )
    pool: Literal["max", "mean"] = field(default="max", metadata={"help": "over space"})
    statistic: Literal["std", "norm_ratio"] = field(
        default="std", metadata={"help": "over channels; norm_ratio: ||h||_4 / ||h||_2"}
    )
    condition: Literal["unconditional", "conditional"] = field(
        default="unconditional", metadata={"help": "what the network is told"}
    )
    images: int = field(default=1, metadata=IMAGES)


class Representation(ByCondition):
    """Spread of a layer's features at a slightly noised image (ICLR 2026, arXiv
    2512.20963).
    """

    Options: ClassVar[type] = RepresentationOptions
    version = 1
    tuning = MappingProxyType(
        {
            "images": {
                "t": (10, 50, 100, 200, 400),
                "pool": ("max", "mean"),
                "statistic": ("std", "norm_ratio"),
                "condition": ("unconditional", "conditional"),
            }
        }
    )
    access = Access(images=True, internals=True)

    usual = "unconditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        model.refuse_pure_noise(self.options.t, f"t={self.options.t}")
        named_layer(model, self.options.layer)
        # What it returns is known once it runs; before an image is generated, and not counted
        before, x = replace(model.cost), torch.zeros(1, *model.shape, device=model.device)
        try:
            self.features(model, x, conditions[:1])
        finally:
            vars(model.cost).update(vars(before))

    def features(
        self, model: Denoiser, x: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """h [n, channels] at states x [n, *shape]."""
        o, told = self.options, self.told(model, conditions)
        return features(model, x, o.t, told, o.layer, o.pool)

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        o = self.options
        keys = [(name, 0) for name in names]
        x, _ = with_noise(model, model.encode(images), keys, o.t, self.seed)
        h = self.features(model, x, conditions)
        if o.statistic == "std":
            return h.std(dim=1, correction=0).tolist()
        return (h.norm(p=4, dim=1) / h.norm(p=2, dim=1)).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request) + 1
