"""Spread of features against a hook of one's own, and where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from membench.detectors.representation import Representation
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.seeds import generator
from membench.testing import tiny_pixel_model
from membench.types import Access, Condition

PROMPTS = {"steps": 4, "guidance": 3.0}
IMAGES = {**PROMPTS, "examples": "images"}
GIVEN = [
    Condition(str(i), f"a red mug {i}", image)
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
]


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=2)


def made(sampling: dict = IMAGES, **options) -> Representation:
    return Representation(Representation.Options(**options), seed=5, sampling=sampling)


@pytest.mark.parametrize("condition", ["unconditional", "conditional"])
@pytest.mark.parametrize("statistic", ["std", "norm_ratio"])
def test_it_is_the_spread_over_channels_of_what_the_second_convolution_is_given(
    model, condition: str, statistic: str
) -> None:
    detector = made(condition=condition, statistic=statistic, t=50)
    detector.check(model, GIVEN)
    got = detector.score(model, GIVEN, {})
    assert model.cost.forwards == 3
    taken: list[torch.Tensor] = []
    conv2 = model.network.get_submodule("up_blocks.0.resnets.0.conv2")
    conv2.register_forward_pre_hook(lambda module, args: taken.append(args[0]))
    abar = float(model.scheduler.alphas_cumprod[50])
    for c, value in zip(GIVEN, got, strict=True):
        noise = torch.randn(1, *model.shape, generator=generator(5, c.id, 0))
        x = abar**0.5 * model.encode(c.image[None]) + (1 - abar) ** 0.5 * noise  # type: ignore[index]
        told = model.condition([c if condition == "conditional" else Condition("null")])
        model._forward(x, 50, told)
        h = taken.pop()[0].flatten(1).max(dim=1).values.double().numpy()
        ratio = (h**4).sum() ** 0.25 / (h**2).sum() ** 0.5
        assert value == pytest.approx(h.std() if statistic == "std" else ratio, rel=1e-4)


def test_constant_features_have_no_spread(model) -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, 3.0)

    resnet = model.network.get_submodule("up_blocks.0.resnets.0")
    resnet.nonlinearity = Constant()
    assert made().score(model, GIVEN, {}) == [0.0, 0.0, 0.0]
    channels = resnet.conv2.in_channels
    ratio = made(statistic="norm_ratio").score(model, GIVEN, {})
    assert ratio == pytest.approx([channels**-0.25] * 3, rel=1e-6)


def test_a_prompt_is_measured_by_the_images_drawn_for_it(model) -> None:
    bare, detector = [Condition(c.id, c.prompt) for c in GIVEN], made(PROMPTS, images=2)
    detector.check(model, bare)
    requests = detector.plan(bare)
    drawn = detector.extract(model, requests)
    assert model.cost.forwards == sum(detector.image_forwards(model, r) for r in requests) == 6 * 9
    scores = detector.score(
        model, bare, {c.id: [s for s in drawn if s.condition == c] for c in bare}
    )
    for c, value in zip(bare, scores, strict=True):
        assert value == pytest.approx(np.mean([s.confidence for s in drawn if s.condition == c]))
    assert detector.access == Access(images=True, internals=True)
    assert made().access == Access(internals=True)


def test_what_does_not_suit_is_refused_in_one_line(model) -> None:
    for detector, text in (
        (
            made(layer="up_blocks.7.resnets.0.nonlinearity"),
            r"no layer 'up_blocks.7.*it has down_bl",
        ),
        (made(t=1000), "timestep 1000 is outside"),
        (made(PROMPTS, layer="time_embedding"), "layer time_embedding returns no feature map"),
        (made(PROMPTS, images=0), "images must be at least 1"),
    ):
        with pytest.raises(UserError, match=text) as error:
            detector.check(model, GIVEN)
        assert "\n" not in str(error.value) and model.cost.forwards == 0
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="no condition, so condition=conditional"):
        made(condition="conditional").check(tiny_pixel_model(0), [Condition("x", None, image)])


def test_a_nan_stays_in_its_own_row(model, monkeypatch) -> None:
    poisoned, forward = model.condition(GIVEN[1:2]).embeddings, model._forward

    def broken(x, t, condition):
        hit = (condition.embeddings == poisoned).flatten(1).all(dim=1)
        return forward(torch.where(hit.view(-1, 1, 1, 1), torch.nan, x), t, condition)

    monkeypatch.setattr(model, "_forward", broken)
    found = made(condition="conditional").score(model, GIVEN, {})
    assert [math.isfinite(value) for value in found] == [True, False, True]
