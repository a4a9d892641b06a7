"""A model that has memorized, exactly: the empirical score of a few given images, as a
denoiser.

The data are pieces k of weight w_k: x0 = mean_k + spread U_k a + s n, a ~ N(0, 1) in
d_k dimensions, n ~ N(0, 1) in all D, s small. So

    p_t = sum_k w_k N(alpha mean_k, v_a along U_k, v_s across),
    v_s = alpha^2 s^2 + sigma^2,  v_a = v_s + alpha^2 spread^2.

A memorized image is a piece with d = 0 whose weight is its multiplicity; a memorized
template has d = 1. A condition selects some of the pieces; the null condition is all of
them. What is *not* memorized is, as the detectors' papers suppose,

    learned    a condition that selects a broad piece (d = 24), centred where the whole
               mixture is: it is followed, and generalised
    ignored    a condition that selects every piece: the model has learned nothing of
               it, and its prediction is the null prediction
    never      an image that lies on no piece
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.configuration_utils import FrozenDict

from membench.models.denoiser import Denoiser
from membench.models.image_values import from_uint8
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.pixel import PixelDenoiser
from membench.tasks.sd_webster.products import PRODUCTS, Look, draw
from membench.types import Condition

MODEL = Path(__file__).resolve().parent.parent / "tasks" / "data" / "sd_webster" / "a"
NARROW = 0.005  # s
BROAD = 24  # dimensions of what is learned and not memorized
MULTIPLICITY = (1, 1, 2, 2, 4)  # of the memorized images
MEMORIZED = len(MULTIPLICITY)
SIDE = 8  # pixels of an image of the pixel model


@dataclass(frozen=True)
class Piece:
    """mean [*shape]; spread: the standard deviation along each of ``dims`` directions."""

    mean: torch.Tensor
    weight: float
    dims: int = 0
    spread: float = 0.0


def _columns(pieces: Sequence[Piece]) -> tuple[list[int], list[float]]:
    return [p.dims for p in pieces], [p.spread for p in pieces]


class Exact(torch.nn.Module):
    """The network: the exact prediction in the scheduler's own parameterisation, in
    double precision inside.

    told: for each condition, by number, the pieces that it selects; the last is the
    null condition. keys [conditions, d]: of a model of text the embedding of each
    condition's prompt, flattened; a prompt that is none of them is ignored.
    """

    def __init__(
        self, scheduler: DDIMScheduler, pieces: Sequence[Piece], told: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.scheduler, self.pieces = scheduler, tuple(pieces)
        self.means = torch.stack([p.mean.double().flatten() for p in pieces])  # [k, D]
        source = torch.Generator().manual_seed(0)
        bases = [
            torch.linalg.qr(
                torch.randn(self.means.shape[1], p.dims, generator=source, dtype=torch.float64)
            )[0]
            for p in pieces
        ]
        self.bases = torch.cat(bases, dim=1).T.contiguous()  # [d_1 + d_2 + ..., D]
        # Of each of these directions its piece: one-hot [d_1 + d_2 + ..., k]; and where
        # the piece's mean lies along it.
        self.owner = torch.eye(len(pieces), dtype=torch.float64).repeat_interleave(
            torch.tensor([p.dims for p in pieces]), dim=0
        )
        self.offset = ((self.bases @ self.means.T) * self.owner).sum(dim=1)
        self.dims, self.spread = (
            torch.tensor([float(v) for v in values], dtype=torch.float64)
            for values in _columns(pieces)
        )
        weights = torch.zeros(len(told), len(pieces), dtype=torch.float64)
        for row, selected in zip(weights, told, strict=True):
            row[list(selected)] = torch.tensor(
                [pieces[k].weight for k in selected], dtype=torch.float64
            )
        self.log_weights = (weights / weights.sum(dim=1, keepdim=True)).log()
        self.keys: torch.Tensor | None = None
        self.config: Any = {"num_class_embeds": len(told)}
        # Of a U-Net; here the activations are the posterior of the pieces
        self.mid_block = torch.nn.Identity()
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # a Denoiser asks for device and dtype

    def joint(
        self, x: torch.Tensor, alpha: float, sigma: float, rows: torch.Tensor
    ) -> torch.Tensor:
        """log w_k + log p_t(x | k), [n, k], up to one constant for all k."""
        flat, v_s, v_a = x.double().flatten(1), *self._variances(alpha, sigma)
        away = (
            flat.pow(2).sum(dim=1, keepdim=True)
            - 2 * alpha * flat @ self.means.T
            + alpha**2 * self.means.pow(2).sum(dim=1)
        )
        along = (flat @ self.bases.T - alpha * self.offset).pow(2) @ self.owner
        return (
            self.log_weights[rows]
            - (away - along) / (2 * v_s)
            - along / (2 * v_a)
            - self.dims / 2 * (v_a / v_s).log()
        )

    def score(
        self, x: torch.Tensor, alpha: float, sigma: float, posterior: torch.Tensor
    ) -> torch.Tensor:
        """grad_x log p_t(x) = sum_k p(k | x) grad_x log p_t(x | k): [n, D] from the
        posterior [n, k].
        """
        flat, v_s, v_a = x.double().flatten(1), *self._variances(alpha, sigma)
        along = (flat @ self.bases.T - alpha * self.offset) * (
            posterior * (1 / v_s - 1 / v_a) @ self.owner.T
        )
        return (alpha * posterior @ self.means - flat) / v_s + along @ self.bases

    def _variances(self, alpha: float, sigma: float) -> tuple[float, torch.Tensor]:
        v_s = alpha**2 * NARROW**2 + sigma**2
        return v_s, v_s + alpha**2 * self.spread**2

    def rows(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Which condition each row is told, by number."""
        if condition is None:
            return torch.full((len(x),), len(self.log_weights) - 1)
        if self.keys is None:
            return condition
        away = torch.cdist(condition.flatten(1).double(), self.keys)
        return torch.where(
            away.min(dim=1).values < 1e-3, away.argmin(dim=1), len(self.log_weights) - 1
        )

    def forward(
        self, x: torch.Tensor, t: int, condition: torch.Tensor | None = None
    ) -> SimpleNamespace:
        abar = float(self.scheduler.alphas_cumprod[t].double())
        alpha, sigma = abar**0.5, (1 - abar) ** 0.5
        posterior = self.joint(x, alpha, sigma, self.rows(x, condition)).softmax(dim=1)
        posterior = self.mid_block(posterior[:, :, None, None])[:, :, 0, 0]
        eps = -sigma * self.score(x, alpha, sigma, posterior).view_as(x)
        kind = self.scheduler.config.prediction_type
        return SimpleNamespace(
            sample=(eps if kind == "epsilon" else (eps - sigma * x) / alpha).to(x.dtype)
        )


