"""Complexity control: the size of an image's PNG, which no memorization is needed for.

What this detector reaches, the data give away: LID estimators rank images by their
complexity (Kamkari et al., NeurIPS 2024), and a plain image is not a memorized one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from membench.models.denoiser import Denoiser
from membench.storage.images import png_bits
from membench.types import Access, Condition, Request

from .base import IMAGES, MeasuresImages


@dataclass(frozen=True)
class PngSizeOptions:
    images: int = field(default=1, metadata=IMAGES)


class PngSize(MeasuresImages):
    """Minus the bits of the PNG: a simple image scores high, as it does by its LID."""

    Options: ClassVar[type] = PngSizeOptions
    version = 1
    access = Access(images=True)

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> list[float]:
        return [-float(png_bits(image)) for image in images]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return self.sampling_forwards(model, request)
