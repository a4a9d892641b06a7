"""Generate and filter (Carlini et al., USENIX Security 2023, section 4.2): any detector
as an attack.

    generate N images, score each, keep the k of the highest score

Their own scorer is the density of a prompt's generations; here ``scorer`` names any
detector that scores an image, or the condition that it was generated from. What the
attack returns are k images; what it has paid for are N, and their scores: both are
counted as preparation, and ``--budget`` below them is refused.

Confidence of an image: its score. Score of an example: the scorer's own.

arXiv 2301.13188.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.storage.files import write_json
from membench.storage.workspace import Workspace
from membench.types import Condition, Cost, Sample

from .prepared import Prepared, each_once
from .surrogate.conditions import NULL, synthesize, synthesize_forwards
from .within import made, scored, suits

BLOCK = 64  # candidates that are scored together


@dataclass(frozen=True)
class FilterOptions:
    scorer: str = field(
        default="loss", metadata={"help": "detector whose score chooses, such as cfg_norm, flipd"}
    )
    settings: tuple[str, ...] = field(default=(), metadata={"help": "its options: KEY=VALUE"})
    candidates: int = field(default=1000, metadata={"help": "N, images to generate", "min": 1})
    keep: int = field(default=100, metadata={"help": "k, images to keep", "min": 1})
    source: Literal["conditions", "null"] = field(
        default="conditions",
        metadata={"help": "generate from the task's conditions, in turn, or the null condition"},
    )
    steps: int = field(default=0, metadata={"help": "DDIM steps; 0: the task's own", "min": 0})

    def __post_init__(self) -> None:
        if self.keep > self.candidates:
            raise ValueError(
                f"keep={self.keep} of candidates={self.candidates}: keep fewer, or generate more"
            )


class Filter(Prepared):
    """Generate N images, keep the k of the highest score (Carlini et al., 2023)."""

    Options: ClassVar[type] = FilterOptions
    version = 2

    def __init__(self, options: FilterOptions, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        if options.scorer == "filter":
            raise ValueError("scorer=filter: name the detector whose score chooses")
        self.steps = options.steps or int(sampling["steps"])
        self.weight = float(sampling["guidance"]) if options.source == "conditions" else 1.0
        given = options.scorer, options.settings, seed
        self.own = made(*given, sampling)  # of the task's examples
        # A candidate is scored on the way that it was generated on: not the task's, where
        # these steps or this weight are others.
        generated = {"steps": self.steps, "guidance": self.weight, "examples": "images"}
        self.of_images = made(*given, {**sampling, **generated})
        self.holds = {options.scorer: self.own}
        # The attack generates, whatever its scorer looks at
        self.access = replace(self.own.access, images=False, model=True)
        self.by_image = True

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        o = self.options
        if self.of_images.access.images:
            raise UserError(
                f"scorer={o.scorer} scores by images that it extracts itself, so it cannot choose"
                " among given images"
            )
        suits(f"scorer={o.scorer}", self.own, model, conditions)
        source = self._source(model, conditions)
        self.by_image = self.own.access.model  # what asks no model reads the caption alone
        try:
            self.price = self._tried(model, source[0])
        except UserError as error:
            # Of a prompt that the model is asked with, a score of the prompt is one of
            # its images
            if self.examples == "images" or o.source == "null":
                raise UserError(
                    f"scorer={o.scorer} does not suit images that are generated from"
                    f" source={o.source}: {error}"
                ) from error
            self.by_image = False  # before the price, which is another one then
            self.price = self._tried(model, source[0])

    def _tried(self, model: Denoiser, condition: Condition) -> int:
        """Evaluations of the target for one score, of an image without content; they
        are not counted.
        """
        before = replace(model.cost)
        try:
            if self.by_image:
                image = model.decode(torch.zeros(1, *model.shape, device=model.device))[0]
                found = self._candidate(condition, 0, image)
                suits(f"scorer={self.options.scorer}", self.of_images, model, [found])
                scored(self.of_images, model, [found])
            else:
                suits(f"scorer={self.options.scorer}", self.own, model, [condition])
                scored(self.own, model, [condition])
            spent = model.cost - before
        finally:
            vars(model.cost).update(vars(before))
        return spent.forwards + spent.jvps

    def _source(self, model: Denoiser, conditions: Sequence[Condition]) -> list[Condition]:
        if self.options.source == "conditions":
            return each_once(conditions)
        if not model.has_null:
            raise UserError(
                "this model has no null condition to sample from; choose source=conditions"
            )
        return [NULL]

    def _candidate(self, condition: Condition, draw: int, image: np.ndarray) -> Condition:
        """An image as an example, with the noise that it was generated from."""
        start = str(self.seed), f"synthetic/{condition.id}", str(draw)
        name = f"candidate/{condition.id}/{draw}"
        return Condition(name, condition.prompt, image, condition.class_label, start)

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        o, source = self.options, self._source(model, conditions)
        synthetic = synthesize(
            model,
            source,
            workspace,
            n=o.candidates,
            seed=self.seed,
            steps=self.steps,
            guidance=self.weight,
        )
        rows = [(source[i % len(source)], i // len(source)) for i in range(o.candidates)]

        def make(folder: Path) -> tuple[Cost, float]:
            before, began = replace(model.cost), time.monotonic()
            write_json(folder / "scores.json", self._scores(model, rows, synthetic.x0))
            return model.cost - before, time.monotonic() - began

        stage = workspace.stage(
            "filter",
            {
                "version": self.version,
                "candidates": synthetic.stage.key,
                "scorer": [
                    o.scorer,
                    self.own.version,
                    asdict(self.own.options),
                    dict(self.own.reads),
                ],
                "by image": self.by_image,
            },
            make,
        )
        held = json.loads((stage.path / "scores.json").read_bytes())
        scores = np.array([math.nan if v is None else v for v in held], dtype=np.float64)
        good = np.flatnonzero(np.isfinite(scores))
        best = good[np.argsort(-scores[good], kind="stable")[: o.keep]]  # the surest first
        self.keep([rows[i] for i in best], synthetic.x0[best], scores[best].tolist())
        return {
            "candidates": o.candidates,
            "scored by": "image" if self.by_image else "condition",
            "failed scores": len(held) - len(good),
        }

    def _scores(
        self, model: Denoiser, rows: Sequence[tuple[Condition, int]], x0: torch.Tensor
    ) -> list[float | None]:
        """The score of each candidate; None where it has failed."""
        found: list[float] = []
        if not self.by_image:
            asked = list(dict.fromkeys(c for c, _ in rows))
            of = dict(zip(asked, scored(self.own, model, asked), strict=True))
            found = [of[c] for c, _ in rows]
        for start in range(0, len(rows), BLOCK) if self.by_image else ():
            part = slice(start, start + BLOCK)
            x = x0[part].to(model.device)
            images = model.decode(x)
            block = [
                self._candidate(c, draw, image)
                for (c, draw), image in zip(rows[part], images, strict=True)
            ]
            finite = x.flatten(1).isfinite().all(dim=1).tolist()  # else there is no image
            scores = zip(scored(self.of_images, model, block), finite, strict=True)
            found += [score if ok else math.nan for score, ok in scores]
        return [float(v) if math.isfinite(v) else None for v in found]

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        o, source = self.options, self._source(model, conditions)
        forwards = synthesize_forwards(
            model, source, o.candidates, steps=self.steps, guidance=self.weight
        )
        times = o.candidates if self.by_image else min(o.candidates, len(source))
        return forwards + times * self.price

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> Sequence[float]:
        return scored(self.own, model, conditions)
