"""Detectors inside another: what they are is part of the run's key, and what cannot be
held is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pixel_task import PixelTask
from pixel_task import model as pixel_model

from membench import registry
from membench.detector import Detector, prepares
from membench.detectors.adaptive import Adaptive
from membench.detectors.calibrated import Calibrated
from membench.detectors.combined import Combined
from membench.detectors.filter import Filter
from membench.detectors.within import suits
from membench.errors import UserError
from membench.options import parse_options
from membench.runs.execute import execute_all
from membench.runs.job import open_job
from membench.runs.spec import Spec, held, key_parts, plugin_code, source_of
from membench.storage.hashing import content_key
from membench.testing import tiny_text_model
from membench.types import Condition

SAMPLING = {"steps": 3, "guidance": 2.0, "examples": "prompts"}
HOLDERS = [
    (Filter, {"scorer": "brightness"}),
    (Calibrated, {"detector": "brightness"}),
    (Adaptive, {"detector": "brightness", "rounds": 3}),
    (Combined, {"detectors": ("brightness", "cfg_norm")}),
]
NAMES = {Adaptive: "adaptive", Filter: "filter", Calibrated: "calibrated", Combined: "combined"}


@dataclass(frozen=True)
class BrightnessOptions:
    power: int = 1


class Brightness(Detector):
    """A detector of somebody's own."""

    Options = BrightnessOptions
    version = 1

    def score(self, model: Any, conditions: Sequence[Condition], extracted: Any) -> list[float]:
        return [0.0] * len(conditions)


@pytest.fixture(autouse=True)
def plugged() -> str:
    return registry.detectors().of(Brightness)


def made(cls: type[Detector], **options: Any) -> Detector:
    return cls(cls.Options(**options), seed=0, sampling=SAMPLING)


def key(cls: type[Detector], **options: Any) -> str:
    task = PixelTask().load("mini")
    return content_key(key_parts(Spec(NAMES[cls], "pixels"), made(cls, **options), task, ["a"]))


@pytest.fixture
def pixels() -> str:
    return registry.tasks().of(PixelTask)


