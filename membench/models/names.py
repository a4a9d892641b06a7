"""What a row of states is, without looking at its numbers.

A row of noise has a name that is made of its content while it still lies on the host; a
step of DDIM makes the next state's name of this one's, the condition's, the model's and
the step's.
So whoever follows the same trajectory has the same names, and the memo need not read
states off a device, which would wait for it at every step. A name is carried by the
tensor object itself: whatever is computed from it has none, nor has a tensor that was
changed in place since, and then the memo reads the numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

# Devices whose numbers can be read at once: there content says what a row is, which no
# change of a tensor escapes.
READABLE = ("cpu",)

ATTRIBUTE = "membench_names"


def digests(*parts: torch.Tensor) -> list[bytes]:
    """SHA-256 of each row of the parts [n, ...] together, in float32."""
    rows = [part.detach().float().cpu().contiguous().numpy() for part in parts]
    return [
        hashlib.sha256(b"".join(part.tobytes() for part in row)).digest()
        for row in zip(*rows, strict=True)
    ]


def version(x: torch.Tensor) -> int | None:
    """Goes up with every change in place; None of a tensor that does not count them."""
    return None if x.is_inference() else x._version


def named(x: torch.Tensor, names: Sequence[bytes] | None) -> torch.Tensor:
    """x itself, its rows called so; None: they have no names."""
    if names is not None and x.device.type not in READABLE:
        setattr(x, ATTRIBUTE, (version(x), list(names)))
    return x


def names_of(x: torch.Tensor) -> list[bytes] | None:
    """Of the rows of x; None where they have none, or x was changed in place since."""
    made, names = getattr(x, ATTRIBUTE, (None, None))
    return names if made is not None and made == version(x) else None


def stepped(x: torch.Tensor, keys: Sequence[bytes] | None, *step: object) -> list[bytes] | None:
    """Names of the states that a step makes of x under conditions of these keys; none
    where either is not known. No keys: nothing is told.
    """
    names = names_of(x)
    if names is None or keys is None:
        return None
    words = repr(step).encode()
    return [
        hashlib.sha256(b"".join((name, key, words))).digest()
        for name, key in zip(names, keys or [b""] * len(names), strict=True)
    ]
