"""Detectors of the way from noise to an image: closed forms of a linear network."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from linear_classes import CONDITIONS, KINDS, alpha_sigma, linear, pace, trajectory

from membench.detectors.anisotropy import Anisotropy
from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.decomposition import Decomposition, decompose
from membench.detectors.dsm import Dsm
from membench.detectors.transition_step import TransitionStep
from membench.detectors.update_norm import UpdateNorm
from membench.detectors.webster import Dcs
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.memo import Memo
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim
from membench.seeds import seed_of
from membench.testing import tiny_text_model
from membench.types import Condition

SAMPLING = {"steps": 10, "guidance": 2.0}
IMAGES = {**SAMPLING, "examples": "images"}
SEED = 5


def make(cls: type, sampling: dict[str, Any] = SAMPLING, **options: Any) -> Any:
    return cls(cls.Options(**options), seed=SEED, sampling=sampling)


def noise(model: Denoiser, *words: str | int) -> np.ndarray:
    source = torch.Generator().manual_seed(seed_of(*words))
    return torch.randn(model.shape, generator=source).flatten().double().numpy()


def pictured(model: Denoiser, starts: bool = True) -> list[Condition]:
    """The conditions as generated images whose noise is known."""
    _, h, w = model.shape
    image = np.zeros((h, w, 3), np.uint8)
    return [replace(c, image=image, start=("own", c.id) if starts else None) for c in CONDITIONS]


@pytest.mark.parametrize("cls", [Dsm, Anisotropy, TransitionStep, Dcs, CfgNorm])
def test_an_image_without_a_class_is_refused_among_others_too(cls: type) -> None:
    """Its gap to the null condition is exactly 0, which ranks it below all others."""
    model, _ = linear()
    given = pictured(model)
    mixed = [given[0], replace(given[1], class_label=None)]
    make(cls, sampling=IMAGES).check(model, given)
    with pytest.raises(UserError, match=r"without a condition.*choose flipd") as error:
        make(cls, sampling=IMAGES).check(model, mixed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cls", [Dsm, CfgNorm])
def test_an_image_whose_caption_alone_is_known_has_draws_and_no_way_of_its_own(cls: type) -> None:
    """What it reads is accepted and changes the cost, what it does not is refused."""
    model = tiny_text_model()
    image = np.zeros((8, 8, 3), np.uint8)
    given = [Condition(p, p, image) for p in "ab"]
    spent = []
    for draws in (2, 6):
        detector = make(cls, sampling=IMAGES, draws=draws)
        detector.check(model, given)
        before = model.cost.forwards
        detector.score(model, given, {})
        spent.append(model.cost.forwards - before)
    assert spent[1] == 3 * spent[0]
    for options in ({"trajectory": 20}, {"guidance": 3.0}):
        with pytest.raises(UserError, match="as the task samples"):
            make(cls, sampling=IMAGES, **options).check(model, given)
    with pytest.raises(UserError, match="draws=7: "):
        make(cls, sampling=IMAGES, draws=7).check(
            model, [replace(c, start=("own", c.id)) for c in given]
        )


# -------------------------------------------------------------------------- the sampler


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_visit_is_shown_each_step_and_costs_nothing(kind: str, guidance: float) -> None:
    """An observer is shown the same, both predictions always, which it pays for."""
    model, m = linear(kind=kind)
    start = model.noise([("p", 0)], SEED)
    told = model.condition(CONDITIONS[:1])
    seen: list[tuple[Any, ...]] = []
    last = ddim(
        model, start, told, steps=10, guidance=guidance, visit=lambda *args: seen.append(args)
    )
    assert model.cost.forwards == (10 if guidance == 1 else 20)
    by_hand = trajectory(noise(model, SEED, "p", 0), m[0], m[-1], steps=10, guidance=guidance)
    assert [(k, t) for k, t, *_ in seen] == list(enumerate(by_hand[0]))
    states = [x.flatten().numpy() for _, _, x, _, _ in seen] + [last.flatten().numpy()]
    np.testing.assert_allclose(states, by_hand[1], rtol=1e-4, atol=1e-4)
    for (_, t, _, null, conditional), x in zip(seen, by_hand[1], strict=False):
        np.testing.assert_allclose(conditional.flatten(), pace(t) * m[0] @ x, rtol=1e-4, atol=1e-4)
        if guidance == 1:
            assert null is None
        else:
            np.testing.assert_allclose(null.flatten(), pace(t) * m[-1] @ x, rtol=1e-4, atol=1e-4)
    both: list[tuple[Any, ...]] = []
    options: dict[str, Any] = {"steps": 10, "guidance": guidance, "stop": 4}
    before = model.cost.forwards
    end = ddim(model, start, told, observe=lambda *args: both.append(args), **options)
    assert model.cost.forwards - before == 8 and len(both) == 4
    for (k, t, x, null, conditional), visited in zip(both, seen, strict=False):
        assert (k, t) == visited[:2]
        torch.testing.assert_close((x, conditional), (visited[2], visited[4]))
        expected = pace(t) * m[-1] @ by_hand[1][k]
        np.testing.assert_allclose(null.flatten(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(end, both[-1][2])  # nobody reads the state after the last step


# --------------------------------------------------------------- what all of them share

OF_TRAJECTORY: list[tuple[type, dict[str, Any]]] = [
    (Dsm, {}),
    (Anisotropy, {}),
    (UpdateNorm, {"statistic": "plain"}),
    (Decomposition, {}),
    (TransitionStep, {}),
]
NAMES = [cls.__name__ for cls, _ in OF_TRAJECTORY]


@pytest.mark.parametrize(("cls", "options"), OF_TRAJECTORY, ids=NAMES)
def test_what_a_trajectory_cannot_be_of_is_refused_in_one_line(cls, options) -> None:
    model, _ = linear()
    bare = [replace(c, class_label=None) for c in pictured(model)]
    cases: list[tuple[Denoiser, list[Condition], dict[str, Any], str]] = [
        (linear(classes=0)[0], [Condition("x")], {}, "no condition"),
        (model, bare, {}, "generated without a condition"),
        (model, pictured(model, starts=False), {}, "the noise .* is not known"),
        (model, [*CONDITIONS, pictured(model)[0]], {}, "some examples are images"),
        (model, pictured(model), {"draws": 7}, "draws=7: an image is scored on the trajectory"),
        (linear(null=False)[0], CONDITIONS, {}, "no null class"),
    ]
    for asked, conditions, more, says in cases:
        sampling = IMAGES if conditions[0].image is not None else SAMPLING
        with pytest.raises(UserError, match=says) as caught:
            make(cls, sampling, **options, **more).check(asked, conditions)
        assert "\n" not in str(caught.value)
    make(cls, **options).check(model, CONDITIONS)
    make(cls, IMAGES, **options).check(model, pictured(model))


@pytest.mark.parametrize(("cls", "options"), OF_TRAJECTORY, ids=NAMES)
def test_an_image_is_scored_on_its_own_trajectory_and_extracted_ones_on_theirs(
    cls, options
) -> None:
    """The task's steps and weight in both; an image costs what the detector says."""
    model, _ = linear(batch_size=3)
    detector = make(cls, IMAGES, **options)
    own = detector.score(model, pictured(model), {})
    known = {f.name for f in fields(cls.Options)}
    same = {"trajectory": 10, "guidance": 2.0, "draws": 1}
    as_prompt = make(cls, **options, **{k: v for k, v in same.items() if k in known})
    for c, value in zip(CONDITIONS, own, strict=True):
        by_start = Condition("other", class_label=c.class_label, start=("own", c.id))
        assert as_prompt.score(model, [by_start], {})[0] == pytest.approx(value, rel=1e-5)
    detector = make(cls, **options, images=2)
    requests = detector.plan(CONDITIONS)
    before = model.cost.forwards
    drawn = detector.extract(model, requests)
    expected = [detector.image_forwards(model, r) for r in requests]
    spent = model.cost.forwards - before
    assert len(drawn) == 4 and (spent == sum(expected) if None not in expected else spent)
    assert as_prompt.score(model, CONDITIONS, {}) == pytest.approx(
        [s.confidence for s in drawn if s.draw == 0], rel=1e-5
    )


