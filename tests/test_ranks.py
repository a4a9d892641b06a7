"""Wins of positives over negatives under weights, against counting every pair."""

from __future__ import annotations

import numpy as np
import pytest

from membench.metrics.intervals import weighted_auroc, weighted_statistics
from membench.metrics.ranks import beaten, parts, places, taken, wins


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_wins_are_those_of_every_pair(digits: int) -> None:
    """Ties, of few digits many, count half; rows of neither label do not count."""
    rng = np.random.default_rng(digits)
    scores, labels = np.round(rng.normal(size=60), digits), rng.integers(-1, 2, 60)
    weights = rng.integers(0, 4, (7, 60))
    at = places(scores, labels)
    (own, positive), (_, negative) = (taken(weights, x) for x in (at.positive, at.negative))
    found = wins(own, positive[:, -1] * negative[:, -1], *beaten(negative, at))
    halves = taken(weights / 2, at.positive)  # weights that are not whole
    np.testing.assert_array_equal(halves[0], own / 2)
    np.testing.assert_array_equal(halves[1], positive / 2)
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


def test_what_no_metric_asks_for_changes_none() -> None:
    """AUROC and TPR alone are those of the whole table, however little of the rates is
    looked at first.
    """
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(size=900), np.repeat([1, 0], 450)
    weights = rng.integers(0, 3, (20, 900))
    # None of the negatives that score high
    high = np.argsort(-scores)[:600]
    weights[:7, high] *= labels[high]
    whole = weighted_statistics(scores, labels, weights, (0.001, 0.01, 0.9))
    for limit in (0.001, 0.01, 0.9):
        alone = weighted_statistics(scores, labels, weights, (limit,), precision=False)
        assert sorted(alone) == ["auroc", f"tpr_at_fpr_{limit:g}"]
        for name, values in alone.items():
            assert values.tobytes() == whole[name].tobytes()
    assert weighted_auroc(scores, labels, weights).tobytes() == whole["auroc"].tobytes()


def test_two_orders_with_as_many_wins_have_the_same_auroc_to_the_last_bit() -> None:
    """Else rounding would decide on which side of 0 their difference lies."""
    labels = np.tile([1, 0], 21)
    one, other = np.arange(42.0), np.arange(42.0)
    # One positive rises above its neighbour, another falls below its own
    other[[4, 5, 10, 9]] = one[[5, 4, 9, 10]]
    weights = np.ones((1, 42), dtype=int)
    first, second = (weighted_statistics(s, labels, weights)["auroc"] for s in (one, other))
    assert not np.array_equal(one, other) and first.tobytes() == second.tobytes()
