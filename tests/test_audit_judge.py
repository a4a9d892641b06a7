"""What an audit calls a copy: never an image of a control, and a number for how sure
that is.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from membench.auditing.estimate import total, without_replacement
from membench.auditing.judge import flag_of, judge, p_values, random_share, rate
from membench.auditing.outcome import returned_table
from membench.auditing.unseen import Callers, exchanged, plain
from membench.metrics.unique import chao1, chao1_interval
from membench.reports.audit_page import _returned
from membench.similarity.l2 import normalised_l2
from membench.similarity.spaces import pixel_space, space_of
from membench.types import Condition

SPACE = pixel_space(16)
COSINE = space_of("sscd", "x")


def images(*rows: tuple) -> pd.DataFrame:
    """Rows of (asked, condition, training, similarity) and, of an unseen caption,
    called.
    """
    full = [(*row, False)[:5] for row in rows]
    frame = pd.DataFrame(full, columns=["asked", "condition", "training", "similarity", "called"])
    frame["similarity"] = frame["similarity"].astype(np.float32)
    return frame.assign(random=frame.asked == "random")


def test_the_published_threshold_stands_where_no_control_reaches_it() -> None:
    found = judge(
        images(("top", "a", 3, 0.9), ("top", "b", 4, 1.01), ("unseen", "u", 5, 1.2)), SPACE
    )
    assert found.threshold == 1.0 and found.tightened == ""
    assert found.returned.training.tolist() == [3]


@pytest.mark.parametrize("control", ["unseen", "mirror"])
def test_no_image_of_a_control_is_a_copy(control: str) -> None:
    """One chance resemblance at 0.8 takes all that is not nearer with it."""
    rows = [(control, f"u{i}", i, 1.4) for i in range(200)]
    found = judge(
        images(("top", "a", 1, 0.79), ("top", "b", 2, 0.8), (control, "u", 9, 0.8), *rows), SPACE
    )
    assert found.threshold < np.float32(0.8)
    assert found.tightened == {"unseen": "unseen captions", "mirror": "mirror"}[control]
    assert found.returned.training.tolist() == [1]
    assert not found.images["copy"][found.images.asked == control].any()
    [told] = found.controls
    assert (told.images, told.within, told.used) == (201, 1, True)


def test_a_similarity_is_tightened_upwards() -> None:
    rows = [("unseen", f"u{i}", i, 0.1) for i in range(50)]
    found = judge(
        images(("top", "a", 1, 0.7), ("top", "b", 2, 0.6), ("unseen", "u", 9, 0.6), *rows), COSINE
    )
    assert found.threshold > np.float32(0.6) and found.returned.training.tolist() == [1]


def test_what_a_rare_word_calls_is_no_false_alarm() -> None:
    """It sets no threshold, and the image counts as given back."""
    found = judge(
        images(("top", "a", 1, 0.9), ("unseen", "u", 2, 0.5, True), ("unseen", "v", 3, 1.3, False)),
        SPACE,
    )
    assert found.threshold == 1.0 and sorted(found.returned.training) == [1, 2]
    assert [c.images for c in found.controls] == [1]


def test_what_a_mirror_returns_too_does_not_count() -> None:
    """A single image: the mirror is a control, and the training image is nobody's."""
    many = [("mirror", f"m{i}", 50 + i, 1.5) for i in range(300)]
    found = judge(
        images(("top", "a", 1, 0.5), ("top", "b", 2, 0.4), ("mirror", "a", 1, 0.9), *many), SPACE
    )
    assert found.suspect == 0 and found.shared == [1]
    assert found.returned.training.tolist() == [2]


def test_a_mirror_that_has_seen_the_data_is_no_control() -> None:
    """Otherwise a contaminated mirror would hide every copy."""
    rows = [("top", f"c{i}", i, 0.5) for i in range(10)]
    mirror = [("mirror", f"c{i}", i, 0.5) for i in range(10)]
    found = judge(images(*rows, *mirror), SPACE)
    assert found.suspect == 10 and found.threshold == 1.0
    assert len(found.returned) == 10 and found.limit is None and not found.controls[0].used


def test_rates_and_their_intervals() -> None:
    """Clopper and Pearson: 3 of 4 is [0.194, 0.994]."""
    rows = [("top", "a", 1, 0.5), ("top", "a", 1, 0.6), ("top", "a", 1, 0.7), ("top", "a", 8, 1.5)]
    found = judge(images(*rows), SPACE)
    row = found.returned.iloc[0]
    assert (row.times, row.asked_times, row.best) == (3, 4, np.float32(0.5))
    assert rate(3, 4) == pytest.approx((0.1941, 0.9937), abs=1e-4)