# ---------------------------------------------------------------------------------- dsm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("step", "guidance", "forwards"), [(0, 7.5, 3), (1, 7.5, 5), (1, 1.0, 3)])
def test_dsm_has_its_closed_form(kind: str, step: int, guidance: float, forwards: int) -> None:
    model, m = linear(kind=kind)
    found = make(Dsm, step=step, guidance=guidance, draws=2).score(model, CONDITIONS, {})
    for c, value in zip(CONDITIONS, found, strict=True):
        told = m[c.class_label or 0]
        squares = []
        for draw in range(2):
            x = noise(model, SEED, c.id, draw)
            times, states = trajectory(x, told, m[-1], steps=50, guidance=guidance)
            before, after = (pace(times[k]) * told @ states[k] for k in (step, step + 1))
            squares.append(((after - before) ** 2).sum())
        assert value == pytest.approx(np.mean(squares), rel=1e-3)
    assert (model.cost.forwards, model.cost.backwards, model.cost.jvps) == (4 * forwards, 0, 0)


def test_dsm_asks_nothing_that_the_guidance_norm_has_not_asked() -> None:
    model, _ = linear()
    alone = make(Dsm, step=1).score(model, CONDITIONS, {})
    model.memo = Memo()
    make(CfgNorm, draws=1, steps=3).score(model, CONDITIONS, {})
    shared = model.cost.shared
    assert make(Dsm, step=1).score(model, CONDITIONS, {}) == alone
    assert model.cost.shared - shared == 2 * 5


