"""Intervals of positives and negatives that are told apart without an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import make

from membench.boards.board import board
from membench.boards.verdict import mirror_verdict
from membench.measures import auroc_by_group
from membench.metrics.intervals import detection_intervals
from membench.metrics.mirror import mirrored_auroc, over_control
from membench.metrics.unique import zero_limit


def apart(positives: int, negatives: int, copies: int = 1) -> tuple[np.ndarray, ...]:
    """scores, labels, groups: each group ``copies`` times, all positives above."""
    labels = np.repeat([1] * positives + [0] * negatives, copies)
    groups = np.repeat(np.arange(positives + negatives).astype(str), copies)
    return labels + np.linspace(0, 0.5, len(labels)), labels, groups


@pytest.mark.parametrize(("positives", "negatives"), [(5, 40), (40, 5), (12, 12)])
def test_few_examples_that_are_told_apart_show_little(positives: int, negatives: int) -> None:
    scores, labels, groups = apart(positives, negatives)
    found = detection_intervals(scores, labels, groups, limits=(0.2,), resamples=50)
    least = 0.025 ** (1 / min(positives, negatives))
    assert found["auroc"] == pytest.approx((least, 1.0))
    assert found["tpr_at_fpr_0.2"] == pytest.approx((0.025 ** (1 / positives), 1.0))
    low, high = found["average_precision"]
    assert 0 < low < 0.025 ** (1 / positives) + 1e-9 and high == 1.0
    upside_down = detection_intervals(-scores, labels, groups, limits=(0.2,), resamples=50)
    assert upside_down["auroc"] == pytest.approx((0.0, 1 - least))
    assert upside_down["tpr_at_fpr_0.2"] == pytest.approx((0.0, 1 - 0.025 ** (1 / positives)))


def test_the_bound_is_missed_by_no_more_than_one_sample_in_forty() -> None:
    # The easiest way to be told apart at this AUROC: a share of the positives lies
    # below all negatives, and the others above them.
    rng, n, m = np.random.default_rng(0), 8, 30
    truth = 1 - zero_limit(n)
    missed, rounds = 0, 4000
    for _ in range(rounds):
        positive = np.where(rng.random(n) < truth, 2.0, -2.0) + rng.random(n)
        missed += bool((positive > 1).all())  # then the interval is [truth, 1]
    assert missed / rounds == pytest.approx(0.025, abs=0.008)
    # Where both classes err a little more pairs are wrong for as many errors
    half = np.sqrt(truth)
    assert half**n * half**m < truth ** min(n, m)


def test_near_duplicates_are_counted_once() -> None:
    once, often = (apart(6, 20, copies) for copies in (1, 9))
    assert (
        detection_intervals(*once, resamples=50)["auroc"]
        == detection_intervals(*often, resamples=50)["auroc"]
    )
    _, low, high = auroc_by_group(*once)
    assert (low, high) == pytest.approx((0.025 ** (1 / 6), 1.0))


def test_what_tells_nothing_apart_is_no_bound() -> None:
    _, labels, groups = apart(6, 20)
    assert detection_intervals(np.zeros(26), labels, groups)["auroc"] == (0.5, 0.5)


def test_average_precision_is_that_of_the_worse_way_to_err() -> None:
    scores, labels, groups = apart(5, 200)
    low, _ = detection_intervals(scores, labels, groups, resamples=50)["average_precision"]
    false = zero_limit(200) * 200  # negatives that may lie above all positives
    assert low == pytest.approx(min(0.025**0.2, np.mean([k / (k + false) for k in range(1, 6)])))
    scores, labels, groups = apart(200, 5)
    low, _ = detection_intervals(scores, labels, groups, resamples=50)["average_precision"]
    assert low == pytest.approx(np.mean([k / (k + zero_limit(5) * 5) for k in range(1, 201)]))


def two_scores(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tell so many examples of each label apart without an error, and are no one
    score.
    """
    scores, labels, groups = apart(count, count)
    columns = {"id": groups, "label": labels, "kind": "x", "group": groups, "status": "ok"}
    one = pd.DataFrame({"score": scores} | columns)
    return one, one.assign(score=scores**3)


@pytest.mark.parametrize("count", [8, 200])
def test_two_that_tell_all_apart_are_not_alike_for_sure(count: int) -> None:
    limit = zero_limit(count)
    model, control = two_scores(count)
    assert over_control([(model, control)], resamples=50) == pytest.approx((0, -limit, limit))
    # What reads the example alone gives both the same score: no sample could differ
    assert over_control([(model, model)], resamples=50) == (0, 0, 0)
    worse = over_control([(control.assign(score=-control.score), model)], resamples=50)
    assert worse == pytest.approx((-1, -1, -1 + 2 * limit))
    mirror = control.assign(label=1 - control.label)
    found = mirrored_auroc(model, mirror, resamples=50).iloc[0]
    ends = (0.5 - limit / 2, 0.5 + limit / 2)
    assert (found.mirrored, found.low, found.high) == pytest.approx((0.5, *ends))
    row = found.rename({n: f"auroc_{n}" for n in ("a", "b", "a_low", "a_high", "b_low", "b_high")})
    row = pd.concat([row, pd.Series({"detector": "x", "mirrored_low": ends[0]})])
    row["mirrored_high"] = ends[1]
    assert mirror_verdict(row, "images", "a").level == ("unsure" if count == 8 else "content")


def test_two_detectors_that_tell_all_apart_have_an_interval(tmp_path: Path) -> None:
    one, other = (
        make(
            tmp_path,
            [None] * 40,
            detector=name,
            change=lambda s, power=power: s.assign(score=(s.label + s.index / 99) ** power),
        )
        for name, power in (("one", 1), ("other", 3))
    )
    rows = board([one, other], "difference").frame.set_index("metric")
    limit = zero_limit(20)
    assert rows.difference.tolist() == [0] * len(rows) and (rows.p == 1).all()
    assert tuple(rows.loc["auroc", ["low", "high"]]) == pytest.approx((-limit, limit))
    assert (rows.low <= -limit).all() and (rows.high >= limit).all()


def test_mirrored_models_that_are_both_told_apart() -> None:
    a = pd.DataFrame(
        {
            "id": [str(i) for i in range(14)],
            "label": [1] * 7 + [0] * 7,
            "score": [2.0 + i for i in range(7)] + [-1.0 - i for i in range(7)],
            "kind": "x64",
            "group": [str(i) for i in range(14)],
            "status": "ok",
        }
    )
    b = a.assign(label=1 - a.label, score=-a.score)
    found = mirrored_auroc(a, b, resamples=50).iloc[0]
    assert found.mirrored == 1.0
    for low, high in (("low", "high"), ("a_low", "a_high"), ("b_low", "b_high")):
        assert (found[low], found[high]) == pytest.approx((0.025 ** (1 / 7), 1.0))
