"""``--log``: what a tracker is told, with trackers that only remember."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_training import plan

from membench.cli.main import main
from membench.models.training import fit
from membench.runs.finished import read_runs
from membench.runs.shards import SHARD
from membench.storage.trackers import KINDS, open_tracker
from membench.types import Tracker

Told = list[tuple[Any, ...]]  # (name, value, step), and ("closed",)


class Remembers:
    """A tracker, and what it was told."""

    def __init__(self) -> None:
        self.told: Told = []

    def scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def close(self) -> None:
        self.told.append(("closed",))


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Modules in place of the three packages, each with the calls that membench makes."""
    told: Told = []
    for name in KINDS.values():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    board, wandb, mlflow = (sys.modules[name] for name in KINDS.values())

    class SummaryWriter:
        def __init__(self, log_dir: str) -> None:
            told.append(("folder", log_dir))

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            told.append((tag, scalar_value, global_step))

        def close(self) -> None:
            told.append(("closed",))

    class WandBRun:
        def define_metric(self, name: str, step_metric: str) -> None:
            told.append(("defined", name, step_metric))

        def log(self, data: dict[str, float]) -> None:
            [(name, value), (_, step)] = data.items()
            told.append((name, value, step))

        def finish(self) -> None:
            told.append(("closed",))

    def init(project: str, name: str, dir: str) -> WandBRun:
        assert Path(dir).is_dir()
        told.append(("folder", project))
        return WandBRun()

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> None:
            assert name == "membench"

        def create_experiment(self, name: str) -> str:
            return f"of {name}"

        def create_run(self, experiment_id: str, run_name: str) -> SimpleNamespace:
            told.append(("folder", experiment_id))
            return SimpleNamespace(info=SimpleNamespace(run_id="7"))

        def log_metric(self, run_id: str, key: str, value: float, *, step: int) -> None:
            assert run_id == "7"
            told.append((key, value, step))

        def set_terminated(self, run_id: str) -> None:
            told.append(("closed",))

    board.SummaryWriter, wandb.init, mlflow.MlflowClient = (  # type: ignore[attr-defined]
        SummaryWriter,
        init,
        MlflowClient,
    )
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_each_tracker_is_told_the_same(kind: str, trackers: Told, tmp_path: Path) -> None:
    tracker: Tracker = open_tracker(kind, tmp_path / "log", "run")
    for name, value, step in (("a", 1.5, 0), ("b", math.nan, 0), ("a", 2.5, 9)):
        tracker.scalar(name, value, step)
    tracker.close()
    opened, *told = trackers
    assert opened[0] == "folder"
    if kind == "wandb":
        assert told.pop(0) == ("defined", "a", "a_step")
    assert told == [("a", 1.5, 0), ("a", 2.5, 9), ("closed",)]


def test_a_run_tells_its_shards_and_metrics(trackers: Told, tmp_path: Path) -> None:
    words = ["run", "--detector", "caption_length", "--task", "sd_webster", "--limit", "96"]
    words += ["--runs", str(tmp_path / "runs"), "--quiet", "--seeds", "3"]
    assert main([*words, "--log", "tensorboard"]) == 0
    [run] = read_runs(tmp_path / "runs").runs
    title = run.path.relative_to(tmp_path / "runs").as_posix()
    assert trackers[0][1].startswith(str(tmp_path / "log" / "run-"))
    assert trackers[1:3] == [(f"{title}/scores", SHARD, 0), (f"{title}/scores", 96, 1)]
    metrics = {name: (value, step) for name, value, step in trackers[3:-1]}
    m = run.metrics[(run.metrics.metric == "auroc") & (run.metrics.subset == "all")]
    assert metrics[f"{title}/auroc"] == (m.value.item(), 3) and len(metrics) >= 3
    assert trackers[-1] == ("closed",)


def test_a_training_tells_its_loss(tmp_path: Path) -> None:
    tracker = Remembers()
    report = fit(plan(100), tmp_path, progress=False, tracker=tracker)
    assert [(name, step) for name, _, step in tracker.told] == [
        ("line/loss", step) for step in range(10, 101, 10)
    ]
    assert round(tracker.told[-1][1], 5) == report["loss_curve"][-1][1]


def test_train_hands_the_tracker_down(trackers: Told, tmp_path: Path) -> None:
    words = ["train", "cifar10", "--part", "a", "--quiet", "--output", str(tmp_path)]
    for setting in ("steps=10", "batch=2", "channels=8,8", "rungs=10", "grid_every=0"):
        words += ["--set", setting]
    assert main([*words, "--log", "mlflow"]) == 0
    [_, (name, loss, step), closed] = trackers
    assert (name, step, closed) == ("a/loss", 10, ("closed",)) and 0 < loss < 10


def test_torch_is_whole_beside_tensorboard() -> None:
    """The command line puts torch off: a part of it that came first would come twice."""
    code = """
import sys
from membench.cli.main import main
sys.modules["tensorboard"] = None
assert main("train cifar10 --log tensorboard".split()) == 2
import torch
assert hasattr(torch.utils, "_pytree") and torch.utils is sys.modules["torch.utils"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'membench[tensorboard]'" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_package_is_one_line_before_any_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, KINDS[kind], None)
    words = ["run", "--detector", "caption_length", "--task", "sd_webster", "--log", kind]
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 2
    out, err = capsys.readouterr()
    assert err == (
        f"membench: --log {kind} needs a package that is not installed:"
        f" pip install 'membench[{kind}]'\n"
    )
    assert out == "" and not list(tmp_path.iterdir())
