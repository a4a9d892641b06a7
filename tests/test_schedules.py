"""A schedule is followed exactly or refused: DDIM against the formulas, and the fields
of a scheduler_config.json.
"""

from __future__ import annotations

import inspect
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import schedules
import torch
from conftest import pixel_unet
from diffusers import DDIMPipeline, DDIMScheduler
from schedules import (
    SHAPE,
    Analytic,
    compare,
    followed,
    gaussian,
    grid,
    positions,
    refusal,
    rounded,
    slow_ddim,
)

from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.flipd import Flipd
from membench.detectors.score_norm import ScoreNorm
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.parameterisation import Parameterised
from membench.models.pixel import PixelDenoiser, load_pixel_model
from membench.models.sampling import ddim, pure_noise, timesteps
from membench.models.schedule import limited, spaced
from membench.models.scheduler_config import CLASSES, read_scheduler
from membench.types import Condition


def written(folder: Path, **fields: Any) -> Path:
    """A scheduler_config.json of DDIM's, unless ``fields`` say otherwise."""
    file = folder / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DDIMScheduler"} | fields))
    return file


def noise(n: int = 3) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(5).standard_normal((n, *SHAPE)).astype(np.float32)
    )


# -------------------------------------------------------------------------- the sampler


def test_ddim_is_that_of_the_formulas_or_is_refused(tmp_path: Path) -> None:
    """300 of the grid's combinations; ``python tests/schedules.py`` runs all."""
    kinds = set()
    for c in random.Random(0).sample([followed(c) for c in grid()], 300):
        found, field = compare(c, tmp_path / "scheduler_config.json"), refusal(c)
        kinds.add(field)
        if field:
            assert found.error is None and field in found.refused and "\n" not in found.refused, c
        else:
            assert found.error is not None and found.error <= 1e-5, (found, c)
    assert kinds == {"", "steps_offset", "timestep_spacing", "rescale_betas_zero_snr"}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("limit", schedules.LIMITS)
