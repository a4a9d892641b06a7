"""What must hold of AMS, UMS, AUROC and TPR whatever the data: hypothesis, with ties
and with values on the edges of bands.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from membench.metrics.detection import detection_metrics, tpr_at_fpr
from membench.metrics.extraction import ams, extraction_metrics, rarefaction, ums, ums_nearest
from membench.metrics.regions import far_edge
from membench.metrics.unique import chao1, chao1_interval
from membench.similarity.search import matches_frame
from membench.types import Band, Space

SSCD = Space(
    "sscd",
    True,
    (Band("low", 0.4, 0.5), Band("mid", 0.5, 0.6), Band("high", 0.6, 1.0)),
    copy=0.5,
    floor=0.2,
    source="test",
)
L2 = Space(
    "l2",
    False,
    (Band("high", 0.0, 0.5), Band("mid", 0.5, 0.7), Band("low", 0.7, 0.9)),
    copy=0.5,
    floor=1.2,
    source="test",
)
EDGES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0, 1.2)
SPACES = st.sampled_from([SSCD, L2])
VALUES = sorted(
    {
        *EDGES,
        *(
            float(np.nextafter(np.float32(e), np.float32(far)))
            for e in EDGES[1:-1]
            for far in (0, 2)
        ),
        0.45,
        0.55,
        0.65,
        0.8,
    }
)
LIMITS = st.one_of(st.sampled_from(EDGES), st.floats(0, 1.2))


@st.composite
def stored(draw, space: Space):
    """Every pair of up to 6 x 4 images up to the floor, and the nearest of each; values
    on edges and next to them; and n.
    """
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    value = st.sampled_from([v for v in VALUES if v <= 1 or not space.higher_is_closer])
    values = np.array(draw(st.lists(value, min_size=n * m, max_size=n * m)))
    i, j = np.indices((n, m)).reshape(2, -1)
    frame = matches_frame(i, j, values, higher_is_closer=space.higher_is_closer)
    floor = np.float32(space.floor)
    near = frame["similarity"] >= floor if space.higher_is_closer else frame["similarity"] <= floor
    return frame[near | (frame["rank"] == 0)], n


@settings(max_examples=40, deadline=None)
@given(st.data(), SPACES, LIMITS, LIMITS)
def test_cumulative_scores_are_monotone_in_the_threshold(data, space, one, other):
    frame, n = data.draw(stored(space))
    strict, wide = sorted((one, other), reverse=space.higher_is_closer)
    for score in (ams, ums, ums_nearest):
        if score is not ums or (
            wide >= space.floor if space.higher_is_closer else wide <= space.floor
        ):
            assert score(frame, n, space, strict) <= score(frame, n, space, wide)


@settings(max_examples=40, deadline=None)
@given(st.data(), SPACES)
def test_adjacent_bands_add_up_to_the_cumulative_ams(data, space):
    """And UMS does not: a training image may be met in several bands, but in one at
    least.
    """
    frame, n = data.draw(stored(space))
    shares, unique = [], []
    for band in space.bands[::-1] if space.higher_is_closer else space.bands:  # the nearest first
        shares.append(ams(frame, n, space, band))
        unique.append(ums(frame, n, space, band))
        far = far_edge(space, band)
        # [0, far): half-open
        up_to = (
            far if space.higher_is_closer else float(np.nextafter(np.float32(far), np.float32(0)))
        )
        assert sum(shares) == pytest.approx(ams(frame, n, space, up_to))
        assert max(unique) <= ums(frame, n, space, up_to) <= sum(unique) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.data(), SPACES, LIMITS)
def test_the_nearest_alone_never_count_more(data, space, limit):
    frame, n = data.draw(stored(space))
    within = (
        limit
        if (limit >= space.floor if space.higher_is_closer else limit <= space.floor)
        else space.copy
    )
    for region in (*space.bands, within):
        assert ums_nearest(frame, n, space, region) <= min(
            ams(frame, n, space, region), ums(frame, n, space, region)
        )
    assert rarefaction(frame, n, space, [n])[0] == pytest.approx(
        n * ums_nearest(frame, n, space, space.copy)
    )


@settings(max_examples=25, deadline=None)
@given(st.data(), SPACES, st.integers(0, 999))
def test_the_order_of_rows_says_nothing(data, space, seed):
    frame, n = data.draw(stored(space))
    options = {
        "groups": np.arange(n) // 2,
        "evaluations": 7,
        "confidence": np.arange(n) % 3 / 2,
        "resamples": 20,
    }
    mixed = frame.sample(frac=1, random_state=seed)
    assert extraction_metrics(mixed, n, space, **options) == extraction_metrics(
        frame, n, space, **options
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.integers(0, 100),
    st.booleans(),
    st.randoms(),
)
def test_chao1_and_its_interval(counts, more, known, random):
    counts = np.array(counts)
    n = int(counts.sum()) + more if known else None
    value, (low, high) = chao1(counts, n), chao1_interval(counts, n)
    assert len(counts) <= low <= value <= high < np.inf
    assert value <= chao1(counts) and chao1(counts, 10**9) == pytest.approx(chao1(counts))
    narrow = chao1_interval(counts, n, level=0.5)
    assert low <= narrow[0] and narrow[1] <= high
    random.shuffle(counts)
    assert (chao1(counts, n), *chao1_interval(counts, n)) == pytest.approx((value, low, high))


def scored(seed: int, levels: int, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of at most ``levels`` values, so that they tie, and labels, in random
    order; the positives score higher, more or less.
    """
    rng = np.random.default_rng(seed)
    labels = np.append(np.zeros(negatives, int), np.ones(int(rng.integers(1, 30)), int))
    scores = np.floor(
        rng.random(len(labels)) ** np.where(labels == 1, rng.uniform(0.2, 1), 1) * levels
    )
    order = rng.permutation(len(labels))
    return scores[order], labels[order]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99999), st.sampled_from([1, 2, 5, 40, 10**6]), st.integers(1, 300))
