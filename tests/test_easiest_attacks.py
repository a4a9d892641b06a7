"""Every attack where it must win: on a model that is the exact score of a few images (memorizer.py) it returns those images."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from memorizer import IMAGES, MULTIPLICITY, Classifier, World, latents, pixels
from scipy.stats import chisquare

from membench.detectors.carlini_conditional import CarliniConditional
from membench.detectors.random_sampling import RandomSampling
from membench.detectors.side import Side
from membench.metrics.extraction import ams, ums_nearest
from membench.similarity.l2 import normalised_l2
from membench.types import Band, Sample, Space
from membench.workspace import Workspace

SAMPLING = {"pixels": {"steps": 10, "guidance": 1.0}, "latents": {"steps": 10, "guidance": 3.0}}
MODELS = [("pixels", True, "epsilon"), ("pixels", False, "v_prediction"), ("latents", True, "epsilon"), ("latents", False, "v_prediction")]
# A quarter of the usual threshold in pixels, where only rounding and the last step's gradient are left; behind the VAE its round trip, too.
COPY = {"pixels": 0.25, "latents": 0.7}
SHARES = np.array(MULTIPLICITY) / sum(MULTIPLICITY)


@cache
def alone(kind: str, clip: bool, prediction: str) -> World:
    """The null condition knows the memorized images and nothing else."""
    return (pixels if kind == "pixels" else latents)(clip=clip, prediction=prediction, alone=True)


def space(kind: str) -> Space:
    return Space("normalised L2", False, (Band("copy", 0.0, COPY[kind]),), COPY[kind], COPY[kind], "")


def returned(w: World, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest memorized image of each sample, and the normalised distance to it."""
    found = normalised_l2(np.stack([s.image for s in samples]), w.images, floor=0.0)
    found = found[found["rank"] == 0].sort_values("generated")
    return found.training.to_numpy(), found.similarity.to_numpy()


def guided(model: tuple[str, bool, str], make: Any, n: int, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, nearest image and distance of n images that are guided by the true classifier."""
    w = alone(*model)
    detector = make(make.Options(generations=n, surrogate="classifier", **options), seed=0, sampling=SAMPLING[model[0]])
    detector.classifier = Classifier(w.exact, [[k] for k in IMAGES], timed=make.timed)
    detector.x0, detector.labels = w.exact.means[IMAGES].float().view(len(IMAGES), *w.model.shape), torch.arange(len(IMAGES))
    requests = detector.plan([])
    samples = detector.extract(w.model, requests)
    assert np.isfinite([s.confidence for s in samples]).all()
    return np.array([int(r.condition.id.removeprefix("cluster-")) for r in requests]), *returned(w, samples)


@pytest.mark.parametrize("model", MODELS)
def test_unconditional_sampling_returns_each_image_as_often_as_it_was_shown(model: tuple[str, bool, str]) -> None:
    w, n = alone(*model), 400 if model[0] == "pixels" else 120
    attack = RandomSampling(RandomSampling.Options(extraction="unconditional", generations=n), seed=0, sampling=SAMPLING[model[0]])
    nearest, distance = returned(w, attack.extract(w.model, attack.plan([])))
    assert (distance < COPY[model[0]]).mean() > 0.99
    counts = np.bincount(nearest, minlength=len(IMAGES))
    assert (counts > 0).all() and chisquare(counts, n * SHARES).pvalue > 0.01


@pytest.mark.parametrize("model", MODELS)
def test_conditional_sampling_returns_the_conditions_own_image(model: tuple[str, bool, str]) -> None:
    w = alone(*model)
    attack = RandomSampling(RandomSampling.Options(draws=2), seed=0, sampling=SAMPLING[model[0]])
    requests = attack.plan(w.memorized)
    nearest, distance = returned(w, attack.extract(w.model, requests))
    assert nearest.tolist() == [w.memorized.index(r.condition) for r in requests]
    assert (distance < COPY[model[0]]).all()


@pytest.mark.parametrize("guidance", [1.0, 10.0])
@pytest.mark.parametrize("model", MODELS)
def test_guidance_by_the_true_classifier_returns_the_image_that_it_names(model: tuple[str, bool, str], guidance: float) -> None:
    """At weight 1 it is the conditional model itself, by Bayes; at SIDE's own 10 x0 is clipped, and eps must follow it."""
    target, nearest, distance = guided(model, Side, 60 if model[0] == "pixels" else 20, guidance=guidance)
    assert (nearest == target).mean() > 0.97 and (distance < COPY[model[0]]).mean() > 0.97


@pytest.mark.parametrize("guidance", [1.0, 10.0])
@pytest.mark.parametrize("at", ["xt", "x0"])
def test_a_classifier_that_knows_no_timestep_returns_it_where_x0_is_clipped(at: str, guidance: float) -> None:
    """Its posterior is that of clean images, certain everywhere, with a gradient of (x_c - x_j) / s^2: thousands of times too long.

    The clip makes a direction of it, which leads to the image. Without a clip it leads to the image's side of the space, past the image.
    """
    target, nearest, distance = guided(("pixels", True, "epsilon"), CarliniConditional, 60, guidance=guidance, at=at)
    assert (nearest == target).mean() > 0.97 and (distance < 1).mean() > 0.97
    target, nearest, distance = guided(("pixels", False, "v_prediction"), CarliniConditional, 60, guidance=guidance, at=at)
    assert (nearest == target).mean() > 0.97 and (distance < 1).mean() < 0.5


@pytest.mark.parametrize(("make", "features"), [(Side, "bottleneck"), (Side, "pixels"), (CarliniConditional, "bottleneck")])
def test_side_and_its_baseline_find_every_image_by_themselves(make: Any, features: str, workspace: Workspace) -> None:
    """The whole of the algorithm: the clusters are the images, and what is extracted are copies, of each in equal shares.

    Plain sampling would return the most frequent image four times as often as the rarest; here the targets are uniform over the clusters.
    The expected number of unique images, sum_k 1 - (1 - 1/K)^N, is K to 1e-4.
    """
    model, k, n = ("pixels", True, "epsilon"), len(IMAGES), 60
    w = alone(*model)
    options: dict[str, Any] = {"synthetic": 200, "clusters": k, "cohesion": 0.5, "generations": n, "features": features}
    if "keep" in {f.name for f in fields(make.Options)}:
        options["keep"] = 1.0
    attack = make(make.Options(**options, classifier_steps=60, batch=16), seed=0, sampling=SAMPLING["pixels"])
    facts = attack.prepare(w.model, [], workspace)
    assert facts["clusters kept"] == k and min(facts["cohesion"]) > 0.999
    # Each cluster is one image, and each synthetic image that is a copy of it lies in it.
    known = torch.cdist(attack.x0.flatten(1).double(), w.exact.means[IMAGES]).argmin(dim=1)
    pairs = {(int(label), int(image)) for label, image in zip(attack.labels, known, strict=True)}
    assert len(pairs) == k
    image_of = dict(pairs)

    requests = attack.plan([])
    samples = attack.extract(w.model, requests)
    nearest, _ = returned(w, samples)
    matches = normalised_l2(np.stack([s.image for s in samples]), w.images, floor=COPY["pixels"])
    assert ams(matches, n, space("pixels"), COPY["pixels"]) > 0.98
    assert ums_nearest(matches, n, space("pixels"), COPY["pixels"]) == k / n
    if make is Side:
        target = np.array([image_of[int(r.condition.id.removeprefix("cluster-"))] for r in requests])
        assert (nearest == target).mean() > 0.9
    assert min(s.confidence for s in samples) > -0.05  # each lies by a synthetic image of its cluster