@pytest.mark.parametrize(("cls", "options"), HOLDERS)
def test_a_run_is_of_the_version_that_it_holds(
    cls: type[Detector], options: dict[str, Any], pixels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(cls, **options)
    assert key(cls, **options) == before
    settings = "brightness.power=2" if cls is Combined else "power=2"
    assert key(cls, **options, settings=(settings,)) != before
    monkeypatch.setattr(Brightness, "version", 2)
    assert key(cls, **options) != before


@pytest.mark.parametrize(("cls", "options"), HOLDERS)
def test_the_code_of_a_plug_in_that_it_holds_is_known(
    cls: type[Detector], options: dict[str, Any], pixels: str
) -> None:
    name = NAMES[cls]
    detector = made(cls, **options)
    code = plugin_code(Spec(name, pixels), detector)["plugin_code"]
    mine = registry.detectors().get("brightness")
    assert code["held brightness"] == mine.code and len(mine.code) == 64
    assert "detector" not in code and "held cfg_norm" not in code  # they ship
    assert source_of(Spec(name, pixels), detector)["held brightness"] == mine.source
    assert "brightness" in dict(held(detector))


@pytest.mark.parametrize(("cls", "options"), HOLDERS)
def test_what_is_held_has_the_preset_of_the_profile(
    cls: type[Detector], options: dict[str, Any], pixels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run of it has, under what is set."""
    monkeypatch.setattr(Brightness, "presets", {"mini": {"power": 5}})

    def power(profile: str, *settings: str) -> int:
        sampling = {**SAMPLING, "profile": profile}
        detector = cls(cls.Options(**options, settings=settings), seed=0, sampling=sampling)
        return detector.holds["brightness"].options.power

    own = "brightness.power=2" if cls is Combined else "power=2"
    assert (power("mini"), power("full"), power("mini", own)) == (5, 1, 2)


def test_a_run_tells_what_it_holds_its_profile(
    pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "presets", {"mini": {"power": 5}})
    spec = Spec("filter", pixels, options=("scorer=brightness",))
    with ExitStack() as stack:
        job = open_job(spec, PixelTask().load("mini"), tmp_path, stack, {}, False)
    assert job.detector.holds["brightness"].options.power == 5
    assert key_parts(spec, job.detector, job.task, ["a"])["holds"]["brightness"]["options"] == {
        "power": 5
    }


@pytest.mark.parametrize("only", [True, False])
def test_a_run_tells_whether_it_scores(pixels: str, tmp_path: Path, only: bool) -> None:
    with ExitStack() as stack:
        spec = Spec("random", pixels, extract_only=only)
        job = open_job(spec, PixelTask().load("mini"), tmp_path, stack, {}, False)
    assert vars(job.detector)["extract_only"] is only


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (Filter, ["scorer=clid", "settings=t=90,100,110,noises=2"]),
        (Calibrated, ["detector=clid", "settings=t=90,100,110,noises=2"]),
        (Adaptive, ["detector=clid", "settings=t=90,100,110,noises=2"]),
        (Combined, ["detectors=dcs,clid", "settings=clid.t=90,100,110,clid.noises=2,dcs.draws=1"]),
    ],
)
def test_an_option_that_is_a_list_is_handed_on(cls: type[Detector], settings: list[str]) -> None:
    """Both lists are separated by commas."""
    options = parse_options(cls.Options, settings, owner="detector")
    clid = cls(options, seed=0, sampling=SAMPLING).holds["clid"]
    assert clid.options.t == (90, 100, 110) and clid.options.noises == 2
    alone = replace(options, settings=("7",))
    with pytest.raises((UserError, ValueError), match=r"settings=7: write|cannot read --set '7'"):
        cls(alone, seed=0, sampling=SAMPLING)


def test_two_models_are_held_by_nobody() -> None:
    for cls, options in (
        (Filter, {"scorer": "calibrated"}),
        (Combined, {"detectors": ("cfg_norm", "calibrated")}),
        (Calibrated, {"detector": "calibrated"}),
        (Adaptive, {"detector": "calibrated"}),
    ):
        with pytest.raises(ValueError, match="compares two models, so it cannot be part"):
            made(cls, **options)


def test_what_prepares_or_counts_all_its_images_is_held_by_nobody() -> None:
    model, prompt = tiny_text_model(), [Condition("a", "a")]
    of_prompts = registry.detectors().load("update_norm")
    with pytest.raises(UserError, match="update_norm prepares before it scores"):
        suits("update_norm", made(of_prompts), model, prompt)
    random = registry.detectors().load("random")
    at_images = random(random.Options(), seed=0, sampling={**SAMPLING, "examples": "images"})
    images = [e.condition for e in PixelTask().load("mini").examples]
    with pytest.raises(UserError, match="all images that a run of it generates"):
        suits("random", at_images, pixel_model(), images)
    suits("random", made(random), model, prompt)  # of a prompt's own images


def test_who_prepares() -> None:
    """Its stages are looked up by one worker after another, whether it runs alone or not."""
    found = {name: registry.detectors().load(name) for name in ("update_norm", "side", "cfg_norm")}
    assert {name: prepares(made(cls)) for name, cls in found.items()} == {
        "update_norm": True,
        "side": True,
        "cfg_norm": False,
    }
    assert not found["update_norm"].alone


def test_a_refusal_is_one_line_of_a_run(pixels: str, tmp_path: Path) -> None:
    for name, options in (
        ("filter", ["scorer=calibrated"]),
        ("combined", ["detectors=loss,update_norm"]),
    ):
        with pytest.raises(UserError) as error:
            execute_all([Spec(name, pixels, options=options)], tmp_path, progress=False)
        assert "cannot be part of another detector" in str(error.value)
        assert "\n" not in str(error.value)
