"""Every attack where it must win: on a model that is the exact score of a few images
(memorizer.py) it returns those images.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from memorizer import IMAGES, MULTIPLICITY, Classifier, World, latents, pixels
from scipy.stats import chisquare

from membench.detectors.carlini_conditional import CarliniConditional
from membench.detectors.filter import Filter
from membench.detectors.random_sampling import RandomSampling
from membench.detectors.side import SYNTHETIC, Side
from membench.detectors.side_prompts import SidePrompts
from membench.detectors.surrogate.conditions import (
    NULL,
    Synthetic,
    cluster,
    describe,
    synthesize,
)
from membench.detectors.surrogate.genetic import bred
from membench.detectors.surrogate.oracle import true_labels
from membench.errors import UserError
from membench.metrics.extraction import ams, ums_nearest
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, timesteps
from membench.similarity.l2 import normalised_l2
from membench.storage.workspace import Stage, Workspace
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import Band, Condition, Request, Sample, Space

SAMPLING = {"pixels": {"steps": 10, "guidance": 1.0}, "latents": {"steps": 10, "guidance": 3.0}}
MODELS = [
    ("pixels", True, "epsilon"),
    ("pixels", False, "v_prediction"),
    ("latents", True, "epsilon"),
    ("latents", False, "v_prediction"),
]
# A quarter of the usual threshold in pixels, where only rounding and the last step's
# gradient are left; behind the VAE its round trip, too.
COPY = {"pixels": 0.25, "latents": 0.9}
SHARES = np.array(MULTIPLICITY) / sum(MULTIPLICITY)


@cache
def alone(kind: str, clip: bool, prediction: str) -> World:
    """The null condition knows the memorized images and nothing else."""
    return (pixels if kind == "pixels" else latents)(clip=clip, prediction=prediction, alone=True)


def space(kind: str) -> Space:
    return Space(
        "normalised L2", False, (Band("copy", 0.0, COPY[kind]),), COPY[kind], COPY[kind], ""
    )


def returned(w: World, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest memorized image of each sample, and the normalised distance to it."""
    found = normalised_l2(np.stack([s.image for s in samples]), w.images, floor=0.0)
    found = found[found["rank"] == 0].sort_values("generated")
    return found.training.to_numpy(), found.similarity.to_numpy()


