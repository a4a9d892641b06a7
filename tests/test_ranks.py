"""Wins of positives over negatives under weights, against counting every pair."""

from __future__ import annotations

import numpy as np
import pytest

from membench.metrics.intervals import weighted_statistics
from membench.metrics.ranks import cumulated, parts, places, wins


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_wins_are_those_of_every_pair(digits: int) -> None:
    """Ties, of few digits many, count half; rows of neither label do not count."""
    rng = np.random.default_rng(digits)
    scores, labels = np.round(rng.normal(size=60), digits), rng.integers(-1, 2, 60)
    weights = rng.integers(0, 4, (7, 60))
    at = places(scores, labels)
    found = wins(weights[:, at.positive].astype(float), cumulated(weights, at.negative), at)
    for row, value in zip(weights, found, strict=True):
        by_hand = sum(
            row[i] * row[j] * (1.0 if scores[i] > scores[j] else 0.5 * (scores[i] == scores[j]))
            for i in np.flatnonzero(labels == 1)
            for j in np.flatnonzero(labels == 0)
        )
        assert value == by_hand


def test_parts_are_all_rows_in_order() -> None:
    weights = np.arange(3 * 50_000).reshape(3, 50_000)
    found = list(parts(weights))
    assert len(found) == 3 and np.array_equal(np.concatenate(found), weights)


def test_two_orders_with_as_many_wins_have_the_same_auroc_to_the_last_bit() -> None:
    """Else rounding would decide on which side of 0 their difference lies."""
    labels = np.tile([1, 0], 21)
    one, other = np.arange(42.0), np.arange(42.0)
    # One positive rises above its neighbour, another falls below its own
    other[[4, 5, 10, 9]] = one[[5, 4, 9, 10]]
    weights = np.ones((1, 42), dtype=int)
    first, second = (weighted_statistics(s, labels, weights)["auroc"] for s in (one, other))
    assert not np.array_equal(one, other) and first.tobytes() == second.tobytes()
