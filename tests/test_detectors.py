"""Each detector against an independent slow version, written from the formula with
diffusers' own parts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from membench.detector import Detector
from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.random_sampling import UNCONDITIONAL, RandomSampling
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.seeds import seed_of
from membench.types import Condition, Sample

CONDITIONS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
]
SAMPLING = {"steps": 4, "guidance": 3.0}


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=5)


def wen(
    folder,
    prompt: str,
    example: str,
    draws: int,
    first: int,
    steps: int,
    guidance: float,
    seed: int,
) -> float:
    """Wen et al. with diffusers alone: one prompt, one draw, one network call at a
    time, on the scheduler's own trajectory.
    """
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)

    def embed(text: str) -> torch.Tensor:
        ids = pipe.tokenizer(
            [text], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return pipe.text_encoder(ids).last_hidden_state

    norms = []
    with torch.no_grad():
        for draw in range(draws):
            x = torch.randn(
                (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed_of(seed, example, draw))
            )
            for t in scheduler.timesteps[:first]:
                v_null, v_text = (pipe.unet(x, t, embed(text)).sample for text in ("", prompt))
                abar = scheduler.alphas_cumprod[t]
                eps_null, eps_text = (
                    abar.sqrt() * v + (1 - abar).sqrt() * x for v in (v_null, v_text)
                )
                norms.append(math.sqrt(float(((eps_text - eps_null).double() ** 2).sum())))
                x = scheduler.step(v_null + guidance * (v_text - v_null), t, x, eta=0.0).prev_sample
    return sum(norms) / len(norms)


@pytest.mark.parametrize(
    ("draws", "steps", "trajectory", "guidance"), [(1, 1, 50, 7.5), (2, 3, 50, 7.5), (1, 5, 5, 2.0)]
)
def test_cfg_norm_is_wens_formula(
    model, tiny_pipeline_folder, draws: int, steps: int, trajectory: int, guidance: float
) -> None:
    options = CfgNorm.Options(draws=draws, steps=steps, trajectory=trajectory, guidance=guidance)
    got = CfgNorm(options, seed=7, sampling=SAMPLING).score(model, CONDITIONS, {})
    slow = [
        wen(tiny_pipeline_folder, c.prompt, c.id, draws, steps, trajectory, guidance, 7)
        for c in CONDITIONS
    ]
    assert got == pytest.approx(slow, rel=1e-4)
    assert model.cost.forwards == len(CONDITIONS) * draws * steps * 2
    assert model.cost.decodes == 0


def test_one_step_and_one_draw_cost_two_forwards_and_no_decode(model) -> None:
    detector = CfgNorm(CfgNorm.Options(draws=1, steps=1), seed=0, sampling=SAMPLING)
    detector.score(model, CONDITIONS[:1], {})
    assert (model.cost.forwards, model.cost.decodes, model.cost.backwards, model.cost.jvps) == (
        2,
        0,
        0,
        0,
    )


def test_cfg_norm_extracts_what_it_is_sure_of(model) -> None:
    """An extracted image is the trajectory's end, and its confidence the norm on the
    trajectory's own first steps.
    """
    detector = CfgNorm(
        CfgNorm.Options(images=2, steps=2, draws=2, trajectory=4, guidance=3.0),
        seed=0,
        sampling=SAMPLING,
    )
    requests = detector.plan(CONDITIONS)
    assert len(requests) == 6
    samples = detector.extract(model, requests)
    assert model.cost.forwards == 6 * 4 * 2
    scores = detector.score(model, CONDITIONS, {})
    for condition, score in zip(CONDITIONS, scores, strict=True):
        assert np.mean(
            [s.confidence for s in samples if s.condition == condition]
        ) == pytest.approx(score, rel=1e-5)
    assert samples[0].image.shape == (64, 64, 3)


def test_cfg_norm_refuses_a_guidance_that_no_step_takes(model) -> None:
    """Its score at steps=1 is of the noise that sampling begins with, and the extracted
    images have the task's guidance: a sweep of it would be a flat line.
    """
    detector = CfgNorm(CfgNorm.Options(guidance=3.0), seed=0, sampling=SAMPLING)
    with pytest.raises(UserError, match=r"guidance=3\.0: steps=1 looks before a step"):
        detector.check(model, CONDITIONS)
    CfgNorm(CfgNorm.Options(guidance=3.0, steps=2), seed=0, sampling=SAMPLING).check(
        model, CONDITIONS
    )


def test_cfg_norm_refuses_more_steps_than_the_trajectory_has() -> None:
    with pytest.raises(ValueError, match="steps=51 is more than trajectory=50"):
        CfgNorm(CfgNorm.Options(steps=51), seed=0, sampling=SAMPLING)


def image(shade: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(-2, 2, (64, 64, 3))
    return np.clip(shade * 255 + noise, 0, 255).round().astype(np.uint8)


def spot(k: int) -> np.ndarray:
    """One grey image whose k-th tile is darker: near the others as a whole (RMS
    0.11), far by its worst tile (0.3).
    """
    picture = image(0.5)
    picture[:16, 16 * k : 16 * (k + 1)] = image(0.2)[:16, :16]
    return picture


def carlini(images: list[np.ndarray], threshold: float, tiles: int) -> int:
    """The largest set of draws that are all within the threshold of one another, by
    trying every set.
    """

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        side, worst = len(a) // tiles, 0.0
        for i, j in itertools.product(range(tiles), repeat=2):
            tile = np.s_[i * side : (i + 1) * side, j * side : (j + 1) * side]
            difference = a[tile].astype(float) / 255 - b[tile].astype(float) / 255
            worst = max(worst, math.sqrt((difference**2).mean()))
        return worst

    for size in range(len(images), 1, -1):
        for subset in itertools.combinations(images, size):
            if all(distance(a, b) <= threshold for a, b in itertools.combinations(subset, 2)):
                return size
    return 1


def test_random_scores_by_the_largest_clique(model) -> None:
    detector = RandomSampling(RandomSampling.Options(), seed=0, sampling=SAMPLING)
    draws = {
        "p": [image(0.5, i) for i in range(4)],  # one image four times
        "q": [image(0.1), image(0.5), image(0.5, 1), image(0.9)],  # twice
        "r": [spot(k) for k in range(4)],  # never: one background, another tile each
    }
    extracted = {
        c.id: [Sample(c, k, picture, 0.0) for k, picture in enumerate(draws[c.id])]
        for c in CONDITIONS
    }
    scores = detector.score(model, CONDITIONS, extracted)
    assert (
        [math.floor(s) for s in scores]
        == [carlini(draws[c.id], 0.15, 4) for c in CONDITIONS]
        == [4, 2, 1]
    )
    assert model.cost.forwards == 0  # the density is read off the images that were drawn anyway


def test_random_extracts_from_the_conditions_or_from_none(model) -> None:
    detector = RandomSampling(RandomSampling.Options(draws=2), seed=0, sampling=SAMPLING)
    requests = detector.plan(CONDITIONS)
    assert [(r.condition.id, r.draw) for r in requests] == [
        (c.id, k) for k in (0, 1) for c in CONDITIONS
    ]
    samples = detector.extract(model, requests)
    assert model.cost.forwards == 6 * 4 * 2 and model.cost.decodes == 6
    assert {s.confidence for s in samples} == {0.0}
    unconditional = RandomSampling(
        RandomSampling.Options(draws=2, extraction="unconditional", generations=5),
        seed=0,
        sampling=SAMPLING,
    )
    assert sum(r.condition == UNCONDITIONAL for r in unconditional.plan(CONDITIONS)) == 5


DETECTORS: list[Callable[[], Detector]] = [
    lambda: CfgNorm(CfgNorm.Options(draws=2, steps=2, images=2), seed=3, sampling=SAMPLING),
    lambda: RandomSampling(RandomSampling.Options(draws=2), seed=3, sampling=SAMPLING),
]


@pytest.mark.parametrize("make", DETECTORS)
def test_results_do_not_depend_on_batches_or_order(
    make: Callable[[], Detector], tiny_pipeline_folder
) -> None:
    def run(
        batch_size: int, conditions: list[Condition]
    ) -> tuple[dict[str, float], dict[tuple[str, int], np.ndarray]]:
        model, detector = (
            LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=batch_size),
            make(),
        )
        samples = detector.extract(model, detector.plan(conditions))
        extracted = {c.id: [s for s in samples if s.condition == c] for c in conditions}
        scores = detector.score(model, conditions, extracted)
        images = {(s.condition.id, s.draw): s.image.astype(int) for s in samples}
        return dict(zip((c.id for c in conditions), scores, strict=True)), images

    scores, images = run(64, CONDITIONS)
    for batch_size, order in ((1, CONDITIONS), (3, CONDITIONS[::-1])):
        other, others = run(batch_size, order)
        assert other == pytest.approx(scores, rel=1e-4)
        assert all(np.abs(images[k] - others[k]).max() <= 1 for k in images)


@pytest.mark.parametrize("make", DETECTORS)
def test_a_nan_stays_in_its_own_row(make: Callable[[], Detector], model, monkeypatch) -> None:
    forward, poisoned = model._forward, model.condition(CONDITIONS[1:2]).embeddings

    def broken(x, t, condition):
        out = forward(x, t, condition)
        hit = (condition.embeddings == poisoned).flatten(1).all(dim=1)
        return torch.where(hit[:, None, None, None], torch.nan, out)

    monkeypatch.setattr(model, "_forward", broken)
    detector = make()
    samples = detector.extract(model, detector.plan(CONDITIONS))
    extracted = {c.id: [s for s in samples if s.condition == c] for c in CONDITIONS}
    scores = detector.score(model, CONDITIONS, extracted)
    assert [math.isfinite(s) for s in scores] == [True, False, True]
    assert {s.condition.id for s in samples if not math.isfinite(s.confidence)} == {"q"}
