"""What a pixel model is told of each training image, and how often it is told
otherwise: the experiment that SIDE's reviewers asked for.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from membench.errors import UserError
from membench.seeds import seed_of

Labels = Literal["class", "random", "cluster", "none"]


def make_labels(
    kind: Labels, images: np.ndarray, classes: np.ndarray, n_classes: int, seed: int
) -> np.ndarray | None:
    """Labels [n] in [0, n_classes), or None.

    class: ``classes`` as they are. random: one of ``n_classes`` for each image, the same
    whenever it is shown. cluster: k-means with k = ``n_classes`` on the pixels of 8x8
    means; images: ``uint8`` [n, size, size, 3], size a multiple of 8. Raises
    :class:`UserError` for fewer images than clusters.
    """
    if kind == "none":
        return None
    if kind == "class":
        return classes
    if kind == "random":
        return np.random.RandomState(seed_of("random labels", seed) % 2**32).randint(
            n_classes, size=len(images)
        )
    if len(images) < n_classes:
        raise UserError(
            f"labels=cluster makes {n_classes} clusters; give at least as many images"
            f" (there are {len(images)})"
        )
    from sklearn.cluster import KMeans

    side = images.shape[1] // 8
    small = images.reshape(len(images), 8, side, 8, side, 3).mean(axis=(2, 4))
    # scikit-learn takes 32 bits
    state = seed if seed < 2**32 else seed_of("cluster labels", seed) % 2**32
    return KMeans(n_classes, n_init=10, random_state=state).fit_predict(
        small.reshape(len(images), -1) / 255
    )


def perturbed(
    labels: torch.Tensor, share: float, n_classes: int, gen: torch.Generator
) -> torch.Tensor:
    """The labels [n] of a batch, each with probability ``share`` replaced by one of all
    ``n_classes`` at random: a true label is told with probability 1 - share (1 - 1 /
    n_classes). With a share of 0 the generator is left alone.
    """
    if share == 0:
        return labels
    other = torch.randint(n_classes, labels.shape, generator=gen)
    return torch.where(torch.rand(labels.shape, generator=gen) < share, other, labels)
