"""Sharpness and Metric 2: a linear network's closed forms, a U-Net's whole Jacobian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from linear import LinearModel, told

from membench.detectors.hessian_difference import HessianDifference
from membench.detectors.sharpness import Sharpness
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.seeds import generator
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import Condition, Request

SAMPLING = {"steps": 4, "guidance": 3.0}
PROMPTS = told("1", "2", "3")
T0 = 981  # the first of 50 steps


def noise(c: Condition, draw: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed, c.id, draw)).double()


def difference(model: LinearModel, c: Condition, x: torch.Tensor, t: int) -> torch.Tensor:
    """(J_c - J_0) x + the difference of offsets, in eps units."""
    alpha = (
        model.alpha_sigma(t)[0] if model.scheduler.config.prediction_type == "v_prediction" else 1.0
    )
    offset = (
        alpha
        * (model.condition([c]).embeddings - model.condition([Condition("null")]).embeddings)
        .flatten()
        .double()
    )  # type: ignore[union-attr, operator]
    jump = model.jacobian(c.prompt, t) - model.jacobian(None, t)
    return jump @ x + model.network.b.double() @ offset  # type: ignore[union-attr]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sharpness_of_a_linear_network_is_a_matrix_times_a_vector(prediction: str) -> None:
    model = LinearModel(prediction)
    sigma = model.alpha_sigma(T0)[1]
    norms = np.array(
        [
            [
                float(
                    (
                        jump @ difference(model, c, noise(c, draw, model.shape, 5).flatten(), T0)
                    ).norm()
                )
                / sigma**2
                for draw in (0, 1)
            ]
            for c in PROMPTS
            for jump in [model.jacobian(c.prompt, T0) - model.jacobian(None, T0)]
        ]
    )
    for options, want in (
        ({"squared": True}, (norms**2).mean(axis=1)),
        ({}, norms.mean(axis=1)),
        ({"derivative": "difference"}, norms.mean(axis=1)),
    ):
        detector = Sharpness(Sharpness.Options(draws=2, **options), seed=5, sampling=SAMPLING)
        detector.check(model, PROMPTS)
        rel = 1e-3 if "derivative" in options else 1e-5
        assert detector.score(model, PROMPTS, {}) == pytest.approx(want.tolist(), rel=rel)


def test_the_transposed_product_has_no_sigma() -> None:
    model = LinearModel("v_prediction")
    detector = Sharpness(Sharpness.Options(draws=1, product="vjp"), seed=5, sampling=SAMPLING)
    got = detector.score(model, PROMPTS, {})
    for c, value in zip(PROMPTS, got, strict=True):
        jump = model.jacobian(c.prompt, T0) - model.jacobian(None, T0)
        delta = difference(model, c, noise(c, 0, model.shape, 5).flatten(), T0)
        assert value == pytest.approx(float((jump.T @ delta).norm()), rel=1e-5)
        assert value != pytest.approx(float((jump @ delta).norm()), rel=1e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_metric_2_of_a_linear_network_is_in_closed_form(prediction: str) -> None:
    model = LinearModel(prediction)
    detector = HessianDifference(HessianDifference.Options(draws=2), seed=5, sampling=SAMPLING)
    got = detector.score(model, PROMPTS, {})
    for c, value in zip(PROMPTS, got, strict=True):
        found = []
        for draw in (0, 1):
            x = noise(c, draw, model.shape, 5)[None].float()
            parts = [
                model.jacobian(p.prompt, T0).T
                @ model.eps(x, T0, model.condition([p])).flatten().double()
                for p in (c, Condition("null"))
            ]
            found.append(float((parts[0] - parts[1]).pow(2).sum()))
        assert value == pytest.approx(np.mean(found), rel=1e-5)


def jacobian(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning
) -> tuple[torch.Tensor, torch.Tensor]:
    """eps and the whole matrix of one row, by reverse mode, in double precision."""
    leaf = x.clone().requires_grad_(True)
    eps = model.raw_eps(leaf, t, condition).flatten()
    rows = [torch.autograd.grad(e, leaf, retain_graph=True)[0].flatten() for e in eps]
    return eps.detach().double(), torch.stack(rows).double()


def test_on_a_unet_both_are_those_of_the_explicit_jacobian() -> None:
    """Along two guided steps of a v-prediction U-Net, by diffusers' own scheduler."""
    model = tiny_text_model()
    conditions = [Condition(str(i), f"caption {i}") for i in range(2)]
    options = {"draws": 1, "trajectory": 10, "guidance": 2.0}
    sharp = Sharpness(Sharpness.Options(steps=2, **options), seed=3, sampling=SAMPLING)
    hessian = HessianDifference(HessianDifference.Options(**options), seed=3, sampling=SAMPLING)
    got, metric2 = sharp.score(model, conditions, {}), hessian.score(model, conditions, {})
    scheduler = DDIMScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(10)
    null = model.condition([Condition("null")])
    for c, value, other in zip(conditions, got, metric2, strict=True):
        x, norms = torch.randn(1, *model.shape, generator=generator(3, c.id, 0)), []
        for k, t in enumerate(scheduler.timesteps[:2].tolist()):
            c_eps, c_j = jacobian(model, x, t, model.condition([c]))
            u_eps, u_j = jacobian(model, x, t, null)
            sigma2 = 1 - float(scheduler.alphas_cumprod[t])
            norms.append(float(((c_j - u_j) @ (c_eps - u_eps)).norm()) / sigma2)
            if k == 0:
                assert other == pytest.approx(
                    float((c_j.T @ c_eps - u_j.T @ u_eps).pow(2).sum()), rel=1e-4
                )
            raw = [
                model.raw_prediction(x, t, condition) for condition in (null, model.condition([c]))
            ]
            x = scheduler.step(raw[0] + 2.0 * (raw[1] - raw[0]), t, x).prev_sample
        assert value == pytest.approx(np.mean(norms), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({}, (2, 0, 2)),
        ({"derivative": "difference"}, (8, 0, 0)),
        ({"product": "vjp"}, (4, 2, 0)),
        ({"steps": 3}, (6, 0, 6)),
    ],
)
def test_what_sharpness_costs(options: dict, cost: tuple[int, int, int]) -> None:
    model = LinearModel()
    detector = Sharpness(Sharpness.Options(draws=2, **options), seed=0, sampling=SAMPLING)
    detector.check(model, PROMPTS)
    detector.score(model, PROMPTS, {})
    assert (model.cost.forwards, model.cost.backwards, model.cost.jvps) == tuple(
        6 * n for n in cost
    )


