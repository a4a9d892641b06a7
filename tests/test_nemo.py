"""NeMo's score against an independent MS-SSIM."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from scipy.signal import convolve2d

from membench.detectors.nemo_ssim import NemoSsim, ms_ssim, scaled
from membench.errors import UserError
from membench.models.pixel import PixelDenoiser
from membench.seeds import seed_of
from membench.testing import tiny_text_model
from membench.types import Condition

SAMPLING = {"steps": 4, "guidance": 2.0}
SEED = 4


def make(examples: str = "prompts", **options: Any) -> NemoSsim:
    sampling = {**SAMPLING, "examples": examples}
    return NemoSsim(NemoSsim.Options(**options), seed=SEED, sampling=sampling)


def slow(a: np.ndarray, b: np.ndarray, size: int, scales: int) -> float:
    """MS-SSIM of two [channels, h, w] by scipy, a channel at a time."""
    span = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    at = np.arange(size) - size // 2
    line = np.exp(-0.5 * (at / (1.5 * size / 11)) ** 2)
    window = np.outer(line, line) / np.outer(line, line).sum()
    product = 1.0
    for scale in range(scales):
        maps = []
        for u, v in zip(a, b, strict=True):
            mu, mv, uu, vv, uv = (
                convolve2d(w, window, mode="valid") for w in (u, v, u * u, v * v, u * v)
            )
            value = (2 * (uv - mu * mv) + c2) / (uu - mu**2 + vv - mv**2 + c2)
            if scale == scales - 1:
                value = value * (2 * mu * mv + c1) / (mu**2 + mv**2 + c1)
            maps.append(value)
        product *= max(np.mean(maps), 0.0) ** 0.33
        a, b = (
            w[:, : w.shape[1] // 2 * 2, : w.shape[2] // 2 * 2]
            .reshape(len(w), w.shape[1] // 2, 2, w.shape[2] // 2, 2)
            .mean(axis=(2, 4))
            for w in (a, b)
        )
    return product


@pytest.mark.parametrize(("side", "kernel", "scales"), [(44, 11, 3), (47, 11, 3), (9, 5, 1)])
def test_ms_ssim_is_that_of_another_implementation(side: int, kernel: int, scales: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.random((3, 2, side, side))
    b = 0.7 * a + 0.3 * rng.random(a.shape) + 0.1
    found = ms_ssim(torch.from_numpy(a), torch.from_numpy(b), kernel=kernel, scales=scales)
    expected = [slow(u, v, kernel, scales) for u, v in zip(a, b, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    same = ms_ssim(torch.from_numpy(a), torch.from_numpy(a), kernel=kernel, scales=scales)
    assert same.tolist() == pytest.approx([1.0] * 3)


class Masked(torch.nn.Module):
    """eps = (1 + mask_c) x: what is removed from the noise is mask_c x."""

    def __init__(self, masks: torch.Tensor) -> None:
        super().__init__()
        self.masks = masks
        self.config: Any = {"num_class_embeds": len(masks)}
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.asked: list[int] = []

    def forward(self, x: torch.Tensor, t: int, labels: torch.Tensor) -> SimpleNamespace:
        self.asked.append(int(t))
        return SimpleNamespace(sample=(1 + self.masks[labels]) * x)


def test_the_score_is_the_largest_pair_at_the_second_timestep_of_the_unstepped_noise() -> None:
    shape = (2, 44, 44)
    masks = torch.rand((3, *shape), generator=torch.Generator().manual_seed(1))
    masks[1, 1] = 0.0  # a channel of which nothing is removed
    model = PixelDenoiser(Masked(masks), DDIMScheduler(clip_sample=False), shape=shape, classes=2)
    conditions = [Condition(str(label), class_label=label) for label in (0, 1)]
    detector = make(draws=4)
    detector.check(model, conditions)
    found = detector.score(model, conditions, {})
    assert model.cost.forwards == 2 * 4 and set(model.network.asked) == {960}
    for label, value in enumerate(found):
        removed = []
        for draw in range(4):
            source = torch.Generator().manual_seed(seed_of(SEED, str(label), draw))
            d = (masks[label] * torch.randn(shape, generator=source)).double().numpy()
            low, high = (f(d, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
            removed.append((d - low) / np.where(high > low, high - low, 1.0))
        pairs = [slow(a, b, 11, 3) for a, b in itertools.combinations(removed, 2)]
        assert value == pytest.approx(max(pairs), rel=1e-4)


def test_each_channel_is_scaled_to_the_unit_range() -> None:
    x = torch.tensor([[[[1.0, 3.0], [2.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]]])
    expected = torch.tensor([[[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert torch.equal(scaled(x), expected)


def test_small_states_and_images_are_refused_with_the_reason() -> None:
    model, conditions = tiny_text_model(), [Condition("p", "a rug")]
    says = "states of 4 pixels a side are too small: 3 scales of a kernel of 11 need 44"
    with pytest.raises(UserError, match=says):
        make().check(model, conditions)
    for side, fits in ((40, False), (43, False), (44, True), (64, True)):
        model.shape = (4, side, side)
        if fits:
            make().check(model, conditions)
        else:
            with pytest.raises(UserError, match=f"states of {side} pixels .* need 44"):
                make().check(model, conditions)
    model.shape = (4, 8, 8)
    make(scales=1, kernel=7).check(model, conditions)
    with pytest.raises(UserError, match="an image was generated from one; choose dsm"):
        make("images", scales=1, kernel=3).check(model, conditions)
