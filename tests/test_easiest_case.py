"""Every detector where it must win: a model that is the exact score of a few images
(memorizer.py).

Each separates what the model has memorized from what it has not, as its own theory
says; where a method cannot, the test says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memorizer import BROAD, IMAGES, NARROW, PIECE, TEMPLATE, Classifier, World, latents, pixels
from sklearn.metrics import roc_auc_score

from membench.detectors.random_sampling import RandomSampling
from membench.detectors.side import Side
from membench.errors import UserError
from membench.metrics.combination import as_text, regression
from membench.models.image_values import from_uint8
from membench.models.sampling import ddim
from membench.registry import detectors
from membench.seeds import generator
from membench.similarity.l2 import normalised_l2
from membench.storage.workspace import Workspace
from membench.types import Condition, Cost, Request, Sample

KINDS = ("pixels", "latents")
SAMPLING = {"pixels": {"steps": 10, "guidance": 1.0}, "latents": {"steps": 10, "guidance": 3.0}}
SEED = 3


@cache
def world(kind: str, clip: bool | None = None, prediction: str | None = None) -> World:
    """By default pixels that are clipped and predict epsilon, and latents that are not
    and predict v, as the shipped models do.
    """
    make = pixels if kind == "pixels" else latents
    return make(
        clip=(kind == "pixels") if clip is None else clip,
        prediction=prediction or ("epsilon", "v_prediction")[kind == "latents"],
    )


def built_in() -> list[str]:
    return [
        name
        for name in detectors().names()
        if detectors().get(name).target.startswith("membench.detectors.")
    ]


def score(kind: str, name: str, conditions: list[Condition], **options: Any) -> np.ndarray:
    """What the runner does: check, plan, extract, score.

    The surrogate of SIDE and its baseline is the true classifier.
    """
    w, cls = world(kind), detectors().load(name)
    images = conditions[0].image is not None or conditions[0].start is not None
    examples = {"examples": "images" if images else "prompts"}
    detector = cls(cls.Options(**options), seed=SEED, sampling=SAMPLING[kind] | examples)
    if isinstance(detector, Side):
        detector.options = replace(detector.options, surrogate="classifier")
    detector.check(w.model, conditions)
    if isinstance(detector, Side):
        detector.classifier = Classifier(w.exact, [[k] for k in range(PIECE)], timed=detector.timed)  # type: ignore[assignment]
        detector.x0, detector.labels = (
            w.exact.means[:PIECE].float().view(PIECE, *w.model.shape),
            torch.arange(PIECE),
        )
    extracted: dict[str, list[Sample]] = {}
    for sample in (
        detector.extract(w.model, requests) if (requests := detector.plan(conditions)) else []
    ):
        extracted.setdefault(sample.condition.id, []).append(sample)
    found = np.array(detector.score(w.model, conditions, extracted))
    assert np.isfinite(found).all()
    return found


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    return float(
        roc_auc_score(
            [1] * len(positive) + [0] * len(negative), np.concatenate([positive, negative])
        )
    )


@cache
def drawn(kind: str, group: str) -> np.ndarray:
    """Draw 0 of each condition of the group, as every detector with this seed draws it."""
    w, conditions = world(kind), getattr(world(kind), group)
    plain = RandomSampling(RandomSampling.Options(), seed=SEED, sampling=SAMPLING[kind])
    return np.stack([s.image for s in plain.extract(w.model, [Request(c, 0) for c in conditions])])


def pictured(conditions: list[Condition], images: np.ndarray) -> list[Condition]:
    """Each image under its condition, with an id of its own."""
    return [
        Condition(f"{c.id}/{sha256(image.tobytes()).hexdigest()}", c.prompt, image, c.class_label)
        for c, image in zip(conditions, images, strict=True)
    ]


# --------------------------------------------------------------------- the model itself


def slow_eps(w: World, x: torch.Tensor, t: int, told: list[int]) -> torch.Tensor:
    """-sigma grad log p_t by automatic differentiation of torch's own mixture density,
    of one condition.
    """
    abar = float(w.model.alphas_cumprod[t])
    bases = w.exact.bases.split([p.dims for p in w.exact.pieces])
    eye = torch.eye(x[0].numel(), dtype=torch.float64)
    means = torch.stack([abar**0.5 * w.exact.pieces[k].mean.double().flatten() for k in told])
    covariances = torch.stack(
        [
            abar * (NARROW**2 * eye + w.exact.pieces[k].spread ** 2 * bases[k].T @ bases[k])
            + (1 - abar) * eye
            for k in told
        ]
    )
    weights = torch.distributions.Categorical(
        torch.tensor([w.exact.pieces[k].weight for k in told], dtype=torch.float64)
    )
    parts = torch.distributions.MultivariateNormal(means, covariances)
    flat = x.flatten(1).double().requires_grad_(True)
    log_density = torch.distributions.MixtureSameFamily(weights, parts).log_prob(flat).sum()
    return -((1 - abar) ** 0.5) * torch.autograd.grad(log_density, flat)[0].view_as(x)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_exact_score_of_its_pieces(kind: str, prediction: str) -> None:
    w = world(kind, None, prediction)
    noise = w.model.noise([("a", 0), ("b", 0)], SEED)
    told = {
        w.memorized[0]: [0],
        w.template: [TEMPLATE],
        w.learned[0]: [PIECE],
        w.ignored[0]: [*range(PIECE + 1)],
    }
    told |= {Condition("null"): [*range(PIECE + 1)]}
    if kind == "latents":
        told[Condition("x", "a prompt that nobody has seen")] = [*range(PIECE + 1)]
    for t in (9, 400, 999):
        alpha, sigma = w.model.alpha_sigma(t)
        x = alpha * w.exact.means[[0, 1]].float().view_as(noise) + sigma * noise
        for condition, selected in told.items():
            got = w.model.eps(x, t, w.model.condition([condition] * 2))
            torch.testing.assert_close(
                got.double(), slow_eps(w, x, t, selected), rtol=1e-3, atol=2e-4
            )


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_changes_no_unguided_image_and_no_image_of_its_own_condition(kind: str) -> None:
    """A posterior mean lies among the images, within the range."""
    ends = []
    for clip in (False, True):
        model = world(kind, clip).model
        told = model.condition(
            [
                world(kind).memorized[0],
                Condition("null"),
                world(kind).memorized[1],
                Condition("null"),
            ]
        )
        ends.append(
            ddim(model, model.noise([("a", k) for k in range(4)], 0), told, steps=10, guidance=1.0)
        )
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-4)


# ------------------------------------------------------------------------ at conditions

# Options of each kind where the default does not suit a tiny model: of pixels the
# guidance must outweigh the noise (below), and an edge of an 8x8 image is looked for at
# 8x8. Then, whether the images that an ignored condition draws, which are copies, are
# what is scored.
CONDITIONS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "cfg_norm": ({}, {}, False),
    "dcs": ({"weight": 60.0, "draws": 64}, {"draws": 64}, False),
    "dsm": ({}, {}, False),
    "anisotropy": ({}, {}, False),
    # Of an image that the null prediction knows too, a condition says something at high
    # noise only.
    "clid": ({"t": (900,), "noises": 16}, {"t": (900,), "noises": 16}, False),
    "loss": ({}, {}, True),
    "p_laplace": ({"samples": 32}, {"samples": 32}, True),
    "membership": ({}, {}, True),
    "update_norm": (
        {"statistic": "plain", "trajectory": 10},
        {"statistic": "plain", "trajectory": 10},
        False,
    ),
    # Clipped, a trajectory with weight 7.5 is far from any mixture of its ends.
    "decomposition": ({"guidance": 2.0}, {}, False),
    "edge": ({"size": 8, "strength": 3.0}, {"size": 64}, False),
    "score_norm": (
        {"at": "trajectory", "condition": "guided", "weight": 60.0, "draws": 64},
        {"draws": 64},
        False,
    ),
    "random": ({"draws": 8}, {"draws": 8}, False),
    "sharpness": ({"draws": 16}, {"draws": 64}, False),
    "hessian_difference": ({"draws": 16}, {"draws": 64}, False),
    "flipd": ({}, {}, True),
    "likelihood": ({"steps": 10, "tolerance": 1.0}, {"steps": 10, "tolerance": 1.0}, True),
    "side": ({"generations": 60}, {"generations": 30}, True),
    # Without a clip the gradient of a classifier that knows no timestep throws the
    # image away (test_easiest_attacks.py).
    "carlini_conditional": ({"generations": 60}, {}, True),
}
# What the rest of them is held to in tests of its own.
ELSEWHERE = {"normal_bundle", "png_size", "caption_case", "caption_length", "caption_ngrams"}
ELSEWHERE |= {"attention_entropy", "bright_ending", "representation", "combined", "calibrated"}
ELSEWHERE |= {"adaptive", "transition_step", "nemo_ssim", "filter", "side_prompts"}


def test_no_detector_is_left_out() -> None:
    assert sorted({*CONDITIONS, *ELSEWHERE}) == built_in() and not CONDITIONS.keys() & ELSEWHERE


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in KINDS for n in CONDITIONS if (k, n) != ("latents", "carlini_conditional")],
)
def test_memorized_conditions_are_told_from_those_that_are_not(kind: str, name: str) -> None:
    """AUROC 1 against learned conditions, and against ignored ones where the score is
    of the condition.

    Where it is of the images that the condition draws, an ignored condition cannot be
    told apart: it draws the memorized images too. Then each scores as what it has
    drawn.
    """
    w, (options, in_latents, of_images) = world(kind), CONDITIONS[name]
    options = options if kind == "pixels" else in_latents
    memorized = score(kind, name, [*w.memorized, w.template], **options)
    learned, ignored = (score(kind, name, c, **options) for c in (w.learned, w.ignored))
    assert auroc(memorized, learned) == 1.0
    if not of_images:
        assert auroc(memorized, ignored) == 1.0
        return
    copies = normalised_l2(
        drawn(kind, "ignored"), np.concatenate([w.images, w.pattern[None]]), floor=0.0
    )
    copies = copies[copies["rank"] == 0].sort_values("generated").similarity.to_numpy() < 0.6
    assert copies.any()
    assert ignored[copies].min() > learned.max() and memorized.min() > ignored[~copies].max(
        initial=-np.inf
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_guidance_norm_has_its_closed_form(kind: str) -> None:
    """|| eps_c - eps_0 || at the first step; of a condition that changes nothing it is
    0.
    """
    w = world(kind)
    got = score(kind, "cfg_norm", w.memorized, **({"trajectory": 10} if kind == "pixels" else {}))
    w.model.scheduler.set_timesteps(50 if kind == "latents" else 10)
    t = int(w.model.scheduler.timesteps[0])
    for k, (condition, value) in enumerate(zip(w.memorized, got, strict=True)):
        x = torch.stack(
            [
                torch.randn(w.model.shape, generator=generator(SEED, condition.id, draw))
                for draw in range(4)
            ]
        )
        norms = (
            (slow_eps(w, x, t, [k]) - slow_eps(w, x, t, [*range(PIECE + 1)])).flatten(1).norm(dim=1)
        )
        assert value == pytest.approx(float(norms.mean()), rel=1e-3)
    assert not score(kind, "cfg_norm", w.ignored).any()


def test_without_guidance_a_memorized_condition_goes_straight_to_its_image() -> None:
    """What is left of the noise shrinks by a factor a step, to g_t: x_t = alpha_t x_k +
    g_t (x_T - alpha_T x_k), and so is x_0 made.

    D1 is near -alpha_T sum g_t, more than where a trajectory bends.
    """
    w = world("pixels")
    found = {
        weight: score("pixels", "decomposition", w.memorized, guidance=1.0, weight=weight)
        for weight in ("image", "noise")
    }
    ways = [w.model.alpha_sigma(t) for t in range(980, -1, -20)] + [(1.0, 0.0)]
    left = [1.0]
    for (alpha, sigma), (after, less) in pairwise(ways):
        # Of the distance to the image, what is noise
        share = sigma**2 / (alpha**2 * NARROW**2 + sigma**2)
        left.append(left[-1] * (after / alpha * (1 - share) + less / sigma * share))
    # Of x_k in each state
    image = np.array([a - g * ways[0][0] for (a, _), g in zip(ways, left, strict=True)])[1:]
    w0, alphas, sigmas = image / image[-1], *np.array(ways[1:]).T
    noise = np.array(left[1:]) - w0 * left[-1]
    assert found["image"] == pytest.approx((w0 - alphas).sum(), rel=1e-3)
    assert found["noise"] == pytest.approx((sigmas - noise).sum(), rel=1e-3)
    assert (
        score("pixels", "decomposition", [*w.learned, *w.ignored], guidance=1.0).max()
        < found["image"].min()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_exact_model_the_guidance_norm_has_no_local_minimum(kind: str) -> None:
    """It dies away as the null prediction comes to know the image: no step is a
    transition, memorized or not.
    """
    w = world(kind)
    for conditions in (w.memorized, w.ignored):
        assert set(score(kind, "transition_step", conditions, trajectory=20).tolist()) == {-1.0}


def test_memorized_prompts_move_unlike_the_neutral_references(tmp_path: Path) -> None:
    """Which the model has never seen: their updates, and those of ignored prompts, are
    null's. A learned prompt is in between.
    """
    w, cls = world("latents"), detectors().load("update_norm")
    options = cls.Options(trajectory=10, images=0)
    detector = cls(options, seed=SEED, sampling=SAMPLING["latents"] | {"examples": "prompts"})
    detector.check(w.model, w.memorized)
    detector.prepare(w.model, w.memorized, Workspace(tmp_path, {"weights": "exact"}))
    memorized, learned, ignored = (
        np.array(detector.score(w.model, c, {})) for c in (w.memorized, w.learned, w.ignored)
    )
    assert ignored.max() < 5 < 20 < memorized.min() and learned.max() < memorized.min()


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_eight_pixels_need_a_smaller_ssim(kind: str) -> None:
    """Then the largest pair separates: what one noise shares with another is the
    memorized image.
    """
    w, small = world(kind), {"scales": 1, "kernel": 7}
    memorized, learned, ignored = (
        score(kind, "nemo_ssim", c, **small)
        for c in ([*w.memorized, w.template], w.learned, w.ignored)
    )
    assert auroc(memorized, learned) == auroc(memorized, ignored) == 1.0
    with pytest.raises(
        UserError, match="8 pixels a side are too small: 3 scales of a kernel of 11 need 44"
    ):
        score(kind, "nemo_ssim", world(kind).memorized)


def test_one_step_scores_rise_with_the_square_of_the_weight_and_pixels_need_it() -> None:
    """E || eps_0 + w d ||^2 = E || eps_0 ||^2 + w^2 || d ||^2, d = (alpha / sigma)(x_c
    - E x0), the noise of which is about sqrt(2 D).

    At w = 7.5 the second term is smaller than the noise of one draw: about 2 against
    20. So dcs and score_norm see little on a small image at the paper's weight, and 60
    is used above.
    """
    w = world("pixels")
    alpha, sigma = w.model.alpha_sigma(999)
    weights = torch.tensor([p.weight for p in w.exact.pieces], dtype=torch.float64)
    centre = (weights / weights.sum()) @ w.exact.means
    for weight in (7.5, 60.0):
        got, base = (
            score("pixels", "dcs", c, weight=weight, draws=400)
            for c in (w.memorized, w.ignored[:1])
        )
        for k, value in enumerate(got - base):
            d = (alpha / sigma) * (w.exact.means[k] - centre).norm()
            # Of the difference of two means of 400
            noise = math.sqrt(2 * (2 * 192 + (2 * weight * float(d)) ** 2) / 400)
            gain = value * 192 * (alpha / sigma) ** 2
            assert (
                abs(gain - weight**2 * float(d) ** 2) < 4 * noise + 0.15 * weight**2 * float(d) ** 2
            )


# ---------------------------------------------------------------------------- at images


def never(w: World) -> list[Condition]:
    """Images that lie on no piece, under a memorized class or prompt."""
    return pictured([w.memorized[k % len(IMAGES)] for k in range(len(w.never))], w.never)


@pytest.mark.parametrize("name", ["flipd", "random", "side", "carlini_conditional"])
def test_memorized_images_are_told_from_those_that_were_never_shown(name: str) -> None:
    w = world("pixels")
    options = {"flipd": {}, "random": {"draws": 4}}.get(name, {"generations": 60})
    found = score("pixels", name, [*pictured(w.memorized, w.images), *never(w)], **options)
    assert auroc(found[: len(IMAGES)], found[len(IMAGES) :]) == 1.0


def test_flipd_has_its_closed_form_at_each_kind_of_image() -> None:
    """D alpha^2 s^2 / v_s, nearly 0, at a memorized image; near d where the condition
    is learned; a large number far from every piece.
    """
    w, t = world("pixels"), 9
    alpha, sigma = w.model.alpha_sigma(t)
    v_s, size = alpha**2 * NARROW**2 + sigma**2, 192

    def by_hand(image: np.ndarray, k: int) -> float:
        r = (
            from_uint8(image[None])[0].double().flatten()
            - w.exact.pieces[k].mean.double().flatten()
        )
        basis = w.exact.bases.split([p.dims for p in w.exact.pieces])[k]
        a, d, v_a = basis @ r, len(basis), v_s + alpha**2 * w.exact.pieces[k].spread ** 2
        across = float(r @ r - a @ a)
        trace = (size - d) * sigma**2 / v_s + d * sigma**2 / v_a
        return size - trace + alpha**2 * sigma**2 * (across / v_s**2 + float(a @ a) / v_a**2)

    learned = drawn("pixels", "learned")
    rows = [(c, k) for k, c in enumerate(pictured(w.memorized, w.images))]
    rows += [(c, PIECE) for c in pictured(w.learned, learned)] + [
        (c, k % len(IMAGES)) for k, c in enumerate(never(w))
    ]
    lid = -score("pixels", "flipd", [c for c, _ in rows], trace="exact")
    assert lid == pytest.approx(
        [by_hand(c.image, k) for c, k in rows if c.image is not None], rel=1e-3, abs=0.05
    )
    assert lid[: len(IMAGES)] == pytest.approx(size * alpha**2 * NARROW**2 / v_s, abs=0.05)
    assert (
        np.abs(lid[len(IMAGES) : -len(w.never)] - BROAD).max() < BROAD / 2
        and lid[-len(w.never) :].min() > 5 * size
    )


def test_the_normal_bundle_counts_dimensions_but_cannot_see_dimension_zero() -> None:
    """Exact for a template (1) and a learned condition (24); D - 1 far from every
    piece, where eps is one vector and little else.

    At an image that stands alone there is no tangent direction and so no gap: the place
    of the widest one is that of the noise.
    """
    w, size = world("pixels"), 192
    template = pictured([w.template], w.pattern[None])
    given = [
        *template,
        *pictured(w.learned[:2], drawn("pixels", "learned")[:2]),
        *never(w)[:2],
        *pictured(w.memorized, w.images)[:2],
    ]
    lid = -score("pixels", "normal_bundle", given, t0=0.001, images=0)
    assert lid[:5].tolist() == [1, BROAD, BROAD, size - 1, size - 1]
    for c, value in zip(given[5:], lid[5:], strict=True):
        noise = torch.randn((4 * size, size), generator=generator(SEED, "bundle", c.id))
        values = torch.linalg.svdvals(noise.double())
        assert value == size - 1 - int((values[:-1] - values[1:]).argmax())


def test_behind_a_vae_the_normal_bundle_sees_the_round_trip_alone() -> None:
    """What the VAE changes moves all copies alike: one large singular value, D - 1,
    memorized or not.
    """
    w = world("latents")
    given = [
        *pictured([w.template], drawn("latents", "memorized")[:1]),
        *pictured(w.learned[:1], drawn("latents", "learned")[:1]),
    ]
    assert (-score("latents", "normal_bundle", given, images=0)).tolist() == [255, 255]


def test_at_an_image_the_score_norm_is_smallest_where_it_is_memorized() -> None:
    """The forward ODE keeps the centre of a piece at its centre, where the score is 0:
    carried there, a memorized image has norm 0.

    One of a learned condition has the norm of its place along the piece's directions
    and of its rounding, and one that lies on no piece that of its distance. So this
    variant ranks them the other way round, AUROC 0.
    """
    w = world("pixels")
    memorized = score("pixels", "score_norm", pictured(w.memorized, w.images))
    learned = score("pixels", "score_norm", pictured(w.learned, drawn("pixels", "learned")))
    unseen = score("pixels", "score_norm", never(w))
    assert memorized.max() < 0.1 and 1 < learned.min() < learned.max() < 10 and unseen.min() > 50
    assert auroc(memorized, learned) == auroc(memorized, unseen) == auroc(learned, unseen) == 0.0


def test_at_an_image_that_both_predictions_know_the_guidance_norm_is_smallest() -> None:
    """|| eps_c - eps_0 || at the noised image is 0 there, and (alpha sigma / v_s) ||
    x_c - E x0 || at an image that was never shown.
    """
    w = world("pixels")
    options = {"condition": "difference", "at": "image", "t": 0.1}
    memorized = score("pixels", "score_norm", pictured(w.memorized, w.images), **options)
    unseen = score("pixels", "score_norm", never(w), **options)
    assert memorized.max() < 1e-3 and unseen.min() > 1 and auroc(memorized, unseen) == 0.0


def test_on_the_trajectory_that_drew_an_image_the_guidance_norm_is_all_in_its_first_steps() -> None:
    """At the first step it separates; in the last ones the null prediction knows the
    image as well and the norm is 0.

    In between it depends on whether the image's own noise would have led there without
    the condition.
    """
    w, norms = world("pixels"), {}
    for group in ("memorized", "learned"):
        conditions = [
            replace(c, start=("easiest", group, str(i))) for i, c in enumerate(getattr(w, group))
        ]
        norms[group] = [score("pixels", "cfg_norm", conditions, image_steps=k) for k in (1, 8, 0)]
    first, eight, whole = norms["memorized"]
    last = (10 * whole - 8 * eight) / 2
    assert (
        auroc(first, norms["learned"][0]) == 1.0 and first.min() > 0.2 and np.abs(last).max() < 1e-3
    )


def test_the_spread_of_features_says_that_they_are_concentrated_and_not_on_what() -> None:
    """Here the middle block is the posterior of the pieces: one of them at a memorized
    image, and one at a learned image, too.
    """
    w = world("pixels")
    given = [*pictured(w.memorized, w.images), *pictured(w.learned, drawn("pixels", "learned"))]
    spread = score("pixels", "representation", given, layer="mid_block", t=9)
    pieces = len(w.exact.pieces)
    assert spread == pytest.approx((pieces - 1) ** 0.5 / pieces, rel=1e-5)


# --------------------------------------------------------------- controls need no model


def test_controls_are_given_no_model_and_say_nothing_of_it() -> None:
    """Captions: no model at all, and an image has none. png_size measures a given image
    without one evaluation, memorized or not.
    """
    w = world("latents")
    prompts, labels = [*w.memorized, *w.learned], [1] * len(w.memorized) + [0] * len(w.learned)
    for name in ("caption_case", "caption_length", "caption_ngrams"):
        cls = detectors().load(name)
        detector = cls(cls.Options(), seed=SEED, sampling=SAMPLING["latents"])
        assert not detector.access.model and not detector.plan(prompts)
        if detector.access.labels:
            detector.fit(prompts, labels, [c.id for c in prompts])
        assert np.isfinite(detector.score(None, prompts, {})).all()
        with pytest.raises(UserError, match="no captions"):
            detector.check(None, pictured(world("pixels").memorized, world("pixels").images))
    cls = detectors().load("png_size")
    detector = cls(
        cls.Options(images=0), seed=SEED, sampling=SAMPLING["pixels"] | {"examples": "images"}
    )
    given = [*pictured(world("pixels").memorized, world("pixels").images), *never(world("pixels"))]
    before = replace(world("pixels").model.cost)
    scores = detector.score(None, given, {})
    assert (
        np.isfinite(scores).all()
        and scores == score("pixels", "png_size", given, images=0).tolist()
    )
    assert world("pixels").model.cost - before == Cost()


@pytest.mark.parametrize("name", ["attention_entropy", "bright_ending"])
def test_what_reads_attention_has_nothing_to_read_here(name: str) -> None:
    """A score in closed form has no attention layers: these two say what a network's
    layers do, not its density.
    """
    for kind, told in (
        ("pixels", "takes no captions"),
        ("latents", "has no cross-attention layers"),
    ):
        with pytest.raises(UserError, match=told):
            score(kind, name, world(kind).memorized)


@pytest.mark.parametrize("kind", KINDS)
def test_what_detectors_know_together_separates_where_each_of_them_does(kind: str) -> None:
    """Learned on half of the conditions, told of the other half."""
    w = world(kind)
    told = {1: [*w.memorized, w.template], 0: [*w.learned, *w.ignored]}
    names, settings = ("cfg_norm", "dcs"), ("cfg_norm.draws=16", "dcs.draws=16", "dcs.weight=60")
    half = []
    for conditions in told.values():
        columns = (
            score(kind, "cfg_norm", conditions[::2], draws=16),
            score(kind, "dcs", conditions[::2], draws=16, weight=60.0),
        )
        half.append(np.stack(columns, axis=1))
    labels = np.repeat([1, 0], [len(part) for part in half])
    weights = tuple(as_text(regression(np.concatenate(half), labels), names).split(","))
    options = {"detectors": names, "settings": settings, "weights": weights}
    found = {
        label: score(kind, "combined", conditions[1::2], **options)
        for label, conditions in told.items()
    }
    assert auroc(found[1], found[0]) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_by_a_model_that_knows_less_of_it_a_condition_still_stands_out(
    kind: str,
) -> None:
    """The reference ignores every condition, so its guidance norm is 0 and the
    difference is the model's own.
    """
    w, cls = world(kind), detectors().load("calibrated")
    detector = cls(cls.Options(), seed=SEED, sampling=SAMPLING[kind])
    blank = (pixels if kind == "pixels" else latents)(clip=kind == "pixels")
    blank.exact.log_weights[:] = w.exact.log_weights[-1]
    detector.refer(lambda: blank.model)
    detector.check(w.model, w.memorized)
    assert detector.score(w.model, w.memorized, {}) == pytest.approx(
        score(kind, "cfg_norm", w.memorized), rel=1e-4
    )
    assert not any(detector.score(blank.model, w.memorized, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_until_it_is_decided_memorized_and_not_lie_on_either_side(kind: str) -> None:
    w = world(kind)
    memorized, others = [*w.memorized, w.template], [*w.learned, *w.ignored]
    fixed = [score(kind, "cfg_norm", of, draws=16) for of in (memorized, others)]
    threshold = float(min(fixed[0]) + max(fixed[1])) / 2
    options = {"settings": ("draws=1",), "threshold": threshold, "rounds": 32}
    found = [score(kind, "adaptive", of, **options) for of in (memorized, others)]
    assert min(found[0]) > threshold > max(found[1])


def test_edge_takes_no_image() -> None:
    with pytest.raises(UserError, match="choose dcs"):
        score("latents", "edge", pictured(world("latents").memorized, world("latents").images))
