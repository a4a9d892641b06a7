"""True labels in place of SIDE's pseudo-labels: which training image each synthetic
image copies.

No attacker knows them. All else stays as it is (the same images, the same classifier
and number of steps), so what this gains over SIDE is what the clustering loses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser

from .conditions import BLOCK, Synthetic


def true_labels(
    model: Denoiser,
    synthetic: Synthetic,
    copied: Callable[[np.ndarray], np.ndarray],
    least: int,
) -> tuple[np.ndarray, torch.Tensor]:
    """Which synthetic images copy a training image that ``least`` of them or more copy,
    bool [n], and the labels of these: int [known], from 0, in the order of the training
    images.

    copied: images ``uint8`` [n, h, w, 3] -> the training image of each, -1 for none.
    Counts n decodes. Raises :class:`UserError` where there is no such training image.
    """
    nearest = np.concatenate(
        [copied(model.decode(part.to(model.device))) for part in synthetic.x0.split(BLOCK)]
    )
    found, counts = np.unique(nearest[nearest >= 0], return_counts=True)
    classes = found[counts >= least]
    if not len(classes):
        raise UserError(
            f"labels=oracle: of {len(nearest):,} synthetic images {int(counts.sum()):,} are copies,"
            f" and no training image is copied by min_members={least}: there is nothing to guide"
            " to. Raise synthetic, lower min_members, or choose labels=clusters"
        )
    known = np.isin(nearest, classes)
    return known, torch.from_numpy(np.searchsorted(classes, nearest[known]))
