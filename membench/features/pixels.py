"""Pixels as features: area averages."""

from __future__ import annotations

import torch

from membench.errors import UserError
from membench.features.extractor import Loaded

PIXELS_SIDE = 32


def load_pixels(weights: str, device: str, option: str) -> Loaded:
    """See :func:`membench.features.loading.load_features`."""
    if weights:
        raise UserError(f"pixels have no weights, and {option}{weights} names some: leave it out")

    def encode(x: torch.Tensor) -> torch.Tensor:
        rows, columns = (_area_average(side).to(x.device) for side in x.shape[1:3])
        return torch.einsum("ih,nhwc,jw->nijc", rows, x.float() / 127.5 - 1, columns).flatten(1)

    # A copy, because torch takes no read-only or reversed array.
    return f"pixels-area{PIXELS_SIDE}", lambda images: torch.from_numpy(images.copy()), encode


def _area_average(side: int) -> torch.Tensor:
    """float32 [min(side, 32), side]: the share of each pixel in each cell of equal
    width; rows sum to 1.
    """
    cells = min(side, PIXELS_SIDE)
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    pixel = torch.arange(side, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return (overlap.clamp(min=0) * cells / side).float()
