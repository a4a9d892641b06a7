"""What a network is told: embeddings of captions, or class labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from membench.models.names import digests, version


@dataclass(frozen=True)
class Conditioning:
    """What the network is told: ``embeddings`` [n, tokens, d] for text, [n] for class
    labels, None for an unconditional model. pooled: [n, p], one vector a prompt beside
    them, for a network that takes one (Stable Diffusion XL); else None.
    """

    embeddings: torch.Tensor | None
    pooled: torch.Tensor | None = None
    # What says which of two rows are alike, and the versions of the tensors that it was
    # made of. Not an argument: what ``dataclasses.replace`` makes has other embeddings.
    _known: tuple[list[bytes], tuple[int | None, ...]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def keys(self) -> list[bytes] | None:
        """A key a row, equal where what the network is told is; none where it is told
        nothing. None where they were not made, or a tensor was changed in place since.
        """
        if self.embeddings is None:
            return []
        known, versions = self._known, self._versions()
        return known[0] if known and None not in versions and known[1] == versions else None

    def keyed(self) -> Conditioning:
        """The same with its keys. Reads what it holds: call it on the host."""
        told = [part for part in self._parts() if part is not None]
        return Conditioning(*self._parts())._with(digests(*told) if told else None)

    def __getitem__(self, index: slice | torch.Tensor) -> Conditioning:
        found, keys = self._each(lambda rows: rows[index]), self.keys
        if keys and isinstance(index, slice):
            return found._with(keys[index])
        if keys and isinstance(index, torch.Tensor) and index.device.type == "cpu":
            places = index.nonzero().flatten() if index.dtype == torch.bool else index
            return found._with([keys[place] for place in places.tolist()])
        return found  # an index on a device would have to be waited for

    def repeat(self, times: int) -> Conditioning:
        """Each row ``times`` times, rows of one condition together."""
        found = self._each(lambda rows: rows.repeat_interleave(times, dim=0))
        return found._with([key for key in self.keys or () for _ in range(times)])

    def tile(self, times: int) -> Conditioning:
        """All rows, ``times`` times over."""
        found = self._each(lambda rows: rows.repeat(times, *[1] * (rows.ndim - 1)))
        return found._with((self.keys or []) * times)

    def expand(self, n: int) -> Conditioning:
        """The one row of it, ``n`` times, without a copy."""
        found = self._each(lambda rows: rows.expand(n, *rows.shape[1:]))
        return found._with((self.keys or []) * n)

    def beside(self, other: Conditioning) -> Conditioning:
        """Rows of both in turn: its first, the other's first, its second ...: [2n]."""
        found = Conditioning(*map(_in_turn, self._parts(), other._parts()))
        if not (self.keys and other.keys):
            return found
        return found._with(
            [key for pair in zip(self.keys, other.keys, strict=True) for key in pair]
        )

    def to(self, device: torch.device) -> Conditioning:
        return self._each(lambda rows: rows.to(device))._with(self.keys)

    def copied(self, device: str) -> Conditioning:
        """Not a view: that would keep its whole batch alive."""
        return self._each(lambda rows: rows.to(device, copy=True))._with(self.keys)

    def where(self, keep: torch.Tensor) -> Conditioning:
        """Zeros in each row that ``keep``, bool [n], does not name."""
        return self._each(lambda rows: rows * keep.view(-1, *[1] * (rows.ndim - 1)).to(rows))

    def _with(self, keys: list[bytes] | None) -> Conditioning:
        """Itself, newly made, with these keys; no keys: without."""
        if keys:
            object.__setattr__(self, "_known", (keys, self._versions()))
        return self

    def _versions(self) -> tuple[int | None, ...]:
        return tuple(version(part) for part in self._parts() if part is not None)

    def _parts(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return self.embeddings, self.pooled

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        return Conditioning(*(None if part is None else change(part) for part in self._parts()))


def _in_turn(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else torch.stack([a, b], dim=1).flatten(0, 1)


def stacked(rows: Sequence[Conditioning]) -> Conditioning:
    """One of several prompts, from those of one prompt each, [1, ...]."""
    parts = zip(*(row._parts() for row in rows), strict=True)
    found = Conditioning(*(None if part[0] is None else torch.cat(part) for part in parts))
    keys = [row.keys for row in rows]
    return found._with([key for row in keys for key in row or ()] if all(keys) else None)