def test_a_caption_that_was_asked_once_has_no_rate() -> None:
    """It stands there because it returned the image: 1 of 1 could be nothing else."""
    once = [("top", "a", 1, 0.5), ("top", "b", 1, 0.6)]
    twice = [("top", "c", 2, 0.7), ("top", "c", 8, 1.5)]
    material = SimpleNamespace(ids="01234", files="01234", copies=[1] * 5, prompts={})
    audit: Any = SimpleNamespace(
        judgement=judge(images(*once, *twice), SPACE),
        material=material,
        prompts={name: Condition(name, name) for name in "abc"},
    )
    first, second = returned_table(audit).to_dict("records")
    assert (first["times"], first["of"]) == (2, 2)
    assert first["rate"] is first["low"] is first["high"] is None
    assert (second["times"], second["of"], second["rate"]) == (1, 2, 0.5)
    assert (second["low"], second["high"]) == pytest.approx((0.0126, 0.9874), abs=1e-4)
    [table] = _returned({"returned": [first, second], "numbers": {"copies": 2.0}}).tables
    assert [row[3] for row in table.rows] == ["", "50 % [1 %, 99 %]"]
    # audit.json lists the first thousand, returned.csv all
    [table] = _returned({"returned": [first] * 1000, "numbers": {"copies": 5000.0}}).tables
    assert len(table.rows) == 200 and "4,800 more are in returned.csv" in table.note


def test_the_random_group_alone_speaks_for_all_captions() -> None:
    rows = [("top", f"t{i}", i, 0.5) for i in range(8)]
    found = judge(images(*rows, ("random", "r1", 1, 0.5), ("random", "r2", 2, 1.5)), SPACE)
    assert random_share(found) == (1, 2)


def test_chao1_counts_what_came_back_once_and_twice() -> None:
    """f1 = 3, f2 = 1: S + (n-1)/n f1² / 2 f2."""
    rows = [("class", f"t{i}", i, 0.5) for i in range(3)]
    rows += [("class", "x", 7, 0.5), ("class", "x", 7, 0.6)]
    found = judge(images(*rows), SPACE)
    value, ends = total(found, 100, 0)
    assert value == pytest.approx(4 + (4 / 5) * 9 / 2) and ends is not None
    assert total(found, 6, 0) == (6, (max(4.0, ends[0]), 6))  # no more than there are
    # The captions of the top were chosen: no fair sample
    top = [("top", *row[1:]) for row in rows]
    assert total(judge(images(*top), SPACE), 100, 50) == (4.0, None)


@pytest.mark.parametrize(("asked", "captions"), [(20, 400), (48, 400), (399, 400), (400, 400)])
def test_captions_that_each_return_their_own_image(asked: int, captions: int) -> None:
    """S / q in closed form; Chao1 said 210 of 20, and 80,000 of all 400."""
    rows = [("random", f"r{i}", i, 0.5) for i in range(asked)]
    value, ends = total(judge(images(*rows), SPACE), 400, captions)
    assert value == pytest.approx(400)
    assert ends is None if asked == captions else asked <= ends[0] <= 400 >= ends[1]


def test_a_small_share_of_the_captions_is_as_if_drawn_with_replacement() -> None:
    counts = np.array([1] * 9 + [2] * 3 + [4])
    value, ends = without_replacement(counts, 100, 10**9)
    assert value == pytest.approx(chao1(counts, 100), rel=1e-4)
    # Chao's variance has (n-1)/n in other places: they agree but for that
    assert ends == pytest.approx(chao1_interval(counts, 100), rel=0.05)


@pytest.mark.parametrize(("owners", "each"), [(400, 1), (100, 1), (50, 2), (20, 5)])
def test_the_interval_holds_a_known_population(owners: int, each: int) -> None:
    """Of 400 captions, ``each`` return each of ``owners`` training images."""
    population = np.full(400, -1)
    population[: owners * each] = np.repeat(np.arange(owners), each)
    rng, held, values = np.random.default_rng(0), 0, []
    for _ in range(300):
        hit = rng.choice(population, 60, replace=False)
        counts = np.unique(hit[hit >= 0], return_counts=True)[1]
        value, ends = without_replacement(counts, 60, 400)
        assert ends is not None
        values.append(value)
        held += np.floor(ends[0]) <= owners <= np.ceil(ends[1])
    assert np.median(values) == pytest.approx(owners, rel=0.12)
    assert held >= 0.9 * 300


def test_without_a_control_there_is_no_limit_of_chance() -> None:
    assert judge(images(("top", "a", 1, 0.5)), SPACE).limit is None
    rows = [("unseen", f"u{i}", i, 1.5) for i in range(36)]
    found = judge(images(("top", "a", 1, 0.5), *rows), SPACE)
    assert found.limit == pytest.approx(1 - 0.025 ** (1 / 36))