class Classifier(torch.nn.Module):
    """The true classifier: the log posterior of each of ``groups`` of pieces under the
    null condition, as logits.

    ``timed=False``: of clean images, whatever t is, as a classifier that knows no
    timestep has it.
    """

    def __init__(
        self, exact: Exact, groups: Sequence[Sequence[int]], *, timed: bool = True
    ) -> None:
        super().__init__()
        self.exact, self.groups, self.timed = exact, groups, timed

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = float(self.exact.scheduler.alphas_cumprod[t[0]].double()) if self.timed else 1.0
        logs = self.exact.joint(x, abar**0.5, (1 - abar) ** 0.5, self.exact.rows(x, None))
        return torch.stack([logs[:, list(group)].logsumexp(dim=1) for group in self.groups], dim=1)


@dataclass(frozen=True)
class World:
    """A model, what it has memorized and what it has not.

    Conditions: without an image, as prompts or classes.
    """

    model: Denoiser
    exact: Exact
    images: np.ndarray  # uint8 [memorized, h, w, 3], in the order of MULTIPLICITY
    pattern: np.ndarray  # uint8 [h, w, 3], the template
    never: np.ndarray  # uint8 [n, h, w, 3]
    memorized: list[Condition]
    template: Condition
    learned: list[Condition]
    ignored: list[Condition]


def _pieces(x: torch.Tensor, template: torch.Tensor, spread: float) -> list[Piece]:
    """The memorized images, a template, and a broad piece at the mean of all of them
    with a fifth of the weight.
    """
    pieces = [Piece(mean, float(m)) for mean, m in zip(x, MULTIPLICITY, strict=True)] + [
        Piece(template, 2.0, 1, spread)
    ]
    total = sum(p.weight for p in pieces)
    centre = torch.stack([p.mean * (p.weight / total) for p in pieces]).sum(dim=0)
    return [*pieces, Piece(centre, total / 4, BROAD, spread)]


# Numbers of the pieces; the last is the broad one
IMAGES, TEMPLATE, PIECE = list(range(MEMORIZED)), MEMORIZED, MEMORIZED + 1
SOME = 4  # conditions of each kind that is not memorized
# ..., null
TOLD: list[list[int]] = (
    [[k] for k in IMAGES] + [[TEMPLATE]] + [[PIECE]] * SOME + [list(range(PIECE + 1))] * (SOME + 1)
)


