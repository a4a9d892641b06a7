"""Images as the network has them, and as people do."""

from __future__ import annotations

import numpy as np
import torch

from membench.errors import UserError


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """[-1, 1] floats [n, 3, h, w] to ``uint8`` [n, h, w, 3], rounded half to even as
    diffusers does.
    """
    return (
        ((x.float() / 2 + 0.5).clamp(0, 1) * 255)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .cpu()
        .numpy()
    )


def from_uint8(images: np.ndarray) -> torch.Tensor:
    """``uint8`` [n, h, w, channels] to [-1, 1] floats [n, channels, h, w]."""
    # A copy: the image of a condition is read-only, which torch warns of
    return torch.from_numpy(np.array(images, order="C")).permute(0, 3, 1, 2).float() / 127.5 - 1


def same_size(images: np.ndarray, got: tuple[int, ...], want: tuple[int, ...]) -> None:
    """Raises :class:`UserError` where images become states of another shape than the
    model's.
    """
    if got != want:
        size = "x".join(map(str, images.shape[1:]))
        raise UserError(
            f"images of {size} become states of {got}, but the model generates {want}; resize the"
            " images to the model's size"
        )
