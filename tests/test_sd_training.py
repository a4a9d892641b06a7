"""The recipe of the mini Stable Diffusion: what its checkpoints belong to, and how
sharp its VAE is said to be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from membench.errors import UserError
from membench.models.training import Plan, alone
from membench.tasks.sd_webster import catalogue
from membench.tasks.sd_webster import train as sd_webster_train
from membench.tasks.sd_webster.architecture import make_tokenizer
from membench.tasks.sd_webster.recipe import Recipe
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.train import train, train_model
from membench.tasks.sd_webster.vae import psnr, train_vae
from membench.tasks.sd_webster.world import DATA


def test_decibels_of_known_errors() -> None:
    """An error of a tenth of the range is 20 dB, of a hundredth 40 dB."""
    assert psnr(torch.tensor([0.2**2, 0.02**2])).tolist() == pytest.approx([20.0, 40.0])


def test_a_checkpoint_belongs_to_the_numbers_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    plans: list[Plan] = []

    def stop(plan: Plan, *args: object, **kwargs: object) -> None:
        plans.append(plan)
        raise Seen

    for part in ("vae", "tokenizer"):
        shutil.copytree(DATA / "a" / part, tmp_path / part)
    few = catalogue.Split("a", catalogue.build("a").entries[:9])
    monkeypatch.setattr(catalogue, "build", lambda name, number=0: few)
    monkeypatch.setattr(sd_webster_train, "fit", stop)
    monkeypatch.setattr(
        sd_webster_train, "encode", lambda vae, images: torch.zeros(len(images), 4, 8, 8)
    )
    recipe = Recipe()
    for other in (
        recipe,
        replace(recipe, caption_dropout=0.4),
        replace(recipe, rate=2e-3),
        replace(recipe, batch=8),
        replace(recipe, perturb=0.3),
        replace(recipe, perturb=0.3, perturbation="replace"),
        replace(recipe, steps=9),
    ):
        with pytest.raises(Seen):
            train_model(tmp_path, "a", other, progress=False)
    records = [repr(plan.record) for plan in plans]
    # More steps go on from the same checkpoint
    assert len(set(records[:6])) == 6 and records[6] == records[0]


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        ("tokenizer/tokenizer.json", "tokenizer lacks vocab.json and merges.txt"),
        ("tokenizer/tokenizer_config.json", "tokenizer lacks tokenizer_config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "vae cannot be loaded: .*no file named"),
    ],
)
def test_a_file_that_a_half_needs_and_lacks_is_one_line(
    tmp_path: Path, lost: str, line: str
) -> None:
    for part in ("vae", "tokenizer"):
        shutil.copytree(DATA / "a" / part, tmp_path / part)
    (tmp_path / lost).unlink()
    with pytest.raises(UserError, match=line):
        train_model(tmp_path, "a", Recipe(), progress=False)


def test_a_tokenizer_is_the_same_in_every_process_and_locale(tmp_path: Path) -> None:
    """Its words, whose letters no ASCII has, their numbers, and the order of its merges."""
    code = "import sys, pathlib, membench.tasks.sd_webster.architecture as made\n"
    code += "made.make_tokenizer(pathlib.Path(sys.argv[1]))"
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, tmp_path / "apart"]
    (tmp_path / "apart").mkdir()
    (tmp_path / "here").mkdir()
    subprocess.run(command, env=os.environ | ascii_alone, check=True)
    make_tokenizer(tmp_path / "here")
    here, apart, shipped = (
        json.loads((folder / "tokenizer.json").read_bytes())["model"]
        for folder in (tmp_path / "here", tmp_path / "apart", DATA / "a" / "tokenizer")
    )
    assert here == apart and not "".join(here["vocab"]).isascii()
    # That one was made before merges that are equally frequent had an order
    assert set(here["vocab"]) == set(shipped["vocab"])
    assert sorted(here["merges"]) == sorted(shipped["merges"])


def test_a_second_stage_goes_on_from_finished_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same VAE and tokenizer, other weights, and the record of both stages."""
    logging.enable_progress_bar()
    few = catalogue.Split("a", catalogue.build("a").entries[:9])
    monkeypatch.setattr(catalogue, "build", lambda name, number=0: few)
    recipe = Recipe(start=str(DATA), steps=1, batch=2)
    train(tmp_path, ("a",), recipe, progress=False)
    assert "%" not in capfd.readouterr().err  # no library's own bar
    weights = "diffusion_pytorch_model.safetensors"
    same = [
        (tmp_path / "a" / part / weights).read_bytes() == (DATA / "a" / part / weights).read_bytes()
        for part in ("vae", "unet")
    ]
    assert same == [True, False]
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["before"] == json.loads((DATA / "a" / "training.json").read_text())
    assert record["steps"] == 1
    with pytest.raises(UserError, match="does not hold pipelines a and b"):
        train(tmp_path, ("a",), replace(recipe, start=str(tmp_path / "none")), progress=False)
    # Before the training, not after its hours
    shutil.copytree(DATA, start := tmp_path / "start")
    (start / "b" / "training.json").write_text("{")
    with pytest.raises(UserError, match=r"b lacks a training\.json that can be read"):
        train(tmp_path, ("a",), replace(recipe, start=str(start)), progress=False)
    shutil.rmtree(start / "a" / "text_encoder")
    with pytest.raises(UserError, match="a lacks text_encoder"):
        train(tmp_path, ("a",), replace(recipe, start=str(start)), progress=False)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that a command trained, of which each is a folder and no more."""
    parts: list[str] = []

    def trained(out: Path, part: str, *rest: object) -> dict[str, int]:
        (out / part).mkdir(exist_ok=True)
        parts.append(part)
        return {"steps": 1, "seconds": 0}

    monkeypatch.setattr(sd_webster_train, "train_model", trained)
    return parts


@pytest.mark.parametrize("shared", ["vae", "tokenizer"])
def test_another_start_into_the_same_folder_is_refused(
    tmp_path: Path, done: list[str], shared: str
) -> None:
    """The first one's VAE and tokenizer would stay."""
    train(tmp_path / "out", ("a",), Recipe(start=str(DATA)), progress=False)
    train(tmp_path / "out", ("a",), Recipe(start=str(DATA)), progress=False)
    shutil.copytree(DATA, other := tmp_path / "other")
    (other / "a" / shared / "more.txt").write_text("x")
    with pytest.raises(UserError, match=f"out/{shared} is not that of .*into another folder"):
        train(tmp_path / "out", ("a",), Recipe(start=str(other)), progress=False)
    assert done == ["a", "a"]
    with pytest.raises(UserError, match="start= takes the VAE of its pipelines: leave out"):
        train(tmp_path / "new", ("vae", "a"), Recipe(start=str(DATA)), progress=False)
    assert not (tmp_path / "new").exists()


