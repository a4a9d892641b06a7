"""Noises until a score is decided: how many, what the score is, and what cannot be drawn
again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from linear import LinearModel, told
from scipy.stats import ttest_1samp

from membench.detectors.adaptive import Adaptive, decided
from membench.detectors.cfg_norm import CfgNorm
from membench.errors import UserError
from membench.runs.execute import execute_all
from membench.runs.finished import per_example
from membench.runs.spec import Spec
from membench.seeds import seed_of
from membench.testing import tiny_text_model

SEED, SAMPLING = 4, {"steps": 4, "guidance": 3.0}
PROMPTS = told("1", "2", "3")
ONE = ("draws=1",)


def made(settings: tuple[str, ...] = ONE, **options: Any) -> Adaptive:
    return Adaptive(Adaptive.Options(settings=settings, **options), seed=SEED, sampling=SAMPLING)


def each(rounds: int) -> np.ndarray:
    """Scores [prompts, rounds] of one noise each, by the detector itself."""
    found = []
    for k in range(rounds):
        seed = seed_of(SEED, "round", k) if k else SEED
        plain = CfgNorm(CfgNorm.Options(draws=1), seed=seed, sampling=SAMPLING)
        found.append(plain.score(LinearModel(), PROMPTS, {}))
    return np.array(found).T


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_decided_is_what_a_t_test_says(level: float) -> None:
    source = np.random.default_rng(0)
    seen = set()
    for n in (2, 3, 8):
        for _ in range(200):
            scores = source.normal(0.5, 1, n)
            told = decided(scores, 0.0, level)
            assert told == (ttest_1samp(scores, 0.0).pvalue < 1 - level)
            seen.add(told)
    assert seen == {True, False}
    assert decided(np.ones(3), 0.5, level) and not decided(np.ones(3), 1.0, level)


@pytest.mark.parametrize("level", [0.8, 0.99])
def test_a_score_is_the_mean_of_as_many_noises_as_it_takes(level: float) -> None:
    single = each(12)
    threshold = float(single[0].mean())  # amid the first prompt's own scores
    takes = []
    for row in single:
        n = 2
        while n < 12 and ttest_1samp(row[:n], threshold).pvalue >= 1 - level:
            n += 1
        takes.append(n)
    model = LinearModel()
    detector = made(threshold=threshold, rounds=12, least=2, level=level)
    detector.check(model, PROMPTS)
    before = model.cost.forwards
    got = detector.score(model, PROMPTS, {})
    assert got == pytest.approx(
        [row[:n].mean() for row, n in zip(single, takes, strict=True)], rel=1e-5
    )
    assert model.cost.forwards - before == 2 * sum(takes)
    assert len(set(takes)) > 1  # one is decided before another


def test_far_from_it_the_least_are_enough_and_at_it_none_are() -> None:
    model = LinearModel()
    far = made(threshold=1e6, rounds=9, least=3)
    assert far.score(model, PROMPTS, {}) == pytest.approx(each(3).mean(axis=1).tolist(), rel=1e-5)
    assert model.cost.forwards == 2 * 3 * 3
    model, at = LinearModel(), float(each(5)[0].mean())
    held = made(threshold=at, rounds=5, level=0.999999)
    assert held.score(model, PROMPTS[:1], {}) == pytest.approx([at], rel=1e-5)
    assert model.cost.forwards == 2 * 5


def test_company_changes_no_score() -> None:
    detector = made(threshold=float(each(8).mean()), rounds=8)
    together = detector.score(LinearModel(), PROMPTS, {})
    alone = [detector.score(LinearModel(), [prompt], {})[0] for prompt in PROMPTS]
    assert together == pytest.approx(alone, rel=1e-5)


def test_an_example_that_fails_takes_no_more_noises() -> None:
    model = LinearModel()
    model.network.a.data[2] = math.nan  # type: ignore[union-attr]
    got = made(threshold=1e6, rounds=9).score(model, PROMPTS, {})
    assert [math.isfinite(value) for value in got] == [True, False, True]
    assert model.cost.forwards == 2 * 3 * 3


def test_a_run_costs_less_than_all_rounds(tmp_path) -> None:
    options = ("settings=draws=1,images=0", "threshold=1.0")
    spec = Spec("adaptive", "sd_webster", options=options, limit=24)
    [run] = execute_all([spec], tmp_path, progress=False).runs
    assert 2 * 3 <= per_example(run, "forwards") < 2 * 16
    assert run.scores.score.notna().all()


def test_what_cannot_be_drawn_again_is_refused_in_one_line() -> None:
    model = tiny_text_model()

    def refusal(**options: Any) -> str:
        with pytest.raises((UserError, ValueError)) as error:
            made(**options).check(model, PROMPTS)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "threshold: give the score of cfg_norm" in refusal()
    assert "caption_case asks no model" in refusal(
        settings=(), detector="caption_case", threshold=1.0
    )
    assert "flipd scores a prompt by images" in refusal(settings=(), detector="flipd", threshold=1)
    assert "update_norm prepares before" in refusal(
        settings=(), detector="update_norm", threshold=1.0
    )
    assert "name the detector" in refusal(settings=(), detector="adaptive", threshold=1.0)
    assert "calibrated compares two models" in refusal(
        settings=(), detector="calibrated", threshold=1.0
    )
    assert "least=5 is more than rounds=4" in refusal(threshold=1.0, least=5, rounds=4)
