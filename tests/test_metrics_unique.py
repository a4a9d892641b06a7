"""Rarefaction, Chao1, and intervals of AMS and UMS: brute force, published examples,
and simulation where the truth is known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from membench.metrics.extraction import extraction_metrics, ums_intervals
from membench.metrics.intervals import mean_intervals, share_intervals
from membench.metrics.table import run_metrics
from membench.metrics.unique import (
    chao1,
    chao1_interval,
    chao2,
    rarefied,
    unique_interval,
    zero_limit,
)
from membench.similarity.search import matches_frame
from membench.types import Band, Space

L2 = Space(
    "l2", False, (Band("high", 0.0, 1.0), Band("low", 1.0, 1.4)), copy=1.0, floor=1.4, source="test"
)


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
    return max(0, (seen - half) / generated), max(
        (seen + half) / generated, seen / generated + share
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_from_the_formulas(seed):
    rng = np.random.default_rng(seed)
    units, hits, kinds = (
        int(rng.integers(2, 30)),
        int(rng.integers(1, 60)),
        int(rng.integers(1, 40)),
    )
    unit, image = rng.integers(units, size=hits), rng.integers(kinds, size=hits) * 7
    found = unique_interval(unit, image, units, 3 * units)
    assert found == pytest.approx(
        by_hand(list(zip(unit.tolist(), image.tolist(), strict=True)), units, 3 * units), abs=1e-9
    )


def test_chao2_by_hand():
    assert chao2(np.array([1, 1, 1, 2, 5]), 10) == 5 + 0.9 * 9 / 2
    assert chao2(np.array([1, 1, 1, 4]), 10) == 4 + 0.9 * 3 * 2 / 2  # bias-corrected
    assert chao2(np.array([3, 4]), 10) == 2 and chao2(np.array([], int), 10) == 0


def test_an_interval_is_never_without_width():
    none = np.zeros(0, int)
    assert unique_interval(none, none, 40, 80) == (0.0, zero_limit(40))
    assert zero_limit(40) == pytest.approx(1 - 0.025 ** (1 / 40))
    # One image, every time: Chao2 finds none missing
    same = unique_interval(np.arange(40), np.zeros(40, int), 40, 40)
    assert same == pytest.approx((1 / 40, 1 / 40 + zero_limit(40)))
    assert unique_interval(none, none, 1, 5) is None


def counts_of(seen: int, once: int, twice: int, total: int) -> np.ndarray:
    """Counts with that many images, singletons, doubletons and copies."""
    rest = seen - once - twice
    counts = np.array(
        [1] * once + [2] * twice + [3] * (rest - 1) + [total - once - 2 * twice - 3 * (rest - 1)]
    )
    assert counts[-1] > 2 and counts.sum() == total
    return counts


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [
        # The spiders of iNEXT's vignette (Hsieh, Ma & Chao 2016): girdled and logged
        # trees; with (n-1)/n.
        (counts_of(26, 12, 4, 168), 168, (43.893, 30.511, 96.971)),
        (counts_of(37, 14, 4, 252), 252, (61.403, 43.502, 128.583)),
        # EstimateS, which rounds to two digits and leaves (n-1)/n out; the examples of
        # scikit-bio's tests.
        (np.array([0, 1, 1, 4, 2, 5, 2, 4, 1, 2]), None, (10.5, 9.17, 21.89)),
        (np.array([0, 1, 1, 4, 5]), None, (5, 4.08, 17.27)),  # no doubletons
    ],
)
def test_chao1_of_published_examples(counts, n, expected):
    assert (chao1(counts, n), *chao1_interval(counts, n)) == pytest.approx(
        expected, abs=6e-4 if n else 6e-3
    )


def test_chao1_without_doubletons_by_hand():
    n, once, seen = 20, 3, 5
    a = Fraction(n - 1, n)
    missing = a * once * (once - 1) / 2
    variance = a * once * (once - 1) / 2 + a**2 * once * (2 * once - 1) ** 2 / 4
    variance -= a**2 * once**4 / (4 * (seen + missing))
    spread = math.exp(1.959963984540054 * math.log(1 + variance / missing**2) ** 0.5)
    missing = float(missing)
    wanted = (seen + missing, seen + missing / spread, seen + missing * spread)
    counts = np.array([1, 1, 1, 4, 5])
    assert (chao1(counts, n), *chao1_interval(counts, n)) == pytest.approx(wanted)


def test_chao1_without_singletons_or_with_one():
    e = math.exp
    share, spread = (
        (2 * e(-2) + e(-4) + e(-5)) / 4,
        2 * (e(-2) - e(-4)) + e(-4) - e(-8) + e(-5) - e(-10),
    )
    for n, lost in ((None, 0), (20, (4 * e(-2) + 4 * e(-4) + 5 * e(-5)) ** 2 / 20)):
        counts = np.array([2, 2, 4, 5])
        assert chao1(counts, n) == 4
        assert chao1_interval(counts, n) == pytest.approx(
            (4, (4 + 1.959963984540054 * (spread - lost) ** 0.5) / (1 - share))
        )
    assert chao1(np.array([1, 9])) == 2 and chao1_interval(np.array([1, 9]))[1] > 3
    assert chao1_interval(np.array([9, 9]), 18) == pytest.approx((2, 2), abs=0.05)
    # Where SpadeR's and iNEXT's begins at 63.5, above the estimate
    assert chao1_interval(np.full(60, 2), 1000)[0] == chao1(np.full(60, 2), 1000) == 60
    assert chao1(np.zeros(3, int), 50) == 0 and chao1_interval(np.zeros(3, int), 50) is None
    for wrong in ([-1, 2], [5, 6]):
        with pytest.raises(ValueError, match="10 generated"):
            chao1(np.array(wrong), 10)


@pytest.mark.parametrize("world", ["alike", "many alike", "two kinds", "geometric", "zipf"])
def test_chao1_is_a_lower_bound_of_what_can_be_copied(world):
    """Its mean lies above what was copied and, but for a few per cent, not above the
    truth. Where all are alike it meets the truth.
    """
    p = {
        "alike": np.full(100, 0.002),
        "many alike": np.full(500, 0.0005),
        "two kinds": np.repeat([0.0004, 0.0036], 50),
        "geometric": 0.3 * 0.97 ** np.arange(200) * 0.03,
        "zipf": WORLDS["zipf"],
    }[world]
    rng, n = np.random.default_rng(3), 1000
    runs = [rng.multinomial(n, np.append(p, 1 - p.sum()))[:-1] for _ in range(400)]
    estimate, copied = np.mean([chao1(c, n) for c in runs]), np.mean([(c > 0).sum() for c in runs])
    assert 1.1 * copied < estimate < 1.04 * len(p)
    seen, once, twice = ((math.comb(n, k) * p**k * (1 - p) ** (n - k)).sum() for k in (0, 1, 2))
    bound = len(p) - seen + (n - 1) / n * once**2 / (2 * twice)
    held = np.mean([low <= bound <= high for low, high in (chao1_interval(c, n) for c in runs)])
    assert 0.89 <= held <= 0.99 and estimate == pytest.approx(bound, rel=0.06)
    assert (bound == pytest.approx(len(p), rel=1e-3)) == ("alike" in world)


@pytest.mark.parametrize("copies", [(3, 2, 1, 1), (8,), (1, 1, 1), (4, 4), ()])
def test_rarefaction_over_all_subsets_in_fractions(copies):
    owner = [j for j, c in enumerate(copies) for _ in range(c)]
    owner += [None] * (8 - len(owner))
    for n in range(9):
        subsets = [len({owner[i] for i in s} - {None}) for s in combinations(range(8), n)]
        assert rarefied(np.array(copies, int), 8, [n])[0] == pytest.approx(
            float(Fraction(sum(subsets), len(subsets))), abs=1e-14
        )


@pytest.mark.parametrize("n", [1, 2, 300, 30_000, 50_000])
def test_rarefaction_of_50_000_images_against_integers(n):
    """To 14 digits, also where the chance of a hit is small; log-gammas of 50,000! gave
    7.
    """
    images, counts = 50_000, {1: 1000, 2: 40, 37: 5, 9000: 2}
    drawn = math.comb(images, n)
    exact = sum(k * (1 - Fraction(math.comb(images - c, n), drawn)) for c, k in counts.items())
    found = rarefied(np.repeat(list(counts), list(counts.values())), images, [n])[0]
    assert found == pytest.approx(float(exact), rel=1e-14)


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
    """300 runs of 400 images; UMS is known: sum_j 1 - (1 - p_j)^N, over N.

    The last three are too wide, as the docstring says.
    """
    p, n, rng = WORLDS[world], 400, np.random.default_rng(1)
    truth = (1 - (1 - p) ** n).sum() / n
    held = []
    for _ in range(300):
        drawn = images(p, n, rng)
        hit = np.flatnonzero(drawn < len(p))
        low, high = unique_interval(hit, drawn[hit], n, n)
        held.append(low <= truth <= high)
    assert (
        0.90
        <= np.mean(held)
        <= (1.0 if world in ("half a copy expected", "5 often", "equal") else 0.99)
    )


@pytest.mark.parametrize(("pictures", "share"), [(5000, 0.2), (300, 0.3)])
def test_coverage_of_groups_that_hit_several_images(pictures, share):
    """A group that copies shows 1 to 10 of the images: each is hit by a group with
    probability share E[k] / images.
    """
    groups, sizes, rng = 200, np.array([1, 1, 1, 2, 5, 10]), np.random.default_rng(2)
    truth = pictures * (1 - (1 - share * sizes.mean() / pictures) ** groups) / (10 * groups)
    held = []
    for _ in range(300):
        hit = np.flatnonzero(rng.random(groups) < share)
        shown = [rng.choice(pictures, rng.choice(sizes), replace=False) for _ in hit]
        low, high = unique_interval(
            np.repeat(hit, [len(s) for s in shown]), np.concatenate(shown), groups, 10 * groups
        )
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.99


def frame(best: list[tuple[int, float]]) -> pd.DataFrame:
    """One match an image: (training image, distance)."""
    return matches_frame(
        np.arange(len(best)),
        np.array([j for j, _ in best]),
        np.array([d for _, d in best]),
        higher_is_closer=False,
    )


def test_groups_are_the_units():
    """Two images of one group that hit the same image are one incidence."""
    matches = frame([(3, 0.5), (3, 0.5), (4, 0.5), (5, 1.2), (6, 1.2), (7, 1.2)])
    groups = np.array(["a", "a", "a", "b", "c", "c"])
    every, nearest = ums_intervals(matches, 6, L2, 1.0, groups)
    assert every == pytest.approx(by_hand([(0, 3), (0, 4)], 3, 6)) and nearest == (
        every[0],
        min(1, every[1]),
    )
    assert ums_intervals(matches, 6, L2, 2.0, groups)[0] is None  # beyond the floor
    with pytest.raises(ValueError, match="groups"):
        ums_intervals(matches, 6, L2, 1.0, groups[:4])


def test_every_ums_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    matches = frame(
        list(
            zip(rng.integers(9, size=60).tolist(), rng.uniform(0.6, 1.6, 60).tolist(), strict=True)
        )
    )
    rows = extraction_metrics(matches, 60, L2, groups=np.arange(60) // 4)
    found = [r for r in rows if r.name.startswith(("ums", "ams"))]
    assert len(found) == 3 * 5
    assert all(
        r.low is not None and 0 <= r.low <= r.value <= r.high and r.low < r.high for r in found
    )
    assert all(r.high <= 1 for r in found if not r.name.startswith("ums_c"))
    assert all(
        r.low is None for r in extraction_metrics(matches, 60, L2) if r.name != "chao1_estimate"
    )


def test_ams_of_none_and_of_all_is_exact_over_groups():
    hits, groups = (
        np.array([[0, 1, 0], [0, 1, 0], [0, 1, 1], [0, 1, 0]], bool),
        np.array([0, 0, 1, 2]),
    )
    none, every, some = share_intervals(hits, groups)
    assert none == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert every == (pytest.approx(0.025 ** (1 / 3)), 1.0)
    assert some == mean_intervals(hits[:, 2:], groups)[0]
    assert share_intervals(hits, np.zeros(4)) == [None] * 3


def run_of(
    prompts: list[str | None], scores: pd.DataFrame, examples: pd.DataFrame | None = None
) -> pd.DataFrame:
    n = len(prompts)
    conditions = ["null" if p is None else p for p in prompts]
    samples = pd.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(n)],
            "condition": conditions,
            "prompt": prompts,
            "confidence": 0.0,
        }
    )
    matches = (
        frame([(i, 1.2) for i in range(n)])
        .drop(columns="generated")
        .assign(sample_id=samples.sample_id)
    )
    return run_metrics(scores, samples, matches, L2, evaluations=10, examples=examples)


def test_an_extraction_without_scores():
    """Images of a prompt are one unit, unconditional ones a unit each; the kinds come
    from the examples, if they are given.
    """
    scores = pd.DataFrame(
        {
            "id": [],
            "score": [],
            "label": [],
            "kind": [],
            "group": [],
            "source": [],
            "status": [],
            "png_bits": [],
        }
    )

    def high(m):
        chosen = (m.metric == "ams_cumulative") & m.band.isna() & (m.subset == "all")
        return m[chosen].high.iloc[0]

    prompts = run_of(["a", "a", "b", "b", "c", "c"], scores)
    assert high(prompts) == pytest.approx(zero_limit(3)) and set(prompts.subset) == {"all"}
    unconditional = run_of([None] * 6, scores)
    assert high(unconditional) == pytest.approx(zero_limit(6)) and set(unconditional.subset) == {
        "all",
        "kind=unconditional",
    }
    examples = pd.DataFrame(
        {"id": ["a", "b", "c"], "group": ["g", "g", "h"], "kind": ["MV", "MV", "N"]}
    )
    told = run_of(["a", "a", "b", "b", "c", "c"], scores, examples)
    assert high(told) == pytest.approx(zero_limit(2)) and set(told.subset) == {
        "all",
        "kind=MV",
        "kind=N",
    }
