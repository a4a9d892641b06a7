"""Random sampling and generation density (Carlini et al., USENIX Security 2023, arXiv
2301.13188).

Extraction generates images, either from the task's conditions (their attack on Stable
Diffusion) or from the null condition (their unconditional attack, whose images tell
nothing of a prompt: scoring then generates its own). Scoring is their generation
density: among the n images of one prompt, join two whose tiled L2 distance is small and
take the size of the largest clique. A memorized prompt gives one image again and again;
any other gives n different ones. An example that is an image is scored by the density
at its own place: the number of extracted images that lie within that distance of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, step_forwards
from membench.options import refuse_unread
from membench.similarity.cliques import density_score
from membench.similarity.l2 import tiled_l2_between, tiled_l2_matrix
from membench.storage.pixels import Pixels
from membench.types import Access, Condition, Request, Sample

from .base import drawn_pixels, image_shape, own_images, requests

UNCONDITIONAL = Condition("unconditional")


@dataclass(frozen=True)
class RandomSamplingOptions:
    draws: int = field(
        default=4,
        metadata={"help": "images per condition; the paper generates 500", "min": 2, "max": 10_000},
    )
    extraction: Literal["conditional", "unconditional"] = field(
        default="conditional",
        metadata={"help": "extract from the task's conditions or from the null condition"},
    )
    generations: int = field(
        default=1000, metadata={"help": "N_G of unconditional extraction", "min": 1}
    )
    at_most: int = field(
        default=0,
        metadata={
            "help": "N_G of conditional extraction, over the conditions in turn; 0: every draw",
            "min": 0,
        },
    )
    threshold: float = field(
        default=0.15,
        metadata={
            "help": "tiled L2 (pixels in [0, 1]) below which two images are joined",
            "min": 0.0,
        },
    )
    tiles: int = field(
        default=4, metadata={"help": "tiles per side; the paper: 128-pixel tiles of 512", "min": 1}
    )
    steps: int = field(default=0, metadata={"help": "DDIM steps; 0: the task's own", "min": 0})
    guidance: float = field(
        default=0.0,
        metadata={"help": "guidance weight, 1 is plain sampling; 0: the task's own", "min": 0.0},
    )


class RandomSampling(Detector):
    Options = RandomSamplingOptions
    version = 3
    access = Access(images=True)
    attack = True

    def __init__(
        self, options: RandomSamplingOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.unconditional = options.extraction == "unconditional"
        self.steps = options.steps or int(sampling["steps"])
        self.guidance = options.guidance or float(sampling["guidance"])
        # A prompt generates images of its own to be scored, and is scored by extracted
        # ones where it has all its draws; around an image those are counted that were
        # extracted.
        self.extract_only = bool(sampling.get("extract_only", False))
        self.scores_extracted = not self.unconditional and not options.at_most
        self.access = Access(images=self.scores_extracted or self.examples == "images")
        self._drawn: Pixels | None = None

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        o = self.options
        if self.unconditional:
            why = "extraction=unconditional extracts as many images as generations says; set that"
            refuse_unread(o, ("at_most",), why)
            if self.extract_only or self.examples == "images":  # no prompt is scored
                why = "extraction=unconditional asks the null condition alone, without guidance"
                refuse_unread(o, ("draws", "guidance"), f"{why}; set generations")
        else:
            why = "it is of extraction=unconditional; set draws or at_most, or choose that"
            refuse_unread(o, ("generations",), why)
        if not model.has_condition:
            refuse_unread(o, ("guidance",), "this model has no condition to be guided by")
        if self.extract_only:  # tiles are of scores
            return
        height, width, _ = image_shape(model, conditions)
        if height % o.tiles or width % o.tiles:
            raise UserError(
                f"tiles={o.tiles} does not divide the {height} and {width} pixels of an"
                " image's sides; choose a number that does"
            )

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        if self.unconditional:
            return [Request(UNCONDITIONAL, draw) for draw in range(self.options.generations)]
        return requests(conditions, self.options.draws)[: self.options.at_most or None]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.steps * step_forwards(
            model.condition([request.condition]), self._weight(request.condition)
        )

    def _weight(self, condition: Condition) -> float:
        """The guidance weight; where the condition is the null condition itself, there
        is nothing to guide away from.
        """
        return 1.0 if condition == UNCONDITIONAL else self.guidance

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Plain sampling has no opinion of its images: every confidence is 0."""
        x = model.noise([(r.condition.id, r.draw) for r in requests], self.seed)
        weights = [self._weight(r.condition) for r in requests]
        for weight in sorted(set(weights)):  # two, where some of the images have no class
            rows = [i for i, own in enumerate(weights) if own == weight]
            told = model.condition([requests[i].condition for i in rows])
            x[rows] = ddim(model, x[rows], told, steps=self.steps, guidance=weight)
        images = model.decode(x)
        finite = x.flatten(1).isfinite().all(dim=1).tolist()
        return [
            Sample(r.condition, r.draw, image, 0.0 if ok else math.nan)
            for r, image, ok in zip(requests, images, finite, strict=True)
        ]

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        if self.examples == "images":
            return self._densities_at(own_images(conditions), extracted)
        if self.scores_extracted:
            return [self._density(extracted[c.id]) for c in conditions]
        n = self.options.draws
        samples = self.extract(model, [Request(c, draw) for c in conditions for draw in range(n)])
        return [self._density(samples[i : i + n]) for i in range(0, len(samples), n)]

    def _densities_at(
        self, images: np.ndarray, extracted: Mapping[str, Sequence[Sample]]
    ) -> list[float]:
        """Extracted images within the threshold of each image, and as a tie-break 0.5 /
        (1 + the distance to the nearest).
        """
        if self._drawn is None:
            self._drawn = drawn_pixels(extracted)
        if not len(self._drawn):
            return [math.nan] * len(images)
        within, least = np.zeros(len(images), dtype=np.int64), np.full(len(images), math.inf)
        for block in self._drawn.blocks():
            distance = tiled_l2_between(images, block, tiles=self.options.tiles)
            within += (distance <= self.options.threshold).sum(axis=1)
            np.minimum(least, distance.min(axis=1), out=least)
        return (within + 0.5 / (1 + least)).tolist()

    def _density(self, images: Sequence[Sample]) -> float:
        if any(math.isnan(s.confidence) for s in images):
            return math.nan
        distances = tiled_l2_matrix(np.stack([s.image for s in images]), tiles=self.options.tiles)
        return density_score(distances, self.options.threshold)
