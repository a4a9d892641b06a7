"""An option that nothing would read is refused: what it was given for is not measured."""

from __future__ import annotations

from typing import Any

import pytest

from membench import registry
from membench.errors import UserError
from membench.options import as_settings, detector_options
from membench.testing.tiny import Setting, settings

TEXT, PIXELS, UNTOLD = settings()
PAPER = "paper"
COMBINED = {"weights": ("cfg_norm:0:1:1", "score_norm:0:1:1", "dcs:0:1:1")}
CASES: list[tuple[str, Setting, dict[str, Any], dict[str, Any]]] = [
    ("random", TEXT, {}, {"generations": 9}),
    ("random", TEXT, {"extraction": "unconditional"}, {"at_most": 9}),
    ("random", PIXELS, {"extraction": "unconditional"}, {"draws": 3, "guidance": 2.0}),
    ("random", UNTOLD, {}, {"guidance": 2.0}),
    ("score_norm", TEXT, {"condition": "conditional"}, {"weight": 2.0}),
    ("sharpness", TEXT, {}, {"guidance": 2.0}),
    ("sharpness", TEXT, {"product": "vjp"}, {"derivative": "difference"}),
    ("flipd", PIXELS, {"trace": "exact"}, {"probes": 2, "probe": "gaussian"}),
    ("combined", TEXT, COMBINED, {"folds": 3, "strength": 2.0}),
    ("adaptive", TEXT, {"threshold": 1.0, "rounds": 3}, {"level": 0.9}),
    ("side_prompts", TEXT, {"rounds": 1}, {"elite": 0.5, "crossover": 0.1, "mutation": 0.1}),
    ("side_prompts", TEXT, {"elite": 0.99}, {"crossover": 0.1, "mutation": 0.1}),
    ("side", TEXT, {}, {"stem": 2, "classifier_steps": 9, "classifier_rate": 0.1}),
    ("side", PIXELS, {}, {"lora_rank": 9, "lora_steps": 9, "lora_start": "token"}),
    ("carlini_conditional", PIXELS, {}, {"lora_rate": 0.1}),
    ("side", PIXELS, {"labels": "oracle"}, {"clusters": 9, "keep": 0.5, "cohesion": 0.9}),
    ("side", PIXELS, {}, {"features_weights": "disc_mixup"}),
]


def check(name: str, setting: Setting, given: dict[str, Any], preset: str | None = None) -> None:
    cls = registry.detectors().load(name)
    options = detector_options(name, cls, as_settings(given), preset, "full" if preset else "")
    sampling = {"steps": 4, "guidance": 2.0, "examples": setting.examples}
    cls(options, seed=0, sampling=sampling).check(setting.model, setting.conditions)


@pytest.mark.parametrize(("name", "setting", "given", "unread"), CASES)
def test_an_option_that_nothing_reads_is_refused(
    name: str, setting: Setting, given: dict[str, Any], unread: dict[str, Any]
) -> None:
    check(name, setting, given)
    for option, value in unread.items():
        with pytest.raises(UserError, match=f"^{option}={value}: ") as error:
            check(name, setting, given | {option: value})
        assert "\n" not in str(error.value)


def test_what_a_sibling_reads_is_not_refused() -> None:
    check("random", TEXT, {"extraction": "unconditional", "draws": 3, "guidance": 3.0})
    check("random", PIXELS, {"at_most": 3, "draws": 3, "guidance": 3.0})
    check("score_norm", TEXT, {"condition": "conditional", "t": 0.5, "weight": 2.0})
    check("sharpness", TEXT, {"steps": 2, "guidance": 2.0})
    check("adaptive", TEXT, {"threshold": 1.0, "least": 3, "rounds": 4, "level": 0.9})
    check("side", PIXELS, {"labels": "oracle", "min_members": 2})
    check("side", PIXELS, {"classifier_steps": 9})
    check("side", TEXT, {"lora_steps": 9})


@pytest.mark.parametrize("setting", [TEXT, PIXELS], ids=["lora", "classifier"])
def test_a_preset_is_of_both_surrogates(setting: Setting) -> None:
    check("side", setting, {"features": "bottleneck"}, PAPER)
