"""Detection metrics and their bootstrap against scikit-learn, loops and hand-made
cases.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import within
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

from membench.metrics.detection import (
    balanced_accuracy,
    best_threshold,
    detection_metrics,
    dev_split,
    tpr_at_fpr,
)
from membench.metrics.intervals import (
    detection_intervals,
    detection_table,
    mean_intervals,
    weighted_statistics,
)

NAMES = ("auroc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")


def data(
    n: int = 300, seed: int = 0, levels: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels, and groups of up to three that hold one label
    each.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 3
    labels = (groups % 3 == 0).astype(int)
    scores = rng.integers(levels, size=n) / levels + labels * rng.integers(2, size=n) * 0.5
    return scores, labels, groups.astype(str)


def values(scores, labels, groups, **options) -> dict[str, float | None]:
    return {m.name: m.value for m in detection_metrics(scores, labels, groups, **options)}


def loop_auroc(scores, labels) -> float:
    pairs = [(p > q) + (p == q) / 2 for p in scores[labels == 1] for q in scores[labels == 0]]
    return float(np.mean(pairs))


def loop_tpr(scores, labels, limit) -> float:
    rates = [
        ((scores >= t)[labels == 0].mean(), (scores >= t)[labels == 1].mean())
        for t in (*np.unique(scores), np.inf)
    ]
    return max(tpr for fpr, tpr in rates if fpr <= limit)


@pytest.mark.parametrize("seed", range(4))
def test_point_values(seed):
    scores, labels, groups = data(seed=seed)
    found = values(scores, labels, groups)
    assert found["auroc"] == pytest.approx(loop_auroc(scores, labels))
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores))
    assert found["tpr_at_fpr_0.01"] == loop_tpr(scores, labels, 0.01)
    assert found["tpr_at_fpr_0.001"] is None  # 200 negatives
    assert values(-scores, labels, groups)["auroc"] == pytest.approx(1 - found["auroc"])
    assert values(np.exp(scores), labels, groups) == found  # only the order of scores counts
    level = values(np.zeros(300), labels, groups)
    assert (level["auroc"], level["tpr_at_fpr_0.01"], level["balanced_accuracy"]) == (0.5, 0.0, 0.5)
    assert level["average_precision"] == pytest.approx(labels.mean())


def test_tpr_takes_the_last_point_within_the_limit():
    labels = np.array([1] * 4 + [0] * 100)
    negatives = np.arange(100) / 1000
    negatives[:3] = 0.9, 0.5, 0.5  # one false positive at 0.9: exactly 1 %; a tied pair at 0.5: 3 %
    scores = np.array([1.0, 0.9, 0.6, 0.5, *negatives])
    # The 0.5 is tied with two negatives; interpolation would say more
    assert tpr_at_fpr(scores, labels, 0.01) == 0.75
    assert tpr_at_fpr(scores, labels, 0.02) == 0.75
    assert tpr_at_fpr(scores, labels, 0.03) == 1.0
    assert tpr_at_fpr(scores[:-1], labels[:-1], 0.01) is None  # 99 negatives cannot show 1 %


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, y, g: (np.where(np.arange(300) == 5, np.nan, s), y, g), "finite"),
        (lambda s, y, g: (np.where(np.arange(300) == 5, np.inf, s), y, g), "finite"),
        (lambda s, y, g: (s, np.zeros(300), g), "labels"),
        (lambda s, y, g: (s, np.ones(300), g), "labels"),
        (lambda s, y, g: (s, y * 2, g), "labels"),
        (lambda s, y, g: (s[1:], y, g), "299 scores"),
        (lambda s, y, g: (s, y, np.full(300, "one")), "both labels"),
    ],
)
def test_refusals(change, words):
    for function in (detection_metrics, detection_intervals):
        with pytest.raises(ValueError, match=words):
            function(*change(*data()))


def test_development_half():
    scores, labels, groups = data()
    dev = dev_split(labels, groups, 0)
    assert not set(groups[dev]) & set(groups[~dev])
    for label in (0, 1):
        assert len(set(groups[dev & (labels == label)])) == len(set(groups[labels == label])) // 2
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_array_equal(dev_split(labels[order], groups[order], 0), dev[order])
    assert not np.array_equal(dev_split(labels, groups, 1), dev)
    # The two halves differ
    scores = scores + np.where(dev, 0, np.random.default_rng(4).normal(size=300))
    metric = detection_metrics(scores, labels, groups)[-1]
    best = max(
        np.unique(scores), key=lambda t: (balanced_accuracy_score(labels[dev], scores[dev] >= t), t)
    )
    assert metric.threshold == best and metric.n == (~dev).sum()
    assert metric.value == pytest.approx(
        balanced_accuracy_score(labels[~dev], scores[~dev] >= best)
    )
    assert dev_split(np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "c"])) is None
    assert (
        detection_metrics(np.arange(4), np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "c"]))[
            -1
        ].value
        is None
    )


def test_threshold_can_be_never():
    scores, labels = np.array([3.0, 1.0]), np.array([0, 1])
    assert best_threshold(scores, labels) == np.inf
    assert balanced_accuracy(scores, labels, np.inf) == 0.5


def sklearn_weighted(scores, labels, w, limit) -> tuple[float, float, float]:
    fpr, tpr, _ = roc_curve(labels, scores, sample_weight=w, drop_intermediate=False)
    auroc = roc_auc_score(labels, scores, sample_weight=w)
    return auroc, average_precision_score(labels, scores, sample_weight=w), tpr[fpr <= limit][-1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99999), st.integers(1, 6), st.sampled_from([0.01, 0.2, 0.5]))
def test_weighted_statistics_equal_scikit_learn(seed, levels, limit):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(levels, size=20).astype(float), np.arange(20) % 2
    weights = rng.integers(4, size=(3, 20))
    weights[:, :2] = 1  # both classes
    found = weighted_statistics(scores, labels, weights, (limit,))
    for r in range(3):
        got = [found[name][r] for name in ("auroc", "average_precision", f"tpr_at_fpr_{limit:g}")]
        assert got == pytest.approx(sklearn_weighted(scores, labels, weights[r], limit), abs=1e-12)


def test_bootstrap_resamples_groups_of_each_class():
    """Against a plain bootstrap that copies rows: other random numbers, so equal only
    up to its noise.
    """
    scores, labels, groups = data(150)
    rng = np.random.default_rng(5)
    members = {
        label: [np.flatnonzero(groups == g) for g in np.unique(groups[labels == label])]
        for label in (0, 1)
    }
    plain = []
    for _ in range(1000):
        rows = np.concatenate(
            [
                members[label][i]
                for label in (0, 1)
                for i in rng.integers(len(members[label]), size=len(members[label]))
            ]
        )
        plain.append(loop_rank_auroc(scores[rows], labels[rows]))
    found = detection_intervals(scores, labels, groups, resamples=4000)["auroc"]
    assert found == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)
    # Tripling every row inside its group adds nothing: the same draws, the same
    # interval.
    again = detection_intervals(
        np.repeat(scores, 3), np.repeat(labels, 3), np.repeat(groups, 3), resamples=4000
    )["auroc"]
    assert again == pytest.approx(found)
    alone = detection_intervals(
        np.repeat(scores, 3), np.repeat(labels, 3), np.arange(450), resamples=1000
    )["auroc"]
    assert alone[1] - alone[0] < 0.7 * (found[1] - found[0])


def loop_rank_auroc(scores, labels) -> float:
    positive, negative = scores[labels == 1], np.sort(scores[labels == 0])
    below, upto = (
        np.searchsorted(negative, positive, "left"),
        np.searchsorted(negative, positive, "right"),
    )
    return float((below + upto).mean() / 2 / len(negative))


def test_intervals_are_the_same_again_and_quick():
    scores, labels, groups = data(800, levels=500)
    with within(60):
        first = detection_intervals(scores, labels, groups)
    order = np.random.default_rng(2).permutation(800)
    again = detection_intervals(scores[order], labels[order], groups[order])
    assert all(again[name] == pytest.approx(first[name]) for name in first)
    assert detection_intervals(scores, labels, groups, seed=1) != first
    narrow = detection_intervals(scores, labels, groups, level=0.5)
    for name, value in values(scores, labels, groups).items():
        if value is not None and name != "balanced_accuracy":
            low, high = first[name]
            assert low <= value <= high and low <= narrow[name][0] <= narrow[name][1] <= high
    separate = detection_intervals(labels.astype(float), labels, groups)
    fewer = min(len(set(groups[labels == label])) for label in (0, 1))
    assert separate["auroc"] == pytest.approx((0.025 ** (1 / fewer), 1.0))


def test_no_interval_from_one_group():
    scores, labels = np.arange(6.0), np.array([0, 0, 0, 1, 1, 1])
    assert (
        detection_intervals(scores, labels, np.array(["a", "b", "c", "d", "d", "d"]))["auroc"]
        is None
    )
    assert mean_intervals(np.ones((3, 2)), np.array(["a", "a", "a"])) == [None, None]


def test_mean_intervals():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 6, size=40))
    hits = np.stack([rng.random(len(groups)) < 0.3, groups % 2 == 0, np.ones(len(groups))], axis=1)
    found = mean_intervals(hits, groups, resamples=4000)
    plain = []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(40, size=40)])
        plain.append(hits[rows].mean(axis=0))
    np.testing.assert_allclose(found, np.quantile(plain, [0.025, 0.975], axis=0).T, atol=0.025)
    assert found[2] == (1.0, 1.0)
    np.testing.assert_allclose(
        mean_intervals(hits, groups, level=0.5),
        np.quantile(plain, [0.25, 0.75], axis=0).T,
        atol=0.015,
    )
    assert mean_intervals(hits, groups, resamples=4000) == found
    with pytest.raises(ValueError, match="finite"):
        mean_intervals(np.full((2, 1), np.nan), np.array([0, 1]))
    with pytest.raises(ValueError, match="groups"):
        mean_intervals(np.ones((2, 1)), np.array([0, 1, 2]))


def scores_frame() -> pd.DataFrame:
    scores, labels, groups = data()
    rng = np.random.default_rng(3)
    kind = np.where(labels == 1, np.where(groups.astype(int) % 2 == 0, "MV", "TV"), "N")
    source = np.where(labels == 1, "catalogue", rng.choice(["held_out", "singleton"], size=300))
    ids = [f"e{i}" for i in range(300)]
    return pd.DataFrame(
        dict(
            id=ids, score=scores, label=labels, kind=kind, group=groups, source=source, status="ok"
        )
    )


def test_detection_table():
    frame = scores_frame()
    table = detection_table(frame, resamples=200)
    found = {(m.subset, m.name): m for m in table}
    subsets = {
        "all": frame,
        "kind=MV": frame[(frame.label == 0) | (frame.kind == "MV")],
        "kind=TV": frame[(frame.label == 0) | (frame.kind == "TV")],
        "source=held_out": frame[(frame.label == 1) | (frame.source == "held_out")],
        "source=singleton": frame[(frame.label == 1) | (frame.source == "singleton")],
    }
    assert {m.subset for m in table} == set(subsets)
    for subset, part in subsets.items():
        columns = (part.score.to_numpy(), part.label.to_numpy(), part.group.to_numpy())
        points, intervals = values(*columns), detection_intervals(*columns, resamples=200)
        for name in NAMES:
            metric = found[subset, name]
            assert metric.value == points[name] and metric.n == len(part)
            assert (metric.low, metric.high) == (
                (None, None) if metric.value is None else intervals[name]
            )
        accuracy = found[subset, "balanced_accuracy"]
        assert (
            accuracy.value == points["balanced_accuracy"]
            and accuracy.low <= accuracy.value <= accuracy.high
        )
        assert accuracy.low < accuracy.high


def test_detection_table_uses_rows_that_are_ok_only():
    frame = scores_frame()
    failed = frame.copy()
    failed.loc[:29, "status"] = "error"
    failed.loc[:29, "score"] = np.nan
    assert detection_table(failed, resamples=50) == detection_table(frame[30:], resamples=50)
    assert detection_table(failed, resamples=50)[0].n == 270
    failed["status"] = "ok"
    with pytest.raises(ValueError, match="finite"):
        detection_table(failed, resamples=50)
    with pytest.raises(ValueError, match="twice"):
        detection_table(pd.concat([frame, frame]), resamples=50)
