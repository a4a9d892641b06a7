"""LID by FLIPD and by the normal bundle where the dimension is known, and score norms
against plain loops.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analytic import pieces
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch.nn.functional import scaled_dot_product_attention

from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.flipd import EXACT_LIMIT, Flipd
from membench.detectors.normal_bundle import LIMIT, NormalBundle
from membench.detectors.score_norm import ScoreNorm
from membench.detectors.webster import Dcs, Edge
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.derivative import choose, quadratic_forms
from membench.models.latent import LatentDenoiser, TextToImage, load_text_to_image
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim_invert
from membench.models.trace import random_probes
from membench.seeds import seed_of
from membench.storage.images import png_bits
from membench.types import Condition, Sample

SAMPLING = {"steps": 4, "guidance": 3.0}
IMAGES = {**SAMPLING, "examples": "images"}
CONDITIONS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
]
NONE = Conditioning(None)


@pytest.fixture(scope="module")
def folder(tiny_pipeline_folder):
    return tiny_pipeline_folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImage:
    """A test that changes the network loads its own."""
    return load_text_to_image(folder)


@pytest.fixture
def model(pipeline) -> LatentDenoiser:
    return LatentDenoiser(pipeline, batch_size=50)


@pytest.fixture(scope="module")
def small_pipeline(folder) -> TextToImage:
    pipeline = load_text_to_image(folder)
    pipeline.unet.register_to_config(sample_size=4)
    return pipeline


@pytest.fixture
def small(small_pipeline) -> LatentDenoiser:
    """Of D = 64 and not 256: what takes D evaluations costs a sixteenth."""
    return LatentDenoiser(small_pipeline, batch_size=50)


def flipd(examples: str = "prompts", **options) -> Flipd:
    return Flipd(Flipd.Options(**options), seed=0, sampling={**SAMPLING, "examples": examples})


def images(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def with_images(conditions: list[Condition], size: int = 64) -> list[Condition]:
    return [
        Condition(c.id, c.prompt, image)
        for c, image in zip(conditions, images(len(conditions), size), strict=True)
    ]


# ---------------------------------------------------------------------- known dimension


def test_flipd_of_a_degenerate_gaussian_is_its_dimension() -> None:
    """D = 100, d = 10; per point d (1 - sigma^2) + sigma^2 abar ||x0||^2 by hand."""
    model = pieces(10)
    x0 = model.network.draw(0, 6)
    for t0 in (0.001, 0.01, 0.1):
        sigma2 = 1 - float(model.alphas_cumprod[model.timestep(t0)])
        lid = flipd(t0=t0, trace="exact").lid(model, x0, NONE, list("abcdef"))
        by_hand = 10 * (1 - sigma2) + sigma2 * (1 - sigma2) * x0.flatten(1).pow(2).sum(1)
        assert torch.allclose(lid, by_hand.double(), atol=2e-3)
        if t0 <= 0.01:
            assert (lid - 10).abs().max() < 0.1


def test_flipd_tells_the_pieces_of_a_union_apart() -> None:
    model = pieces(3, 10, 40)
    for piece, d in enumerate((3, 10, 40)):
        lid = flipd(t0=0.01, trace="exact").lid(
            model, model.network.draw(piece, 4), NONE, list("abcd")
        )
        assert (lid - d).abs().max() < 0.15


def test_the_normal_bundle_counts_the_dimension_exactly() -> None:
    for dims in ((10,), (3, 10, 40)):
        model = pieces(*dims)
        detector = NormalBundle(NormalBundle.Options(), seed=0, sampling=SAMPLING)
        for piece, d in enumerate(dims):
            model.cost.forwards = 0
            assert detector.lid(model, model.network.draw(piece, 2), NONE, ["a", "b"]) == [d, d]
            assert model.cost.forwards == 2 * 4 * 100


# ------------------------------------------------------------------------------- traces


def slow_jacobian(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning
) -> torch.Tensor:
    """The whole D x D matrix of one row, by reverse mode: of D copies of it, each gives
    a row.
    """
    size = x.numel()
    x = x.repeat(size, 1, 1, 1).requires_grad_(True)
    eps = model.raw_eps(x, t, condition.repeat(size)).flatten(1)
    return torch.autograd.grad(eps.trace(), x)[0].flatten(1).double()


@pytest.mark.parametrize("how", ["jvp", "difference"])
def test_exact_trace_and_probes_are_those_of_the_jacobian(small, how: str) -> None:
    """On a v-prediction U-Net with cross-attention; J by reverse mode is the
    independent version.
    """
    model, t = small, 300
    condition = model.condition(CONDITIONS[:2])
    x = model.noise([("a", 0), ("b", 0)], 0)
    jacobians = [slow_jacobian(model, x[i : i + 1], t, condition[slice(i, i + 1)]) for i in (0, 1)]
    detector = flipd(t0=0.301, trace="exact", derivative=how)
    alpha, sigma = model.alpha_sigma(t)
    lid = detector.lid(model, x / alpha, condition, ["a", "b"])
    eps = model.eps(x, t, condition).double()
    expected = [
        64 - sigma * float(j.trace()) + float(e.pow(2).sum())
        for j, e in zip(jacobians, eps, strict=True)
    ]
    assert lid.tolist() == pytest.approx(expected, abs=0.02)
    probes = random_probes(model.shape, ["a", "b"], 0, 3, "gaussian")
    found, forms = quadratic_forms(model, x, t, condition, probes, 3, how)
    v = probes(slice(0, 3), slice(0, 2)).flatten(2).double()
    by_hand = torch.stack(
        [torch.stack([v[k, i] @ jacobians[i] @ v[k, i] for i in (0, 1)]) for k in range(3)]
    )
    assert torch.allclose(forms, by_hand, rtol=2e-3, atol=2e-2) and torch.allclose(
        found, eps.float(), atol=1e-5
    )


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased(probe: str) -> None:
    """2,000 probes of a matrix whose trace is 90 / sigma + 10 sigma."""
    model = pieces(10)
    x0, names = model.network.draw(0, 1), ["a"]
    exact = flipd(t0=0.1, trace="exact").lid(model, x0, NONE, names)
    estimate = flipd(t0=0.1, trace="hutchinson", probes=2000, probe=probe).lid(
        model, x0, NONE, names
    )
    # Of Gaussian probes: var v'Pv = 2 tr P for a projection P
    spread = math.sqrt(2 * (100 - 10) / 2000)
    assert abs(float(estimate - exact)) < 4 * spread


def test_rademacher_probes_are_surer_than_gaussian_ones(model) -> None:
    x0 = model.noise([("a", 0)], 0).repeat(40, 1, 1, 1)
    names = [str(i) for i in range(40)]
    spreads = {
        probe: float(
            flipd(t0=0.3, trace="hutchinson", probes=1, probe=probe)
            .lid(model, x0, model.condition([CONDITIONS[0]] * 40), names)
            .std()
        )
        for probe in ("rademacher", "gaussian")
    }
    assert spreads["rademacher"] < spreads["gaussian"]


def test_probes_belong_to_the_example_not_to_its_place_in_the_batch() -> None:
    all_of = random_probes((2, 3), ["a", "b", "c"], 7, 4, "rademacher")(slice(0, 4), slice(0, 3))
    one = random_probes((2, 3), ["c"], 7, 9, "rademacher")(slice(2, 4), slice(0, 1))
    assert torch.equal(all_of[2:4, 2], one[:, 0]) and set(all_of.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(all_of[0, 0], all_of[0, 1]) and not torch.equal(
        all_of[0, 0], all_of[1, 0]
    )


def test_the_trace_of_a_small_model_is_exact_unless_an_estimate_is_asked_for() -> None:
    model, x0 = pieces(4, size=16), pieces(4, size=16).network.draw(0, 2)
    assert torch.equal(
        flipd(probes=1).lid(model, x0, NONE, ["a", "b"]),
        flipd(trace="exact").lid(model, x0, NONE, ["c", "d"]),
    )
    assert model.cost.jvps == 2 * 2 * 16
    flipd(probes=3, trace="hutchinson").lid(model, x0, NONE, ["a", "b"])
    assert model.cost.jvps == 2 * 2 * 16 + 2 * 3


class NoForwardRule(torch.autograd.Function):
    """Attention with a backward rule and no forward one, as fused kernels have it."""

    @staticmethod
    def forward(ctx, q, k, v):
        return scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError


def fused(model: LatentDenoiser) -> LatentDenoiser:
    class Processor:
        def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, temb=None):
            told = x if encoder_hidden_states is None else encoder_hidden_states

            def heads(y):
                return y.view(len(x), -1, attn.heads, y.shape[-1] // attn.heads).transpose(1, 2)

            q, k, v = heads(attn.to_q(x)), heads(attn.to_k(told)), heads(attn.to_v(told))
            out = NoForwardRule.apply(q, k, v).transpose(1, 2).flatten(2)
            return attn.to_out[1](attn.to_out[0](out))

    model.network.set_attn_processor({name: Processor() for name in model.network.attn_processors})
    return model


def test_attention_without_a_forward_rule_takes_the_difference(folder, model) -> None:
    other = fused(LatentDenoiser(load_text_to_image(folder), batch_size=50))
    x0, told, names = model.noise([("a", 0)], 0), model.condition(CONDITIONS[:1]), ["a"]
    with pytest.raises(UserError, match="no forward-mode rule"):
        flipd(derivative="jvp").check(other, with_images(CONDITIONS))
    flipd().check(other, with_images(CONDITIONS))
    assert choose(other, "auto") == "difference" and choose(model, "auto") == "jvp"
    assert flipd().lid(other, x0, told, names).tolist() == pytest.approx(
        flipd().lid(model, x0, told, names).tolist(), abs=0.05
    )
    assert (other.cost.jvps, other.cost.forwards) == (0, 2 * 4 + 1)
    assert torch.backends.cuda.flash_sdp_enabled()  # the choice of kernels is given back


@pytest.mark.parametrize(
    "error",
    [NotImplementedError, RuntimeError("size mismatch"), TypeError("no tangent"), AssertionError()],
)
def test_a_group_norm_without_a_forward_rule_takes_the_difference(
    error, model, monkeypatch
) -> None:
    """Whatever a release of PyTorch raises there."""
    plain = torch.nn.functional.group_norm

    def refuse(x, *args, **kwargs):
        if torch._C._functorch.maybe_get_level(x) != -1:  # under jvp
            raise error
        return plain(x, *args, **kwargs)

    x0, told = model.noise([("a", 0)], 0), model.condition(CONDITIONS[:1])
    wanted, jvps = flipd(probes=1).lid(model, x0, told, ["a"]).tolist(), model.cost.jvps
    monkeypatch.setattr(torch.nn.functional, "group_norm", refuse)
    model.forward_mode = None  # ask again
    assert choose(model, "auto") == "difference"
    assert flipd(probes=1).lid(model, x0, told, ["a"]).tolist() == pytest.approx(wanted, abs=0.05)
    assert model.cost.jvps == jvps


def test_what_a_plain_evaluation_raises_is_not_taken_for_a_missing_rule(folder) -> None:
    broken = LatentDenoiser(load_text_to_image(folder), batch_size=50)
    broken.network.conv_in.weight = torch.nn.Parameter(torch.zeros(8, 5, 3, 3))
    with pytest.raises(RuntimeError, match="expected input"):
        choose(broken, "auto")


def test_a_central_difference_wants_float32(folder) -> None:
    half = LatentDenoiser(load_text_to_image(folder, dtype="bfloat16"))
    with pytest.raises(UserError, match="--dtype float32"):
        flipd(derivative="difference").check(half, with_images(CONDITIONS))


# --------------------------------------------------------------------- score_norm, slow


class Slow:
    """eps of one row by diffusers alone, from a v-prediction pipeline."""

    def __init__(self, folder) -> None:
        self.pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        self.abar = self.pipe.scheduler.alphas_cumprod.double()

    def eps(self, x: torch.Tensor, t: int, text: str) -> torch.Tensor:
        ids = self.pipe.tokenizer(
            [text], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            v = self.pipe.unet(x, t, self.pipe.text_encoder(ids).last_hidden_state).sample
        return (self.abar[t].sqrt() * v + (1 - self.abar[t]).sqrt() * x).float()

    def norm(self, x: torch.Tensor, t: int, prompt: str, condition: str, kind: str) -> float:
        null, c = self.eps(x, t, ""), self.eps(x, t, prompt)
        eps = {
            "conditional": c,
            "unconditional": null,
            "guided": null + 7.5 * (c - null),
            "difference": c - null,
        }[condition]
        value = math.sqrt(float((eps.double() ** 2).sum()))
        return value / math.sqrt(float(1 - self.abar[t])) if kind == "score" else value

    def encode(self, image: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        with torch.no_grad():
            return self.pipe.vae.encode(x).latent_dist.mode() * self.pipe.vae.config.scaling_factor


@pytest.fixture(scope="module")
def slow(folder) -> Slow:
    return Slow(folder)


@pytest.mark.parametrize(
    ("condition", "kind", "t", "step"),
    [
        ("conditional", "eps", 1.0, 0),
        ("unconditional", "score", None, 0),
        ("guided", "eps", 0.4, 2),
        ("unconditional", "eps", 0.68, 1),  # below it, and nearer than the one above
        ("difference", "score", 0.001, 4),
    ],
)
def test_score_norm_on_the_trajectory_is_the_formula(
    slow, model, condition: str, kind: str, t: float | None, step: int
) -> None:
    options = ScoreNorm.Options(condition=condition, norm=kind, t=t, draws=2, trajectory=5)
    got = ScoreNorm(options, seed=3, sampling=SAMPLING).score(model, CONDITIONS, {})
    scheduler = DDIMScheduler.from_config(slow.pipe.scheduler.config)
    scheduler.set_timesteps(5)
    times = [int(at) for at in scheduler.timesteps]
    assert times[step] == min(times, key=lambda at: abs(at - (1000 * (t or 1.0) - 1)))
    for c, value in zip(CONDITIONS, got, strict=True):
        norms = []
        for draw in (0, 1):
            x = torch.randn(
                (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed_of(3, c.id, draw))
            )
            for at in times[:step]:
                eps = slow.eps(x, at, "") + 7.5 * (slow.eps(x, at, c.prompt) - slow.eps(x, at, ""))
                v = (eps - (1 - slow.abar[at]).sqrt() * x) / slow.abar[at].sqrt()
                x = scheduler.step(v.float(), at, x, eta=0.0).prev_sample
            norms.append(slow.norm(x, times[step], c.prompt, condition, kind))
        assert value == pytest.approx(sum(norms) / 2, rel=2e-4)
    evaluations = {"conditional": 1, "unconditional": 1}.get(condition, 2)
    assert model.cost.forwards == 3 * 2 * (2 * step + evaluations)


@pytest.mark.parametrize("condition", ["conditional", "unconditional", "guided", "difference"])
def test_score_norm_of_an_image_follows_the_forward_ode(slow, model, condition: str) -> None:
    """10 steps to t = 0.5: timesteps 0, 49, 99 ... 449, then 499; the last is where the
    norm is taken.
    """
    given = with_images(CONDITIONS)
    got = ScoreNorm(ScoreNorm.Options(condition=condition), seed=0, sampling=IMAGES).score(
        model, given, {}
    )
    assert (
        model.cost.forwards == 3 * (10 + {"conditional": 1, "unconditional": 1}.get(condition, 2))
        and model.cost.encodes == 3
    )
    for c, value in zip(given, got, strict=True):
        assert c.image is not None
        x, way = slow.encode(c.image), "" if condition == "unconditional" else c.prompt
        before, at = 1.0, 0
        for after in [49, 99, 149, 199, 249, 299, 349, 399, 449, 499]:
            eps, to = slow.eps(x, at, way), float(slow.abar[after])
            x0 = (x - math.sqrt(1 - before) * eps) / math.sqrt(before)
            x = math.sqrt(to) * x0 + math.sqrt(1 - to) * eps
            before, at = to, after
        assert value == pytest.approx(slow.norm(x, 499, c.prompt, condition, "eps"), rel=5e-4)


def test_the_forward_ode_of_a_gaussian_has_its_closed_form() -> None:
    """x_t = x0 sqrt(abar s^2 + sigma^2) / s for data N(0, s^2): here s = 1 in every
    direction, so the ODE stands still; and across a piece (s = 0) a point that lies on
    it stays on alpha x0 = 0.
    """
    model = pieces(100)
    x0 = model.network.draw(0, 3)
    ends = {steps: ddim_invert(model, x0, NONE, t=499, steps=steps) for steps in (10, 40, 160)}
    errors = {steps: float((x - x0).norm() / x0.norm()) for steps, x in ends.items()}
    assert errors[160] < 0.01 and 3 < errors[10] / errors[40] < 5  # first order
    flat = pieces(10)
    on = flat.network.draw(0, 3)
    away = ddim_invert(flat, on, NONE, t=499, steps=40).flatten(1)
    basis = flat.network.bases[0]
    assert (away - away @ basis @ basis.T).abs().max() < 1e-3


# ------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("options", "jvps", "forwards"),
    [
        ({}, 4, 0),
        ({"probes": 1}, 1, 0),
        ({"condition": "unconditional"}, 4, 0),
        ({"condition": "ratio"}, 8, 0),
        ({"condition": "difference", "probes": 3}, 6, 0),
        ({"trace": "exact"}, 64, 0),
        ({"derivative": "difference"}, 0, 9),
        ({"derivative": "difference", "condition": "ratio", "probes": 2}, 0, 10),
        ({"per_png_bit": True, "probe": "gaussian"}, 4, 0),
    ],
)
def test_what_flipd_costs(model, small, options: dict, jvps: int, forwards: int) -> None:
    if "trace" in options:
        model = small
    given = with_images(CONDITIONS, 8 * model.shape[1])
    detector = flipd("images", **options)
    detector.score(model, given, {})
    assert (model.cost.jvps, model.cost.forwards) == (
        3 * jvps,
        3 * forwards,
    ) and model.cost.encodes == 3
    [request, *_] = detector.plan(CONDITIONS)
    assert detector.image_forwards(model, request) == 4 * 2 + jvps + forwards
    before = (model.cost.jvps, model.cost.forwards)
    detector.extract(model, [request])
    assert (model.cost.jvps - before[0], model.cost.forwards - before[1]) == (jvps, 8 + forwards)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"condition": "conditional"},
        {"at": "image"},
        {"at": "image", "condition": "unconditional", "t": 0.1},
    ],
)
def test_what_an_image_of_score_norm_costs(model, options: dict) -> None:
    detector = ScoreNorm(ScoreNorm.Options(**options), seed=0, sampling=SAMPLING)
    [request, *_] = detector.plan(CONDITIONS)
    detector.extract(model, [request])
    assert model.cost.forwards == detector.image_forwards(model, request)


# ---------------------------------------------------------- conditions, images, prompts


def test_ratio_difference_and_png_bits_are_made_of_the_same_two_lids(model) -> None:
    given = with_images(CONDITIONS[:2])
    c, u, ratio, difference, per_bit = (
        np.array(flipd("images", **o).score(model, given, {}))
        for o in (
            {},
            {"condition": "unconditional"},
            {"condition": "ratio"},
            {"condition": "difference"},
            {"per_png_bit": True},
        )
    )
    assert ratio == pytest.approx(-c / u, rel=1e-4) and difference == pytest.approx(c - u, abs=1e-2)
    assert per_bit == pytest.approx(c / [png_bits(g.image) for g in given], rel=1e-6)
    assert np.abs(c - u).max() > 0.01


@pytest.mark.parametrize("name", ["flipd", "score_norm"])
def test_a_prompt_scores_by_the_mean_over_the_images_drawn_for_it(model, name: str) -> None:
    detector = (
        flipd(images=2)
        if name == "flipd"
        else ScoreNorm(ScoreNorm.Options(images=2, at="image"), seed=0, sampling=SAMPLING)
    )
    requests = detector.plan(CONDITIONS)
    assert len(requests) == 6 and detector.access.images
    drawn = detector.extract(model, requests)
    extracted = {c.id: [s for s in drawn if s.condition == c] for c in CONDITIONS}
    scores = detector.score(model, CONDITIONS, extracted)
    assert scores == pytest.approx(
        [np.mean([s.confidence for s in extracted[c.id]]) for c in CONDITIONS]
    )
    again = [Condition(s.condition.id, s.condition.prompt, s.image) for s in drawn if s.draw == 0]
    own = detector.measure(
        model, np.stack([c.image for c in again]), again, [f"{c.id}/0" for c in again]
    )
    # Measured as an image is
    assert list(own) == pytest.approx([s.confidence for s in drawn if s.draw == 0], rel=1e-3)
    of_images = type(detector)(detector.options, seed=0, sampling=IMAGES)
    assert not of_images.access.images  # an example that is an image pays for no drawn one


@pytest.mark.parametrize(
    "name",
    ["flipd", "flipd ratio", "score_norm image", "score_norm", "normal_bundle", "dcs", "edge"],
)
def test_a_nan_stays_in_its_own_row(model, small, monkeypatch, name: str) -> None:
    """A network that fails for one prompt: its score is NaN, those of the others are
    what they were.
    """
    if name == "normal_bundle":
        model = small
    forward, poisoned = model._forward, model.condition(CONDITIONS[1:2]).embeddings

    def broken(x, t, condition):
        hit = (condition.embeddings == poisoned).flatten(1).all(dim=1)
        return torch.where(hit[:, None, None, None], torch.nan, forward(x, t, condition))

    detector = {
        "flipd": flipd("images"),
        "flipd ratio": flipd("images", condition="ratio", derivative="difference"),
        "score_norm image": ScoreNorm(ScoreNorm.Options(), seed=0, sampling=IMAGES),
        "score_norm": ScoreNorm(ScoreNorm.Options(at="trajectory"), seed=0, sampling=IMAGES),
        "normal_bundle": NormalBundle(NormalBundle.Options(), seed=0, sampling=IMAGES),
        "dcs": Dcs(Dcs.Options(), seed=0, sampling=IMAGES),
        "edge": Edge(Edge.Options(size=32), seed=0, sampling=SAMPLING),
    }[name]
    given = with_images(CONDITIONS, 8 * model.shape[1])
    healthy = detector.score(model, given, {})
    monkeypatch.setattr(model, "_forward", broken)
    found = detector.score(model, given, {})
    assert [math.isfinite(score) for score in found] == [True, False, True]
    assert [found[0], found[2]] == pytest.approx([healthy[0], healthy[2]], rel=1e-4)


def test_failed_images_fail_alone(model) -> None:
    detector = flipd()
    assert math.isnan(
        detector.score(
            model, CONDITIONS[:1], {"p": [Sample(CONDITIONS[0], 0, images(1)[0], math.nan)]}
        )[0]
    )
    assert math.isnan(detector.score(model, CONDITIONS[:1], {"p": []})[0])


# ---------------------------------------------------------------------------- bad input


def refusal(detector, model: Denoiser, conditions: list[Condition] = CONDITIONS) -> str:
    with pytest.raises(UserError) as error:
        detector.check(model, conditions)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_times_are_those_of_the_models_own_schedule() -> None:
    """sigma^2 of Stable Diffusion's scaled-linear schedule at t (a linear one, which
    the reference code assumes, has 0.53 at 0.3).
    """
    model = pieces(4, size=16)
    model.alphas_cumprod = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod.double()
    for t, sigma2 in ((0.01, 0.0087), (0.05, 0.0474), (0.1, 0.105), (0.3, 0.408), (0.5, 0.722)):
        assert model.alpha_sigma(model.timestep(t))[1] ** 2 == pytest.approx(sigma2, rel=0.01)
    assert (model.timestep(1.0), model.timestep(0.001)) == (999, 0)


def test_without_a_time_flipd_takes_the_papers(model) -> None:
    """0.3 for Stable Diffusion; of pixels 0.01, the time of the authors' code."""
    for denoiser, given, t0 in (
        (model, with_images(CONDITIONS[:1]), 0.3),
        (pieces(4, size=16), [Condition("x", None, np.zeros((4, 4, 3), np.uint8))], 0.01),
    ):
        found = [
            flipd("images", **options).score(denoiser, given, {}) for options in ({}, {"t0": t0})
        ]
        assert found[0] == found[1] != flipd("images", t0=0.2).score(denoiser, given, {})


