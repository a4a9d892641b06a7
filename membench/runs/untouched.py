"""The network and its schedule as a plug-in must leave them: the other detectors of the
command are asked of the same ones, and a run's key names the weights as they were loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from membench.detector import Detector
from membench.models.denoiser import Denoiser

# A word for what each entry of a fingerprint is of
WEIGHTS, SCHEDULE, MODE, HOOKS = "weights", "noise schedule", "training mode", "hooks"


def fingerprint(detector: Detector, model: Any) -> dict[str, Any]:
    """What is compared before and after a call of a plug-in; empty where nothing is: of
    detectors that ship, of those that work alone, and without a network.
    """
    if type(detector).__module__.startswith("membench.") or not isinstance(model, Denoiser):
        return {}
    if detector.alone:
        return {}
    network = model.network
    return {
        WEIGHTS: [*_sums([*network.parameters(), *network.buffers()])],
        SCHEDULE: [*_sums([model.alphas_cumprod, model.scheduler.alphas_cumprod])],
        MODE: any(module.training for module in network.modules()),
        HOOKS: hooks(network),
    }


def hooks(network: Any) -> int:
    """How many hooks a network and its parts have, forwards and backwards."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in network.modules() for kind in kinds)


def _sums(tensors: list[Any]) -> Iterator[tuple[str, int]]:
    """Type and sum of the bits of each: exact, in whatever order it is made, and of a
    change through ``.data``, too, which no version of a tensor counts.
    """
    import torch

    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for tensor in tensors:
        bits = tensor.detach()
        if bits.is_floating_point():
            bits = bits.view(kinds[bits.element_size()])
        yield str(tensor.dtype), int(bits.sum(dtype=torch.int64))
