"""The trace of the network's Jacobian: exact in few dimensions, else by random probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from membench.models.derivative import Probe, Vectors
from membench.seeds import generator

SMALL = 128  # up to this D a trace is exact where nobody asked for an estimate


@dataclass(frozen=True)
class Trace:
    """How a trace over the dimensions of ``shape`` is taken: exactly, by D unit vectors,
    or as the mean form of ``probes`` random ones.
    """

    shape: tuple[int, ...]
    exact: bool
    probes: int
    probe: Probe = "rademacher"

    @property
    def count(self) -> int:
        """Vectors a row."""
        return torch.Size(self.shape).numel() if self.exact else self.probes

    def vectors(self, names: Sequence[str], seed: int) -> Vectors:
        """names: of each row, fix its probes."""
        if self.exact:
            return basis(self.shape, len(names))
        return random_probes(self.shape, list(names), seed, self.count, self.probe)

    def of(self, forms: torch.Tensor) -> torch.Tensor:
        """The trace [n] of forms [count, n]."""
        return forms.sum(dim=0) if self.exact else forms.mean(dim=0)


def small(shape: tuple[int, ...], probes: int) -> bool:
    """Whether unit vectors cost no more than the probes, or little."""
    return torch.Size(shape).numel() <= max(SMALL, probes)


def basis(shape: tuple[int, ...], n: int) -> Vectors:
    """The D unit vectors, the same for each of ``n`` rows: their forms sum to the exact
    trace.
    """
    size = torch.Size(shape).numel()

    def vectors(probes: slice, rows: slice) -> torch.Tensor:
        index = torch.arange(size)[probes]
        units = torch.nn.functional.one_hot(index, size).float().view(len(index), 1, *shape)
        return units.expand(-1, len(range(n)[rows]), *shape)

    return vectors


def random_probes(
    shape: tuple[int, ...], ids: list[str], seed: int, count: int, probe: Probe
) -> Vectors:
    """Hutchinson's probes (E v v' = 1, so that the mean form is the trace): a function
    of (seed, id, number) alone.
    """

    def draw(name: str, k: int) -> torch.Tensor:
        source = generator(seed, "probe", name, k)
        if probe == "gaussian":
            return torch.randn(shape, generator=source)
        return torch.randint(0, 2, shape, generator=source).float() * 2 - 1

    def vectors(probes: slice, rows: slice) -> torch.Tensor:
        return torch.stack(
            [torch.stack([draw(name, k) for name in ids[rows]]) for k in range(count)[probes]]
        )

    return vectors
