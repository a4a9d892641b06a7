"""A logistic regression over other detectors' scores: by hand, without leaks, with
failures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from membench import registry
from membench.detector import Detector
from membench.detectors.cfg_norm import CfgNorm
from membench.detectors.combined import Combined
from membench.detectors.webster import Dcs
from membench.errors import UserError
from membench.metrics.captions import dealt
from membench.metrics.combination import as_text, combined, cross_fitted, from_text, regression
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.memo import Memo
from membench.runs.execute import execute_all
from membench.runs.finished import per_example
from membench.runs.spec import Spec
from membench.storage.workspace import Workspace
from membench.types import Access, Condition

SAMPLING = {"steps": 4, "guidance": 3.0}
CONDITIONS = [Condition(f"c{i}", f"caption number {i}") for i in range(12)]
LABELS, GROUPS = [i % 2 for i in range(12)], [f"g{i // 2}{i % 2}" for i in range(12)]


def newton(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """L2-regularised logistic regression, both labels weighing alike, the offset free."""
    n, weight = (
        len(y),
        np.where(y == 1, len(y) / (2 * (y == 1).sum()), len(y) / (2 * (y == 0).sum())),
    )
    design, beta = np.hstack([x, np.ones((n, 1))]), np.zeros(x.shape[1] + 1)
    ridge = np.diag([1.0] * x.shape[1] + [0.0]) / strength
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (weight * (p - y)) + ridge @ beta
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None]) + ridge
        beta = beta - np.linalg.solve(hessian, gradient)
    return beta[:-1]


def world(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    raw = rng.normal(size=(n, 3)) * [1, 10, 0.01] + labels[:, None] * [1, 5, 0]
    return raw, labels, [f"g{i // 4}{i % 2}" for i in range(n)]


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_the_weights_are_those_of_newtons_method(strength: float) -> None:
    raw, labels, _ = world()
    labels = np.where(np.arange(60) % 3 == 0, 1, 0)
    mean, spread, weight = regression(raw, labels, strength)
    assert mean == pytest.approx(raw.mean(axis=0)) and spread == pytest.approx(raw.std(axis=0))
    assert weight == pytest.approx(newton((raw - mean) / spread, labels, strength), abs=1e-3)


def test_no_row_is_scored_by_what_its_own_group_has_taught() -> None:
    """Row by row, with the folds of the n-gram control; an unlabelled group is scored
    by all.
    """
    raw, labels, groups = world()
    labels[groups.index("g31")] = labels[groups.index("g31") + 2] = -1
    assert {int(label) for label, g in zip(labels, groups, strict=True) if g == "g31"} == {-1}
    known = np.flatnonzero(labels >= 0)
    fold = dealt([int(labels[i]) for i in known], [groups[i] for i in known], 4)
    scores, learned = cross_fitted(raw, labels.tolist(), groups, folds=4)
    for i, group in enumerate(groups):
        train = [j for j in known if fold[groups[j]] != fold.get(group, -1)]
        assert group not in {groups[j] for j in train}
        by_hand = combined(raw[[i]], regression(raw[train], labels[train]))
        assert scores[i] == pytest.approx(float(by_hand[0]), rel=1e-9)
    assert learned == pytest.approx(regression(raw[known], labels[known]))


def test_scores_do_not_separate_noise() -> None:
    """40 groups whose rows share a score that tells nothing of other groups."""
    rng = np.random.default_rng(3)
    labels, groups = np.repeat(np.arange(40) % 2, 5), [f"g{i}" for i in np.repeat(np.arange(40), 5)]
    raw = np.repeat(rng.normal(size=(40, 12)), 5, axis=0)
    from sklearn.metrics import roc_auc_score

    leaking = combined(raw, regression(raw, labels, 100.0))
    honest = cross_fitted(raw, labels, groups, strength=100.0)[0]  # type: ignore[arg-type]
    assert roc_auc_score(labels, leaking) > 0.8 and roc_auc_score(labels, honest) < 0.7


def test_a_row_that_has_failed_teaches_nothing_and_has_no_score() -> None:
    raw, labels, groups = world()
    broken = raw.copy()
    broken[5, 1], broken[6, 0] = np.nan, np.inf
    scores, learned = cross_fitted(broken, labels, groups)  # type: ignore[arg-type]
    whole = ~np.isin(np.arange(60), [5, 6])
    assert np.isnan(scores).tolist() == (~whole).tolist()
    assert learned == pytest.approx(regression(raw[whole], labels[whole]))
    broken[labels == 1, 2] = np.nan
    with pytest.raises(
        UserError, match="0 of memorized examples and 15 of others, without the 31 ex"
    ) as error:
        cross_fitted(broken, labels, groups)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_weights_are_read_as_they_are_written() -> None:
    raw, labels, _ = world()
    learned = regression(raw, labels)
    text = as_text(learned, ["a", "b", "c"])
    assert from_text(text.split(","), ["a", "b", "c"]) == pytest.approx(learned, rel=1e-8)
    wrong = (["a:1:1:1"], ["a:1:1:1", "b:1:1"], ["a:1:0:1", "b:1:1:1"], ["a:1:1:1", "c:1:1:1"])
    for texts in (*wrong, ["a:1:nan:1", "b:1:1:1"], ["a:1:1:1", "b:1:1:1", "a:2:2:2"]):
        with pytest.raises(ValueError, match="one of each of a, b"):
            from_text(texts, ["a", "b"])


# ------------------------------------------------------------------------- the detector


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder))


def made(**options: Any) -> Combined:
    given = {"detectors": ("cfg_norm", "dcs"), "settings": ("cfg_norm.draws=2", "dcs.draws=1")}
    return Combined(Combined.Options(**{**given, **options}), seed=0, sampling=SAMPLING)


def fitted(model: LatentDenoiser, folder: Path, **options: Any) -> tuple[Combined, dict[str, Any]]:
    detector = made(**options)
    detector.check(model, CONDITIONS)
    detector.fit(CONDITIONS, LABELS, GROUPS)
    workspace = Workspace(folder, {"weights": "w"})
    return detector, detector.prepare(model, CONDITIONS, workspace) | {"cost": workspace.cost}


def test_it_is_the_cross_fitted_combination_of_what_the_detectors_score_alone(
    model, tmp_path
) -> None:
    parts = [
        CfgNorm(CfgNorm.Options(draws=2), seed=0, sampling=SAMPLING),
        Dcs(Dcs.Options(draws=1), seed=0, sampling=SAMPLING),
    ]
    raw = np.array([part.score(model, CONDITIONS, {}) for part in parts]).T
    order = sorted(range(12), key=lambda i: CONDITIONS[i].id)
    want = np.full(12, np.nan)
    want[order] = cross_fitted(raw[order], [LABELS[i] for i in order], [GROUPS[i] for i in order])[
        0
    ]
    detector, facts = fitted(model, tmp_path)
    assert detector.score(model, CONDITIONS[::-1], {}) == pytest.approx(
        want[::-1].tolist(), rel=1e-4
    )
    assert facts["failed"] == 0 and facts["cost"].forwards == 12 * (4 + 2)
    before = model.cost.forwards
    fitted(model, tmp_path)  # prepared already
    assert model.cost.forwards == before


def test_what_a_development_run_has_learned_scores_another(model, tmp_path) -> None:
    """Without labels of its own; the cost is that of the detectors, and evaluations are
    shared.
    """
    _, facts = fitted(model, tmp_path)
    detector = made(weights=tuple(facts["weights"].split(",")))
    assert not detector.alone and detector.access == Access(labels=True)
    others = [Condition(f"d{i}", f"another {i}") for i in range(3)]
    raw = np.array([part.score(model, others, {}) for part in detector.holds.values()]).T
    learned = from_text(facts["weights"].split(","), ["cfg_norm", "dcs"])
    before = model.cost.forwards
    detector.fit(others, [-1] * 3, ["g"] * 3)
    model.memo = Memo()
    assert detector.score(model, others, {}) == pytest.approx(
        combined(raw, learned).tolist(), rel=1e-4
    )
    assert model.cost.forwards - before == 3 * (4 + 2) and len(model.memo) == 3 * (4 + 2)


@dataclass(frozen=True)
class Options:
    fail: int = field(default=1, metadata={"help": "the example that fails"})


class Broken(Detector):
    Options = Options
    version = 1

    def score(self, model, conditions, extracted):
        return [
            math.nan if c.id == f"c{self.options.fail}" else float(c.id[1:]) % 5 for c in conditions
        ]


@pytest.fixture
def broken():
    registry.detectors.cache_clear()
    registry.detectors().add("broken", f"{__name__}:Broken", "here")
    yield
    registry.detectors.cache_clear()


def test_an_example_on_which_a_detector_has_failed_fails_alone(model, tmp_path, broken) -> None:
    detector, facts = fitted(
        model, tmp_path, detectors=("cfg_norm", "broken"), settings=("broken.fail=4",)
    )
    scores = detector.score(model, CONDITIONS, {})
    assert [math.isnan(s) for s in scores] == [i == 4 for i in range(12)] and facts["failed"] == 1
    given = made(
        detectors=("cfg_norm", "broken"), settings=(), weights=tuple(facts["weights"].split(","))
    )
    assert [math.isnan(s) for s in given.score(model, CONDITIONS[:3], {})] == [False, True, False]


def test_detectors_that_look_at_images_draw_them(model, tmp_path) -> None:
    detector, facts = fitted(
        model, tmp_path, detectors=("png_size", "cfg_norm"), settings=("cfg_norm.draws=1",)
    )
    assert detector.access == Access(images=True, labels=True) and detector.plan(CONDITIONS) == []
    assert facts["cost"].decodes == 12 and facts["cost"].forwards == 12 * (8 + 2)
    assert np.isfinite(detector.score(model, CONDITIONS, {})).all()


def test_what_cannot_be_combined_is_refused_in_one_line(model) -> None:
    for options, text in (
        ({"detectors": ("cfg_norm",)}, "two or more other detectors"),
        ({"detectors": ("cfg_norm", "combined")}, "two or more other detectors"),
        ({"detectors": ("cfg_norm", "dcs", "dcs")}, "two or more other detectors"),
        (
            {"settings": ("flipd.t0=1",)},
            "settings=flipd.t0=1: write DETECTOR.KEY=VALUE, of cfg_norm, dcs",
        ),
        ({"weights": ("cfg_norm:1:1:1",)}, "weights must be"),
    ):
        with pytest.raises(ValueError, match=text):
            made(**options)
    for options, text in (
        ({"detectors": ("cfg_norm", "nothing"), "settings": ()}, "unknown detector 'nothing'"),
        ({"settings": ("cfg_norm.draw=1",)}, "option of detector cfg_norm"),
        (
            {"settings": ("cfg_norm.steps=60",)},
            "detector cfg_norm: steps=60 is more than trajectory=50",
        ),
    ):
        with pytest.raises(UserError, match=text):
            made(**options)
    for options, text in (
        ({"detectors": ("cfg_norm", "side"), "settings": ()}, "side prepares before it scores"),
        (
            {"detectors": ("cfg_norm", "caption_ngrams"), "settings": ()},
            "caption_ngrams learns from labels",
        ),
        ({"settings": ("cfg_norm.image_steps=2",)}, "cfg_norm: image_steps=2"),
    ):
        with pytest.raises(UserError, match=text) as error:
            made(**options).check(model, CONDITIONS)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="6 of memorized examples and 0 of others"):
        made().fit(CONDITIONS[:6], [1] * 6, list("abcdef"))


def test_a_run_says_what_it_learned_and_what_it_cost(tmp_path, tiny_pipeline_folder) -> None:
    own = (f"model={tiny_pipeline_folder}",)
    options = ("detectors=cfg_norm,dcs", "settings=cfg_norm.draws=1,dcs.draws=1")
    spec = Spec("combined", "sd_webster", options=options, task_options=own, limit=40)
    [run] = execute_all([spec], tmp_path, progress=False).runs
    assert len(run.scores) == 40 and (run.scores.status == "ok").all()
    assert per_example(run, "forwards") == 4.0 and run.info["access"]["labels"]
    weights = run.info["prepared"]["weights"]
    assert weights.startswith("cfg_norm:") and ",dcs:" in weights
    again = Spec(
        "combined",
        "sd_webster",
        options=(*options, f"weights={weights}"),
        task_options=own,
        limit=40,
    )
    [other] = execute_all([again], tmp_path, progress=False).runs
    assert per_example(other, "forwards") == 4.0 and "prepared" not in other.info
    assert (other.scores.status == "ok").all() and not np.array_equal(
        other.scores.score, run.scores.score
    )
