"""Bright Ending: the guidance norm where the image looks at the end of its prompt
(Chen et al., ICLR 2025).

"Exploring Local Memorization in Diffusion Models via Bright Ending Attention": at the
last step of the denoising, memorized regions attend to the prompt's end token. With m
the weight of that token in the conditional prediction, averaged over heads and the
down-block layers at the latent's own resolution,

    d = mean over steps and draws of || (eps(x_t, c) - eps(x_t, null)) m ||_2 / mean(m)

over all dimensions, m the same for all channels: the norm of ``cfg_norm``, of which it
is that exactly where m is flat. m is of the last step, the norms are of all. The
setting of the authors' code: n = 4 or 16 draws, 50 steps, w = 7.5. A draw costs 100
forwards, and one for the attention.

A U-Net without a down-block layer at full resolution (the mini model) has its finest
ones enlarged by nearest neighbour, which is membench's own.

arXiv 2410.21665.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import torch

from membench.models.denoiser import Denoiser
from membench.models.internals import attention, attention_layers, named_attention
from membench.models.sampling import ddim, pure_noise
from membench.types import Access, Condition, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class BrightEndingOptions:
    draws: int = field(
        default=4,
        metadata={"help": "noises per prompt; the authors' code: 4, 16", "min": 1, "max": 10_000},
    )
    steps: int = field(
        default=50,
        metadata={"help": "average over the first k of the trajectory's steps", "min": 1},
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    layers: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "cross-attention layers whose maps are averaged, such as "
            "down_blocks.0.attentions.0; none given: the finest of the down blocks"
        },
    )
    images: int = field(default=1, metadata=IMAGES)

    def __post_init__(self) -> None:
        if self.steps > self.trajectory:
            raise ValueError(f"steps={self.steps} is more than trajectory={self.trajectory}")


class BrightEnding(OwnTrajectory):
    """Guidance norm where the image attends to its prompt's end (Chen et al., ICLR
    2025).
    """

    Options: ClassVar[type] = BrightEndingOptions
    version = 1
    tuning = MappingProxyType({"prompts": {"steps": (1, 5, 10, 50)}})
    access = Access(internals=True)
    compares = True
    text_only = True

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        named_attention(model, self.layers(model))

    def layers(self, model: Denoiser) -> list[str]:
        if self.options.layers:
            return list(self.options.layers)
        # A down block halves the resolution of the next one: those of the first have
        # the finest.
        return finest_layers(list(attention_layers(model)))

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        blind = pure_noise(model, steps)
        differences: list[torch.Tensor] = []
        last: tuple[torch.Tensor, int] | None = None

        def observe(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor, conditional: torch.Tensor
        ) -> None:
            nonlocal last
            last = x, t
            if blind <= k < blind + self.options.steps:
                differences.append(conditional - null)

        conditions = [c for c, _ in rows]
        x, told = model.starts(rows, self.seed), model.condition(conditions)
        end = ddim(model, x, told, steps=steps, guidance=guidance, observe=observe)
        assert last is not None
        m = self.brightness(model, *last, conditions)
        norms = [(difference * m).flatten(1).norm(dim=1) for difference in differences]
        return end, torch.stack(norms).mean(dim=0) / m.flatten(1).mean(dim=1)

    def brightness(
        self, model: Denoiser, x: torch.Tensor, t: int, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """m [n, 1, h, w]: where (x, t) attends to the end of its prompt."""
        told, ends = model.condition(conditions), [n - 1 for n in model.token_counts(conditions)]
        maps = attention(model, x, t, told, self.layers(model), lambda full: full.mean(dim=1))
        height, width = model.shape[1:]
        found = []
        for weights in maps.values():
            bright = weights[torch.arange(len(ends)), :, ends]
            h = round((bright.shape[1] * height / width) ** 0.5)
            grid = bright.view(len(ends), 1, h, -1)
            found.append(torch.nn.functional.interpolate(grid, (height, width), mode="nearest"))
        return torch.stack(found).mean(dim=0)

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return 2 * self.steps + 1


def finest_layers(names: Sequence[str]) -> list[str]:
    """The layers of the first down block that has any."""
    down = [name for name in names if name.startswith("down_blocks.")]
    first = min((int(name.split(".")[1]) for name in down), default=-1)
    return [name for name in down if int(name.split(".")[1]) == first]
