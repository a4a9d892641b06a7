"""Attacks whose images are made while they prepare."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from membench.detector import Detector
from membench.models.denoiser import Denoiser
from membench.types import Condition, Request, Sample

from .base import samples


class Prepared(Detector):
    """``prepare`` calls :meth:`keep` with the images of the attack; they cost nothing
    more when they are extracted.
    """

    attack = True
    alone = True  # it samples while it prepares

    def keep(
        self,
        rows: Sequence[tuple[Condition, int]],
        x0: torch.Tensor,
        confidences: Sequence[float],
    ) -> None:
        """The condition and draw of each image, its final state, and how sure it is."""
        self.rows, self.x0, self.confidences = list(rows), x0, confidences
        self._places = {(c.id, draw): i for i, (c, draw) in enumerate(self.rows)}

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, draw) for c, draw in self.rows]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return 0  # paid for by the preparation

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        at = [self._places[r.condition.id, r.draw] for r in requests]
        x = self.x0[at].to(model.device)
        return samples(requests, x, model.decode(x), [self.confidences[i] for i in at])


def each_once(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions without their images, each once, in one order whatever that of the
    examples is.
    """
    return sorted({c.bare for c in conditions}, key=lambda c: c.id)
