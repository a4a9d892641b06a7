"""Broken Memories: updates of the latent unlike those of other prompts (KDD 2026).

arXiv 2605.22050; no code of the authors is known, and the formula is a third party's.
On the guided trajectory z_0 ... z_50,

    d_t = || z_t - z_{t+1} ||_2,    r_t = | d_t - mu_t | / s_t,    score = max_t r_t

with mu_t and s_t the mean and the standard deviation (n - 1) over 50 reference prompts
that are not memorized, one noise each. The setting is all 50 steps; the paper's
variants are the first 3 steps and the mean of r_t. It is two-sided: an unusually smooth
trajectory scores as high. ``statistic=plain`` is the mean of d_t, without references.
mu and s depend on the model, the sampler, the steps and the weight: they are prepared
for each anew, at 2 forwards a step of each reference: for a prompt's trajectory and,
where images are extracted, for the task's own. A score costs what the trajectory costs,
2 forwards a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, step_forwards
from membench.options import refuse_unread
from membench.storage.hashing import json_hash
from membench.storage.workspace import Workspace
from membench.types import Access, Condition, Request

from .references import over_references, read_references, reference_conditions, refuse_examples
from .trajectories import GUIDANCE, IMAGES, TRAJECTORY, Followed, OwnTrajectory, Rows


@dataclass(frozen=True)
class UpdateNormOptions:
    statistic: Literal["max", "mean", "plain"] = field(
        default="max", metadata={"help": "max or mean of r_t; plain: mean of d_t, no references"}
    )
    steps: int = field(
        default=50,
        metadata={"help": "the first k updates, if there are so many; the paper: 50, 3", "min": 1},
    )
    references: str = field(
        default="",
        metadata={"help": "file of prompts that are not memorized; none: a neutral list of 50"},
    )
    draws: int = field(default=1, metadata={"help": "noises per prompt", "min": 1, "max": 10_000})
    trajectory: int = field(default=50, metadata=TRAJECTORY)
    guidance: float = field(default=7.5, metadata=GUIDANCE)
    images: int = field(default=1, metadata=IMAGES)


class UpdateNorm(OwnTrajectory):
    Options: ClassVar[type] = UpdateNormOptions
    version = 1
    tuning = MappingProxyType(
        {"prompts": {"statistic": ("max", "mean", "plain"), "steps": (3, 10, 50)}}
    )
    access = Access(references=True)

    def __init__(
        self, options: UpdateNormOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.access = Access(references=options.statistic != "plain")
        self.prompts: tuple[str, ...] = ()
        self.usual: dict[tuple[int, float], tuple[torch.Tensor, torch.Tensor]] = {}
        if self.access.references:
            self.prompts = read_references(options.references)
            self.reads = {"references": json_hash(list(self.prompts))} if options.references else {}

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        if not self.access.references:
            refuse_unread(self.options, ("references",), "statistic=plain compares with nothing")
        elif not model.takes_text:
            raise UserError(
                "reference prompts are captions, and this model takes none; choose statistic=plain"
            )
        refuse_examples(self.prompts, conditions)

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        if not self.prompts:
            return 0
        told = model.condition(reference_conditions(self.prompts[:1]))
        each = [self.count(steps) * step_forwards(told, weight) for steps, weight in self.ways()]
        return len(self.prompts) * sum(each)

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        for steps, guidance in self.ways() if self.prompts else []:

            def updates(rows: Rows, steps: int = steps, guidance: float = guidance) -> torch.Tensor:
                return self.updates(model, rows, steps, guidance, whole=False)[1]

            parts: dict[str, Any] = {
                "steps": steps,
                "guidance": guidance,
                "first": self.count(steps),
            }
            parts |= {"of": "update_norm", "version": self.version}
            usual = over_references(model, workspace, self.prompts, parts, updates)
            self.usual[steps, guidance] = usual
        told = self.options.references or "the neutral list that ships"
        return {"references": f"{len(self.prompts)} prompts, {told}"} if self.prompts else {}

    def count(self, steps: int) -> int:
        return min(self.options.steps, steps)

    def updates(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state at the end, and d_t of the first steps, [n, steps]."""
        norms: list[torch.Tensor] = []
        last = x = model.starts(rows, self.seed)

        def visit(
            k: int, t: int, x: torch.Tensor, null: torch.Tensor | None, conditional: torch.Tensor
        ) -> None:
            nonlocal last
            if k:
                norms.append((last - x).flatten(1).norm(dim=1))
            last = x

        told = model.condition([c for c, _ in rows])
        stop = None if whole else self.count(steps)
        x = ddim(model, x, told, steps=steps, guidance=guidance, stop=stop, visit=visit)
        norms.append((last - x).flatten(1).norm(dim=1))
        return x, torch.stack(norms[: self.count(steps)], dim=1)

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        x, norms = self.updates(model, rows, steps, guidance, whole=whole)
        if not self.access.references:
            return x, norms.mean(dim=1)
        mean, spread = self.usual[steps, guidance]
        unusual = ((norms.cpu().double() - mean) / spread).abs()
        values = unusual.amax(dim=1) if self.options.statistic == "max" else unusual.mean(dim=1)
        return x, values

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request)
