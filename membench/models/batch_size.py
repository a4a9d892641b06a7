"""How many images go through the network at once: ``--batch-size auto``, and what else
is made ready once a model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.types import Condition

AUTO = 0  # as a number of images
USUAL, LARGEST = 64, 256

# Of the first feature maps of all images of a batch on the CPU: 8 of Stable Diffusion
# 1, 64 of the mini models
VALUES = 2**24

# Of the free memory of a GPU; the rest is for the VAE and for what the allocator cannot
# use
SHARE = 0.8
ROWS = (2, 4)  # one pair and two: the sizes at which memory is measured


class Meter(Protocol):
    """A device's memory, in bytes."""

    def free(self) -> int:
        """What could still be allocated."""
        ...

    def peak(self, act: Callable[[], object]) -> int:
        """The most that ``act`` allocates beyond what is allocated before it."""
        ...


@dataclass(frozen=True)
class CudaMeter:
    device: torch.device

    def free(self) -> int:
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0]) + unused

    def peak(self, act: Callable[[], object]) -> int:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        act()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def automatic(model: Denoiser) -> int:
    """Images at once for this model on its device, a power of two from 1 to 256:
    measured on a GPU, elsewhere by the size of the network.

    The rule depends on the model alone, so that on the CPU a run has the same batches,
    and the same last bits, on every machine.
    """
    return (
        by_memory(model, CudaMeter(model.device)) if model.device.type == "cuda" else by_size(model)
    )


def by_size(model: Denoiser) -> int:
    """As many images as have ``VALUES`` values in the network's first feature maps, a
    power of two from 1 to 64.
    """
    config: Any = getattr(model.network, "config", None) or {}
    channels = (config.get("block_out_channels") or model.shape[:1])[0]
    return _power(VALUES / (channels * math.prod(model.shape[1:])), USUAL)


def by_memory(model: Denoiser, meter: Meter) -> int:
    """As many images as fit into ``SHARE`` of the free memory, by the peaks of one pair
    and of two, taken to grow linearly.

    Counts no evaluation. Raises :class:`UserError` if not even one pair fits.
    """
    condition = Condition("any", class_label=None if model.has_null else 0)
    before, peaks = model.batch_size, []
    try:
        for rows in (ROWS[0], *ROWS):  # the first time for the libraries' own workspaces
            model.batch_size = rows
            x, told = (
                torch.zeros(rows, *model.shape, device=model.device),
                model.condition([condition] * rows),
            )
            with torch.no_grad():
                peaks.append(
                    meter.peak(lambda x=x, told=told: model._predict(x, model.steps - 1, told))  # type: ignore[misc]
                )
    except UserError:
        if len(peaks) < len(ROWS):
            raise
        return ROWS[0]  # two pairs do not fit
    finally:
        model.batch_size = before
    return fitting(ROWS, (peaks[1], peaks[2]), SHARE * meter.free())


def fitting(rows: tuple[int, int], peaks: tuple[int, int], memory: float) -> int:
    """The largest power of two n, 1 <= n <= 256, whose peak a + b n is within
    ``memory``; the line goes through both peaks.

    rows: two different numbers of images, the smaller first. peaks, memory: bytes.
    """
    each = max((peaks[1] - peaks[0]) / (rows[1] - rows[0]), 1.0)
    fixed = max(peaks[0] - each * rows[0], 0.0)
    return _power((memory - fixed) / each, LARGEST)


def _power(most: float, limit: int) -> int:
    return 1 << int(math.log2(min(max(most, 1), limit)))


@dataclass
class Tuned:
    """A task's model, made ready for its device whenever it is loaded: compiled where
    asked for, then its batch size set.

    wanted: images at once, or AUTO. ``batch_size`` is what was set; AUTO before the
    first call.
    """

    load: Callable[[], Denoiser]
    wanted: int
    compile: bool = False
    batch_size: int = field(default=AUTO, init=False)

    def __call__(self) -> Denoiser:
        model = self.load()
        if self.compile:
            model.compile()
        model.batch_size = self.batch_size = (
            automatic(model) if self.wanted == AUTO else self.wanted
        )
        return model
