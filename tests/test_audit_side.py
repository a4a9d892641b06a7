"""SIDE in an audit: what the budget is spent on, and that it goes on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMScheduler, DDPMPipeline
from PIL import Image

from membench.auditing import guided, work
from membench.auditing.estimate import total
from membench.auditing.judge import judge
from membench.cli.main import main
from membench.similarity.spaces import pixel_space

PLAIN, STEPS = 160, 2
# Half of it pays for the plain images and their features, the rest for guided ones
BUDGET = 2 * PLAIN * (STEPS + 1)
REAL = guided._options


@pytest.fixture(autouse=True)
def few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A surrogate of two steps: what it learns is no matter here."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    few(monkeypatch, "classifier_steps=2")


def few(monkeypatch: pytest.MonkeyPatch, steps: str) -> None:
    monkeypatch.setattr(guided, "_options", lambda plain, count: (*REAL(plain, count), steps))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random models of 8 pixels that are told nothing, and 30 images of noise."""
    root = tmp_path_factory.mktemp("side")
    for seed, name in enumerate(("own", "mirror")):
        torch.manual_seed(seed)
        DDPMPipeline(pixel_unet(), DDIMScheduler()).save_pretrained(root / name)
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    for i, image in enumerate(rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(image).save(root / "data" / f"{i}.png")
    return {name: root / name for name in ("own", "mirror", "data")}


def audited(folders: dict[str, Path], output: Path, *more: object) -> dict[str, Any]:
    words = ["audit", "--model", folders["own"], "--data", folders["data"], "--attack", "side"]
    words += ["--steps", STEPS, "--quiet", "--output", output, *more]
    assert main([str(word) for word in words]) == 0
    told: dict[str, Any] = json.loads((output / "audit.json").read_bytes())
    return told


def test_plain_images_first_and_guided_ones_for_the_rest(folders, tmp_path, capsys) -> None:
    told = audited(folders, tmp_path / "a", "--budget", BUDGET)
    assert told["images"]["unconditional"] == PLAIN
    assert told["images"]["side"] == PLAIN * (STEPS + 1) // STEPS
    assert told["evaluations"] == BUDGET
    assert ["attack", "side: up to 1,600 of them plain, for the surrogate; the rest guided"] in (
        told["plan"]
    )


def test_no_more_images_than_are_compared_in_memory(folders, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(guided, "MOST_IMAGES", PLAIN + 50)
    told = audited(folders, tmp_path / "a", "--budget", BUDGET)
    assert told["images"] == {"unconditional": PLAIN, "side": 50}
    assert told["evaluations"] < BUDGET


def test_the_mirror_is_attacked_alike_and_the_budget_shared(folders, tmp_path, capsys) -> None:
    how = ["--mirror", folders["mirror"], "--budget", 2 * BUDGET]
    told = audited(folders, tmp_path / "a", *how)
    [control] = told["controls"]
    own = told["images"]["unconditional"] + told["images"]["side"]
    assert control["name"] == "mirror" and control["images"] == own
    assert told["evaluations"] == 2 * BUDGET


def test_it_is_found_again(folders, tmp_path, capsys, monkeypatch) -> None:
    first = audited(folders, tmp_path / "a", "--budget", BUDGET)

    def never(*_: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(work.contract, "extract", never)
    assert audited(folders, tmp_path / "b", "--budget", BUDGET)["numbers"] == first["numbers"]


def test_a_budget_that_trains_no_surrogate(folders, capsys) -> None:
    words = ["audit", "--model", folders["own"], "--data", folders["data"], "--attack", "side"]
    words += ["--steps", STEPS, "--quiet", "--budget", BUDGET - 2 * (STEPS + 1)]
    assert main([str(word) for word in words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(f"at least 160 .* {BUDGET:,} evaluations", line), line


def test_a_surrogate_that_asks_the_model_is_paid_for(
    tiny_pipeline_folder, tmp_path, capsys, monkeypatch
) -> None:
    """LoRA, of a model that takes text and is asked nothing: a batch of 64 a step."""
    few(monkeypatch, "lora_steps=1")
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i, image in enumerate(rng.integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / "data" / f"{i}.png")
    text = {"own": tiny_pipeline_folder, "data": tmp_path / "data"}
    least = 2 * (64 + PLAIN * (STEPS + 1))
    told = audited(text, tmp_path / "a", "--budget", least)
    assert told["images"]["unconditional"] == PLAIN and told["images"]["side"] == least // 4
    assert told["evaluations"] == least
    words = [
        "audit",
        "--model",
        tiny_pipeline_folder,
        "--data",
        tmp_path / "data",
        "--attack",
        "side",
    ]
    words += ["--steps", STEPS, "--quiet", "--budget", least - 2]
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    assert f"with their share {least:,} evaluations" in capsys.readouterr().err


def test_the_estimate_is_of_plain_images() -> None:
    """Guided ones are no fair sample: a training image that they alone return once says
    nothing of how many there are, but that it came back.
    """
    plain = [(0, 0.5), (1, 0.5), (2, 0.5)] + [(9, 1.2)] * 4
    side = [(3, 0.5), (4, 0.5)]
    frame = pd.DataFrame([*plain, *side], columns=["training", "similarity"])
    frame["asked"] = ["unconditional"] * len(plain) + ["side"] * len(side)
    frame = frame.assign(random=False, called=False, condition="c", draw=range(len(frame)))
    found = judge(frame, pixel_space(32))
    assert len(found.returned) == 5
    assert total(found, 100, 0)[0] == pytest.approx(3 + 6 / 7 * 3)  # with guided ones it were 14
    alone = judge(frame[frame.similarity < 1].iloc[2:], pixel_space(32))
    assert total(alone, 100, 0)[0] == 3.0  # one plain image of one training image, and two guided
