"""``MEMBENCH_ROUNDING=1 pytest`` finds tests that ask for more bits than are promised.

Kernels sum in another order for batches of other sizes, and which sizes differ depends
on the processor. Here every convolution and linear layer differs by a few units in the
last place with the size of its batch and the row in it: the same batch gives the same
bits, any other does not (docs/design/determinism.md).
"""

from __future__ import annotations

import torch

SIZE = 2e-7  # relative; float32 has 24 bits: 1.2e-7 between two numbers
FACTORS = 1 + SIZE * torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)


def factors(shape: torch.Size) -> torch.Tensor:
    """Factors for an output [n, ...]: a function of n, of the row and of the place in
    it.
    """
    n, each = shape[0], shape[1:].numel()
    start = 7919 * n % 1000
    if start + 13 * n + each > len(FACTORS):
        raise ValueError(f"an output {list(shape)} is larger than those of the tests")
    return FACTORS.as_strided(
        (n, *shape[1:]), (13, *torch.empty(shape[1:], device="meta").stride()), start
    )


def install() -> None:
    """Puts the rounding into ``torch.nn`` for the rest of the process."""
    for kind in (torch.nn.Conv2d, torch.nn.Linear):
        kind.forward = _rounded(kind.forward)  # type: ignore[method-assign]


def _rounded(forward):
    def rounded(self, *args, **kwargs):
        y = forward(self, *args, **kwargs)
        return y * factors(y.shape).to(y) if y.numel() else y

    return rounded