def test_what_does_not_fit_the_model_is_refused_before_any_work(model) -> None:
    for detector in (
        flipd(t0=0.0001),
        NormalBundle(NormalBundle.Options(t0=0.0), seed=0, sampling=SAMPLING),
    ):
        assert "outside the model's schedule: choose 0.001" in refusal(detector, model)
    assert "outside" in refusal(
        ScoreNorm(ScoreNorm.Options(t=0.0), seed=0, sampling=SAMPLING), model
    )
    assert "ode_steps=500" in refusal(
        ScoreNorm(ScoreNorm.Options(at="image", t=0.1, ode_steps=500), seed=0, sampling=SAMPLING),
        model,
    )
    assert "ode_steps=600" in refusal(
        ScoreNorm(ScoreNorm.Options(at="image", ode_steps=600), seed=0, sampling=SAMPLING), model
    )
    for detector in (
        flipd(images=0),
        ScoreNorm(ScoreNorm.Options(images=0, at="image"), seed=0, sampling=SAMPLING),
    ):
        assert "images must be at least 1" in refusal(detector, model)
        type(detector)(detector.options, seed=0, sampling=IMAGES).check(
            model, with_images(CONDITIONS)
        )
    assert model.cost.forwards == model.cost.decodes == 0


def test_an_option_that_changes_nothing_is_refused(model) -> None:
    """A sweep of it would be a flat line."""
    given = with_images(CONDITIONS)
    for options, unread in (
        ({"at": "image"}, {"draws": 2, "trajectory": 10, "weight": 2.0}),
        ({"at": "noised", "t": 0.01}, {"ode_steps": 500, "trajectory": 10, "weight": 2.0}),
        ({"at": "trajectory"}, {"ode_steps": 3}),
    ):
        told = {} if options["at"] == "trajectory" else {"condition": "conditional"}
        ScoreNorm(ScoreNorm.Options(**options, **told), seed=0, sampling=SAMPLING).check(
            model, CONDITIONS
        )
        for name, value in unread.items():
            made = ScoreNorm.Options(**options, **told, **{name: value})
            assert f"{name}={value}: " in refusal(ScoreNorm(made, seed=0, sampling=SAMPLING), model)
    guided = ScoreNorm.Options(at="noised", weight=2.0, draws=2)
    ScoreNorm(guided, seed=0, sampling=IMAGES).check(model, given)


