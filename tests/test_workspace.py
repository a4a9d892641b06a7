"""The workspace's stages: made once, paid for always, refused when foreign; an
interrupted training ends as an uninterrupted one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from membench.detectors.surrogate import classifier, lora
from membench.detectors.surrogate.conditions import Synthetic
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.training import Plan, fit
from membench.storage.workspace import Stage, Workspace
from membench.types import Cost

PAID = Cost(forwards=3, surrogate_backwards=2)


def refuse(folder: Path) -> tuple[Cost, float]:
    raise AssertionError("made again")


def make(folder: Path) -> tuple[Cost, float]:
    (folder / "thing").write_text("made")
    return PAID, 1.5


def test_a_stage_is_made_once_and_paid_for_by_every_run(tmp_path) -> None:
    first = Workspace(tmp_path, {"weights": "w"})
    made = first.stage("draw", {"n": 3, "blocks": (1, 2)}, make)
    assert (
        made.path / "thing"
    ).read_text() == "made" and made.path == tmp_path / f"draw-{made.key}"
    assert first.stage("draw", {"n": 3, "blocks": [1, 2]}, refuse) == made
    assert first.cost == PAID + PAID and first.seconds == 3.0
    second = Workspace(tmp_path, {"weights": "w"})
    assert second.stage("draw", {"blocks": (1, 2), "n": 3}, refuse) == made
    assert second.cost == PAID and second.seconds == 1.5


def test_whatever_differs_gives_another_stage(tmp_path) -> None:
    makings = [
        ({"weights": "w"}, "draw", {"n": 3}),
        ({"weights": "other"}, "draw", {"n": 3}),
        ({"weights": "w", "dtype": "float16"}, "draw", {"n": 3}),
        ({"weights": "w"}, "paint", {"n": 3}),
        ({"weights": "w"}, "draw", {"n": 4}),
    ]
    stages = [
        Workspace(tmp_path, identity).stage(name, parts, make) for identity, name, parts in makings
    ]
    assert len({s.key for s in stages}) == len({s.path for s in stages}) == len(makings)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_copied_from_another_models_is_refused(finished, tmp_path) -> None:
    ours = Workspace(tmp_path / "ours", {"weights": "w"}).stage("draw", {"n": 3}, make)
    theirs = Workspace(tmp_path / "theirs", {"weights": "other"}).stage("draw", {"n": 3}, make)
    shutil.rmtree(ours.path)
    shutil.copytree(theirs.path, ours.path)
    if not finished:
        (ours.path / "stage.json").unlink()
    with pytest.raises(
        UserError, match=rf"{ours.path} was prepared with other weights; delete it and run again"
    ):
        Workspace(tmp_path / "ours", {"weights": "w"}).stage("draw", {"n": 3}, refuse)


@pytest.mark.parametrize("name", ["stage.json", "parts.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"cost": {"for'])
def test_a_damaged_record_is_refused_in_one_line(name, content, tmp_path) -> None:
    workspace = Workspace(tmp_path, {"weights": "w"})
    (workspace.stage("draw", {}, make).path / name).write_text(content)
    with pytest.raises(
        UserError, match=rf"{name} is damaged .*delete .*draw-\w+ and run again"
    ) as error:
        workspace.stage("draw", {}, refuse)
    assert "\n" not in str(error.value) and workspace.cost == PAID


@pytest.mark.parametrize(
    "odd",
    [
        {"cost": None},
        {"cost": [1]},
        {"cost": {"forwards": "x"}},
        {"cost": {"words": 1}},
        {"cost": {"forwards": -1}},
        {"seconds": float("nan")},
        {"seconds": "x"},
        {"seconds": None},
        {"files": [1]},
        {"files": None},
    ],
)
def test_a_record_that_does_not_say_what_a_stage_cost(odd, tmp_path) -> None:
    workspace = Workspace(tmp_path, {"weights": "w"})
    file = workspace.stage("draw", {}, make).path / "stage.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **odd}))
    with pytest.raises(UserError, match=r"stage.json is damaged .*delete .*draw-\w+ and run again"):
        workspace.stage("draw", {}, refuse)
    file.with_name("parts.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"parts.json is damaged \(nested too deep\)"):
        workspace.stage("draw", {}, refuse)


def test_what_failed_is_made_again(tmp_path) -> None:
    workspace = Workspace(tmp_path, {"weights": "w"})

    def fail(folder: Path) -> tuple[Cost, float]:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        workspace.stage("draw", {}, fail)
    # The traceback keeps the frame, so that no garbage collection frees the lock
    assert error.tb and workspace.cost == Cost()
    stage = workspace.stage("draw", {}, make)  # and the lock is free
    assert (stage.path / "half").exists() and workspace.cost == PAID


def test_a_second_process_is_refused(tmp_path) -> None:
    workspace = Workspace(tmp_path, {"weights": "w"})
    lock = workspace.stage("draw", {}, make).path / ".lock"
    code = (
        f"import fcntl; f = open({str(lock)!r}, 'wb'); fcntl.flock(f, fcntl.LOCK_EX); print('held',"
        " flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(
            UserError,
            match=r"another process is preparing .*draw-\w+; wait until it ends, or end it",
        ):
            workspace.stage("draw", {}, refuse)
        other.communicate("\n", timeout=20)
    assert workspace.stage("draw", {}, refuse).cost == PAID


def test_a_disk_that_refuses(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot write in .*draw-\w+: Not a directory; .*another folder"
    ):
        Workspace(tmp_path / "file", {}).stage("draw", {}, refuse)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    workspace = Workspace(tmp_path / "out", {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UserError, match="No space left on device; mend it"):
            workspace.stage("draw", {}, make)
    assert workspace.cost == Cost() and not list(workspace.root.glob("*/*.json"))
    assert workspace.stage("draw", {}, make).cost == PAID


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        Workspace(tmp_path, {}).stage("draw", {}, refuse)


# ----------------------------------------------------------------- interrupted training


@pytest.fixture
def killed_at(monkeypatch) -> Callable[[int | None], list[int]]:
    """Lets the trainings that follow die at a step (None: not), with a checkpoint after
    every step; gives the steps they took.
    """
    monkeypatch.setitem(classifier.ADAMW, "checkpoint_seconds", 0.0)

    def kill(at: int | None) -> list[int]:
        steps: list[int] = []

        def fragile(plan: Plan, folder: Path, *, progress: bool):
            inner = plan.loss

            def loss(step: int, gen: torch.Generator) -> torch.Tensor:
                if step == at:
                    raise KeyboardInterrupt
                steps.append(step)
                return inner(step, gen)

            plan.loss = loss
            return fit(plan, folder, progress=progress)

        monkeypatch.setattr(classifier, "fit", fragile)
        monkeypatch.setattr(lora, "fit", fragile)
        return steps

    return kill


def train(kind: str, pipeline: Path, root: Path) -> tuple[dict[str, torch.Tensor], Cost, Path]:
    """As a process of its own would: a new model, and torch's generator anywhere."""
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    model, workspace = (
        LatentDenoiser(load_text_to_image(pipeline)),
        Workspace(root, {"weights": "w"}),
    )
    x0 = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(0))
    data, labels = Synthetic(x0, Stage(Path(), "some key", Cost(), 0.0)), torch.tensor([0, 1, 1, 0])
    settings = {"steps": 5, "batch": 4, "rate": 1e-2, "seed": 1}
    if kind == "lora":
        state = lora.train_lora(model, data, labels, workspace, rank=4, **settings).state()
    else:
        targets = torch.eye(2)[labels]
        net = classifier.train_classifier(
            model, data, targets, workspace, blocks=(1, 1, 1, 1), timed=True, **settings
        )
        state = net.state_dict()
    return {k: v.detach().clone() for k, v in state.items()}, workspace.cost, next(root.iterdir())


