"""What generated images are good for: a classifier that is trained on them alone, and
tested on images that neither it nor the model has seen.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import trange

from membench.models.image_values import from_uint8

WIDTH, STEPS, BATCH, RATE = 32, 400, 64, 3e-3
TESTED = 256  # images at once


def downstream_accuracy(
    images: np.ndarray,
    told: np.ndarray,
    held_out: np.ndarray,
    classes: np.ndarray,
    *,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = False,
) -> tuple[float, float]:
    """Classification accuracy score (Ravuri and Vinyals, NeurIPS 2019): the share of
    ``held_out`` (``uint8`` [m, h, w, 3]) whose class [m] a network names that was trained
    on ``images`` (``uint8`` [n, h, w, 3]) and the classes ``told`` [n] that they were
    generated from; in [0, 1], with its standard error over the held-out images.

    The network is one of four convolutions, trained for 400 steps of 64 images, shifted
    by up to an eighth of their side and mirrored by chance; the paper's is a ResNet-50 on
    ImageNet, so values do not compare with its. Seeded; between processors it moves as
    trainings do. Raises ValueError for images of two sizes.
    """
    if images.shape[1:] != held_out.shape[1:]:
        raise ValueError("a classifier of images of one size cannot be tested on another's")
    names, known = np.unique(told, return_inverse=True)
    x, labels = from_uint8(images), torch.as_tensor(known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(len(names)).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    gen = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in trange(STEPS, desc="classifier", unit="step", disable=not progress, leave=False):
            rows = torch.randint(len(x), (BATCH,), generator=gen)
            logits = network(_moved(x[rows], gen).to(device))
            loss = F.cross_entropy(logits, labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        parts = from_uint8(held_out).split(TESTED)
        found = torch.cat([network(part.to(device)).argmax(dim=1).cpu() for part in parts])
    accuracy = float((names[found.numpy()] == classes).mean())
    return accuracy, math.sqrt(accuracy * (1 - accuracy) / len(classes))


def _network(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, WIDTH), (WIDTH, 2 * WIDTH)):
        for wide in (before, after):
            layers += [nn.Conv2d(wide, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * WIDTH, classes)
    )


def _moved(x: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """The images of a batch [n, 3, h, w] shifted alike, each mirrored with probability
    1/2.
    """
    h, w = x.shape[2:]
    most = min(h, w) // 8
    down, right = torch.randint(2 * most + 1, (2,), generator=gen).tolist()
    x = F.pad(x, (most,) * 4, mode="reflect")[:, :, down : down + h, right : right + w]
    mirrored = torch.rand(len(x), generator=gen) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)