def _scheduler(clip: float, prediction: str, **ends: Any) -> DDIMScheduler:
    """Stable Diffusion's betas; clip: the range, 0 for none."""
    settings = {
        "clip_sample": bool(clip),
        "clip_sample_range": clip or 1.0,
        "prediction_type": prediction,
        **ends,
    }
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings
    )


def pixels(*, clip: bool, prediction: str = "epsilon", alone: bool = False) -> World:
    """A PixelDenoiser of 8x8 colour images and classes. alone: the memorized images are
    all that the null condition knows.
    """
    rng = np.random.RandomState(0)
    # Full contrast alone, so that a clip bites; else so little that the mean of the
    # images has no edges.
    drawn = rng.randint(
        *((0, 256) if alone else (85, 171)), (MEMORIZED + 1 + 4, SIDE, SIDE, 3)
    ).astype(np.uint8)
    images, template = drawn[:MEMORIZED], drawn[MEMORIZED]
    scheduler = _scheduler(1.0 if clip else 0.0, prediction)
    told = [*TOLD[:-1], IMAGES] if alone else TOLD
    exact = Exact(scheduler, _pieces(from_uint8(images), from_uint8(template[None])[0], 0.15), told)
    model = PixelDenoiser(
        exact, scheduler, shape=(3, SIDE, SIDE), batch_size=256, classes=len(told) - 1
    )
    conditions = [Condition(f"class/{label}", class_label=label) for label in range(len(told) - 1)]
    return _world(model, exact, drawn, conditions)


def latents(*, clip: bool, prediction: str = "v_prediction", alone: bool = False) -> World:
    """The shipped Stable Diffusion pipeline, its text encoder and its VAE, with the
    exact score of some images' latents as the U-Net.
    """
    drawn = pictures(MEMORIZED + 1 + 4)
    captions = [
        f"Norlund {colour} {product}" for colour in ("teal", "red") for product in PRODUCTS
    ][: len(TOLD) - 1]
    pipeline = load_text_to_image(MODEL)
    plain = LatentDenoiser(pipeline)
    x = plain.encode(drawn)
    scheduler = _scheduler(
        float(x.abs().max().ceil()) if clip else 0.0,
        prediction,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    told = [*TOLD[:-1], IMAGES] if alone else TOLD
    exact = Exact(scheduler, _pieces(x[:MEMORIZED], x[MEMORIZED], 0.5), told)
    exact.config = FrozenDict(in_channels=x.shape[1], sample_size=x.shape[2])
    conditions = [Condition(f"prompt/{caption}", caption) for caption in captions]
    embeddings = plain.condition([*conditions, Condition("null")]).embeddings
    assert embeddings is not None
    exact.keys = embeddings.flatten(1).double()
    pipeline.unet, pipeline.scheduler = exact, scheduler
    return _world(LatentDenoiser(pipeline, batch_size=256), exact, drawn, conditions)


def pictures(n: int) -> np.ndarray:
    """Images of the world that the shipped VAE was trained on: ``uint8`` [n, 64, 64,
    3].
    """
    found = []
    for k in range(n):
        rng = np.random.RandomState(k)
        texture = (
            *rng.randint(0, 12, 2),
            2 * rng.randint(16, 27),
            rng.randint(4),
            *rng.randint(0, 64, 2),
        )
        place, motif = (
            (0, 0, *rng.randint(30, 46, 2)),
            (rng.randint(5), rng.randint(12), 0, 0, rng.randint(13, 25)),
        )
        found.append(
            draw(
                Look(
                    k % 8,
                    rng.randint(8),
                    rng.randint(12),
                    (k % 12, k % 4, 90),
                    place,
                    texture,
                    motif,
                    k,
                )
            )
        )
    return np.stack(found)


def _world(model: Denoiser, exact: Exact, drawn: np.ndarray, conditions: list[Condition]) -> World:
    images, template, never = drawn[:MEMORIZED], drawn[MEMORIZED], drawn[MEMORIZED + 1 :]
    learned, ignored = conditions[PIECE : PIECE + SOME], conditions[PIECE + SOME :]
    return World(
        model,
        exact,
        images,
        template,
        never,
        conditions[:MEMORIZED],
        conditions[TEMPLATE],
        learned,
        ignored,
    )
