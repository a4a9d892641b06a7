"""Detectors that measure an image, against closed forms of a linear network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from linear_classes import CONDITIONS, KINDS, alpha_sigma, linear, pace

from membench.detectors.clid import Clid
from membench.detectors.loss import Loss
from membench.detectors.membership import Membership
from membench.detectors.p_laplace import PLaplace
from membench.errors import UserError
from membench.models.image_values import from_uint8
from membench.models.memo import Memo
from membench.models.pixel import PixelDenoiser
from membench.options import parse_options
from membench.seeds import seed_of
from membench.types import Condition

SAMPLING = {"steps": 4, "guidance": 2.0}
IMAGES = {**SAMPLING, "examples": "images"}
SHAPE = (3, 4, 4)
SEED = 7


def make(cls: type, sampling: dict[str, Any] = IMAGES, **options: Any) -> Any:
    return cls(cls.Options(**options), seed=SEED, sampling=sampling)


def pictured() -> list[Condition]:
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    return [replace(c, image=image) for c, image in zip(CONDITIONS, images, strict=True)]


def clean(c: Condition) -> np.ndarray:
    assert c.image is not None
    return from_uint8(c.image[None]).flatten().double().numpy()


def noise(name: str, draw: int) -> np.ndarray:
    source = torch.Generator().manual_seed(seed_of(SEED, name, draw))
    return torch.randn(SHAPE, generator=source).flatten().double().numpy()


def scored(model: PixelDenoiser, detector: Any) -> list[float]:
    detector.check(model, pictured())
    before = replace(model.cost)
    found = detector.score(model, pictured(), {})
    spent = model.cost - before
    assert (spent.backwards, spent.jvps, spent.decodes) == (0, 0, 0)
    return found


def costs(model: PixelDenoiser) -> int:
    return model.cost.forwards


def choose(m: np.ndarray, c: Condition, variant: str) -> np.ndarray:
    return m[-1] if variant == "unconditional" else m[c.class_label or 0]


# --------------------------------------------------------------------------- clid, loss


@pytest.mark.parametrize("kind", KINDS)
def test_clid_has_its_closed_form(kind: str) -> None:
    model, m = linear(SHAPE, kind)
    found = scored(model, make(Clid, t=(100, 500), noises=2))
    for c, value in zip(pictured(), found, strict=True):
        gaps = []
        for draw, t in enumerate((100, 100, 500, 500)):
            alpha, sigma = alpha_sigma(t)
            n = noise(c.id, draw)
            x = alpha * clean(c) + sigma * n
            null, told = (pace(t) * matrix @ x for matrix in (m[-1], choose(m, c, "")))
            gaps.append(((null - n) ** 2).mean() - ((told - n) ** 2).mean())
        assert value == pytest.approx(np.mean(gaps), rel=1e-4, abs=1e-6)
    assert costs(model) == 2 * 2 * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["conditional", "unconditional"])
def test_the_loss_has_its_closed_form(kind: str, variant: str) -> None:
    model, m = linear(SHAPE, kind)
    found = scored(model, make(Loss, noises=3, condition=variant))
    alpha, sigma = alpha_sigma(100)
    for c, value in zip(pictured(), found, strict=True):
        noises = [noise(c.id, draw) for draw in range(3)]
        matrix = pace(100) * choose(m, c, variant)
        errors = [matrix @ (alpha * clean(c) + sigma * n) - n for n in noises]
        assert value == pytest.approx(-np.mean([np.linalg.norm(e) for e in errors]), rel=1e-4)
    assert costs(model) == 2 * 3


def test_loss_and_clid_share_the_conditional_predictions() -> None:
    model, _ = linear(SHAPE)
    model.memo = Memo()
    scored(model, make(Clid, t=(100,), noises=3))
    shared = model.cost.shared
    scored(model, make(Loss, noises=3))
    assert model.cost.shared - shared == 2 * 3


def test_an_extracted_image_is_measured_as_it_was_decoded() -> None:
    """A prompt scores the mean over its images, each under its own noise's name."""
    model, _ = linear(SHAPE)
    detector = make(Loss, SAMPLING, images=2)
    detector.check(model, CONDITIONS)
    requests = detector.plan(CONDITIONS)
    before = costs(model)
    drawn = detector.extract(model, requests)
    assert costs(model) - before == sum(detector.image_forwards(model, r) for r in requests)
    for sample in drawn:
        c = replace(sample.condition, id=f"{sample.condition.id}/{sample.draw}", image=sample.image)
        assert make(Loss).score(model, [c], {}) == pytest.approx([sample.confidence], rel=1e-5)
    extracted = {c.id: [s for s in drawn if s.condition == c] for c in CONDITIONS}
    means = [np.mean([s.confidence for s in extracted[c.id]]) for c in CONDITIONS]
    assert detector.score(model, CONDITIONS, extracted) == pytest.approx(means)


# ---------------------------------------------------------------------------- p_laplace


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("variant", "p", "each"),
    [("auto", 1.0, 1), ("unconditional", 1.0, 1), ("gap", 1.0, 2), ("gap", 3.0, 2)],
)
def test_the_flux_has_its_closed_form(kind: str, variant: str, p: float, each: int) -> None:
    model, m = linear(SHAPE, kind)
    found = scored(model, make(PLaplace, samples=20, condition=variant, p=p, t=100))
    alpha, sigma = alpha_sigma(100)
    for c, value in zip(pictured(), found, strict=True):
        matrix = choose(m, c, variant) - (m[-1] if variant == "gap" else 0)
        terms = []
        for draw in range(20):
            n = noise(c.id, draw)
            n = n / np.linalg.norm(n)
            f = pace(100) * matrix @ (alpha * clean(c) + sigma * 48**0.5 * n)
            terms.append(np.linalg.norm(f) ** (p - 2) * (f @ n))
        assert value == pytest.approx(np.mean(terms), rel=1e-3, abs=1e-5)
    assert costs(model) == 2 * 20 * each