@pytest.mark.parametrize("kind", ["classifier", "lora"])
def test_interrupted_and_resumed_training_equals_uninterrupted(
    kind, tiny_pipeline_folder, tmp_path, killed_at
) -> None:
    steps = killed_at(None)
    whole, cost, _ = train(kind, tiny_pipeline_folder, tmp_path / "whole")
    assert steps == [0, 1, 2, 3, 4]
    killed_at(3)
    with pytest.raises(KeyboardInterrupt):
        train(kind, tiny_pipeline_folder, tmp_path / "broken")
    steps = killed_at(None)
    resumed, again, folder = train(kind, tiny_pipeline_folder, tmp_path / "broken")
    assert steps == [3, 4] and again == cost
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(resumed[name], whole[name])] == []
    assert any("running_var" in name for name in whole) == (kind == "classifier")
    assert not list(folder.glob("*.pt"))


def test_a_damaged_checkpoint_is_refused(tiny_pipeline_folder, tmp_path, killed_at) -> None:
    killed_at(2)
    with pytest.raises(KeyboardInterrupt):
        train("lora", tiny_pipeline_folder, tmp_path)
    (checkpoint,) = tmp_path.glob("*/lora.checkpoint")
    assert (
        not (checkpoint.parent / "stage.json").exists()
        and json.loads((checkpoint.parent / "parts.json").read_bytes())["rank"] == 4
    )
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"lora.checkpoint is damaged; delete it"):
        train("lora", tiny_pipeline_folder, tmp_path)


def test_without_an_average_the_result_is_the_last_step(tmp_path) -> None:
    def plan() -> Plan:
        torch.manual_seed(0)
        module, target = torch.nn.Linear(7, 7), torch.randn(7, 7)
        seen.clear()

        def loss(step: int, gen: torch.Generator) -> torch.Tensor:
            seen.append(module.weight.detach().clone())
            return (module.weight - target).square().sum()

        return Plan("line", {"module": module}, loss, steps, lambda step: 0.1, ema_decay=0.0)

    seen: list[torch.Tensor] = []
    steps = 9
    fit(plan(), tmp_path / "nine", progress=False)
    eighth = seen[8]
    steps = 8
    short = plan()
    fit(short, tmp_path / "eight", progress=False)
    assert torch.equal(short.modules["module"].weight, eighth)
