"""The numbers and sentences of an audit, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_audit_judge import SPACE, images

from membench.auditing import material
from membench.auditing.estimate import total, without_replacement
from membench.auditing.judge import judge
from membench.auditing.material import comparison
from membench.auditing.plan import images_of_classes, paid
from membench.auditing.unseen import Callers
from membench.auditing.verdict import answer, numbers_of, ranking, sentences
from membench.metrics.unique import chao1_interval
from membench.reports.audit_page import _controls

NOTHING = 1.5  # of normalised L2: no copy


def audit_of(mirror: list[tuple]) -> Any:
    """Six captions were asked. Of 20 unseen captions none returns an image, and of one
    more a rare word calls image 5.
    """
    asked = [
        ("top", "c0", 1, 0.5),
        ("top", "c1", 9, NOTHING),
        ("top", "c2", 2, 0.6),
        ("top", "c3", 3, 0.8),
        ("random", "c5", 4, 0.7),
        ("random", "c5", 4, 0.7),
        ("random", "c6", 9, NOTHING),
    ]
    unseen = [("unseen", f"u{i}", 9, NOTHING) for i in range(20)]
    frame = images(*asked, *unseen, ("unseen", "u20", 5, 0.4, True), *mirror)
    frame.loc[3, "random"] = True  # of the top and of the random ones
    scores = {"c0": 500.0, "c1": 19.5, "c2": 19.0, "c3": 1.0, "c4": float("nan")}
    return SimpleNamespace(
        judgement=judge(frame, SPACE),
        material=SimpleNamespace(ids=list(range(20)), prompts=dict.fromkeys(range(10))),
        scores=scores | {f"c{i}": 0.0 for i in range(5, 10)},
        unseen_scores={f"u{i}": float(i) for i in range(20)} | {"u20": 1000.0},
        model=SimpleNamespace(kind="text"),
    )


ONE = [("mirror", "c3", 3, 0.9), ("mirror", "c1", 9, 1.4), ("mirror", "c2", 9, 1.4)]


def test_what_came_back_is_counted_once_and_without_what_the_mirror_returns() -> None:
    """Images 1, 2, 4 and 5; image 3 comes back from the mirror, too."""
    audit = audit_of(ONE)
    found = numbers_of(audit)
    assert (found["copies"], found["captions"]) == (4, 4)
    assert found["share"] == 1 / 3  # c5 of c3, c5 and c6
    assert found["share_high"] == pytest.approx(0.9057, abs=1e-4)  # Clopper and Pearson
    assert answer(audit) == (
        "4 of 20 training images came back, from 4 captions, in 8 images that were generated."
    )
    assert audit.judgement.limit == pytest.approx(1 - 0.025 ** (1 / 23))
    text = " ".join(sentences(audit))
    assert "Of 3 captions taken at random, 1 returned a copy: 33.3 % [0.8, 90.6]" in text
    assert "none of 23 images of the controls is" in text


def test_a_copy_that_the_mirror_returns_too_is_not_told_as_none() -> None:
    """Image 3 alone is copied, and it comes back from the mirror."""
    audit = audit_of([])
    for asked, told in (
        ([("top", "c3", 3, 0.8), ("top", "c1", 9, NOTHING)], "1 training image comes back"),
        ([("top", "c3", 3, 0.8), ("top", "c0", 1, 0.5)], "1 more training image comes back"),
    ):
        audit.judgement = judge(images(*asked, *ONE), SPACE)
        assert f"{told} from the mirror, too" in " ".join(sentences(audit))
        none = (
            "none is a copy of one of the 20 training images that the mirror does not return, too."
        )
        assert (none in answer(audit)) == ("more" not in told)


def test_captions_without_a_score_leave_no_ranking() -> None:
    audit = audit_of(ONE)
    audit.scores = dict.fromkeys(audit.scores, float("nan"))
    assert not any("score above" in line for line in sentences(audit))
    told = {"controls": [], "ranking": ranking(audit)}
    told["similarity"] = {"published": 1.0, "threshold": 1.0, "space": "l2"}
    assert not _controls(told).tables


def test_flagged_captions_score_above_every_unseen_one() -> None:
    """c0 and c1; c2 ties with the highest that no rare word calls, and c4 has no score."""
    assert ranking(audit_of(ONE)) == {
        "scored": 9,
        "unseen": 20,
        "above": "all 20",
        "flagged": 2,
        "expected": 0.4,
        "flagged_asked": 2,
        "flagged_returned": 1,
        "others_asked": 4,
        "others_returned": 2,
    }


def test_a_mirror_that_may_have_seen_the_images_is_not_counted_as_a_control() -> None:
    audit = audit_of([*ONE, ("mirror", "c0", 1, 0.9)])
    assert audit.judgement.suspect == 2
    assert "none of 20 images of the controls is" in " ".join(sentences(audit))


def test_one_image_in_a_hundred_makes_a_mirror_suspect() -> None:
    returned = [("mirror", "a", 1, 0.5), ("mirror", "b", 2, 0.5)]
    for others, suspect in ((198, 2), (199, 0)):
        rows = [("mirror", f"m{i}", 9, NOTHING) for i in range(others)]
        assert judge(images(*returned, *rows), SPACE).suspect == suspect


def test_of_two_controls_the_nearest_image_of_either_sets_the_threshold() -> None:
    rows = [("top", "a", 1, 0.75), ("unseen", "u", 8, 0.9), ("mirror", "m", 9, 0.8)]
    found = judge(images(*rows), SPACE)
    assert (found.threshold, found.tightened) == (np.nextafter(np.float32(0.8), 0.0), "mirror")


def test_a_rate_is_of_the_model_s_images_alone() -> None:
    """The mirror was asked with the same caption."""
    rows = [("top", "a", 1, 0.5), ("top", "a", 9, NOTHING), ("mirror", "a", 9, NOTHING)]
    [row] = judge(images(*rows), SPACE).returned.itertuples()
    assert (row.times, row.asked_times, row.conditions) == (1, 2, 1)


def test_the_variance_is_that_of_the_delta_method_by_differences() -> None:
    """Of f1, f2 and those returned more often, drawn from as many as the estimate says."""
    asked, captions = 100, 400
    frequencies = np.array([9.0, 3.0, 2.0])

    def value(f: np.ndarray) -> float:
        n, q = asked, asked / captions
        return float(f.sum() + f[0] ** 2 / (n / (n - 1) * 2 * f[1] + q / (1 - q) * f[0]))

    steps = 1e-5 * np.eye(3)
    slopes = np.array([value(frequencies + s) - value(frequencies - s) for s in steps]) / 2e-5
    estimate = value(frequencies)
    variance = (slopes**2 * frequencies).sum() - (slopes * frequencies).sum() ** 2 / estimate
    missing = estimate - 14
    spread = np.exp(1.959964 * np.sqrt(np.log(1 + variance / missing**2)))
    found, ends = without_replacement(np.array([1] * 9 + [2] * 3 + [3, 4]), asked, captions)
    assert found == pytest.approx(estimate)
    assert ends == pytest.approx((14 + missing / spread, 14 + missing * spread), rel=1e-5)


def test_a_caption_that_was_not_asked_returns_one_image_at_most() -> None:
    """30 came back, and four were not asked."""
    value, ends = without_replacement(np.ones(30, int), 60, 64)
    assert value == pytest.approx(32) and ends is not None and ends[1] == 34


def test_the_ends_of_an_estimate_are_whole_images() -> None:
    rows = [("class", f"t{i}", i, 0.5) for i in range(3)]
    rows += [("class", "x", 7, 0.5), ("class", "x", 7, 0.6)]
    _, ends = total(judge(images(*rows), SPACE), 1000, 0)
    low, high = chao1_interval(np.array([1, 1, 1, 2]), 5) or (0.0, 0.0)
    assert ends == (max(4.0, np.floor(low)), np.ceil(high)) and ends[1] != np.floor(high)


def test_a_budget_pays_for_whole_images() -> None:
    assert [paid(n, 20, "") for n in (20, 39, 40)] == [1, 1, 2]
    images = images_of_classes([], 1, mirror=True)
    assert len(images) == 1 and not images.mirror


def test_a_word_of_one_caption_in_fifty_is_rare() -> None:
    """Of 100 captions two hold one word, and three another."""
    words = ["twice"] * 2 + ["thrice"] * 3 + ["never"] * 95
    captions = [[f"a plain rug {i} {word}"] for i, word in enumerate(words)]
    callers = Callers(captions)
    assert callers.calls("twice", 0) and not callers.calls("thrice", 2)


@pytest.mark.parametrize(
    ("similarity", "side", "by"),
    [
        ("auto", 128, "l2"),
        ("auto", 129, "sscd"),
        ("l2", 129, "l2"),
        ("sscd", 64, "sscd"),
        ("clip", 129, "clip"),
    ],
)
def test_large_images_are_compared_by_sscd_unless_something_else_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, similarity: str, side: int, by: str
) -> None:
    """With the weights that were fetched: none is named."""
    asked: list[tuple[str, str]] = []

    def load_features(name: str, weights: str, **_: str) -> SimpleNamespace:
        asked.append((name, weights))
        return SimpleNamespace(id=name)

    monkeypatch.setattr(material, "load_features", load_features)
    given: Any = SimpleNamespace(similarity=similarity, similarity_weights="", device="cpu")
    pictures = np.zeros((2, side, side, 3), np.uint8)
    of: Any = SimpleNamespace(every=lambda: pictures, data=SimpleNamespace(hash="d"))
    space, _ = comparison(given, of)
    assert asked == ([] if by == "l2" else [(by, "")])
    assert space.higher_is_closer == (by != "l2")