def test_a_field_that_points_outward_has_flux_one_and_none_has_flux_zero() -> None:
    """F = p - alpha z is a point mass's field; for other p its norm counts, here pace
    sigma sqrt(D).
    """
    model, _ = linear(SHAPE)
    model.network.matrices[:] = torch.eye(48, dtype=torch.float64)
    told, z = model.condition(CONDITIONS[:1]), torch.zeros(SHAPE)
    directions = model.noise([("a", k) for k in range(5)], SEED)
    radius = alpha_sigma(10)[1] * 48**0.5
    for p in (1.0, 2.0, 3.5):
        found = make(PLaplace, p=p).flux(model, z, told, directions)
        assert found == pytest.approx((pace(10) * radius) ** (p - 1), rel=1e-4)
    assert make(PLaplace, condition="gap").flux(model, z, told, directions) == 0.0


# --------------------------------------------------------------------------- membership


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["conditional", "unconditional"])
@pytest.mark.parametrize(
    ("test", "options", "forwards"),
    [
        ("pia", {}, 2),
        ("pian", {"t": 300}, 2),
        ("pia", {"power": 5.0}, 2),
        ("secmi", {}, 12),
        ("secmi", {"t": 60, "stride": 20}, 5),
        ("sima", {"t": 50}, 1),
    ],
)
def test_membership_tests_have_their_closed_forms(
    kind: str, variant: str, test: str, options: dict[str, Any], forwards: int
) -> None:
    model, m = linear(SHAPE, kind)
    found = scored(model, make(Membership, test=test, condition=variant, **options))
    t = options.get("t", {"pia": 200, "secmi": 100}.get(test))
    power = options.get("power", 4)
    for c, value in zip(pictured(), found, strict=True):
        z, matrix = clean(c), choose(m, c, variant)
        if test == "sima":
            expected = (np.abs(pace(t) * matrix @ z) ** power).sum()
        elif test == "secmi":
            stride, x = options.get("stride", 10), z
            ways = [(s, s + stride) for s in range(0, t, stride)]
            for way in [*ways, (t, t + stride), (t + stride, t)]:
                if way == (t, t + stride):
                    there = x
                (alpha, sigma), (after, left) = map(alpha_sigma, way)
                eps = pace(way[0]) * matrix @ x
                x = after * (x - sigma * eps) / alpha + left * eps
            expected = ((there - x) ** 2).sum()
        else:
            first = pace(0) * matrix @ z
            if test == "pian":
                first = first / np.abs(first).mean() * (2 / np.pi) ** 0.5
            alpha, sigma = alpha_sigma(t)
            second = pace(t) * matrix @ (alpha * z + sigma * first)
            expected = (np.abs(first - second) ** power).sum()
        assert value == pytest.approx(-expected, rel=1e-2 if test == "secmi" else 1e-3)
    assert costs(model) == 2 * forwards


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("cls", "options", "model", "says"),
    [
        (Clid, {}, {"classes": 0}, "no condition, and clid scores .* choose loss"),
        (Clid, {}, {"null": False}, "no null class .* choose loss"),
        (Clid, {"t": (5000,)}, {}, "timestep 5000 is outside"),
        (Loss, {"condition": "unconditional"}, {"null": False}, "no null class"),
        (Loss, {"t": 1000}, {}, "timestep 1000 is outside"),
        (PLaplace, {"condition": "gap"}, {"classes": 0}, "no condition, so condition=gap"),
        (PLaplace, {"condition": "gap"}, {"null": False}, "no null class"),
        (Membership, {"stride": 5}, {}, "stride=5: test=pia does not read it"),
        (Membership, {"test": "secmi", "power": 5.0}, {}, "power=5.0: test=secmi"),
        (Membership, {"test": "secmi", "t": 105}, {}, "not a multiple of stride=10"),
        (Membership, {"test": "secmi", "t": 990}, {}, "timestep 1000 is outside"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(cls, options, model, says) -> None:
    asked, _ = linear(SHAPE, **model)
    conditions = pictured()
    if not model.get("classes", 2):
        conditions = [replace(c, class_label=None) for c in conditions]
    with pytest.raises(UserError, match=says) as caught:
        make(cls, **options).check(asked, conditions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("power", ["0", "-1", "17"])
def test_a_power_that_turns_the_order_round_is_refused(power: str) -> None:
    """0 scores every image alike, and -1 the largest error highest."""
    with pytest.raises(UserError, match=r"power must be float from 1 to 16, not"):
        parse_options(Membership.Options, [f"power={power}"], owner="detector membership")


def test_images_without_a_class_have_no_clid_and_no_half_precision_secmi() -> None:
    model, _ = linear(SHAPE)
    with pytest.raises(UserError, match=r"no prompt and no class, and clid .*=unconditional"):
        make(Clid).check(model, [replace(c, class_label=None) for c in pictured()])
    model.dtype = torch.float16
    with pytest.raises(UserError, match="secmi needs --dtype float32"):
        make(Membership, test="secmi").check(model, pictured())
    with pytest.raises(ValueError, match="t names no timestep"):
        Clid.Options(t=())
