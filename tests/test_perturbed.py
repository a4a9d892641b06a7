"""What a model is told in training: labels that are random, and labels and captions that
are perturbed each time they are shown.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from diffusers import UNet2DModel
from scipy.stats import t as student
from scripts import script

from membench.cli.main import main
from membench.errors import UserError
from membench.options import parse_options
from membench.reports.text import interval
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.pixels import train as pixel_train
from membench.tasks.pixels.labels import make_labels, perturbed
from membench.tasks.pixels.recipe import PixelRecipe
from membench.tasks.pixels.train import TrainingSet, train_pixels
from membench.tasks.sd_webster.captions import inserted, replaced
from membench.tasks.sd_webster.catalogue import Split, build
from membench.tasks.sd_webster.recipe import Recipe
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.train import perturber
from membench.tasks.sd_webster.world import DATA

TINY = PixelRecipe(steps=1, batch=64, channels=(8, 8), grid_every=0, label_dropout=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------- labels


def test_a_share_of_labels_becomes_any_class() -> None:
    """A true label is told with probability 1 - share (1 - 1/classes)."""
    labels, gen = torch.full((20_000,), 2), seeded()
    told = perturbed(labels, 0.4, 4, gen)
    share = np.bincount(told, minlength=4) / len(told)
    assert share == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.01)
    # Others the next time
    assert not torch.equal(told, perturbed(labels, 0.4, 4, gen))
    assert set(perturbed(labels, 1.0, 4, gen).tolist()) == {0, 1, 2, 3}


def test_without_perturbation_no_random_number_is_used() -> None:
    gen, other = seeded(), seeded()
    labels = torch.arange(5)
    assert torch.equal(perturbed(labels, 0.0, 5, gen), labels)
    assert torch.equal(torch.rand(3, generator=gen), torch.rand(3, generator=other))


@pytest.mark.parametrize("size", [8, 16, 64])
def test_clusters_of_images_of_any_size(size: int) -> None:
    colours = np.repeat(np.array([[20] * 3, [220] * 3], dtype=np.uint8), 6, axis=0)
    images = np.broadcast_to(colours[:, None, None], (12, size, size, 3))
    told = make_labels("cluster", images, np.zeros(12, int), 2, 0)
    assert told is not None and len(set(told[:6])) == len(set(told[6:])) == 1
    assert told[0] != told[6]


def test_clusters_of_any_seed_that_a_recipe_takes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for seed in (0, 2**32 - 1, 2**32, 10**18 - 1):
        told = make_labels("cluster", images, np.zeros(12, int), 3, seed)
        assert told is not None and set(told) == {0, 1, 2}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The labels that the network is given, a batch each."""
    found: list[Any] = []
    forward = UNet2DModel.forward
    monkeypatch.setattr(pixel_train, "GRID_STEPS", 2)

    def spy(self: Any, x: Any, t: Any, labels: Any = None, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            found.append(labels.tolist())
        return forward(self, x, t, labels, *args, **kwargs)

    monkeypatch.setattr(UNet2DModel, "forward", spy)
    return found


def set_of(labels: np.ndarray | None) -> TrainingSet:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    return TrainingSet(images, np.ones(4, int), labels, 3, {"hash": "h"})


def test_the_network_is_told_perturbed_labels(told: list[Any], tmp_path: Path) -> None:
    data = set_of(np.ones(4, int))
    train_pixels(tmp_path, "clean", data, TINY, progress=False)
    train_pixels(tmp_path, "wrong", data, replace(TINY, perturb=1.0), progress=False)
    assert set(told[0]) == {1} and set(told[1]) == {0, 1, 2}
    record = json.loads((tmp_path / "wrong" / "training.json").read_text())
    assert record["recipe"]["perturb"] == 1.0
    with pytest.raises(UserError, match="a model without labels has none to perturb"):
        train_pixels(tmp_path, "none", set_of(None), replace(TINY, perturb=0.5), progress=False)
    assert not (tmp_path / "none").exists()


TRAIN = ["train", "cifar10", "--part", "a", "--quiet", "--threads", "1"]
SMALL = ["--set", "steps=1", "--set", "rungs=1", "--set", "batch=2", "--set", "channels=8,8"]


def test_training_with_random_labels_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pixel_train, "GRID_STEPS", 2)
    out = ["--output", str(tmp_path)]
    small = [*SMALL, "--set", "grid_every=0"]
    given = ["--labels", "random", "--perturb", "0.3", "--caption-dropout", "0.2"]
    assert main([*TRAIN, *out, *small, *given]) == 0
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["data"]["labels"] == "random" and record["recipe"]["perturb"] == 0.3
    assert record["recipe"]["label_dropout"] == 0.2
    told = record["data"]["told"]
    assert len(told) == 380 and set(told) == set(range(10))
    # Weights of one recipe are not taken for another's
    capsys.readouterr()
    assert main([*TRAIN, *out, *small, "--labels", "random"]) == 2
    assert "checkpoint of another recipe" in capsys.readouterr().err
    # What they were told of their own images says nothing of the mirror's
    monkeypatch.setattr(cifar10, "RUNGS", (1,))
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name, wanted in (("random", "labels=random"), ("class", "not trained on half b")):
        record["data"]["labels"] = name
        (tmp_path / "a" / "training.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=wanted):
            Cifar10(Cifar10Options(models=str(tmp_path))).load("mini")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--perturb", "1.5"], ["perturb", "0 to 1", "1.5"]),
        (["--caption-dropout", "1.5"], ["label_dropout", "0 to 1", "1.5"]),
        (["--labels", "shuffled"], ["labels", "class, random, cluster, none", "shuffled"]),
        (["--labels", "none", "--perturb", "0.3"], ["has none to perturb", "labels=class"]),
    ],
)
def test_what_cannot_be_told_is_refused_before_any_work(
    tmp_path: Path, given: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--output", str(tmp_path), *SMALL, *given]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def test_captions_are_left_out_by_a_flag_too(tmp_path: Path, monkeypatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(SdWebster, "train", lambda _, part, options, **how: seen.append(options))
    out = ["--output", str(tmp_path), "--quiet"]
    assert main(["train", "sd_webster", *out, "--caption-dropout", "0.2"]) == 0
    assert parse_options(Recipe, seen[0], owner="recipe").caption_dropout == 0.2


# ----------------------------------------------------------------------------- captions


def test_a_token_is_inserted_anywhere() -> None:
    gen = seeded()
    found = {inserted("a red mug", ["x", "y"], gen) for _ in range(200)}
    assert found == {
        f"{a}a {b}red {c}mug{d}"
        for t in "xy"
        for a, b, c, d in (
            (f"{t} ", "", "", ""),
            ("", f"{t} ", "", ""),
            ("", "", f"{t} ", ""),
            ("", "", "", f" {t}"),
        )
    }
    assert inserted("", ["x"], gen) == "x"


def test_one_word_is_replaced() -> None:
    gen = seeded()
    found = {replaced("a red mug", ["x", "y"], gen) for _ in range(200)}
    assert found == {f.format(t) for f in ("{} red mug", "a {} mug", "a red {}") for t in "xy"}
    assert replaced("", ["x"], gen) == ""


def test_what_a_recipe_puts_into_captions() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(DATA / "a" / "tokenizer", local_files_only=True)
    half = Split("a", build("a").entries[:20])
    words = {word for e in half.entries for word in e.caption.split()}
    caption = half.entries[0].caption
    change = perturber(Recipe(perturb=1.0, perturbation="replace"), tokenizer, half)
    found = [change(caption, seeded(k)).split() for k in range(20)]
    assert all(set(f) <= words and len(f) == len(caption.split()) for f in found)
    change = perturber(Recipe(perturb=1.0), tokenizer, half)
    found = [change(caption, seeded(k)).split() for k in range(20)]
    assert all(len(f) == len(caption.split()) + 1 for f in found)
    assert len({" ".join(f) for f in found}) > 15
    text = " ".join(w for f in found for w in f)
    assert "endoftext" not in text and text.isprintable()


# ---------------------------------------------------------------------------- benchmark


def test_the_trade_off_is_tabulated_over_trainings(tmp_path: Path) -> None:
    module = script("benchmarks/perturbed_labels.py")
    stored = pd.read_parquet(ROOT / "results" / "perturbed_labels.parquet")
    table = module.markdown(module.tabulated(stored))
    assert table in (ROOT / "results" / "perturbed_labels.md").read_text(encoding="utf-8")
    assert module.settings_of("class,random:0.3") == [("class", 0.0), ("random", 0.3)]
    setting = {"labels": "class", "perturb": 0.3, "from": "labels"}
    rows = [
        setting | {"seed": s, "AMS": a, "flipd x1": 0.6, "FD": 2.0, "KID": a - 0.1}
        for s, a in enumerate((0.1, 0.3))
    ]
    text = module.written(rows, tmp_path / "found")
    half = student.ppf(0.975, 1) * 0.1  # the standard error of 0.1 and 0.3
    odds = [np.exp(sign * half / (0.2 * 0.8)) / 4 for sign in (-1, 1)]
    low, high = (100 * o / (1 + o) for o in odds)  # a share leaves no [0, 100] %
    assert f"| class | 0.3 | labels | 2 | 20.0 [{low:.1f}, {high:.1f}] | " in text
    assert f"| 0.100 [{0.1 - half:.3f}, {0.1 + half:.3f}] |" in text
    assert "| 2.000 |" in text  # no spread, no interval
    assert pd.read_parquet(tmp_path / "found.parquet").AMS.tolist() == [0.1, 0.3]
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_the_question_of_labels_is_answered_by_its_file() -> None:
    module = script("benchmarks/perturbed_labels.py")
    stored = pd.read_parquet(ROOT / "results" / "perturbed_labels.parquet")
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    shown = stored[(stored["from"] == "labels") | (stored.labels == "none")]
    for row in module.tabulated(shown).to_dict("records"):
        found = shown[(shown.labels == row["labels"]) & (shown.perturb == float(row["perturb"]))]
        distance = interval(*module.mean_interval("FD shrunk", found["FD shrunk"]), digits=1)
        name = row["labels"] + (", 30 % perturbed" if row["perturb"] == "0.3" else "")
        accuracy = row["accuracy"].replace("n/a", "–")
        line = f"| {name} | {row['AMS %']} | {distance} | {row['flipd x1']} | {accuracy} |"
        assert line in page
