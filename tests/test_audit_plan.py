"""How an audit spends its budget: never more than it has, duplicates and suspects
first, each training image once before any twice.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from membench.auditing import work
from membench.auditing.budget import worth
from membench.auditing.material import UNCONDITIONAL
from membench.auditing.plan import images_of_classes, images_of_prompts, paid, ranked, screened
from membench.auditing.settings import Budget
from membench.errors import UserError
from membench.types import Condition, Cost

CAPTIONS = [Condition(f"{i:03d}", f"caption {i}") for i in range(100)]
UNSEEN = [Condition(f"u{i:03d}", f"unseen {i}") for i in range(300)]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("count", [1, 3, 10, 57, 150, 1000])
def test_a_budget_is_kept_and_used(count: int, mirror: bool) -> None:
    images = images_of_prompts(CAPTIONS, UNSEEN, count, 1, 0, mirror=mirror)
    assert 0.75 * count <= len(images) <= count
    asked = [(r.condition.id, r.draw) for r in [*images.own, *images.unseen]]
    assert len(set(asked)) == len(asked)
    if count >= 57:
        assert len(images.random) >= 6 and len(images.unseen) >= 11
        first = {r.condition.id for r in images.own if r.draw == 0}
        assert {r.condition.id for r in images.mirror} == (first if mirror else set())


@pytest.mark.parametrize("count", [0, 1, 6, 39, 40, 200, 1000])
def test_no_more_is_screened_than_is_paid_for(count: int) -> None:
    control, chosen = screened(CAPTIONS * 20, UNSEEN, count)
    assert len(control) + len(chosen) == count and len(chosen) >= len(control)
    assert len(control) == {0: 0, 1: 0, 6: 3, 39: 19, 40: 20, 200: 25, 1000: 125}[count]


def test_a_jvp_of_a_score_is_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(cost=Cost(forwards=7, jvps=1))

    def score(detector: Any, model: Any, conditions: Any, extracted: Any) -> None:
        model.cost += Cost(forwards=2, jvps=3)

    monkeypatch.setattr(work.contract, "score", score)
    asked: Any = SimpleNamespace(detector=None, model=model)
    assert work.price_of_score(asked, UNCONDITIONAL) == 5


def test_classes_in_turn() -> None:
    images = images_of_classes(CAPTIONS[:3], 8, mirror=False)
    assert [(r.condition.id, r.draw) for r in images.top[:4]] == [
        ("000", 0), ("001", 0), ("002", 0), ("000", 1)
    ]  # fmt: skip
    both = images_of_classes([], 9, mirror=True)
    assert len(both.top) == 4 and both.mirror == both.top
    assert {r.condition for r in both.top} == {UNCONDITIONAL}


def test_duplicates_and_scores_in_turn_and_each_image_first_once() -> None:
    """Images 0 and 1 are repeated; 2 has the highest score; 0 has two captions."""
    a, b, c, d, e = CAPTIONS[:5]
    prompts = {a: [0], b: [0], c: [1], d: [2], e: [3]}
    material: Any = SimpleNamespace(prompts=prompts, copies=[40, 7, 1, 1])
    scores = {a.id: 0.2, b.id: 0.3, c.id: 0.1, d.id: 9.0, e.id: 5.0}
    assert ranked(material, scores, 0) == [d, b, e, c, a]
    # Without scores: by copies, then the rest, and last what asks for an image again
    found = ranked(material, {}, 0)
    assert found[0] in (a, b) and found[1] == c and set(found[2:4]) == {d, e}
    assert found[4] in (a, b) and len(found) == 5


def test_a_budget_that_pays_for_nothing() -> None:
    assert paid(40, 20, "40") == 2
    with pytest.raises(UserError, match="19 pays for no image"):
        paid(19, 20, "19")


def test_minutes_are_timed_once_on_each_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a slow device has timed is not what a fast one can do."""
    seconds = {"cpu": 0.5, "cuda:0": 0.001}
    timed: list[str] = []

    def each(model: Any, condition: Condition) -> float:
        timed.append(model.device)
        return seconds[model.device]

    monkeypatch.setattr(work, "seconds_per_evaluation", each)

    def found(device: str, key: str = "k") -> int:
        model: Any = SimpleNamespace(device=device)
        return worth(Budget(10.0, None), tmp_path / "plan.json", key, model, UNCONDITIONAL)

    assert [found("cpu"), found("cpu"), found("cuda:0")] == [1020, 1020, 510_000]
    assert timed == ["cpu", "cuda:0"]
    found("cuda:0", "another audit")
    assert len(timed) == 3
    held = '{"key": "k", "device": "cpu", "evaluations": %s}'
    for odd in ("[" * 100_000, "[]", "", *(held % n for n in ("-1", "true", "NaN", "1e999", "{}"))):
        (tmp_path / "plan.json").write_text(odd)
        assert found("cpu") == 1020, odd[:60]
