"""What a network is told: embeddings of captions, or class labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conditioning:
    """What the network is told: ``embeddings`` [n, tokens, d] for text, None for an
    unconditional model.
    """

    embeddings: torch.Tensor | None

    def __getitem__(self, index: slice | torch.Tensor) -> Conditioning:
        return Conditioning(None if self.embeddings is None else self.embeddings[index])

    def repeat(self, times: int) -> Conditioning:
        """Each row ``times`` times, rows of one condition together."""
        return Conditioning(
            None if self.embeddings is None else self.embeddings.repeat_interleave(times, dim=0)
        )
