"""Mistakes with pixel models on the command line: one line, exit code 2, nothing
fetched and nothing written.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import pixel_unet
from diffusers import DDIMPipeline, DDIMScheduler

from membench.cli.main import main
from membench.tasks.cifar10.task import Cifar10

TRAIN = ["train", "cifar10", "--profile", "full"]
RUN = ["run", "--detector", "flipd", "--task", "cifar10", "--profile", "full", "--quiet"]
MINI = ["run", "--detector", "flipd", "--task", "cifar10", "--set"]


@pytest.fixture(autouse=True)
def nothing_around(tmp_path, monkeypatch) -> Iterator[None]:
    """No data, no cache, no network: a try to connect fails the test, and so does a
    file that is left.
    """
    from huggingface_hub import constants

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read when the hub was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert (
        not tried
        and not list((tmp_path / "empty").rglob("*"))
        and not (tmp_path / "cache").exists()
    )


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that must fail, and returns its one line."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.startswith("membench: ")
        and err.count("\n") == 1
        and "Traceback" not in err
    ), err
    return err


def model(folder: Path, size: int = 32) -> Path:
    unet = pixel_unet()
    unet.register_to_config(sample_size=size)
    DDIMPipeline(unet=unet, scheduler=DDIMScheduler()).save_pretrained(
        folder, safe_serialization=True
    )
    return folder


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([*TRAIN, "--labels", "foo"], ["labels", "class, random, cluster, none", "'foo'"]),
        ([*TRAIN, "--labels", "clusters"], ["labels", "Did you mean 'cluster'"]),
        ([*TRAIN, "--subset", "0"], ["subset", "from 2 to 50000", "'0'"]),
        ([*TRAIN, "--subset", "50001"], ["subset", "from 2 to 50000"]),
        ([*TRAIN, "--subset", "many"], ["--subset", "many"]),
        ([*TRAIN, "--set", "skip=-1"], ["skip", "-1"]),
        ([*TRAIN, "--duplicate", "2:3"], ["duplicate=2:3", "[0, 1]"]),
        (
            [*TRAIN, "--duplicate", "0.6:2", "--duplicate", "0.6:3"],
            ["duplicate=0.6:2,0.6:3", "more than 1"],
        ),
        ([*TRAIN, "--duplicate", "0.1"], ["duplicate=0.1", "FRACTION:TIMES"]),
        ([*TRAIN, "--duplicate", "0.1:0"], ["duplicate=0.1:0", "times"]),
        (TRAIN, ["data holds no CIFAR-10", "--offline", "--data-root"]),
        ([*TRAIN, "--data-root", "no/such"], ["no/such holds no CIFAR-10"]),
        ([*TRAIN, "--part", "model"], ["unknown part 'model'"]),
        ([*TRAIN, "--subset", "8", "--set", "subset=9"], ["subset is set twice"]),
        (
            ["train", "cifar10", "--part", "model"],
            ["unknown part 'model'", "membench train cifar10 --help"],
        ),
        (
            ["train", "celeba", "--part", "a", "--part", "unet"],
            ["unknown part 'unet'", "celeba"],
        ),
        (["train", "cifar10", "--labels", "foo"], ["labels", "'foo'"]),
        (["train", "cifar10", "--set", "steps=0"], ["steps", "'0'"]),
        (["train", "cifar10", "--set", "channels=8,4"], ["channels", "8,4"]),
        (["train", "cifar10", "--set", "channels=8"], ["channels=8", "at least two"]),
        (["train", "cifar10", "--set", "channels="], ["channels=:", "at least two"]),
        (["train", "cifar10", "--device", "quantum"], ["quantum"]),
        (["train", "celeba", "--profile", "full"], ["celeba", "--profile mini", "--model"]),
        (["train", "celeba", "--profile", "ful"], ["unknown profile 'ful'", "'full'"]),
        ([*RUN, "--control"], ["control_model"]),
        ([*RUN], ["google/ddpm-cifar10-32", "hub's cache", "--model"]),
        ([*RUN, "--model", "a/b--c"], ["'a/b--c'", "neither a folder nor a hub id"]),
        ([*RUN, "--model", "nowhere"], ["'nowhere'", "neither a folder nor a hub id"]),
        ([*RUN, "--set", "cifar10.half=b"], ["half=b with --profile full asks the mirror"]),
        ([*RUN, "--set", "cifar10.labels=random"], ["labels", "auto, class, none"]),
        ([*RUN, "--set", "cifar10.pool=1"], ["pool", "from 2"]),
        (
            ["run", "--detector", "flipd", "--task", "celeba", "--profile", "full"],
            ["no published UNet2DModel", "64x64", "--model"],
        ),
        (
            ["run", "--detector", "flipd", "--task", "celeba", "--set", "celeba.size=32"],
            ["size", "64, 128"],
        ),
        (
            ["run", "--detector", "flipd", "--task", "cifar10", "--control", "--model", "m"],
            ["--control and --model exclude"],
        ),
        ([*MINI, "cifar10.control_model=m"], ["control_model is for --profile full"]),
        (
            [*MINI, "cifar10.pool=7", "--set", "cifar10.examples=training"],
            ["pool=7: the examples are training images"],
        ),
        ([*MINI, "cifar10.world=1"], ["world 1 does not ship: membench train cifar10 --world 1"]),
        ([*MINI, "cifar10.rung=6"], ["rung=6: cifar10 has rungs 1 to 5"]),
        ([*MINI, "cifar10.models=nowhere"], ["nowhere/a/step-", "is missing"]),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else None,
)
def test_each_mistake_is_one_line(capsys, args: list[str], words: list[str]) -> None:
    error = refused(capsys, *args)
    assert all(word in error for word in words), error


def test_a_whole_training_says_what_asks_its_models(capsys, monkeypatch) -> None:
    """One by another recipe does not: the task would refuse them."""
    monkeypatch.setattr(Cifar10, "train", classmethod(lambda *args, **how: None))
    assert main(["train", "cifar10", "--world", "4", "--output", "out"]) == 0
    assert capsys.readouterr().err == (
        "membench: next: membench run --detector loss --task cifar10 --set cifar10.world=4"
        " --set cifar10.models=out\n"
    )
    for changed in (["--set", "steps=6"], ["--part", "a"], ["--labels", "random"]):
        assert main(["train", "cifar10", *changed]) == 0
    assert capsys.readouterr().err == ""


def test_a_subset_after_the_end(capsys, tmp_path, monkeypatch) -> None:
    import numpy as np

    from membench.tasks.cifar10 import train

    monkeypatch.setattr(
        train, "read_cifar10", lambda root: (np.zeros((20, 32, 32, 3), np.uint8), np.zeros(20, int))
    )
    assert "the training set has 20 images" in refused(
        capsys, *TRAIN, "--subset", 15, "--set", "skip=6", "--output", tmp_path
    )
    assert "labels=cluster" in refused(
        capsys, *TRAIN, "--subset", 5, "--labels", "cluster", "--output", tmp_path
    )


def test_models_that_are_there_but_do_not_do(capsys, tmp_path, monkeypatch) -> None:
    """--control without its model; a model of another size or without its data is
    refused before a pool is drawn.
    """
    import numpy as np

    from membench.tasks.cifar10 import task

    right, small = model(tmp_path / "right"), model(tmp_path / "small", 16)
    run = [*RUN, "--runs", tmp_path / "runs"]
    assert "cifar10.control_model=FOLDER" in refused(capsys, *run, "--model", right, "--control")
    assert "holds no CIFAR-10" in refused(capsys, *run, "--model", right)
    monkeypatch.setattr(
        task, "read_cifar10", lambda root: (np.zeros((20, 32, 32, 3), np.uint8), np.zeros(20, int))
    )
    assert "small generates 16x16" in refused(capsys, *run, "--model", small)
    (right / "training.json").write_text(json.dumps({"data": {"rows": [3, 4], "copies": [1, 9]}}))
    assert "labels=class" in refused(
        capsys, *run, "--model", right, "--set", "cifar10.labels=class"
    )
    other = model(tmp_path / "other")
    (other / "training.json").write_text(json.dumps({"data": {"rows": [4, 5], "copies": [1, 1]}}))
    both = ["--model", right, "--control", "--set", f"cifar10.control_model={other}"]
    assert "was trained on 1 of the images" in refused(capsys, *run, *both)
    assert "trained_on=no/such is not there" in refused(
        capsys, *run, "--model", right, "--set", "cifar10.trained_on=no/such"
    )
    (right / "training.json").write_text(json.dumps({"data": {"rows": [99], "copies": [1]}}))
    assert "do not fit CIFAR-10's 20" in refused(capsys, *run, "--model", right)
    assert not (tmp_path / "runs").exists()