def test_diffusers_own_loop_is_the_same_where_steps_divide_t(
    tmp_path: Path, kind: str, steps: int, limit: dict[str, Any]
) -> None:
    scheduler = read_scheduler(written(tmp_path, prediction_type=kind, beta_end=0.02, **limit))
    predict = gaussian(kind)
    model = Analytic(scheduler, predict)
    got = ddim(model, noise(), model.condition([]), steps=steps, guidance=1.0)
    theirs = DDIMScheduler.from_config(dict(scheduler.config))
    theirs.set_timesteps(steps)
    x = noise()
    for t in theirs.timesteps:
        raw = torch.from_numpy(predict(x.double().numpy(), *model.alpha_sigma(int(t)))).float()
        x = theirs.step(raw, int(t), x, eta=0.0).prev_sample
    # Theirs is in single precision, at alpha = 0.006
    torch.testing.assert_close(got, x, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("total", [1, 2, 10, 25, 100, 999, 1000])
def test_timesteps_of_every_number_of_steps(spacing: str, total: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=total, timestep_spacing=spacing)
    c = {"num_train_timesteps": total, "timestep_spacing": spacing, "steps_offset": 0}
    c |= {"prediction_type": "sample", "rescale_betas_zero_snr": False}
    fit = []
    numbers = [
        n for n in range(1, total + 1) if total <= 100 or n % 23 == 1 or n in (61, 122, total)
    ]
    for steps in numbers:
        try:
            found = spaced(scheduler, steps)
        except UserError as error:
            assert refusal(
                c | {"steps": steps}
            ) == "timestep_spacing" and "timestep_spacing" in str(error)
            continue
        assert refusal(c | {"steps": steps}) == ""
        assert rounded(found, c | {"steps": steps}) and len(set(found)) == steps
        assert found[-1] >= 0 and found[0] < total
        fit.append(steps)
    assert total in fit  # every timestep
    if spacing == "trailing":  # of some, diffusers' own list ends at -1: 61 of 1,000, for one
        assert fit == numbers


@pytest.mark.parametrize(
    ("steps", "latent", "words"),
    [
        (
            600,
            False,
            "timestep_spacing=leading would begin at timestep 599 of 1000.*choose 500 or 900",
        ),
        (
            1000,
            True,
            (
                "steps_offset=1 and timestep_spacing=leading would begin at timestep 1000, and the"
                " last is 999; choose 999"
            ),
        ),
        (1, False, "would begin at timestep 0 of 1000.*choose 2"),
        (0, False, "choose 1 to 1000"),
        (1001, False, "choose 1 to 1000"),
    ],
)
def test_a_number_of_steps_that_begins_at_another_noise(
    tmp_path: Path, steps: int, latent: bool, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        spaced(read_scheduler(written(tmp_path), latent=latent), steps)


def test_numbers_of_steps_that_are_offered_work(tmp_path: Path) -> None:
    scheduler = read_scheduler(written(tmp_path))
    for steps in (112, 334, 600, 899):
        with pytest.raises(UserError) as error:
            spaced(scheduler, steps)
        for near in str(error.value).split("choose ")[1].split(" or "):
            assert len(spaced(scheduler, int(near))) == int(near)


def test_dynamic_thresholding_is_that_of_each_image() -> None:
    """Saharia et al. 2022: [-4, 2, 1, 0] at ratio 2/3 has s = 2, and is scaled; an
    image within [-1, 1] is left alone.
    """
    scheduler = DDIMScheduler(
        thresholding=True, dynamic_thresholding_ratio=2 / 3, sample_max_value=3.0
    )
    x0 = torch.tensor(
        [[-4.0, 2.0, 1.0, 0.0], [0.5, -0.25, 1.0, 0.0], [math.nan, 0.0, 0.0, 0.0]],
        dtype=torch.float64,
    ).view(3, 1, 2, 2)
    found = limited(scheduler, x0).flatten(1)
    torch.testing.assert_close(found[0], torch.tensor([-1.0, 1.0, 0.5, 0.0], dtype=torch.float64))
    assert torch.equal(found[1], x0.flatten(1)[1]) and bool(found[2].isnan().any())
    assert limited(scheduler, x0[:0]).shape == (0, 1, 2, 2)


# --------------------------------------------------------------------------- pure noise


def test_v_from_pure_noise_has_its_closed_form(tmp_path: Path) -> None:
    """x_T is noise alone, so x0 is -v there, the mean of the data; one step on clean
    data ends at it.
    """
    file = written(
        tmp_path,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    model = Analytic(read_scheduler(file), gaussian("v_prediction"))
    assert model.alpha_sigma(999) == (0.0, 1.0) and pure_noise(model, 20) == 1
    one = ddim(model, noise(), model.condition([]), steps=1, guidance=1.0)
    assert np.abs(one.numpy() - schedules.MEANS).max() < 1e-6
    many = ddim(model, noise(), model.condition([]), steps=500, guidance=1.0).numpy()
    # The ODE of a Gaussian
    assert np.abs(many - (schedules.MEANS + schedules.STDS * noise().numpy())).max() < 0.02
    asked: list[int] = []

    def correct(x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
        asked.append(t)
        return eps

    ddim(model, noise(), model.condition([]), steps=4, guidance=1.0, correct=correct)
    assert asked == [749, 499, 249]  # pure noise says nothing of a class


def pixel_folder(folder: Path, **fields: Any) -> Path:
    DDIMPipeline(unet=pixel_unet(), scheduler=DDIMScheduler()).save_pretrained(
        folder, safe_serialization=True
    )
    written(folder / "scheduler", **fields)
    return folder


ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_zero_terminal_snr_in_both_kinds_of_model(
    kind: str, tmp_path: Path, tiny_pipeline_folder: Path
) -> None:
    pixels = pixel_folder(tmp_path / "pixels", prediction_type=kind, **ZERO)
    latents = tmp_path / "latents"
    latents.symlink_to(tiny_pipeline_folder)
    config = {"beta_schedule": "scaled_linear", "prediction_type": kind, **ZERO}
    loads = {
        "pixels": lambda: load_pixel_model(pixels, 0),
        "latents": lambda: LatentDenoiser(
            SimpleNamespace(
                **vars(load_text_to_image(latents))
                | {"scheduler": read_scheduler(written(tmp_path, **config), latent=True)}
            )
        ),
    }
    for load in loads.values():
        if kind == "epsilon":
            with pytest.raises(
                UserError, match=r"pure noise .*rescale_betas_zero_snr.*prediction_type=epsilon"
            ):
                load()
            continue
        model = load()
        x, told = model.noise([("a", 0), ("b", 0)], 0), model.condition([Condition("a")] * 2)
        end = ddim(model, x, told, steps=5, guidance=1.0)
        assert bool(end.isfinite().all()) and float(end.abs().max()) < 50


class Prompted(Analytic):
    """A condition moves the mean: v depends on it at abar = 0 as well, eps does not."""

    takes_text = True
    latents = True

    def _forward(self, x: torch.Tensor, t: Any, condition: Conditioning) -> torch.Tensor:
        assert condition.embeddings is not None
        return super()._forward(x, t, condition) + condition.embeddings.view(-1, 1, 1, 1)

    def condition(self, conditions: Any) -> Conditioning:
        return Conditioning(torch.tensor([float(len(c.prompt or "")) for c in conditions]))


SAMPLING = {"steps": 10, "guidance": 3.0}


def test_detectors_look_past_pure_noise(tmp_path: Path) -> None:
    """|eps_c - eps_0| = alpha |v_c - v_0| is 0 at the first step; cfg_norm and
    score_norm take the next, the others refuse it.
    """
    file = written(tmp_path, prediction_type="v_prediction", clip_sample=False, **ZERO)
    model = Prompted(read_scheduler(file), gaussian("v_prediction"))
    conditions = [Condition("a", "x"), Condition("b", "xyz")]
    detector = CfgNorm(CfgNorm.Options(draws=1, images=0), seed=0, sampling=SAMPLING)
    detector.check(model, conditions)
    alpha = model.alpha_sigma(979)[0]
    got = detector.score(model, conditions, {})
    assert got == pytest.approx([alpha * n * math.sqrt(math.prod(SHAPE)) for n in (1, 3)], rel=1e-4)
    assert model.cost.forwards == 2 * 2 * 2
    norm = ScoreNorm(
        ScoreNorm.Options(at="trajectory", draws=1, images=0), seed=0, sampling=SAMPLING
    )
    norm.check(model, conditions)
    assert norm._step(model, 50) == (1, 979)
    short = CfgNorm(CfgNorm.Options(draws=1, images=0, trajectory=1), seed=0, sampling=SAMPLING)
    with pytest.raises(UserError, match="pure noise"):
        short.check(model, conditions)
    prompts = [Condition("a", "x")]
    for refused in (
        Flipd(Flipd.Options(t0=1.0), seed=0, sampling=SAMPLING),
        ScoreNorm(ScoreNorm.Options(at="image", t=1.0), seed=0, sampling=SAMPLING),
    ):
        with pytest.raises(UserError, match=r"timestep 999 is pure noise \(abar = 0\)"):
            refused.check(model, prompts)


def test_a_denoiser_of_somebody_elses_scheduler_is_checked_too() -> None:
    with pytest.raises(UserError, match="pure noise"):
        PixelDenoiser(pixel_unet(), DDIMScheduler(rescale_betas_zero_snr=True), shape=(3, 8, 8))


# ----------------------------------------------------------------------------- the file


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_file_leaves_out_is_the_default_of_its_class(tmp_path: Path, name: str) -> None:
    """By the signature of the class, and of a class without a field by what it does: no
    clipping, an end at sigma = 0.
    """
    signature = {
        p.name: p.default
        for p in inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    }
    ours = read_scheduler(written(tmp_path, _class_name=name))
    if "beta_start" not in signature:
        pytest.skip(f"{name} needs a library that is not installed")
    for key in (
        "clip_sample",
        "set_alpha_to_one",
        "steps_offset",
        "timestep_spacing",
        "prediction_type",
        "thresholding",
    ):
        assert ours.config[key] == signature.get(
            key, UNSAID[key] if name != "DPMSolverSinglestepScheduler" else ours.config[key]
        ), key
    total = signature["num_train_timesteps"]
    ends = signature["beta_start"], signature["beta_end"]
    c = {
        "beta_schedule": signature["beta_schedule"],
        "num_train_timesteps": total,
        "beta_start": ends[0],
        "beta_end": ends[1],
    }
    abar = np.cumprod(1 - schedules.betas(c))
    # Theirs is in single precision
    assert np.abs(ours.alphas_cumprod.numpy() / abar - 1).max() < 1e-3


UNSAID = {
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "thresholding": False,
}
UNSAID["timestep_spacing"] = "leading"


@pytest.mark.parametrize(
    "fields",
    [
        {"beta_schedule": "linear", "num_train_timesteps": 4000, "beta_end": 0.005},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid", "_class_name": "DDPMScheduler"},
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "rescale_betas_zero_snr": True,
        },
        {"trained_betas": True, "num_train_timesteps": 50},
    ],
)
def test_betas_are_those_of_the_formulas(tmp_path: Path, fields: dict[str, Any]) -> None:
    c = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02} | fields
    told = c | ({"trained_betas": schedules.trained(50)} if "trained_betas" in c else {})
    found = (
        read_scheduler(written(tmp_path, prediction_type="sample", **told))
        .alphas_cumprod.double()
        .numpy()
    )
    np.testing.assert_allclose(found, np.cumprod(1 - schedules.betas(c)), rtol=1e-3, atol=1e-7)


def test_latents_are_loaded_as_the_pipeline_corrects_them(tmp_path: Path) -> None:
    scheduler = read_scheduler(written(tmp_path, beta_schedule="scaled_linear"), latent=True)
    assert (scheduler.config.clip_sample, scheduler.config.steps_offset) == (False, 1)
    assert spaced(scheduler, 50) == list(range(981, 0, -20))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"_class_name": None}, "names no _class_name"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler, which has no betas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no betas"),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "no betas"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "use_flow_sigmas=true",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type=continuous",
        ),
        (
            {"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True},
            "rescale_betas_zero_snr=true, which a PNDMScheduler",
        ),
        (
            {"beta_schedule": "sigmoid"},
            "beta_schedule=sigmoid is not one that a DDIMScheduler knows",
        ),
        ({"beta_schedule": 5}, "beta_schedule=5"),
        ({"beta_start": "x"}, "beta_start=x is not a number from 0 to 1"),
        ({"beta_start": -1}, "beta_start=-1"),
        (
            {"beta_start": 0},
            "beta_schedule=linear, beta_start=0, beta_end=0.02: these are not the betas",
        ),
        ({"beta_end": 2.0}, "beta_end=2.0"),
        ({"beta_end": math.nan}, "beta_end=NaN"),
        ({"num_train_timesteps": 0}, "num_train_timesteps=0 is not a whole number from 1"),
        ({"num_train_timesteps": 10**10}, "num_train_timesteps=10000000000"),
        ({"num_train_timesteps": 1000.0}, "num_train_timesteps=1000.0 is not a whole number"),
        ({"num_train_timesteps": True}, "num_train_timesteps=true"),
        ({"num_train_timesteps": 1, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"trained_betas": []}, "trained_betas are 0 numbers"),
        ({"trained_betas": ["a"]}, "trained_betas is not a list of numbers"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas are 2 numbers for num_train_timesteps=1000"),
        ({"trained_betas": [1.5] * 1000}, "trained_betas is not a list of numbers from 0 to 1"),
        ({"trained_betas": [0.0] * 1000}, "trained_betas: these are not the betas"),
        ({"trained_betas": [0.999999] * 1000}, "pure noise"),
        ({"prediction_type": "flow_prediction"}, "prediction_type=flow_prediction is not known"),
        ({"prediction_type": None}, "prediction_type=null"),
        (
            {"timestep_spacing": "odd"},
            "timestep_spacing=odd is not known; membench knows leading, trailing, linspace",
        ),
        ({"steps_offset": "x"}, "steps_offset=x"),
        ({"steps_offset": -1}, "steps_offset=-1"),
        ({"thresholding": "yes"}, "thresholding=yes is not known; membench knows true, false"),
        ({"set_alpha_to_one": 1}, "set_alpha_to_one=1"),
        ({"clip_sample": "x"}, "clip_sample=x"),
        ({"clip_sample_range": 0}, "clip_sample_range=0"),
        ({"dynamic_thresholding_ratio": 1.5}, "dynamic_thresholding_ratio=1.5"),
    ],
)
def test_a_field_that_cannot_be_followed_is_named_in_one_line(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    file = written(tmp_path, **fields)
    for latent in (False, True):  # also what a pipeline of latents corrects
        with pytest.raises(UserError, match=words) as error:
            read_scheduler(file, latent=latent)
        assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_how_another_sampler_solves_the_equation_changes_nothing(tmp_path: Path) -> None:
    plain = read_scheduler(written(tmp_path, _class_name="EulerDiscreteScheduler"))
    other = {
        "use_karras_sigmas": True,
        "interpolation_type": "log_linear",
        "sigma_max": 700.0,
        "final_sigmas_type": "sigma_min",
    }
    found = read_scheduler(written(tmp_path, _class_name="EulerDiscreteScheduler", **other))
    assert torch.equal(plain.alphas_cumprod, found.alphas_cumprod) and spaced(plain, 20) == spaced(
        found, 20
    )
    # Where the last step ends
    assert (plain.config.set_alpha_to_one, found.config.set_alpha_to_one) == (True, False)


def test_the_reference_sees_a_wrong_previous_timestep(tmp_path: Path) -> None:
    """t - T // steps, which diffusers takes for the previous one, is not it where steps
    does not divide T.
    """
    c = next(
        c
        for c in grid()
        if c["num_train_timesteps"] == 100
        and c["steps"] == 7
        and c["timestep_spacing"] == "trailing"
    )
    model = Analytic(read_scheduler(written(tmp_path, **schedules.config(c))), gaussian("epsilon"))
    times = timesteps(model, 7)
    assert rounded(times, c) and not rounded([t - 1 for t in times], c) and len(positions(c)) == 7
    table, start = model.alphas_cumprod.numpy(), noise().double().numpy()
    right = slow_ddim(start, times, table, c, gaussian("epsilon"))
    wrong = slow_ddim(start, [*times[:-1], times[-1] - 1], table, c, gaussian("epsilon"))
    assert np.abs(right - wrong).max() > 1e-4


def test_continuous_times_are_the_ends_of_their_steps() -> None:
    """Of 1,000 steps time 1 is the last, and time 0.5 the 500th."""
    model = Parameterised(DDIMScheduler(num_train_timesteps=1000))
    assert [model.timestep(t) for t in (1.0, 0.5, 0.1, 0.001)] == [999, 499, 99, 0]
