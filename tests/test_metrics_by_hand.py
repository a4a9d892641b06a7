"""Metrics where a value lies on a limit, each by hand: what is on the limit counts, and
for what.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from boards import L2, scores_of
from frames import samples

from membench.metrics.detection import balanced_accuracy, dev_split, tpr_at_fpr
from membench.metrics.intervals import (
    class_weights,
    detection_table,
    percentiles,
    share_intervals,
    weighted_statistics,
)
from membench.metrics.mirror import mirrored_over_seeds, over_control
from membench.metrics.table import extraction_table
from membench.seeds import seed_of


def frame_of(scores: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Each example a group of its own."""
    names = [f"e{i}" for i in range(len(scores))]
    return pd.DataFrame(
        {"id": names, "score": scores, "label": labels, "kind": "x1", "group": names}
    ).assign(source="half", status="ok")


def test_a_point_on_a_straight_part_of_the_roc_counts() -> None:
    """A positive and a negative tie at each score, so the curve is the diagonal."""
    scores, labels = np.repeat(np.arange(100.0), 2), np.tile([0, 1], 100)
    assert tpr_at_fpr(scores, labels, 0.25) == 0.25


def test_the_development_half_is_rounded_down() -> None:
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array(list("abcdef"))
    dev = dev_split(labels, groups)
    assert dev is not None and [dev[labels == k].sum() for k in (0, 1)] == [1, 1]


def test_a_score_at_the_threshold_is_called_memorized() -> None:
    assert balanced_accuracy(np.array([1.0, 2.0]), np.array([0, 1]), 2.0) == 1.0
    labels = np.arange(40) % 2
    [row] = [m for m in detection_table(frame_of(1.0 * labels, labels)) if "bal" in m.name][:1]
    assert (row.threshold, row.value, row.low, row.high) == (1.0, 1.0, 1.0, 1.0)


def test_balanced_accuracy_and_its_interval_are_of_the_other_half_alone() -> None:
    """The development half is told apart, the other not at all."""
    labels = np.arange(40) % 2
    frame = frame_of(1.0 * labels, labels)
    dev = dev_split(labels, frame.group.to_numpy())
    frame["score"] = np.where(dev, frame.score, 0.5)
    row = next(m for m in detection_table(frame) if m.name == "balanced_accuracy")
    assert (row.threshold, row.value, row.low, row.high, row.n) == (1.0, 0.5, 0.5, 0.5, 20)


def test_every_resample_is_looked_at_up_to_the_limit() -> None:
    """In the second resample the first 100 of 1,000 negatives have no weight, so its
    limit lies far beyond that of the first.
    """
    scores = np.append(np.arange(1000.0), [999.5, 895.5, 885.5, 100.5])
    labels = np.append(np.zeros(1000, int), np.ones(4, int))
    weights = np.ones((2, 1004), int)
    weights[1, 900:1000] = 0
    found = weighted_statistics(scores, labels, weights, (0.01,))["tpr_at_fpr_0.01"]
    # 1 % is 10 negatives of 1,000, down to 990; and 9 of 900, down to 891
    assert found.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("hit", [False, True])
def test_groups_are_the_units_where_all_rows_say_the_same(hit: bool) -> None:
    [ends] = share_intervals(np.full((12, 1), hit), np.repeat(list("abcd"), 3))
    limit = 1 - 0.025 ** (1 / 4)
    assert ends == pytest.approx((1 - limit, 1.0) if hit else (0.0, limit))


def test_percentiles_lie_between_two_values() -> None:
    assert percentiles(np.array([0.0, 1.0]), 0.5) == (0.25, 0.75)


def test_positives_and_negatives_are_drawn_apart() -> None:
    """As many groups of each: the same draws for both would move them together."""
    labels = np.repeat([0, 1], 50)
    groups = np.array([f"g{i:03d}" for i in range(100)])
    weights = np.concatenate(list(class_weights(labels, groups, 200, 0)))
    assert (weights[:, :50].sum(axis=1) == 50).all() and (weights[:, 50:].sum(axis=1) == 50).all()
    drawn = (weights[:, :50].ravel(), weights[:, 50:].ravel())
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.05