def test_a_model_that_is_too_large_is_told_the_cost() -> None:
    large = pieces(4, size=16)
    large.shape = (1, 65, 65)  # D = 4,225
    assert f"D = 4,225 JVPs an image, and membench stops at D = {EXACT_LIMIT:,}" in refusal(
        flipd(trace="exact"), large, []
    )
    bundle = NormalBundle(NormalBundle.Options(), seed=0, sampling=SAMPLING)
    assert "4 D = 16,900 evaluations" in refusal(bundle, large, []) and f"{LIMIT:,}" in refusal(
        bundle, large, []
    )


def test_a_model_without_a_condition_says_so() -> None:
    model, pool = pieces(4, size=16), [Condition("x", None, np.zeros((4, 4, 3), np.uint8))]
    for kind in ("conditional", "ratio", "difference"):
        assert f"condition={kind} is not defined for it" in refusal(
            flipd(condition=kind), model, pool
        )
    for kind in ("conditional", "guided", "difference"):
        assert "no condition" in refusal(
            ScoreNorm(ScoreNorm.Options(condition=kind), seed=0, sampling=SAMPLING), model, pool
        )
    assert "no condition" in refusal(
        NormalBundle(NormalBundle.Options(condition="conditional"), seed=0, sampling=SAMPLING),
        model,
        pool,
    )
    flipd().check(model, pool)


