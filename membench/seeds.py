"""Seeds that depend on what is drawn, never on the order in which it is drawn."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGEST_SEED = 10**18 - 1  # that a user gives: 18 digits


def seed_of(*words: object) -> int:
    """A 63-bit seed from SHA-256 of the words: ``seed_of(seed, example_id, draw)``."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*words: object) -> torch.Generator:
    """A CPU generator seeded by :func:`seed_of`.

    Noise is drawn on the CPU, then moved, so that devices agree.
    """
    import torch

    return torch.Generator(device="cpu").manual_seed(seed_of(*words))
