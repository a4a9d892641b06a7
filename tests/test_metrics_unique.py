"""Intervals of AMS and UMS: brute force, edge cases, and coverage by simulation where the expectation is known exactly."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from membench.metrics.extraction import extraction_metrics, ums_intervals
from membench.metrics.intervals import mean_intervals, share_intervals
from membench.metrics.run import run_metrics
from membench.metrics.unique import chao2, unique_interval, zero_limit
from membench.similarity import matches_frame
from membench.types import Band, Space

L2 = Space("l2", False, (Band("high", 0.0, 1.0), Band("low", 1.0, 1.4)), copy=1.0, floor=1.4, source="test")


def by_hand(pairs: list[tuple[int, int]], units: int, generated: int) -> tuple[float, float]:
    """The interval from the docstring's formulas, with sets and loops."""
    owners = defaultdict(set)
    for u, j in pairs:
        owners[j].add(u)
    seen = len(owners)
    once, twice = (sum(len(o) == k for o in owners.values()) for k in (1, 2))
    unseen = (units - 1) / units * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    alone = [sum(o == {u} for o in owners.values()) for u in range(units)]
    together = max(1, sum(d * d for d in alone) / sum(alone)) if sum(alone) else 1
    q = [1 - (1 - len(o) / units) ** units for o in owners.values()]
    variance = max(seen * (1 - seen / (seen + unseen)) * together, sum(x * (1 - x) for x in q))
    half = 1.959963984540054 * variance**0.5
    share = 1 - 0.025 ** (1 / units)
    return max(0, (seen - half) / generated), max((seen + half) / generated, seen / generated + share)


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_from_the_formulas(seed):
    rng = np.random.default_rng(seed)
    units, hits, kinds = int(rng.integers(2, 30)), int(rng.integers(1, 60)), int(rng.integers(1, 40))
    unit, image = rng.integers(units, size=hits), rng.integers(kinds, size=hits) * 7
    found = unique_interval(unit, image, units, 3 * units)
    assert found == pytest.approx(by_hand(list(zip(unit.tolist(), image.tolist(), strict=True)), units, 3 * units), abs=1e-9)


def test_chao2_by_hand():
    assert chao2(np.array([1, 1, 1, 2, 5]), 10) == 5 + 0.9 * 9 / 2
    assert chao2(np.array([1, 1, 1, 4]), 10) == 4 + 0.9 * 3 * 2 / 2  # bias-corrected
    assert chao2(np.array([3, 4]), 10) == 2 and chao2(np.array([], int), 10) == 0


def test_an_interval_is_never_without_width():
    none = np.zeros(0, int)
    assert unique_interval(none, none, 40, 80) == (0.0, zero_limit(40))
    assert zero_limit(40) == pytest.approx(1 - 0.025 ** (1 / 40))
    same = unique_interval(np.arange(40), np.zeros(40, int), 40, 40)  # one picture, every time: Chao2 finds none missing
    assert same == pytest.approx((1 / 40, 1 / 40 + zero_limit(40)))
    assert unique_interval(none, none, 1, 5) is None


