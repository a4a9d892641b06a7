"""Denoising confidence and edges against Webster's own procedure, written out; and the
complexity control.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analytic import pieces
from diffusers import StableDiffusionPipeline
from PIL import Image

from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.controls import PngSize
from membench.detectors.webster import Dcs, Edge
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.seeds import seed_of
from membench.storage.images import png_bytes
from membench.types import Condition, Sample

SAMPLING = {"steps": 4, "guidance": 3.0}
CONDITIONS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
]


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=7)


class KDiffusion:
    """One Karras step in the variance-exploding units of k-diffusion: z = sigma_max
    noise, c_in = 1 / sqrt(sigma^2 + 1).
    """

    def __init__(self, folder, weight: float = 7.5) -> None:
        self.pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        self.abar = float(self.pipe.scheduler.alphas_cumprod[999])
        self.sigma_max, self.weight = math.sqrt((1 - self.abar) / self.abar), weight

    def eps(self, x: torch.Tensor, text: str) -> torch.Tensor:
        ids = self.pipe.tokenizer(
            [text], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            v = self.pipe.unet(x, 999, self.pipe.text_encoder(ids).last_hidden_state).sample
        return math.sqrt(self.abar) * v + math.sqrt(1 - self.abar) * x

    def step(self, c: Condition, draw: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """z and its denoised image, by Heun's step from sigma_max to 0, which is
        Euler's.
        """
        z = self.sigma_max * torch.randn(
            (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed_of(seed, c.id, draw))
        )
        c_in = 1 / math.sqrt(self.sigma_max**2 + 1)
        null, told = self.eps(c_in * z, ""), self.eps(c_in * z, c.prompt)
        denoised = z - self.sigma_max * (null + self.weight * (told - null))
        d = (z - denoised) / self.sigma_max
        return z, z + d * (0 - self.sigma_max)

    def image(self, latent: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            out = self.pipe.vae.decode(latent / self.pipe.vae.config.scaling_factor).sample
        return ((out[0] / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).byte().numpy()


def test_dcs_is_the_squared_distance_that_one_heun_step_goes(model, tiny_pipeline_folder) -> None:
    got = Dcs(Dcs.Options(draws=2), seed=5, sampling=SAMPLING).score(model, CONDITIONS, {})
    assert (model.cost.forwards, model.cost.decodes) == (3 * 2 * 2, 0)
    slow = KDiffusion(tiny_pipeline_folder)
    for c, value in zip(CONDITIONS, got, strict=True):
        moved = [z - out for z, out in (slow.step(c, draw, 5) for draw in (0, 1))]
        assert value == pytest.approx(
            np.mean([float((m.double() ** 2).mean()) for m in moved]), rel=2e-4
        )


def test_dcs_is_the_guided_norm_in_other_units(model) -> None:
    """DCS = sigma_max^2 || eps_0 + w (eps_c - eps_0) ||^2 / D, with sigma_max of the
    model's own schedule (14.6 for Stable Diffusion).
    """
    detector = Dcs(Dcs.Options(draws=1, weight=3.0), seed=0, sampling=SAMPLING)
    t = 999
    abar = float(model.alphas_cumprod[t])
    sigma_max = math.sqrt((1 - abar) / abar)
    assert sigma_max == pytest.approx(14.6146, rel=1e-3)
    x = math.sqrt(1 - abar) * model.noise([(c.id, 0) for c in CONDITIONS], 0)
    null, told = model.eps_pair(x, t, model.condition(CONDITIONS))
    guided = (null + 3.0 * (told - null)).flatten(1).norm(dim=1)
    assert detector.score(model, CONDITIONS, {}) == pytest.approx(
        (sigma_max**2 * guided**2 / 256).tolist(), rel=1e-5
    )


def sobel(picture: np.ndarray, axis: int) -> np.ndarray:
    """[-1, 0, 1] along ``axis``, [1, 2, 1] along both others (the channels too), edges
    mirrored: by plain loops over shifts.
    """
    padded = np.pad(picture, 1, mode="symmetric")
    out = np.zeros_like(picture)
    for shift in np.ndindex(3, 3, 3):
        weight = np.prod(
            [(-1, 0, 1)[s] if a == axis else (1, 2, 1)[s] for a, s in enumerate(shift)]
        )
        window = tuple(slice(s, s + n) for s, n in zip(shift, picture.shape, strict=True))
        out += weight * padded[window]
    return out


def gradient(image: np.ndarray, size: int) -> np.ndarray:
    picture = (
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)).astype(
            float
        )
        / 255
    )
    return np.sqrt(sobel(picture, 0) ** 2 + sobel(picture, 1) ** 2).sum(axis=2)


def test_edge_score_is_the_share_of_pixels_that_most_draws_call_an_edge(
    model, tiny_pipeline_folder
) -> None:
    slow = KDiffusion(tiny_pipeline_folder)
    gradients = np.array(
        [
            [gradient(slow.image(slow.step(c, draw, 5)[1]), 80) for draw in range(4)]
            for c in CONDITIONS
        ]
    )
    strength = float(np.median(gradients))  # random weights draw in their own contrast
    got = Edge(Edge.Options(size=80, strength=strength), seed=5, sampling=SAMPLING).score(
        model, CONDITIONS, {}
    )
    assert (model.cost.forwards, model.cost.decodes) == (3 * 4 * 2, 3 * 4)
    expected = ((gradients > strength).sum(axis=1) >= 3).mean(axis=(1, 2))  # more than half of 4
    assert all(0.01 < value < 0.99 for value in expected)
    assert got == pytest.approx(expected, abs=0.005)  # a grey level may round the other way


def test_an_edge_is_one_by_scipys_sobel_and_by_loops() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = Edge(Edge.Options(size=24, strength=6.0), seed=0, sampling=SAMPLING).edge_map(image)
    assert np.array_equal(found, gradient(image, 24) > 6.0) and 0.1 < found.mean() < 0.9
    flat = Edge(Edge.Options(), seed=0, sampling=SAMPLING).edge_map(
        np.full((64, 64, 3), 90, np.uint8)
    )
    assert flat.shape == (256, 256) and not flat.any()


@pytest.mark.parametrize("weight", [7.5, 1.0])
@pytest.mark.parametrize("make", [Dcs, Edge])
def test_an_extracted_image_is_as_sure_as_its_own_noise(model, make, weight: float) -> None:
    detector = make(make.Options(draws=1, images=2, weight=weight), seed=0, sampling=SAMPLING)
    requests = detector.plan(CONDITIONS)
    drawn = detector.extract(model, requests)
    assert [s.draw for s in drawn] == [0, 0, 0, 1, 1, 1]
    assert (
        model.cost.forwards
        == sum(detector.image_forwards(model, r) for r in requests)
        == 6 * (4 * 2 + (1 if weight == 1 else 2))
    )
    assert [s.confidence for s in drawn[:3]] == pytest.approx(
        detector.score(model, CONDITIONS, {}), rel=1e-4
    )


def test_a_model_without_a_condition_is_refused_in_one_line() -> None:
    for make in (Dcs, Edge, CfgNorm):
        with pytest.raises(
            UserError, match=r"this model has no condition: .* choose flipd or score_norm"
        ):
            make(make.Options(), seed=0, sampling=SAMPLING).check(
                pieces(4, size=16), [Condition("x")]
            )


def test_a_schedule_that_ends_in_pure_noise_is_refused(model) -> None:
    model.alphas_cumprod = model.alphas_cumprod.clone()
    model.alphas_cumprod[-1] = 0.0
    with pytest.raises(UserError, match="ends in pure noise"):
        Dcs(Dcs.Options(), seed=0, sampling=SAMPLING).check(model, CONDITIONS)


def test_png_size_is_minus_the_bits_and_asks_nothing_of_the_network(model) -> None:
    pictures = [
        np.full((64, 64, 3), 7, np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    ]
    given = [Condition(str(i), None, picture) for i, picture in enumerate(pictures)]
    detector = PngSize(PngSize.Options(), seed=0, sampling=SAMPLING | {"examples": "images"})
    plain, noise = detector.score(model, given, {})
    assert (plain, noise) == tuple(-8 * len(png_bytes(p)) for p in pictures) and plain > noise
    drawn = {
        "p": [
            Sample(CONDITIONS[0], k, picture, -8.0 * len(png_bytes(picture)))
            for k, picture in enumerate(pictures)
        ]
    }
    of_prompts = PngSize(PngSize.Options(), seed=0, sampling=SAMPLING)
    assert of_prompts.score(model, CONDITIONS[:1], drawn) == [pytest.approx((plain + noise) / 2)]
    assert model.cost.forwards == model.cost.decodes == 0