def test_auroc_is_the_area_and_turns_with_the_sign(seed, levels, negatives):
    scores, labels = scored(seed, levels, negatives)
    value, turned = (detection_metrics(s, labels, labels)[0].value for s in (scores, -scores))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert value == pytest.approx(auc(fpr, tpr)) and turned == pytest.approx(1 - value, abs=1e-12)
    if levels == 1:
        assert value == 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99999),
    st.sampled_from([1, 2, 5, 40, 10**6]),
    st.integers(1, 300),
    st.sampled_from([0.01, 0.1, 0.5]),
)
def test_tpr_is_the_last_point_of_the_curve_within_the_limit(seed, levels, negatives, limit):
    scores, labels = scored(seed, levels, negatives)
    found = tpr_at_fpr(scores, labels, limit)
    if negatives < 1 / limit:
        assert found is None
        return
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    last = np.flatnonzero(fpr <= limit)[-1]
    assert found == tpr[last]
    # One negative too many reaches this
    allowed = (np.sort(scores[labels == 0])[::-1][: int(limit * negatives) + 1])[-1]
    assert found == (scores[labels == 1] > allowed).mean()
    assert (scores[labels == 0] >= thresholds[last]).mean() <= limit
    if levels == 1:
        assert found == 0


def test_tpr_at_a_thousandth_needs_a_thousand_negatives():
    for negatives, expected in ((999, None), (1000, 1.0)):
        labels = np.append(np.zeros(negatives, int), np.ones(5, int))
        # One negative lies above the positives
        scores = np.append(np.arange(negatives), np.full(5, negatives - 1.5))
        found = {m.name: m.value for m in detection_metrics(scores, labels, labels)}
        assert found["tpr_at_fpr_0.001"] == expected and found["tpr_at_fpr_0.01"] == 1
