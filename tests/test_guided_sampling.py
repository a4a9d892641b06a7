"""Guidance where x0 is clipped: the sampler against diffusers, and classifier guidance
by a classifier that is right.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMScheduler
from torch import nn

from membench.detectors.side import Side
from membench.detectors.surrogate.classifier import log_prob_gradient
from membench.models.conditioning import Conditioning
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim, step_forwards
from membench.seeds import generator
from membench.similarity.l2 import normalised_l2
from membench.tasks.cifar10.task import Cifar10
from membench.types import Condition, Cost

KINDS = ("epsilon", "v_prediction", "sample")


def pixel_model(kind: str = "epsilon", **settings: Any) -> PixelDenoiser:
    torch.manual_seed(0)
    return PixelDenoiser(
        pixel_unet(), DDIMScheduler(prediction_type=kind, **settings), shape=(3, 8, 8)
    )


def push(x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
    """A correction that takes x0 far out of any clip range, and another way at each
    pixel.
    """
    return eps - 3 * torch.randn(x.shape[1:], generator=generator("push", str(t)))


# -------------------------------------------------------------------------- the sampler


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1.0, 0.4])
def test_every_guided_step_goes_to_an_x0_in_the_clip_range(kind: str, limit: float) -> None:
    """Two states of one x0 and one eps give both: x = alpha x0 + sigma eps at either
    end of a step.
    """
    model, steps = pixel_model(kind, clip_sample=True, clip_sample_range=limit), 10
    states: list[tuple[int, torch.Tensor]] = []

    def correct(x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
        states.append((t, x))
        return push(x, t, eps)

    x = model.noise([("e", k) for k in range(3)], seed=0)
    last = ddim(model, x, model.condition([]), steps=steps, guidance=1.0, correct=correct)
    assert len(states) == steps
    outside = 0
    for (t, x), (after, y) in itertools.pairwise(states):
        (alpha, sigma), (alpha_after, sigma_after) = model.alpha_sigma(t), model.alpha_sigma(after)
        ratio = sigma_after / sigma
        x0 = (y - ratio * x) / (alpha_after - ratio * alpha)
        assert float(x0.abs().max()) <= limit + 1e-3
        eps = push(x, t, model.eps(x, t, model.condition([])))
        outside += int(((x - sigma * eps) / alpha).abs().max() > limit)
    assert outside == steps - 1  # the clamp had something to do at each of them
    assert float(last.abs().max()) <= limit + 1e-3


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("guided", [True, False])
def test_a_guided_trajectory_is_that_of_diffusers(clip: bool, guided: bool) -> None:
    """Guided: ``use_clipped_model_output=True``.

    Without guidance the network's own eps goes on, as in a pipeline of diffusers.
    """
    model = pixel_model(clip_sample=clip, clip_sample_range=0.8)
    x = model.noise([("e", k) for k in range(3)], seed=0)
    got = ddim(
        model, x, model.condition([]), steps=10, guidance=1.0, correct=push if guided else None
    )
    scheduler = DDIMScheduler(clip_sample=clip, clip_sample_range=0.8)
    scheduler.set_timesteps(10)
    for step in scheduler.timesteps:
        t = int(step)
        with torch.no_grad():
            eps = model.network(x, t).sample
        eps = push(x, t, eps) if guided else eps
        x = scheduler.step(eps, t, x, eta=0.0, use_clipped_model_output=guided).prev_sample
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-3)


# ------------------------------------------------- a true classifier on a shipped model


class Posterior(nn.Module):
    """p_t(c | x_t) of images x_c, equally likely, under the model's forward noising:
    logits -|x - alpha_t x_c|^2 / (2 sigma_t^2).
    """

    def __init__(self, model: PixelDenoiser, images: torch.Tensor) -> None:
        super().__init__()
        self.model, self.images = model, images.flatten(1).double()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert (t == t[0]).all()
        alpha, sigma = self.model.alpha_sigma(int(t[0]))
        return -((x.flatten(1).double()[:, None] - alpha * self.images) ** 2).sum(dim=2) / (
            2 * sigma**2
        )


@pytest.fixture(scope="module")
def mini() -> Any:
    return Cifar10().load("mini")


@pytest.fixture(scope="module")
def often(mini: Any) -> np.ndarray:
    """Positions of five training images, one of each of five classes, among those shown
    most often.
    """
    return np.argsort(-np.asarray(mini.training.copies), kind="stable")[:10:2]


def test_the_true_classifiers_gradient_is_the_closed_form(mini: Any, often: np.ndarray) -> None:
    """grad log p_t(c | x) = alpha / sigma^2 (x_c - sum_j p_j x_j)."""
    model = mini.model()
    images = model.encode(mini.training.images()[often])
    posterior, t, labels = Posterior(model, images), 700, torch.tensor([0, 3])
    x = model.noise([("e", k) for k in range(2)], seed=0)
    alpha, sigma = model.alpha_sigma(t)
    p = posterior(x, torch.full((2,), t)).softmax(dim=1)
    mean = (p @ images.flatten(1).double()).view(x.shape)
    expected = alpha / sigma**2 * (images[labels].double() - mean)
    got = log_prob_gradient(posterior, x, t, labels, Cost())
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-5)


def test_a_true_classifier_brings_the_named_training_image(mini: Any, often: np.ndarray) -> None:
    """Null class, SIDE's own weight: many images are copies of the very one that was
    named, which one in fifty would be by chance.

    An eps that does not follow x0 into the clip range brings none of 20. The distances
    have two modes, near 0.5 and 1.6.
    """
    model, draws = mini.model(), 4
    training = mini.training.images()
    side = Side(Side.Options(generations=draws * len(often)), seed=0, sampling=mini.info.sampling)
    side.x0 = model.encode(training[often])
    side.labels = torch.arange(len(often))
    side.classifier = Posterior(model, side.x0)  # type: ignore[assignment]
    requests = [
        dataclasses.replace(request, condition=Condition(f"cluster-{k % len(often):04d}"))
        for k, request in enumerate(side.plan([]))
    ]
    samples = side.extract(model, requests)
    found = normalised_l2(np.stack([s.image for s in samples]), training, floor=0.0)
    best = found[found["rank"] == 0].sort_values("generated")
    named = np.array([often[int(s.condition.id.removeprefix("cluster-"))] for s in samples])
    copies = (best.similarity.to_numpy() <= 1.0) & (best.training.to_numpy() == named)
    assert copies.mean() >= 0.25, (
        f"{copies.sum()} of {len(copies)} images are copies of the image that was named"
    )


def test_without_weight_side_is_plain_sampling(mini: Any) -> None:
    model = mini.model()
    side = Side(
        Side.Options(generations=3, guidance=0.0, steps=3), seed=0, sampling=mini.info.sampling
    )
    side.x0, side.labels = torch.zeros(2, *model.shape), torch.arange(2)
    requests = side.plan([])
    null = model.condition([Condition("null")] * 3)
    plain = ddim(
        model, model.noise([("side", r.draw) for r in requests], 0), null, steps=3, guidance=1.0
    )
    got = np.stack([s.image for s in side.extract(model, requests)])
    assert np.array_equal(got, model.decode(plain)) and model.cost.surrogate_forwards == 0


def test_a_step_asks_twice_only_where_guidance_mixes_two_predictions() -> None:
    told = Conditioning(torch.tensor([0]))
    assert [step_forwards(told, w) for w in (0.0, 1.0, 1.5)] == [2, 1, 2]
    assert [step_forwards(Conditioning(None), w) for w in (1.0, 1.5)] == [1, 1]


def test_each_draw_starts_from_noise_of_its_own() -> None:
    """Of its condition and number; the first draw of a generated image from the image's."""
    model = pixel_model()
    told, made = Condition("a"), Condition("b", start=("pool", "7"))
    found = model.starts([(told, 0), (told, 1), (made, 0), (made, 1)], 5)
    for x, words in zip(found, [(5, "a", 0), (5, "a", 1), ("pool", "7"), (5, "b", 1)], strict=True):
        assert torch.equal(x, torch.randn(3, 8, 8, generator=generator(*words)))