def test_dsm_needs_two_steps_after_those_from_pure_noise() -> None:
    model, _ = linear(kind="v_prediction")
    with pytest.raises(UserError, match=r"10 steps has 10 .* the score takes 11"):
        make(Dsm, step=9).check(model, CONDITIONS)
    make(Dsm, step=8).check(model, CONDITIONS)
    model.alphas_cumprod = model.alphas_cumprod.clone()
    model.alphas_cumprod[900] = 0.0
    with pytest.raises(UserError, match=r"10 steps has 9 .* the score takes 10"):
        make(Dsm, step=8).check(model, CONDITIONS)
    # At the first step eps is x_t, whatever the condition: the second counts as the first
    seen = []
    told = model.condition(CONDITIONS)
    x = model.starts([(c, 0) for c in CONDITIONS], SEED)
    ddim(model, x, told, steps=10, guidance=7.5, visit=lambda k, t, x, null, c: seen.append(c))
    wanted = (seen[2] - seen[1]).flatten(1).pow(2).sum(dim=1).tolist()
    before = model.cost.forwards
    found = make(Dsm, trajectory=10).score(model, CONDITIONS, {})
    assert found == pytest.approx(wanted) and model.cost.forwards - before == 2 * 5


# --------------------------------------------------------------------------- anisotropy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "forwards"),
    [
        ({}, 4),
        (dict(Anisotropy.presets["sd2"]), 4),
        (dict(Anisotropy.presets["realistic_vision"]), 4),
        ({"part": "norm"}, 2),
        ({"part": "cosine", "trajectory": 10}, 2),
    ],
)
def test_anisotropy_has_its_closed_form(kind: str, options: dict[str, Any], forwards: int) -> None:
    """The cosine of a linear network is the noise's, whatever the timestep."""
    model, m = linear(kind=kind)
    found = make(Anisotropy, draws=3, **options).score(model, CONDITIONS, {})
    weights = {"norm": (1.0, 0.0), "cosine": (0.0, 1.0)}
    both = (options.get("gamma1", 1.0), options.get("gamma2", 2.0))
    gamma1, gamma2 = weights.get(options.get("part", ""), both)
    for c, value in zip(CONDITIONS, found, strict=True):
        parts = []
        for draw in range(3):
            x = noise(model, SEED, c.id, draw)
            null = (m[-1] @ x).reshape(model.shape)
            gap = ((m[c.class_label or 0] - m[-1]) @ x).reshape(model.shape)
            lengths = np.sqrt((null**2).sum(0) * (gap**2).sum(0))
            norm = pace(980) * np.sqrt((gap**2).sum())
            parts.append((norm, ((null * gap).sum(0) / lengths).mean()))
        norm, cosine = np.mean(parts, axis=0)
        assert value == pytest.approx(gamma1 * norm + gamma2 * cosine, rel=1e-3)
    assert model.cost.forwards == 2 * 3 * forwards


def test_anisotropy_asks_at_the_first_and_third_last_timestep_of_the_same_noise() -> None:
    model, _ = linear()
    asked = []
    plain = model.eps_pair

    def pair(x: torch.Tensor, t: int, told: Any) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((t, x))
        return plain(x, t, told)

    model.eps_pair = pair  # type: ignore[method-assign]
    make(Anisotropy, draws=2).score(model, CONDITIONS[:1], {})
    assert [t for t, _ in asked] == [980, 40] and torch.equal(asked[0][1], asked[1][1])
    asked.clear()
    make(Anisotropy, trajectory=3).score(model, CONDITIONS[:1], {})
    assert [t for t, _ in asked] == [666, 666]
    with pytest.raises(UserError, match=r"gamma2=3.0: a term alone has no weight"):
        make(Anisotropy, part="norm", gamma2=3.0).check(model, CONDITIONS)


def test_anisotropy_shares_the_first_step_of_the_guidance_norm() -> None:
    model, _ = linear()
    model.memo = Memo()
    norms = make(CfgNorm, draws=4).score(model, CONDITIONS, {})
    assert make(Anisotropy, part="norm").score(model, CONDITIONS, {}) == norms
    assert model.cost.shared == 2 * 4 * 2


