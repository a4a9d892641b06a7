"""What a first run takes, told without a GPU: evaluations that are counted, not timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import save_tiny_pipeline
from foreign_models import save_tiny_xl
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from membench.cli.main import main
from membench.models.latent import LatentDenoiser, load_model
from membench.models.narrow import SIDE, flop, narrowed
from membench.runs.execute import execute
from membench.runs.finished import evaluations
from membench.runs.gpu_rate import PEAK, SHARE
from membench.runs.price import prices
from membench.runs.spec import Spec
from membench.types import Condition

PROMPTS = [f"a mug, number {k}" for k in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("counted") / "tiny", "epsilon")


@pytest.mark.parametrize(
    ("detector", "options"),
    [
        ("cfg_norm", ("draws=3", "steps=4", "images=1")),
        ("sharpness", ("draws=2", "images=0")),
        ("bright_ending", ("draws=1", "steps=3", "trajectory=3", "images=0")),
        ("flipd", ()),
    ],
)
def test_what_is_counted_is_what_the_run_takes(
    folder: Path, tmp_path: Path, detector: str, options: tuple[str, ...]
) -> None:
    """Two examples are counted of five, on a network that the run never asks."""
    file = tmp_path / "mine.txt"
    file.write_text("\n".join(PROMPTS))
    task = (f"model={folder}", f"prompts={file}", "steps=5")
    spec = Spec(detector, "sd_webster", "full", options=options, task_options=task)
    [price] = prices([spec], tmp_path / "runs")
    assert price.flop and price.seconds is None and price.gpu_seconds is not None
    run = execute(spec, tmp_path / "runs", progress=False)
    assert price.evaluations == evaluations(run, "prepare", "samples", "scores") > 0
    derivatives = sum(phase.get("jvps", 0) for phase in run.info["phases"].values())
    assert (detector in ("sharpness", "flipd")) == (derivatives > 0)
    assert price.work == price.evaluations + 2 * derivatives  # a JVP is three
    assert price.gpu_seconds == pytest.approx(price.work * price.flop / (PEAK * SHARE))


def real_flop(model: LatentDenoiser) -> float:
    """Of the loaded network itself, which computes."""
    x, told = model.noise([("x", 0)], 0), model.condition([Condition("x", "x")])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eps(x, 500, told)
    return float(counter.get_total_flops())


@pytest.mark.parametrize("xl", [False, True])
def test_the_operations_are_those_of_the_network(folder: Path, tmp_path: Path, xl: bool) -> None:
    made = save_tiny_xl(tmp_path / "xl") if xl else folder
    model = load_model(made, "cpu", "float32", 4)
    assert isinstance(model, LatentDenoiser)
    assert flop(model) == real_flop(model) > 0
    small = narrowed(model)
    x = small.noise([("x", 0)], 0)
    assert x.shape[2:] == (SIDE, SIDE)
    assert torch.isfinite(small.guided(x, 500, small.condition([Condition("x", "x")]), 7.5)).all()
    assert small.decode(x).shape == (1, 8 * SIDE, 8 * SIDE, 3)
    assert layers(small) == layers(model)


def layers(model: LatentDenoiser) -> set[str]:
    """A shortcut is a layer where a block changes the number of channels."""
    return {name for name, _ in model.network.named_modules() if "conv_shortcut" not in name}


def test_the_table_says_what_was_not_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("\n".join(PROMPTS))
    words = ["run", "--detector", "cfg_norm,caption_case", "--task", "sd_webster"]
    words += ["--profile", "full", "--model", str(folder), "--device", "cpu", "--dry-run"]
    words += ["--prompts", str(tmp_path / "mine.txt"), "--set", "cfg_norm.images=0"]
    assert main([*words, "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    # 4 draws of one guided step
    assert "GPU minutes" in out and "in all 40 evaluations" in out
    assert "GPU minutes are not measured" in out and "30% of an H100" in out
    assert main([*words, "--runs", str(tmp_path), "--format", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["total_seconds"] is None and first["gpu_seconds"] > 0 and second["flop"] is None