def test_p_values() -> None:
    found = p_values(np.array([5.0, 2.0, 0.0]), np.array([1.0, 2.0, 3.0]))
    assert found.tolist() == [0.25, 0.75, 1.0]


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        (20, "all 20"),
        (98, "all 98"),
        (150, "all 150"),
        (199, "all but 1 % of 199"),
        (2899, "all but 1 % of 2,899"),
    ],
)
def test_what_is_flagged_is_above_what_it_is_said_to_be(unseen: int, words: str) -> None:
    """Counted: a score that one, two ... of the unseen captions reach."""
    flag, told = flag_of(unseen)
    null = np.arange(unseen, dtype=float)
    most = int((p_values(null - 0.5, null) <= flag).sum())  # of unseen ones above a flagged score
    assert told == words
    assert most == (0 if "but" not in words else (1 + unseen) // 100 - 1)
    assert most / unseen <= 0.01 and p_values(np.array([unseen + 1.0]), null) <= flag


# ------------------------------------------------------------------------ unseen captions

CAPTIONS = [f"Brand{i % 3} Series{i} {c} rug, Small" for i in range(60) for c in ("red", "navy")]


def test_exchanged_captions_are_new_and_keep_wording() -> None:
    found = exchanged(CAPTIONS, 100, 0)
    assert len(set(found)) == 100 and not {plain(f) for f in found} & {plain(c) for c in CAPTIONS}
    words = {w for c in CAPTIONS for w in c.split()}
    assert all(len(f.split()) == 5 and set(f.split()) <= words for f in found)
    assert found == exchanged(CAPTIONS[::-1], 100, 0) != exchanged(CAPTIONS, 100, 1)
    # Rare words stay as frequent as they are: every caption has its series
    assert all(sum(w.startswith("Series") for w in f.split()) == 1 for f in found)


def test_too_few_words_to_exchange() -> None:
    assert exchanged(["rug"], 5, 0) == [] == exchanged(["rug", "mug"], 5, 0)
    assert len(exchanged(["red rug", "navy mug"], 50, 0)) == 2  # red mug, navy rug


def test_a_rare_word_calls_and_a_common_one_does_not() -> None:
    callers = Callers([[c] for c in CAPTIONS])
    assert callers.calls(
        "Brand2 SERIES7, blue mug", CAPTIONS.index("Brand1 Series7 red rug, Small")
    )
    assert not callers.calls("Brand1 Series8 red rug, Small", 14)


# --------------------------------------------------------------------------- near-duplicates


def test_a_copy_of_any_near_duplicate_is_one_of_its_group() -> None:
    """40 near-duplicates fill no neighbourhood, and the one that was copied need not be
    the one that stands for the group.
    """
    from types import SimpleNamespace

    from membench.auditing.material import _by_pixels

    rng = np.random.default_rng(0)
    others = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    one = rng.integers(60, 196, (1, 8, 8, 3)).astype(np.int64)
    near = np.concatenate([one + k for k in range(-20, 20)]).astype(np.uint8)
    every = np.concatenate([near, others])
    groups = np.array([0] * 40 + list(range(1, 61)))
    material: Any = SimpleNamespace(
        images=lambda: np.concatenate([near[:1], others]), every=lambda: every, group_of=groups
    )
    generated = np.stack([near[39], rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)])
    training, distance = _by_pixels(generated, material)
    assert training[0] == 0 and distance[0] == 0 and distance[1] > 1
    half = (near[39].astype(int) + rng.integers(-2, 3, near[39].shape)).astype(np.uint8)
    plain = normalised_l2(half[None], material.images(), floor=0.0)
    [at], [d] = _by_pixels(half[None], material)
    assert at == 0 and d < 0.1 < plain.similarity.min()


def test_no_fewer_come_back_in_the_end_than_have_come_back() -> None:
    """The most suspicious captions return 50, random ones none, or three: an interval of
    the three would say nothing.
    """
    top = [("top", f"t{i}", i, 0.5) for i in range(50)]
    none = [("random", f"r{i}", 900 + i, 1.4) for i in range(97)]
    assert total(judge(images(*top, *none), SPACE), 1000, 1000) == (50.0, None)
    some = [("random", f"s{i}", 100 + i, 0.5) for i in range(3)]
    found = judge(images(*top, *none, *some), SPACE)
    assert total(found, 1000, 1000) == (53.0, None)
    value, ends = total(found, 1000, 5000)
    assert value == pytest.approx(150) and ends is not None and 53 <= ends[0] < 150 < ends[1]
