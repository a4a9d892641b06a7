"""Entropy of the cross-attention (Ren et al., ECCV 2024).

"Unveiling and Mitigating Memorization in Text-to-image Diffusion Models through Cross
Attention": the attention of a memorized prompt is spread over its tokens otherwise than
that of another. With a the weight of each token in the conditional prediction, averaged
over heads and pixels (a sums to 1), and H(a) = -sum a ln a,

    E (LE)   H(a) of one layer at the first step
    D (AE)   mean over the last 10 steps of H(a), a averaged over all layers,
             + | mean over the last 10 steps of H_end - H_end of the first step |

H_end is the part of the sum from the prompt's end token on, not normalised. The paper
takes the amount of the second line, its code the signed difference (``signed``). The
setting: one noise, 50 steps, w = 7.5; E of the fourth layer that Stable Diffusion 1
calls. A number means nothing on another U-Net, so a layer is chosen by its name. A draw
costs 1 forward (E), or 100 and 11 for the attention (D).

arXiv 2403.11052.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch

from membench.models.denoiser import Denoiser
from membench.models.internals import attention, attention_layers, named_attention
from membench.models.sampling import ddim, timesteps
from membench.options import refuse_unread
from membench.types import Access, Condition, Request

from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows

LATE = 10  # steps


@dataclass(frozen=True)
class AttentionEntropyOptions:
    variant: Literal["E", "D"] = field(
        default="E", metadata={"help": "E: one layer at the first step; D: all layers, late steps"}
    )
    draws: int = field(
        default=1, metadata={"help": "noises per prompt; the paper: 1", "min": 1, "max": 10_000}
    )
    layer: str = field(
        default="down_blocks.1.attentions.1", metadata={"help": "E: the cross-attention layer"}
    )
    signed: bool = field(
        default=False, metadata={"help": "D: the signed difference, as in the paper's code"}
    )
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


class AttentionEntropy(OwnTrajectory):
    """Entropy of the cross-attention over tokens (Ren et al., ECCV 2024)."""

    Options: ClassVar[type] = AttentionEntropyOptions
    version = 1
    tuning = MappingProxyType({"prompts": {"variant": ("E", "D"), "signed": (False, True)}})
    access = Access(internals=True)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"layer": "down_blocks.1.attentions.0"}  # the only down layer of its U-Net
    }
    compares = True
    text_only = True

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        named_attention(model, self.layers(model))
        o = self.options
        if o.variant == "E":
            why = "variant=E looks at the first step, which is neither guided nor compared"
            refuse_unread(o, ("signed", "guidance"), why)
        else:
            refuse_unread(o, ("layer",), "variant=D takes all layers", self.presets)

    def layers(self, model: Denoiser) -> list[str]:
        return (
            [self.options.layer] if self.options.variant == "E" else list(attention_layers(model))
        )

    def weights(
        self, model: Denoiser, x: torch.Tensor, t: int, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """a [n, tokens]."""
        told = model.condition(conditions)
        maps = attention(model, x, t, told, self.layers(model), lambda full: full.mean(dim=(1, 2)))
        return torch.stack(list(maps.values())).mean(dim=0)

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        conditions = [c for c, _ in rows]
        if self.options.variant == "D":
            return self.late(model, rows, conditions, steps, guidance)
        x, t = model.starts(rows, self.seed), timesteps(model, steps)[0]
        return None, torch.special.entr(self.weights(model, x, t, conditions)).sum(dim=1)

    def late(
        self,
        model: Denoiser,
        rows: Rows,
        conditions: Sequence[Condition],
        steps: int,
        guidance: float,
    ) -> Followed:
        ends = torch.tensor(model.token_counts(conditions), device=model.device) - 1
        all_of: list[torch.Tensor] = []  # H of each late step
        end_of: list[torch.Tensor] = []  # H_end of the first step, then of each late one

        def observe(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor, conditional: torch.Tensor
        ) -> None:
            late = k >= steps - LATE
            if k and not late:
                return
            parts = torch.special.entr(self.weights(model, x, t, conditions))
            from_end = torch.arange(parts.shape[1], device=model.device) >= ends[:, None]
            tail = (parts * from_end).sum(dim=1)
            if k == 0:
                end_of.append(tail)
            if late:
                all_of.append(parts.sum(dim=1))
                end_of.append(tail)

        x, told = model.starts(rows, self.seed), model.condition(conditions)
        x = ddim(model, x, told, steps=steps, guidance=guidance, observe=observe)
        change = torch.stack(end_of[1:]).mean(dim=0) - end_of[0]
        change = change if self.options.signed else change.abs()
        return x, torch.stack(all_of).mean(dim=0) + change

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        if self.options.variant == "E":
            return self.sampling_forwards(model, request) + 1
        return 2 * self.steps + min(self.steps, LATE + 1)
