"""Rectified flows (the architectures of Stable Diffusion 3 and Flux) are refused in one
line by name, as a folder, without its index, and by hub id.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_sd_webster_full import REVISION, no_sockets

from membench.cli.main import main

FLOWS = {
    "StableDiffusion3Pipeline": "SD3Transformer2DModel",
    "FluxPipeline": "FluxTransformer2DModel",
}


def save_flow(folder: Path, pipeline: str) -> Path:
    """What such a repository holds besides its weights."""
    parts = {"transformer": FLOWS[pipeline], "vae": "AutoencoderKL"}
    for part, name in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"_class_name": name}))
    index = {"_class_name": pipeline, "transformer": ["diffusers", parts["transformer"]]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("pipeline", FLOWS)
@pytest.mark.parametrize("how", ["folder", "no index", "hub", "hub, offline"])
def test_a_rectified_flow_is_one_line(
    pipeline: str,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import constants

    no_sockets(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.txt").write_text("a red mug\n")
    if how.startswith("hub"):
        home = tmp_path / "hub" / "models--owner--flow"
        save_flow(home / "snapshots" / REVISION, pipeline)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(REVISION)
        model = "owner/flow"
    else:
        folder = save_flow(tmp_path / "flow", pipeline)
        model = str(folder)
    if how == "no index":
        (folder / "model_index.json").unlink()
    words = ["run", "--task", "sd_webster", "--profile", "full", "--detector", "cfg_norm"]
    words += ["--model", model, "--prompts", str(tmp_path / "mine.txt"), "--device", "cpu"]
    words += ["--offline"] * (how == "hub, offline")
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Traceback" not in told, told
    name = FLOWS[pipeline] if how == "no index" else pipeline
    assert f"{model} is of class {name}: it is a transformer" in told
    assert "flow matching" in told and "membench reads Stable Diffusion 1.x, 2.x and XL" in told
