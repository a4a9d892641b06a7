"""A score less that of a reference model: the difference, its cost, and a board of its
own.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from linear import LinearModel, told
from memorizer import MODEL

from membench.boards.collect import collect
from membench.detectors.calibrated import Calibrated
from membench.detectors.sharpness import Sharpness
from membench.errors import UserError
from membench.runs.execute import execute_all
from membench.runs.finished import per_example
from membench.runs.job import load_task
from membench.runs.spec import Spec
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import UNLABELLED, Access, Cost

SAMPLING = {"steps": 4, "guidance": 3.0}
PROMPTS = told("1", "2", "3")


def made(sampling: dict[str, Any] = SAMPLING, **options: Any) -> Calibrated:
    return Calibrated(Calibrated.Options(**options), seed=4, sampling=sampling)


def test_it_is_the_difference_and_costs_what_both_cost() -> None:
    model, other = LinearModel(), LinearModel("v_prediction")
    detector = made(detector="sharpness", settings=("draws=2", "squared=true"))
    detector.refer(lambda: other)
    detector.check(model, PROMPTS)
    got = detector.score(model, PROMPTS, {})
    assert model.cost == Cost(forwards=2 * 12, jvps=2 * 12)
    plain = Sharpness(Sharpness.Options(draws=2, squared=True), seed=4, sampling=SAMPLING)
    both = [plain.score(m, PROMPTS, {}) for m in (model, other)]
    assert got == pytest.approx([a - b for a, b in zip(*both, strict=True)], rel=1e-5)
    detector.refer(lambda: model)
    assert detector.score(model, PROMPTS, {}) == [0.0, 0.0, 0.0]


def test_an_example_that_fails_on_either_model_fails(monkeypatch) -> None:
    model, other = LinearModel(), LinearModel()
    detector = made()
    detector.refer(lambda: other)
    other.network.a.data[2] = math.nan  # type: ignore[union-attr]
    found = detector.score(model, PROMPTS, {})
    assert [math.isfinite(value) for value in found] == [True, False, True]


def test_its_access_says_that_a_second_model_is_seen() -> None:
    assert made().access == Access(second_model=True)
    assert made(detector="sharpness").access == Access(gradients=True, second_model=True)


def test_what_cannot_be_calibrated_is_refused_in_one_line() -> None:
    model = tiny_text_model()

    def refusal(detector: Calibrated, other: Any = model) -> str:
        detector.refer(lambda: other)
        with pytest.raises(UserError) as error:
            detector.check(model, PROMPTS)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "caption_case asks no model" in refusal(made(detector="caption_case"))
    assert "flipd scores a prompt by images that it samples" in refusal(made(detector="flipd"))
    assert "the reference model is of states (3, 8, 8), not (4, 4, 4)" in refusal(
        made(), tiny_pixel_model()
    )
    with pytest.raises(ValueError, match="calibrated compares two models, so it cannot be part"):
        made(detector="calibrated")
    with pytest.raises(UserError, match="option of detector cfg_norm"):
        made(settings=("drawz=1",))


def test_a_run_of_two_models_has_a_board_of_its_own(tmp_path) -> None:
    """On the mini profile the reference is the model of the other half."""
    specs = [
        Spec("calibrated", "sd_webster", options=("settings=draws=1",), limit=4),
        Spec("cfg_norm", "sd_webster", options=("draws=1", "images=0"), limit=4),
    ]
    two, one = execute_all(specs, tmp_path, progress=False).runs
    assert two.info["access"]["second_model"] and "second_model" not in one.info["access"]
    assert per_example(two, "forwards") == 2 * per_example(one, "forwards") == 4
    assert two.info["hashes"]["reference"] not in (one.info["hashes"]["weights"], "")
    frame = collect([two, one]).set_index("detector")
    assert frame.weights["calibrated"] != frame.weights["cfg_norm"]
    assert frame.sees["calibrated"] == "second_model" and frame.examples.nunique() == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"control": True}, "--control scores the reference model itself"),
        ({"options": ("reference=somewhere",)}, "reference: .*control_model is for --profile full"),
        ({"task_options": (f"model={MODEL}",)}, "reference: --control and --model exclude each"),
    ],
)
def test_there_must_be_a_second_model(tmp_path, given: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        execute_all([Spec("calibrated", "sd_webster", limit=4, **given)], tmp_path, progress=False)
    assert "\n" not in str(error.value)


def test_what_the_reference_has_seen_is_no_negative(tmp_path) -> None:
    """It would tell the two models apart, not what was memorized from what was not."""
    options = ("detector=loss", "settings=images=0,noises=1")
    specs = [
        Spec("calibrated", "cifar10", options=options, limit=24, task_options=(f"half={half}",))
        for half in "ab"
    ]
    for own, other, spec in zip("ab", "ba", specs, strict=True):
        [run] = execute_all([spec], tmp_path, progress=False).runs
        scores = run.scores
        assert set(scores.source) == {"a", "b", "held_out"}
        assert set(scores.label[scores.source == own]) == {1}
        assert set(scores.label[scores.source == other]) == {UNLABELLED}
        assert set(scores.label[scores.source == "held_out"]) == {0}
        counted = run.metrics[(run.metrics.metric == "auroc") & (run.metrics.subset == "all")].n
        assert counted.tolist() == [(scores.source != other).sum()]


def test_on_captions_that_holds_for_singletons_too() -> None:
    task = load_task(Spec("calibrated", "sd_webster"))
    saw = {(e.source, e.kind) for e in task.examples if e.condition.id in task.control_saw}
    assert saw == {("mirror", "MV"), ("mirror", "RV"), ("mirror", "TV"), ("held_out", "N")}
    rest = {(e.source, e.kind) for e in task.examples if e.condition.id not in task.control_saw}
    assert not rest & saw and ("held_out", "held_out") in rest