def test_an_image_without_a_prompt_is_not_scored_by_the_null_condition_in_silence(model) -> None:
    pool = [Condition("x", None, images(1)[0])]
    assert "these images have no prompt and no class, so condition=conditional" in refusal(
        flipd(), model, pool
    )
    flipd(condition="unconditional").check(model, pool)


def test_two_ways_to_cancel_complexity_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="per_png_bit and condition=ratio"):
        Flipd.Options(per_png_bit=True, condition="ratio")


def test_examples_that_are_declared_to_be_images_have_one(model) -> None:
    mixed = [*with_images(CONDITIONS[:1]), CONDITIONS[1]]
    for detector in (flipd("images"), ScoreNorm(ScoreNorm.Options(), seed=0, sampling=IMAGES)):
        assert "declares that its examples are images, and some have none" in refusal(
            detector, model, mixed
        )


@pytest.mark.parametrize("make", [ScoreNorm, CfgNorm])
def test_a_trajectory_longer_than_the_schedule_is_refused_at_once(model, make) -> None:
    model.scheduler, model.alphas_cumprod = (
        DDIMScheduler(num_train_timesteps=500),
        model.alphas_cumprod[:500],
    )
    assert "choose 1 to 500" in refusal(
        make(make.Options(trajectory=900), seed=0, sampling=SAMPLING), model
    )


def test_a_given_image_of_another_size_is_refused_at_once(model) -> None:
    pool = [*with_images(CONDITIONS), Condition("y", "a jug", images(1, 32)[0])]
    assert "images of 32x32x3" in refusal(flipd(), model, pool)


def test_an_image_of_another_size_is_refused(model) -> None:
    with pytest.raises(UserError, match="images of 32x32x3 become states of"):
        model.encode(images(1, 32))
    with pytest.raises(UserError, match="resize the images"):
        PixelDenoiser(pieces(4, size=16).network, DDIMScheduler(), shape=(3, 8, 8)).encode(
            images(1, 16)
        )


def test_encoding_undoes_decoding(model) -> None:
    pixel = PixelDenoiser(pieces(4, size=16).network, DDIMScheduler(), shape=(3, 16, 16))
    assert np.array_equal(pixel.decode(pixel.encode(images(2, 16))), images(2, 16))
    assert torch.allclose(model.encode(images(9))[:2], model.encode(images(9)[:2]), atol=1e-5)