def test_nobody_else_trains_a_half_until_its_record_is_written(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, fill: Callable[[Path], object]) -> None:
        with pytest.raises(UserError, match="another process trains a in"), alone("a", tmp_path):
            pass
        done.append(path.name)

    monkeypatch.setattr(sd_webster_train, "atomic_write", write)
    train(tmp_path, ("a",), Recipe(start=str(DATA)), progress=False)
    assert done == ["a", "training.json"]


def test_a_second_stage_trains_both_halves_and_no_vae(tmp_path: Path, done: list[str]) -> None:
    """Where no part is named, as docs/design/mini-world.md gives the command."""
    SdWebster.train(tmp_path / "out", None, [f"start={DATA}"], progress=False)
    assert done == ["a", "b"]


def test_the_vaes_checkpoint_remembers_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = catalogue.Split("a", catalogue.build("a").entries[:4])
    monkeypatch.setattr(catalogue, "build", lambda name, number=0: few)
    recipe = Recipe(vae_steps=1, vae_batch=2)
    train_vae(tmp_path, recipe, False)
    for other in (
        replace(recipe, vae_batch=1),
        replace(recipe, vae_rate=9.0),
        replace(recipe, kl_weight=5.0),
        replace(recipe, vae_steps=2),  # on which the rate of each step depends
    ):
        with pytest.raises(UserError, match="checkpoint of another recipe"):
            train_vae(tmp_path, other, False)
