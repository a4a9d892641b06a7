"""An option that nothing would read is refused: what it was given for is not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from membench import registry
from membench.cli.main import main
from membench.errors import UserError
from membench.options import as_settings, detector_options
from membench.tasks.cifar10.task import Cifar10
from membench.tasks.sd_webster.task import SdWebster
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
    for setting in (PIXELS, TEXT):  # settings of several tasks, of which each reads its own
        check("side", setting, {"classifier_steps": 9, "lora_steps": 9})
    with pytest.raises(UserError, match="lora_steps=9: surrogate=classifier has no LoRA"):
        check("side", PIXELS, {"surrogate": "classifier", "classifier_steps": 9, "lora_steps": 9})


@pytest.mark.parametrize(
    ("options", "parts", "told"),
    [
        (["perturbation=replace"], None, "no caption is perturbed; set perturb"),
        (["vae_steps=5"], ["a"], "the VAE is not trained again"),
        (["kl_weight=1", "world=1"], None, "the VAE is not trained again"),
        (["steps=5"], ["vae"], "it is of the halves, and the VAE alone is trained"),
    ],
)
def test_a_number_of_what_is_not_trained_is_refused(
    options: list[str], parts: list[str] | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told) as error:
        SdWebster.train(tmp_path / "out", parts, options, progress=False)
    assert str(error.value).startswith(options[0].partition("=")[0])
    assert not (tmp_path / "out").exists()


def test_a_model_without_labels_has_none_to_drop(tmp_path: Path) -> None:
    given = ["labels=none", "label_dropout=0.5"]
    with pytest.raises(UserError, match="a model without labels has none to drop"):
        Cifar10.train(tmp_path, ["a"], given, progress=False)


def test_download_refuses_what_only_the_mini_profile_reads(capsys: Any) -> None:
    assert main(["download", "sd_webster", "--set", "sd_webster.world=3", "--offline"]) == 2
    assert "world=3 is for --profile mini" in capsys.readouterr().err


@pytest.mark.parametrize("setting", [TEXT, PIXELS], ids=["lora", "classifier"])
def test_a_preset_is_of_both_surrogates(setting: Setting) -> None:
    check("side", setting, {"features": "bottleneck"}, PAPER)