def images(p: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Which training image each of n independent images copies; len(p): none."""
    return rng.choice(len(p) + 1, size=n, p=np.append(p, max(0.0, 1 - p.sum())))


WORLDS = {
    "geometric": 0.3 * 0.97 ** np.arange(150) * 0.03 / (1 - 0.97**150),
    "zipf": 0.3 / np.arange(1, 501) / (1 / np.arange(1, 501)).sum(),
    "20 expected": np.full(5000, 20 / 5000 / 400),
    "5 expected": np.full(500, 5 / 500 / 400),
    "half a copy expected": np.full(50, 0.5 / 50 / 400),
    "5 often": np.full(5, 0.01),
    "equal": np.full(200, 0.3 / 200),
}


@pytest.mark.parametrize("world", WORLDS)
def test_coverage_of_independent_images(world):
    """300 runs of 400 images; UMS is known: sum_j 1 - (1 - p_j)^N, over N. The last three are too wide, as the docstring says."""
    p, n, rng = WORLDS[world], 400, np.random.default_rng(1)
    truth = (1 - (1 - p) ** n).sum() / n
    held = []
    for _ in range(300):
        drawn = images(p, n, rng)
        hit = np.flatnonzero(drawn < len(p))
        low, high = unique_interval(hit, drawn[hit], n, n)
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= (1.0 if world in ("half a copy expected", "5 often", "equal") else 0.99)


@pytest.mark.parametrize(("pictures", "share"), [(5000, 0.2), (300, 0.3)])
def test_coverage_of_groups_that_hit_several_images(pictures, share):
    """A group that copies shows 1 to 10 of the pictures: each is hit by a group with probability share E[k] / pictures."""
    groups, sizes, rng = 200, np.array([1, 1, 1, 2, 5, 10]), np.random.default_rng(2)
    truth = pictures * (1 - (1 - share * sizes.mean() / pictures) ** groups) / (10 * groups)
    held = []
    for _ in range(300):
        hit = np.flatnonzero(rng.random(groups) < share)
        shown = [rng.choice(pictures, rng.choice(sizes), replace=False) for _ in hit]
        low, high = unique_interval(np.repeat(hit, [len(s) for s in shown]), np.concatenate(shown), groups, 10 * groups)
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.99


def frame(best: list[tuple[int, float]]) -> pd.DataFrame:
    """One match an image: (training image, distance)."""
    return matches_frame(np.arange(len(best)), np.array([j for j, _ in best]), np.array([d for _, d in best]), higher_is_closer=False)


def test_groups_are_the_units():
    """Two images of one group that hit the same picture are one incidence."""
    matches = frame([(3, 0.5), (3, 0.5), (4, 0.5), (5, 1.2), (6, 1.2), (7, 1.2)])
    groups = np.array(["a", "a", "a", "b", "c", "c"])
    every, nearest = ums_intervals(matches, 6, L2, 1.0, groups)
    assert every == pytest.approx(by_hand([(0, 3), (0, 4)], 3, 6)) and nearest == (every[0], min(1, every[1]))
    assert ums_intervals(matches, 6, L2, 2.0, groups)[0] is None  # beyond the floor
    with pytest.raises(ValueError, match="groups"):
        ums_intervals(matches, 6, L2, 1.0, groups[:4])


def test_every_ums_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    matches = frame(list(zip(rng.integers(9, size=60).tolist(), rng.uniform(0.6, 1.6, 60).tolist(), strict=True)))
    rows = extraction_metrics(matches, 60, L2, groups=np.arange(60) // 4)
    found = [r for r in rows if r.name.startswith(("ums", "ams"))]
    assert len(found) == 3 * 5
    assert all(r.low is not None and 0 <= r.low <= r.value <= r.high and r.low < r.high for r in found)
    assert all(r.high <= 1 for r in found if not r.name.startswith("ums_c"))
    assert all(r.low is None for r in extraction_metrics(matches, 60, L2))


def test_ams_of_none_and_of_all_is_exact_over_groups():
    hits, groups = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 1], [0, 1, 0]], bool), np.array([0, 0, 1, 2])
    none, every, some = share_intervals(hits, groups)
    assert none == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert every == (pytest.approx(0.025 ** (1 / 3)), 1.0)
    assert some == mean_intervals(hits[:, 2:], groups)[0]
    assert share_intervals(hits, np.zeros(4)) == [None] * 3


def run_of(prompts: list[str | None], scores: pd.DataFrame, examples: pd.DataFrame | None = None) -> pd.DataFrame:
    n = len(prompts)
    conditions = ["null" if p is None else p for p in prompts]
    samples = pd.DataFrame({"sample_id": [f"s{i}" for i in range(n)], "condition": conditions, "prompt": prompts, "confidence": 0.0})
    matches = frame([(i, 1.2) for i in range(n)]).drop(columns="generated").assign(sample_id=samples.sample_id)
    return run_metrics(scores, samples, matches, L2, evaluations=10, examples=examples)


def test_an_extraction_without_scores():
    """Images of a prompt are one unit, unconditional ones a unit each; the kinds come from the examples, if they are given."""
    scores = pd.DataFrame({"id": [], "score": [], "label": [], "kind": [], "group": [], "source": [], "status": [], "png_bits": []})
    high = lambda m: m[(m.metric == "ams_cumulative") & m.band.isna() & (m.subset == "all")].high.iloc[0]  # noqa: E731
    prompts = run_of(["a", "a", "b", "b", "c", "c"], scores)
    assert high(prompts) == pytest.approx(zero_limit(3)) and set(prompts.subset) == {"all"}
    unconditional = run_of([None] * 6, scores)
    assert high(unconditional) == pytest.approx(zero_limit(6)) and set(unconditional.subset) == {"all", "kind=unconditional"}
    examples = pd.DataFrame({"id": ["a", "b", "c"], "group": ["g", "g", "h"], "kind": ["MV", "MV", "N"]})
    told = run_of(["a", "a", "b", "b", "c", "c"], scores, examples)
    assert high(told) == pytest.approx(zero_limit(2)) and set(told.subset) == {"all", "kind=MV", "kind=N"}
