"""What the tests of surrogate conditions and of both surrogates share."""

from __future__ import annotations

from pathlib import Path

import torch

from membench.detectors.surrogate.conditions import Synthetic
from membench.storage.workspace import Stage
from membench.types import Cost

# The tiny pipeline's
ABAR = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def synthetic(x0: torch.Tensor) -> Synthetic:
    return Synthetic(x0, Stage(Path(), "some key", Cost(), 0.0))
