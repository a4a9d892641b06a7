"""What a network is told: embeddings of captions, or class labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conditioning:
    """What the network is told: ``embeddings`` [n, tokens, d] for text, [n] for class
    labels, None for an unconditional model. pooled: [n, p], one vector a prompt beside
    them, for a network that takes one (Stable Diffusion XL); else None.
    """

    embeddings: torch.Tensor | None
    pooled: torch.Tensor | None = None

    def __getitem__(self, index: slice | torch.Tensor) -> Conditioning:
        return self._each(lambda rows: rows[index])

    def repeat(self, times: int) -> Conditioning:
        """Each row ``times`` times, rows of one condition together."""
        return self._each(lambda rows: rows.repeat_interleave(times, dim=0))

    def tile(self, times: int) -> Conditioning:
        """All rows, ``times`` times over."""
        return self._each(lambda rows: rows.repeat(times, *[1] * (rows.ndim - 1)))

    def expand(self, n: int) -> Conditioning:
        """The one row of it, ``n`` times, without a copy."""
        return self._each(lambda rows: rows.expand(n, *rows.shape[1:]))

    def beside(self, other: Conditioning) -> Conditioning:
        """Rows of both in turn: its first, the other's first, its second ...: [2n]."""
        return Conditioning(*map(_in_turn, self._parts(), other._parts()))

    def to(self, device: torch.device) -> Conditioning:
        return self._each(lambda rows: rows.to(device))

    def copied(self, device: str) -> Conditioning:
        """Not a view: that would keep its whole batch alive."""
        return self._each(lambda rows: rows.to(device, copy=True))

    def where(self, keep: torch.Tensor) -> Conditioning:
        """Zeros in each row that ``keep``, bool [n], does not name."""
        return self._each(lambda rows: rows * keep.view(-1, *[1] * (rows.ndim - 1)).to(rows))

    def _parts(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return self.embeddings, self.pooled

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        return Conditioning(*(None if part is None else change(part) for part in self._parts()))


def _in_turn(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else torch.stack([a, b], dim=1).flatten(0, 1)


def stacked(rows: Sequence[Conditioning]) -> Conditioning:
    """One of several prompts, from those of one prompt each, [1, ...]."""
    parts = zip(*(row._parts() for row in rows), strict=True)
    return Conditioning(*(None if part[0] is None else torch.cat(part) for part in parts))
