"""SIDE's surrogate for small models: a classifier p_t(y | x_t) on images noised by the
target's own forward process.

A ResNet whose blocks take the timestep right after their first batch normalisation, as
scale and shift (SIDE, section 4). Without the timestep, and trained on clean images, it
is the time-independent classifier of the conditional baseline (Carlini et al. 2023).
Targets are class probabilities: one-hot pseudo-labels, or a teacher's output to distil
(the method's first version).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.training import Plan, fit
from membench.storage.hashing import tensor_hash
from membench.storage.workspace import Workspace
from membench.types import Cost

from .conditions import Synthetic, read_tensors, write_tensors

TIME = 128  # width of the time embedding


class TimeNorm(nn.Module):
    """A block's first batch normalisation, then (1 + scale(t)) and shift(t) on what it
    normalised.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.affine = nn.Linear(TIME, 2 * norm.num_features)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        self.time: torch.Tensor | None = None  # set by the classifier before each pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, shift = self.affine(self.time)[:, :, None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class Classifier(nn.Module):
    """torchvision's ResNet with a stem for small images (no pooling).

    Logits [n, classes] of x [n, c, h, w] at t [n].

    blocks: per stage; (3, 4, 6, 3) is ResNet-34. stem: stride of the first convolution,
    3x3 at stride 1 and wide enough to miss no pixel above. ``timed=False`` leaves the
    timestep out.
    """

    def __init__(
        self, channels: int, classes: int, blocks: tuple[int, ...], *, timed: bool, stem: int = 1
    ) -> None:
        super().__init__()
        self.resnet = ResNet(BasicBlock, list(blocks), num_classes=classes)
        width = max(3, 2 * stem - 1)
        self.resnet.conv1 = nn.Conv2d(
            channels, 64, width, stride=stem, padding=width // 2, bias=False
        )
        self.resnet.maxpool = nn.Identity()
        self.time: nn.Module | None = None
        if timed:
            self.time = nn.Sequential(
                nn.Linear(TIME, TIME), nn.SiLU(), nn.Linear(TIME, TIME), nn.SiLU()
            )
            for module in self.resnet.modules():
                if isinstance(module, BasicBlock):
                    module.bn1 = TimeNorm(module.bn1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if self.time is not None:
            embedding = self.time(get_timestep_embedding(t, TIME))
            for module in self.modules():
                if isinstance(module, TimeNorm):
                    module.time = embedding
        return self.resnet(x)


def log_prob_gradient(
    classifier: nn.Module,
    x: torch.Tensor,
    t: int,
    labels: torch.Tensor,
    cost: Cost,
    batch_size: int = 64,
) -> torch.Tensor:
    """grad_x log p_t(y | x) at x [n, *shape] for labels [n]: float32 [n, *shape].

    Counts n surrogate forwards and backwards.
    """
    pieces = []
    for part, y in zip(x.float().split(batch_size), labels.split(batch_size), strict=True):
        with torch.enable_grad():
            inputs = part.detach().requires_grad_(True)
            logits = classifier(inputs, torch.full((len(part),), t, device=part.device))
            # The sum's gradient is each row's own: in evaluation mode no row looks at
            # another.
            chosen = F.log_softmax(logits.float(), dim=1).gather(1, y[:, None]).sum()
        pieces.append(torch.autograd.grad(chosen, inputs)[0])
    cost.surrogate_forwards += len(x)
    cost.surrogate_backwards += len(x)
    return torch.cat(pieces)


def train_classifier(
    model: Denoiser,
    synthetic: Synthetic,
    targets: torch.Tensor,
    workspace: Workspace,
    *,
    blocks: tuple[int, ...],
    timed: bool,
    stem: int = 1,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> Classifier:
    """Cross-entropy on noised D_syn at uniform t (``timed``), or on clean D_syn.

    AdamW. Continues after an interruption.

    targets: probabilities [n, classes]; they are part of the key, whatever made them.
    Raises :class:`UserError` for a single class: its gradient is 0 everywhere.
    """
    if targets.shape[1] < 2:
        raise UserError(
            "the classifier has one class of images to learn, so it would guide nothing; raise"
            " synthetic, or keep more clusters (keep, min_members)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(
            model.shape[0], targets.shape[1], blocks, timed=timed, stem=stem
        ).to(model.device)
    x0 = synthetic.x0

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(x0), (batch,), generator=gen)
        t = torch.randint(model.steps if timed else 1, (batch,), generator=gen)
        x = x0[index]
        if timed:
            x = model.noised(x, torch.randn(x.shape, generator=gen), t)
        return F.cross_entropy(
            classifier(x.to(model.device), t.to(model.device)), targets[index].to(model.device)
        )

    def make(folder: Path) -> tuple[Cost, float]:
        plan = Plan(
            "classifier", {"classifier": classifier}, loss, steps, lambda step: rate, seed, **ADAMW
        )
        report = fit(plan, folder, progress=workspace.progress)
        write_tensors(folder / "classifier.safetensors", classifier.state_dict())
        (folder / "classifier.checkpoint").unlink()
        return Cost(surrogate_forwards=steps * batch, surrogate_backwards=steps * batch), report[
            "seconds"
        ]

    training = {
        "blocks": blocks,
        "timed": timed,
        "stem": stem,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "seed": seed,
    }
    stage = workspace.stage(
        "classifier",
        {
            "synthetic": synthetic.stage.key,
            "targets": tensor_hash({"targets": targets}),
            **training,
        },
        make,
    )
    classifier.load_state_dict(read_tensors(stage.path / "classifier.safetensors")[0])
    return classifier.eval().requires_grad_(False)


# The papers say AdamW and a learning rate; everything else is torch's default. No
# average of weights.
ADAMW: dict[str, Any] = {
    "ema_decay": 0.0,
    "betas": (0.9, 0.999),
    "weight_decay": 0.01,
    "checkpoint_seconds": 30.0,
}
