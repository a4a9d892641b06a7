"""Every statistic that is bounded stays within its bounds to the last bit, also where a
sum rounds beyond.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import make

from membench.cli.main import main
from membench.metrics.complexity import matched_resamples, rank_correlation, weighted_correlation
from membench.metrics.detection import balanced_accuracy, detection_metrics, unit
from membench.metrics.intervals import class_weights, mean_resamples, weighted_statistics
from membench.metrics.levels import two_level_interval
from membench.metrics.multiplicity import wilson
from membench.metrics.unique import rarefied

N = 87  # a third of them is not a binary fraction


@pytest.fixture(scope="module")
def perfect() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores that separate the labels, groups of one, and many resamples."""
    labels = np.repeat([0, 1], [N - N // 3, N // 3])
    scores, groups = np.arange(N, dtype=float), np.arange(N).astype(str)
    return scores, labels, groups, np.concatenate(list(class_weights(labels, groups, 4000, 0)))


def test_resamples_of_a_perfect_detector_are_one(perfect) -> None:
    scores, labels, groups, weights = perfect
    assert (unit(1 + 2.3e-16), unit(-1e-17), unit(0.25)) == (1, 0, 0.25) and np.isnan(unit(np.nan))
    for name, values in weighted_statistics(scores, labels, weights).items():
        assert ((values >= 0) & (values <= 1)).all() and values == pytest.approx(1), name
    for metric in detection_metrics(scores, labels, groups):
        assert metric.value is None or 0 <= metric.value <= 1
    assert balanced_accuracy(scores, labels, scores[labels == 1].min()) == 1
    drawn = weighted_statistics(scores, labels, weights)["auroc"]
    low, high = two_level_interval([1.0, 1.0], np.stack([drawn, drawn]), logit=True)
    assert low == pytest.approx(1) and high <= 1
    value, matched = matched_resamples(
        scores, labels, groups, np.zeros(N, dtype=int), drawn=[weights]
    )
    assert value == 1 and (matched <= 1).all()


def test_correlations_stay_within_one(perfect) -> None:
    scores, _, _, weights = perfect
    for sign in (1, -1):
        rho = weighted_correlation(scores, sign * scores, weights)
        assert (np.abs(rho) <= 1).all() and rho == pytest.approx(sign)
        for n in range(3, 60):
            assert -1 <= rank_correlation(np.arange(n) / 7, sign * np.arange(n) / 3) <= 1


def test_shares_and_counts_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 60):
        for hits in (0, n):
            low, high = wilson(hits, n)
            assert 0 <= low <= high <= 1
        counts = np.ones(n, dtype=int)
        sizes = np.arange(n + 1)
        found = rarefied(counts, n, sizes)
        assert (found <= sizes).all() and (found >= 0).all() and found == pytest.approx(sizes)
    drawn = mean_resamples(np.ones((90, 1), dtype=bool), rng.integers(0, 7, 90))
    assert (drawn == 1).all()


def test_kinds_of_a_perfect_detector_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``leaderboard --by kind`` on two valid runs of a detector that is always right."""
    root = tmp_path / "runs"
    for seed in range(2):
        make(
            root,
            [None] * N,
            seed=seed,
            change=lambda scores: scores.assign(
                score=scores.label * 1000.0 + np.arange(len(scores))
            ),
        )
    assert main(["leaderboard", "--runs", str(root), "--by", "kind", "--format", "json"]) == 0
    frame = pd.read_json(io.StringIO(capsys.readouterr().out))
    assert (
        set(frame.kind) == {"all", "MV"}
        and frame.auroc.eq(1).all()
        and frame.auroc_high.le(1).all()
    )
