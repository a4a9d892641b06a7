"""A TorchScript model in this process, for tests that are not about the other one.

Each process of its own costs the two seconds in which torch is imported there.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch


class Here:
    """What :class:`membench.features.apart.Apart` does with a file that can be trusted."""

    def __init__(self, file: Path, device: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            self.model = torch.jit.load(str(file), map_location=device).eval()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def programs_run_here(patch: pytest.MonkeyPatch) -> None:
    """From now on; what runs already goes on where it is."""
    patch.setattr("membench.features.sscd.Apart", Here)