# -------------------------------------------------------------------------- update_norm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("steps", "guidance", "forwards"), [(50, 7.5, 100), (3, 7.5, 6), (3, 1.0, 3)]
)
def test_the_plain_update_norm_has_its_closed_form(kind, steps, guidance, forwards) -> None:
    model, m = linear(kind=kind)
    options = {"statistic": "plain", "steps": steps, "guidance": guidance, "draws": 2}
    found = make(UpdateNorm, **options).score(model, CONDITIONS, {})
    for c, value in zip(CONDITIONS, found, strict=True):
        norms = []
        for draw in range(2):
            x = noise(model, SEED, c.id, draw)
            told = m[c.class_label or 0]
            states = np.array(trajectory(x, told, m[-1], steps=50, guidance=guidance)[1])
            norms.append(np.linalg.norm(states[1:] - states[:-1], axis=1)[:steps].mean())
        assert value == pytest.approx(np.mean(norms), rel=1e-3)
    assert model.cost.forwards == 2 * 2 * forwards


# ------------------------------------------------------------------------ decomposition


def test_a_state_that_is_a_combination_has_its_weights() -> None:
    x0, end = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w0 = torch.tensor([0.3, -2.0, 0.0], dtype=torch.float64)
    left = torch.tensor([0.9, 0.1, 1.0], dtype=torch.float64)
    found = decompose(w0[:, None] * x0 + left[:, None] * end, x0, end)
    torch.testing.assert_close(torch.stack(found), torch.stack([w0, left]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", ["image", "noise"])
def test_the_weights_are_those_of_least_squares(kind: str, weight: str) -> None:
    model, m = linear(kind=kind)
    found = make(Decomposition, weight=weight, draws=2).score(model, CONDITIONS, {})
    for c, value in zip(CONDITIONS, found, strict=True):
        totals = []
        for draw in range(2):
            x, told = noise(model, SEED, c.id, draw), m[c.class_label or 0]
            times, states = trajectory(x, told, m[-1], steps=50, guidance=7.5)
            basis = np.stack([states[-1], x], axis=1)
            ends = [alpha_sigma(t) for t in times[1:]] + [(1.0, 0.0)]
            total = 0.0
            for state, (alpha, sigma) in zip(states[1:], ends, strict=True):
                w0, left = np.linalg.lstsq(basis, state, rcond=None)[0]
                total += w0 - alpha if weight == "image" else sigma - left
            totals.append(total)
        assert value == pytest.approx(np.mean(totals), rel=2e-3)
    assert model.cost.forwards == 2 * 2 * 100


# ---------------------------------------------------------------------- transition_step


class Prescribed(torch.nn.Module):
    """eps_0 = 0.9 x, eps_c = 0.9 x + h_c(k) at one pixel: their gap is h_c(k)."""

    gaps = np.array(
        [
            [5, 4, 3, 4, 5, 6, 7, 8, 9, 10],  # a minimum at step 2, seen at 3
            [9, 8, 7, 6, 5, 4, 3, 2, 1, 0.5],  # none
            [1, 2, 3, 3, 2, 2, 1, 4, 1, 2],  # flat is not a minimum; one at 6, seen at 7
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.config: Any = {"num_class_embeds": 4}
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, t: int, labels: torch.Tensor) -> SimpleNamespace:
        eps, heights = 0.9 * x, [*self.gaps[:, 9 - t // 100], 0.0]
        eps[:, 0, 0, 0] += torch.tensor([heights[label] for label in labels.tolist()])
        return SimpleNamespace(sample=eps)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_transition_is_the_first_local_minimum_of_each_trajectory(batch_size: int) -> None:
    scheduler = DDIMScheduler(clip_sample=False)
    net = Prescribed()
    model = PixelDenoiser(net, scheduler, shape=(1, 2, 2), classes=3, batch_size=batch_size)
    conditions = [Condition(str(label), class_label=label) for label in (2, 1, 0)]
    detector = make(TransitionStep, trajectory=10, draws=2)
    assert detector.score(model, conditions, {}) == [7, -1, 3]
    assert model.cost.forwards == 2 * 2 * (8 + 10 + 4)
    net.gaps = net.gaps.copy()
    net.gaps[0, 1] = np.nan
    assert np.isnan(detector.score(model, conditions[2:], {})).all()


def test_the_transition_is_looked_for_without_guidance() -> None:
    """Whatever the task's weight: the states are the conditional prediction's."""
    model, m = linear(kind="v_prediction")
    found = make(TransitionStep, trajectory=20, draws=8).score(model, CONDITIONS, {})
    for c, value in zip(CONDITIONS, found, strict=True):
        steps = []
        for draw in range(8):
            x, told = noise(model, SEED, c.id, draw), m[c.class_label or 0]
            ways = zip(*trajectory(x, told, m[-1], steps=20, guidance=1.0), strict=False)
            d = [pace(t) * np.linalg.norm((told - m[-1]) @ state) for t, state in ways]
            seen = [k for k in range(2, 20) if d[k - 2] > d[k - 1] < d[k]]
            steps.append(seen[0] if seen else -1)
        assert value == np.mean(steps)
