"""Labels of the synthetic images, of whichever source, for a surrogate to train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from membench.models.denoiser import Denoiser
from membench.storage.workspace import Workspace

from ..side_options import SideOptions
from .conditions import Synthetic, cluster, describe
from .oracle import true_labels
from .teacher import teach


@dataclass(frozen=True)
class Labelled:
    """synthetic: the images to train on; labels: int [n], from 0; targets: float [n,
    classes], each row sums to 1. facts: what the run says of it.
    """

    synthetic: Synthetic
    labels: torch.Tensor
    targets: torch.Tensor
    facts: Mapping[str, Any]


def by_clusters(
    model: Denoiser, synthetic: Synthetic, workspace: Workspace, options: SideOptions, seed: int
) -> Labelled:
    """Each image's cluster among those that are kept: SIDE's pseudo-labels."""
    o = options
    z = describe(
        model, synthetic, workspace, features=o.features, weights=o.features_weights, seed=seed
    )
    found = cluster(
        z, k=o.k, min_members=o.min_members, keep=o.keep, cohesion=o.cohesion, seed=seed
    )
    labels = torch.from_numpy(found.labels)
    facts: dict[str, Any] = {"features": o.features, "clusters kept": len(found.kept), "of": o.k}
    facts |= {"images of kept clusters": int(found.members.sum())}
    facts["cohesion"] = [round(float(v), 4) for v in found.cohesion if math.isfinite(v)]
    if o.train_on == "kept":
        synthetic, labels = synthetic.only(found.members), labels[found.members]
    targets = torch.nn.functional.one_hot(labels, len(found.kept)).float()
    return Labelled(synthetic, labels, targets, facts)


def by_oracle(
    model: Denoiser,
    synthetic: Synthetic,
    copied: Callable[[np.ndarray], np.ndarray],
    least: int,
) -> Labelled:
    """The training image that each copies: :func:`true_labels`."""
    known, labels = true_labels(model, synthetic, copied, least)
    facts = {"training images known": int(labels.max()) + 1, "their images": len(labels)}
    targets = torch.nn.functional.one_hot(labels).float()
    return Labelled(synthetic.only(known), labels, targets, facts)


def by_teacher(
    model: Denoiser, synthetic: Synthetic, workspace: Workspace, folder: str
) -> Labelled:
    """What a given classifier says of each: :func:`teach`."""
    targets = teach(model, synthetic, workspace, folder)
    # A class that the model never generates cannot be guided to.
    seen, labels = torch.unique(targets.argmax(dim=1), return_inverse=True)
    targets = targets[:, seen] / targets[:, seen].sum(dim=1, keepdim=True)
    return Labelled(synthetic, labels, targets, {"teacher classes seen": len(seen)})