def test_the_confidence_of_an_image_is_its_own() -> None:
    """Of 20 images the first ten are copies, and the most confident."""
    names = [f"c{i}" for i in range(20)]
    images = samples(*(f"{name}/0" for name in names)).assign(confidence=-np.arange(20.0))
    matches = pd.DataFrame(
        {"sample_id": images.sample_id, "training": 0, "rank": 0}
        | {"similarity": np.repeat([0.5, 1.2], 10)}
    )
    found = extraction_table(images, matches, L2, scores_of(names), evaluations=0)
    assert [m.value for m in found if m.name == "precision_at_10"] == [1.0]


@pytest.mark.parametrize("model", ["a", "b"])
def test_an_example_that_failed_in_one_seed_is_left_out_of_all(model: str) -> None:
    """Without its score there is none to rank it by."""
    labels = np.arange(12) % 2
    a = frame_of(np.arange(12.0), labels)
    b = frame_of(-np.arange(12.0), labels).assign(label=1 - labels)

    def failed(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.assign(status=np.where(frame.id == "e10", "failed", "ok"))
        return frame.assign(score=frame.score.where(frame.status == "ok"))

    other = (failed(a), b) if model == "a" else (a, failed(b))
    found = mirrored_over_seeds([(a, b), other], resamples=10)
    rest = [frame[frame.id != "e10"] for frame in (a, b)]
    wanted = mirrored_over_seeds([tuple(rest), tuple(rest)], resamples=10)  # type: ignore[list-item]
    pd.testing.assert_frame_equal(found, wanted)
    assert found.n.tolist() == [11, 11] and not found.mirrored.isna().any()


@pytest.mark.parametrize("memorized", [100, 99])
def test_each_model_of_a_pair_has_a_tpr_of_its_own(memorized: int) -> None:
    """Half of what a has memorized lies above all that b has, and four fifths of what b
    has above all that a has; the negatives of b are what a has memorized.
    """
    labels = np.repeat([0, 1], [150, memorized])
    of_a = np.where(labels == 0, 0.5, np.append(np.zeros(150), np.arange(memorized) < 50))
    of_b = np.where(labels == 1, 0.5, np.append(np.arange(150) < 120, np.zeros(memorized)))
    a, b = frame_of(of_a, labels), frame_of(of_b, labels).assign(label=1 - labels)
    found = mirrored_over_seeds([(a, b)], resamples=10)[["tpr", "tpr_a", "tpr_b"]].to_numpy()[0]
    enough = memorized == 100  # 99 negatives cannot show 1 %
    wanted = (0.65, 0.5, 0.8) if enough else (np.nan, 50 / 99, np.nan)
    assert found == pytest.approx(wanted, nan_ok=True)


def test_a_difference_to_the_control_is_of_each_seed() -> None:
    """AUROC 1 and 0.75 of the model, 0.5 and 0 of its control."""
    labels = np.repeat([0, 1], 2)
    scores = [(0, 1, 2, 3), (1, 1, 1, 1), (0, 2, 1, 3), (2, 3, 0, 1)]
    runs = [frame_of(np.array(of, dtype=float), labels) for of in scores]
    value, low, high = over_control([(runs[0], runs[1]), (runs[2], runs[3])], resamples=50)
    assert value == pytest.approx((0.5 + 0.75) / 2) and low < value < high <= 1

    # The control ranks better than the model: below 0
    worse = over_control([(runs[3], runs[0])] * 2, resamples=50)
    assert worse[0] == -1 and -1 <= worse[1] <= worse[2] < 1


def test_a_seed_is_of_words_and_not_of_their_letters() -> None:
    digest = hashlib.sha256(b"0\x1fa\x1f12").digest()
    assert seed_of(0, "a", 12) == int.from_bytes(digest[:8], "little") // 2 < 2**63
    assert len({seed_of("ab", "c"), seed_of("a", "bc"), seed_of("abc")}) == 3