def test_what_metric_2_costs() -> None:
    model = LinearModel()
    HessianDifference(HessianDifference.Options(), seed=0, sampling=SAMPLING).score(
        model, PROMPTS, {}
    )
    assert (model.cost.forwards, model.cost.backwards, model.cost.jvps) == (6, 6, 0)


@pytest.mark.parametrize("make", [Sharpness, HessianDifference])
def test_a_nan_stays_in_its_own_row(make, monkeypatch) -> None:
    model, forward = LinearModel(), LinearModel._forward

    def broken(self, x, t, condition):
        hit = condition.embeddings[:, 0, 0] == 2
        return torch.where(hit.view(-1, 1, 1, 1), torch.nan, forward(self, x, t, condition))

    monkeypatch.setattr(LinearModel, "_forward", broken)
    found = make(make.Options(), seed=0, sampling=SAMPLING).score(model, PROMPTS, {})
    assert [math.isfinite(value) for value in found] == [True, False, True]


@pytest.mark.parametrize("make", [Sharpness, HessianDifference])
def test_an_image_is_scored_at_the_noise_that_it_was_generated_from(make) -> None:
    model, start = tiny_pixel_model(3), ("pool", "1")
    image = np.zeros((8, 8, 3), np.uint8)
    own = Condition("image/0", None, image, 1, start)
    detector = make(make.Options(), seed=0, sampling=SAMPLING | {"examples": "images"})
    detector.check(model, [own])
    [value] = detector.score(model, [own], {})
    t = detector_timestep(model, SAMPLING["steps"])
    x = torch.randn(1, *model.shape, generator=generator(*start))
    (c, c_j), (u, u_j) = (
        jacobian(model, x, t, model.condition([Condition("x", class_label=k)])) for k in (1, None)
    )
    sigma2 = 1 - float(model.alphas_cumprod[t])
    want = ((c_j - u_j) @ (c - u) / sigma2) if make is Sharpness else (c_j.T @ c - u_j.T @ u)
    squared = float(want.pow(2).sum())
    assert value == pytest.approx(squared**0.5 if make is Sharpness else squared, rel=1e-4)
    with pytest.raises(
        UserError, match=r"draws=7: an image is scored on the trajectory that generated it"
    ):
        make(make.Options(draws=7), seed=0, sampling=SAMPLING | {"examples": "images"}).check(
            model, [own]
        )


def detector_timestep(model: Denoiser, steps: int) -> int:
    model.scheduler.set_timesteps(steps)
    return int(model.scheduler.timesteps[0])


def test_a_step_from_pure_noise_is_not_looked_at() -> None:
    """There eps is x_t whatever the condition. Zero terminal SNR, trailing timesteps."""
    model = LinearModel("v_prediction")
    ends = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    model.scheduler = DDIMScheduler.from_config(model.scheduler.config, **ends)
    model.alphas_cumprod = model.scheduler.alphas_cumprod.double()
    for make, cost in ((Sharpness, (4, 2)), (HessianDifference, (4, 0))):
        model.cost.forwards = model.cost.jvps = 0
        detector = make(make.Options(draws=1), seed=0, sampling=SAMPLING)
        detector.check(model, PROMPTS)
        assert min(detector.score(model, PROMPTS, {})) > 0
        assert (model.cost.forwards, model.cost.jvps) == (3 * cost[0], 3 * cost[1])
        assert detector.image_forwards(model, Request(PROMPTS[0], 0)) == 2 * 4 + sum(cost)
    with pytest.raises(
        UserError,
        match="steps=50 is more than the 50 steps of a trajectory, less those from pure noise",
    ):
        Sharpness(Sharpness.Options(steps=50, images=0), seed=0, sampling=SAMPLING).check(
            model, PROMPTS
        )


def test_what_does_not_suit_is_refused_in_one_line() -> None:
    images = [Condition("x", None, np.zeros((8, 8, 3), np.uint8), None, ("a",))]
    detector = Sharpness(Sharpness.Options(), seed=0, sampling=SAMPLING | {"examples": "images"})
    for model, text in (
        (tiny_pixel_model(0), "no condition"),
        (tiny_pixel_model(3), "generated without a condition"),
    ):
        with pytest.raises(UserError, match=text) as error:
            detector.check(model, images)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"guidance=3\.0: the first step"):
        HessianDifference(HessianDifference.Options(guidance=3.0), seed=0, sampling=SAMPLING).check(
            LinearModel(), PROMPTS
        )
    with pytest.raises(ValueError, match="steps=60 is more than trajectory=50"):
        Sharpness.Options(steps=60)
    model = LinearModel()
    model.network.half()
    model.dtype = torch.float16
    with pytest.raises(UserError, match="needs --dtype float32"):
        Sharpness(Sharpness.Options(derivative="difference"), seed=0, sampling=SAMPLING).check(
            model, PROMPTS
        )