def guided(
    model: tuple[str, bool, str], make: Any, n: int, **options: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, nearest image and distance of n images that are guided by the true
    classifier.
    """
    w = alone(*model)
    detector = make(
        make.Options(generations=n, surrogate="classifier", **options),
        seed=0,
        sampling=SAMPLING[model[0]],
    )
    detector.classifier = Classifier(w.exact, [[k] for k in IMAGES], timed=make.timed)
    detector.x0, detector.labels = (
        w.exact.means[IMAGES].float().view(len(IMAGES), *w.model.shape),
        torch.arange(len(IMAGES)),
    )
    requests = detector.plan([])
    samples = detector.extract(w.model, requests)
    assert np.isfinite([s.confidence for s in samples]).all()
    return np.array([int(r.condition.id.removeprefix("cluster-")) for r in requests]), *returned(
        w, samples
    )


@pytest.mark.parametrize("model", MODELS)
def test_unconditional_sampling_returns_each_image_as_often_as_it_was_shown(
    model: tuple[str, bool, str],
) -> None:
    """In latents within a factor of two, for a reason that the next test shows."""
    w, n = alone(*model), 400 if model[0] == "pixels" else 120
    attack = RandomSampling(
        RandomSampling.Options(extraction="unconditional", generations=n),
        seed=0,
        sampling=SAMPLING[model[0]],
    )
    nearest, distance = returned(w, attack.extract(w.model, attack.plan([])))
    assert (distance < COPY[model[0]]).mean() > 0.99
    counts = np.bincount(nearest, minlength=len(IMAGES))
    if model[0] == "pixels":
        assert chisquare(counts, n * SHARES).pvalue > 0.01
    else:
        assert (counts > n * SHARES / 2).all() and (counts < n * SHARES * 2).all()


def test_shares_are_exact_in_latents_too_where_sampling_starts_at_the_models_own_noise() -> None:
    """Stable Diffusion's schedule does not end in pure noise: p_T has the mean alpha_T
    E x0, and a start at N(0, 1) shifts the shares.
    """
    w, n = alone(*MODELS[3]), 400
    t = timesteps(w.model, 10)[0]
    alpha, sigma = w.model.alpha_sigma(t)
    noise = w.model.noise([("own", k) for k in range(n)], 0)
    means, condition = w.exact.means[IMAGES], w.model.condition([NULL] * n)

    def counts(x: torch.Tensor) -> np.ndarray:
        x = ddim(w.model, x, condition, steps=10, guidance=1.0)
        return np.bincount(
            torch.cdist(x.flatten(1).double(), means).argmin(dim=1).numpy(), minlength=len(IMAGES)
        )

    shown = np.random.RandomState(0).choice(len(IMAGES), n, p=SHARES)
    assert (
        chisquare(
            counts(alpha * means[shown].float().view_as(noise) + sigma * noise), n * SHARES
        ).pvalue
        > 0.01
    )
    assert chisquare(counts(noise), n * SHARES).pvalue < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_conditional_sampling_returns_the_conditions_own_image(
    model: tuple[str, bool, str],
) -> None:
    w = alone(*model)
    attack = RandomSampling(RandomSampling.Options(draws=2), seed=0, sampling=SAMPLING[model[0]])
    requests = attack.plan(w.memorized)
    nearest, distance = returned(w, attack.extract(w.model, requests))
    assert nearest.tolist() == [w.memorized.index(r.condition) for r in requests]
    assert (distance < COPY[model[0]]).all()


@pytest.mark.parametrize("guidance", [1.0, 10.0])
@pytest.mark.parametrize("model", MODELS)
def test_guidance_by_the_true_classifier_returns_the_image_that_it_names(
    model: tuple[str, bool, str], guidance: float
) -> None:
    """At weight 1 it is the conditional model itself, by Bayes; at SIDE's own 10 x0 is
    clipped, and eps must follow it.
    """
    target, nearest, distance = guided(
        model, Side, 60 if model[0] == "pixels" else 20, guidance=guidance
    )
    assert (nearest == target).mean() > 0.97 and (distance < COPY[model[0]]).mean() > 0.97


@pytest.mark.parametrize("guidance", [1.0, 10.0])
@pytest.mark.parametrize("at", ["xt", "x0"])
def test_a_classifier_that_knows_no_timestep_returns_it_where_x0_is_clipped(
    at: str, guidance: float
) -> None:
    """Its posterior is that of clean images, certain everywhere, with a gradient of
    (x_c - x_j) / s^2: thousands of times too long.

    The clip makes a direction of it, which leads to the image. Without a clip it leads
    to the image's side of the space, past the image.
    """
    target, nearest, distance = guided(
        ("pixels", True, "epsilon"), CarliniConditional, 60, guidance=guidance, at=at
    )
    assert (nearest == target).mean() > 0.97 and (distance < 1).mean() > 0.97
    target, nearest, distance = guided(
        ("pixels", False, "v_prediction"), CarliniConditional, 60, guidance=guidance, at=at
    )
    assert (nearest == target).mean() > 0.97 and (distance < 1).mean() < 0.5


@pytest.mark.parametrize("features", ["bottleneck", "pixels"])
def test_the_clusters_are_the_images(features: str, workspace: Workspace) -> None:
    w = alone(*MODELS[0])
    synthetic = synthesize(w.model, [NULL], workspace, n=200, seed=0, steps=10, guidance=1.0)
    z = describe(w.model, synthetic, workspace, features=features, weights="", seed=0)
    assert clusters_are_images(
        w, synthetic.x0, torch.from_numpy(cluster(z, k=len(IMAGES), cohesion=0.99, seed=0).labels)
    )


def clusters_are_images(w: World, x0: torch.Tensor, labels: torch.Tensor) -> dict[int, int]:
    """Of each cluster its image; empty unless clusters and images are the same
    partition of the synthetic images, and all are there.
    """
    known = torch.cdist(x0.flatten(1).double(), w.exact.means[IMAGES]).argmin(dim=1)
    pairs = {(int(label), int(image)) for label, image in zip(labels, known, strict=True)}
    image_of = dict(pairs)
    return (
        image_of
        if len(pairs) == len(image_of) == len(set(image_of.values())) == len(IMAGES)
        else {}
    )


@pytest.mark.parametrize(("make", "steps"), [(Side, 200), (CarliniConditional, 20)])
def test_side_and_its_baseline_find_every_image_by_themselves(
    make: Any, steps: int, workspace: Workspace
) -> None:
    """The whole of the algorithm, with a briefly trained classifier: all that is
    extracted are copies, and every image is among them.

    The expected number of unique images, sum_k 1 - (1 - 1/K)^N, is K to 1e-4. SIDE's
    classifier steers: without it, one image in K would be that of its target.
    """
    w, k, n = alone(*MODELS[0]), len(IMAGES), 60
    options: dict[str, Any] = {
        "synthetic": 200,
        "clusters": k,
        "cohesion": 0.5,
        "generations": n,
        "stem": 4,
        "batch": 16,
    }
    if "keep" in {f.name for f in fields(make.Options)}:
        options["keep"] = 1.0
    attack = make(
        make.Options(**options, classifier_steps=steps), seed=0, sampling=SAMPLING["pixels"]
    )
    facts = attack.prepare(w.model, [], workspace)
    image_of = clusters_are_images(w, attack.x0, attack.labels)
    assert facts["clusters kept"] == k and image_of

    requests = attack.plan([])
    samples = attack.extract(w.model, requests)
    matches = normalised_l2(np.stack([s.image for s in samples]), w.images, floor=COPY["pixels"])
    assert ams(matches, n, space("pixels"), COPY["pixels"]) > 0.95
    assert ums_nearest(matches, n, space("pixels"), COPY["pixels"]) == k / n
    if make is Side:
        target = np.array(
            [image_of[int(r.condition.id.removeprefix("cluster-"))] for r in requests]
        )
        assert (returned(w, samples)[0] == target).mean() > 0.4


def told_copies(w: World, kind: str) -> Any:
    """What the harness tells of images: which memorized one each copies, -1 for none."""

    def copied(images: np.ndarray) -> np.ndarray:
        found = normalised_l2(images, w.images, floor=0.0)
        found = found[found["rank"] == 0].sort_values("generated")
        close = found.similarity.to_numpy() < COPY[kind]
        return np.where(close, found.training.to_numpy(), -1)

    return copied


def test_true_labels_name_the_images_and_synthetic_ones_cost_nothing_twice(
    workspace: Workspace,
) -> None:
    """Every class is a memorized image, in their order; guided by the true classifier it
    is the one that comes back. D_syn counts as images, at what it has cost already.
    """
    w, n = alone(*MODELS[0]), 100
    attack = Side(
        Side.Options(
            labels="oracle", synthetic=n, count_synthetic=True, generations=40, classifier_steps=1
        ),
        seed=0,
        sampling=SAMPLING["pixels"],
    )
    assert (
        attack.access.training_data
        and not Side(Side.Options(), seed=0, sampling=SAMPLING["pixels"]).access.training_data
    )
    attack.show(told_copies(w, "pixels"))
    facts = attack.prepare(w.model, [], workspace)
    assert facts["training images known"] == len(IMAGES) and facts["their images"] == n
    attack.classifier = Classifier(w.exact, [[k] for k in IMAGES], timed=True)
    requests = attack.plan([])
    before = w.model.cost.forwards
    samples = attack.extract(w.model, requests)
    assert len(samples) == n + 40 and w.model.cost.forwards - before == 40 * attack.steps
    assert sum(attack.image_forwards(w.model, r) for r in requests) == 40 * attack.steps
    nearest, distance = returned(w, samples)
    assert (distance < COPY["pixels"]).all() and nearest[:n].tolist() == attack.labels.tolist()
    target = [int(r.condition.id.removeprefix("cluster-")) for r in requests[n:]]
    assert nearest[n:].tolist() == target
    # A copy was generated several times, so it lies nearer to its like than the attack's
    # other images do to theirs
    assert np.isfinite([s.confidence for s in samples]).all()


def test_an_oracle_that_sees_no_copy_has_nothing_to_guide_to(workspace: Workspace) -> None:
    w = alone(*MODELS[0])
    attack = Side(Side.Options(labels="oracle", synthetic=100), seed=0, sampling=SAMPLING["pixels"])
    attack.show(lambda images: np.full(len(images), -1))
    with pytest.raises(UserError, match="of 100 synthetic images 0 are copies"):
        attack.prepare(w.model, [], workspace)


def test_the_oracle_knows_what_least_images_copy() -> None:
    """Of training images 4, 7 and 9, copied by 3, 2 and 1 images, the first two from
    ``least`` = 2 on; an image that copies nothing has no label.
    """
    nearest = np.array([4, -1, 7, 4, 9, 7, 4])
    model = SimpleNamespace(device="cpu", decode=lambda x: x.numpy())
    synthetic = Synthetic(torch.zeros(len(nearest), 1), cast(Stage, None))
    for least, rows, labels in ((2, [0, 2, 3, 5, 6], [0, 1, 0, 1, 0]), (3, [0, 3, 6], [0, 0, 0])):
        known, found = true_labels(cast(Denoiser, model), synthetic, lambda _: nearest, least)
        assert np.flatnonzero(known).tolist() == rows and found.tolist() == labels


def test_what_is_kept_of_generated_images_are_the_copies(workspace: Workspace) -> None:
    """Of a model that draws a broad piece too, a share of 2/3 is copies; the k of the
    smallest loss are copies all, and the k of the largest are none.

    A narrow piece is denoised to within its width; along each of the d dimensions of a
    broad one the noise cannot be known.
    """
    w, n, k = pixels(clip=False, prediction="epsilon"), 90, 30
    sampling = {**SAMPLING["pixels"], "examples": "images"}
    attack = Filter(
        Filter.Options(
            scorer="loss",
            settings=("condition=unconditional", "noises=4", "t=30"),
            source="null",
            candidates=n,
            keep=k,
        ),
        seed=0,
        sampling=sampling,
    )
    conditions = [replace(c, image=image) for c, image in zip(w.memorized, w.images, strict=True)]
    attack.check(w.model, conditions)
    before = w.model.cost.forwards
    attack.prepare(w.model, conditions, workspace)
    paid = n * (10 + 4)
    assert w.model.cost.forwards - before == paid == workspace.cost.forwards
    assert attack.preparation_forwards(w.model, conditions) == paid
    samples = attack.extract(w.model, attack.plan(conditions))
    assert w.model.cost.forwards - before == paid  # the images are those that were scored
    confidence = [s.confidence for s in samples]
    assert confidence == sorted(confidence, reverse=True) and len(samples) == k
    assert (returned(w, samples)[1] < COPY["pixels"]).all()
    every = Filter(replace(attack.options, keep=n), seed=0, sampling=sampling)
    every.check(w.model, conditions)
    every.prepare(w.model, conditions, workspace)
    worst = returned(w, every.extract(w.model, every.plan(conditions))[-k:])[1]
    assert (worst < COPY["pixels"]).mean() < 0.4


@pytest.mark.parametrize(
    ("scorer", "settings", "by_image", "price"),
    [
        ("loss", ("noises=2",), True, 2),
        ("edge", (), False, 4 * 2),
        ("cfg_norm", ("steps=2",), False, 4 * 2 * 2),
        ("nemo_ssim", ("scales=1", "kernel=3", "draws=3"), False, 3),
        ("caption_length", (), False, 0),
    ],
)
def test_what_scores_no_given_image_scores_what_it_was_generated_from(
    scorer: str, settings: tuple[str, ...], by_image: bool, price: int, workspace: Workspace
) -> None:
    """Both images of a prompt are then as sure as the scorer is of the prompt."""
    model, prompts = tiny_text_model(), [Condition(p, p) for p in "abc"]
    attack = Filter(
        Filter.Options(scorer=scorer, settings=settings, candidates=6, keep=6),
        seed=0,
        sampling=SAMPLING["latents"],
    )
    assert attack.access.model  # also where the scorer asks none
    attack.check(model, prompts)
    assert (attack.by_image, attack.price) == (by_image, price)
    before = model.cost.forwards
    attack.prepare(model, prompts, workspace)
    assert model.cost.forwards - before == attack.preparation_forwards(model, prompts)
    samples = attack.extract(model, attack.plan(prompts))
    if by_image:
        assert len({s.confidence for s in samples}) == 6
    else:
        of = dict(zip("abc", attack.score(model, prompts, {}), strict=True))
        assert {s.condition.id: s.confidence for s in samples} == pytest.approx(of)


def test_a_scorer_of_captions_has_none_to_read_of_the_null_condition() -> None:
    options = Filter.Options(scorer="caption_case", source="null")
    attack = Filter(options, seed=0, sampling=SAMPLING["latents"])
    with pytest.raises(UserError, match="have no captions to read"):
        attack.check(tiny_text_model(), [Condition("a", "a")])


def test_a_candidate_is_scored_on_the_way_that_it_was_generated_on(workspace: Workspace) -> None:
    """With steps and a weight of its own: a trajectory from the candidate's noise ends in
    the candidate.
    """
    model, conditions = tiny_pixel_model(), [Condition(str(k), class_label=k) for k in range(3)]
    sampling = {"steps": 10, "guidance": 1.0, "examples": "images"}
    attack = Filter(
        Filter.Options(scorer="cfg_norm", settings=("image_steps=0",), steps=4),
        seed=0,
        sampling=sampling,
    )
    of_images: Any = attack.of_images
    found = synthesize(model, conditions, workspace, n=3, seed=0, steps=4, guidance=1.0).x0
    rows = [(attack._candidate(c, 0, np.zeros((8, 8, 3), np.uint8)), 0) for c in conditions]
    ends, _ = of_images._norms(model, rows, None, of_images.weight, of_images.steps)
    assert torch.allclose(ends, found, atol=1e-4)
    own: Any = attack.own
    assert own.steps == 10  # an example is scored as a run of the scorer does


def test_a_candidate_without_a_score_is_not_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, told = tiny_text_model(), [Condition("a", "a")]
    options = Filter.Options(scorer="png_size", candidates=4, keep=4, steps=2)
    attack = Filter(options, seed=0, sampling=SAMPLING["latents"])
    monkeypatch.setattr(attack, "_scores", lambda *_: [0.1, None, 0.3, 0.2])
    assert attack.prepare(model, told, workspace)["failed scores"] == 1
    samples = attack.extract(model, attack.plan(told))
    assert [(s.draw, s.confidence) for s in samples] == [(2, 0.3), (3, 0.2), (0, 0.1)]


@pytest.mark.parametrize("broken", ["state", "decoding"])
def test_a_state_that_cannot_be_decoded_is_no_image(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``decode`` makes an image of it all the same, to which a classifier gives a
    probability and a scorer a score.
    """
    model, lost = tiny_text_model(), 1
    x0 = model.noise([("x", k) for k in range(3)], 0)
    decode = model.decode

    def overflowing(x: torch.Tensor) -> np.ndarray:
        images = decode(x)
        x[lost] = torch.nan
        return images

    if broken == "state":
        x0[lost] = torch.nan
    else:
        monkeypatch.setattr(model, "decode", overflowing)
    rows = [(Condition("a", "a"), k) for k in range(3)]
    prompts = SidePrompts(SidePrompts.Options(), seed=0, sampling=SAMPLING["latents"])
    prompts.classifier = cast(Any, lambda images, t: torch.zeros(len(images), 2))
    assert prompts._probabilities(model, x0.clone())[:, 0].isfinite().tolist() == [
        True,
        False,
        True,
    ]
    monkeypatch.setattr(prompts, "_sampled", lambda *_: x0.clone())
    assert np.isfinite(prompts.score(model, [c for c, _ in rows], {})).tolist() == [
        True, False, True
    ]  # fmt: skip
    for attack in (
        prompts,
        Filter(Filter.Options(scorer="png_size"), seed=0, sampling=SAMPLING["latents"]),
    ):
        attack.keep(rows, x0.clone(), [0.1, 0.2, 0.3])
        samples = attack.extract(model, attack.plan([]))
        assert np.isfinite([s.confidence for s in samples]).tolist() == [True, False, True]
    assert isinstance(attack, Filter)
    assert [v is None for v in attack._scores(model, rows, x0.clone())] == [False, True, False]
    side = Side(Side.Options(), seed=0, sampling=SAMPLING["pixels"])
    side.synthetic = Synthetic(x0.clone(), cast(Stage, None))
    asked = [Request(SYNTHETIC, k) for k in range(3)]
    assert np.isnan(side.extract(model, asked)[lost].confidence)


def test_selection_alone_fills_a_population_with_the_fittest() -> None:
    """A fit prompt wins each tournament that it is in, so a share s of them becomes
    1 - (1 - s)^2: 0.3, 0.51, 0.76, 0.94 ...
    """
    rng = np.random.RandomState(0)
    prompts, share = ["fit"] * 600 + ["not"] * 1400, 0.3
    for _ in range(3):
        prompts = bred(
            prompts, [float(p == "fit") for p in prompts], [], rng, elite=0, crossover=0, mutation=0
        )
        share = 1 - (1 - share) ** 2
        assert prompts.count("fit") / 2000 == pytest.approx(share, abs=0.05)
    best = bred(
        ["a", "b", "c"], [0.1, np.nan, 0.9], ["x"], rng, elite=0.34, crossover=0, mutation=1
    )
    assert best == ["c", "x", "x"]
    crossed = bred(["a b", "c d"] * 25, [1.0] * 50, ["x"], rng, elite=0, crossover=1, mutation=0)
    assert {word for prompt in crossed for word in prompt.split()} == {"a", "b", "c", "d"}
    assert len({*crossed} - {"a b", "c d"}) > 3
    assert set(bred(["a b"] * 9, [1.0] * 9, ["x"], rng, elite=0, crossover=0, mutation=1)) == {
        "x x"
    }


def test_prompts_are_found_whose_image_is_the_target(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a caption returns its own image and the surrogate is right, the last
    generation holds more of the target than the captions do.
    """
    w = latents(clip=True, prediction="epsilon", alone=True)
    attack = SidePrompts(
        SidePrompts.Options(
            synthetic=10, clusters=5, min_members=1, keep=1.0, targets=1,
            population=10, rounds=5, mutation=0.0, crossover=0.0, elite=0.1, classifier_steps=1,
        ),
        seed=0,
        sampling=SAMPLING["latents"],
    )  # fmt: skip
    known = torch.from_numpy(w.images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1

    def sure(model: Any, synthetic: Any, members: Any, labels: Any, workspace: Any) -> Any:
        return lambda images, t: -torch.cdist(images.flatten(1), known.flatten(1))

    monkeypatch.setattr(attack, "_surrogate", sure)
    attack.check(w.model, w.memorized)
    before = w.model.cost.forwards
    facts = attack.prepare(w.model, w.memorized, workspace)
    assert facts["queries"] == 60 == len(attack.rows)
    paid = w.model.cost.forwards - before
    assert paid == attack.preparation_forwards(w.model, w.memorized) == workspace.cost.forwards
    samples = attack.extract(w.model, attack.plan(w.memorized))
    nearest, distance = returned(w, samples)
    assert w.model.cost.forwards - before == paid and (distance < COPY["latents"]).all()
    [target] = facts["targets"]
    share = (nearest[10:] == target).reshape(5, 10).mean(axis=1)
    assert share[-1] >= 0.8 > share[0]
