"""Pixel models' training: what is shown how often, what the network is told and asked,
what is written; and the worlds that are drawn.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from PIL import Image
from safetensors.torch import load_file
from small_files import small_files

from membench.errors import UserError
from membench.models.pixel import classes_of, load_pixel_model
from membench.models.training import Plan, alone, fit
from membench.options import parse_options
from membench.seeds import generator
from membench.storage.sealed import read_sealed
from membench.tasks.celeba import faces
from membench.tasks.celeba.faces import WORLD, draw
from membench.tasks.cifar10 import scenes
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.cifar10 import train as cifar10_train
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.cifar10.train import (
    SubsetRecipe,
    choose_subset,
    subset_data,
    train_subset,
)
from membench.tasks.pixels import train as pixel_train
from membench.tasks.pixels.labels import make_labels
from membench.tasks.pixels.mirror import build_pair
from membench.tasks.pixels.mirror_task import pair_of
from membench.tasks.pixels.planted import Half, World, halved, stream, vary
from membench.tasks.pixels.recipe import MirrorRecipe, PixelRecipe
from membench.tasks.pixels.train import TrainingSet, make_unet, train_mirror, train_pixels
from membench.tasks.shared import HALVES

TINY = PixelRecipe(steps=3, batch=4, channels=(8, 8), grid_every=0)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def quick_grids(monkeypatch) -> None:
    # One step begins at timestep 0, which is refused
    monkeypatch.setattr(pixel_train, "GRID_STEPS", 2)


def training_set(
    labels: Sequence[int] | None = (0, 1, 2) * 2, copies: Sequence[int] = (1,) * 6, **record: Any
) -> TrainingSet:
    told = None if labels is None else np.array(labels)
    return TrainingSet(IMAGES, np.array(copies), told, 3, {"hash": "h", **record})


def train(work: Path, data: TrainingSet | None = None, **changes: Any) -> dict[str, torch.Tensor]:
    """The weights that are saved, by name."""
    train_pixels(work, "m", data or training_set(), replace(TINY, **changes), progress=False)
    return load_file(work / "m" / WEIGHTS)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ----------------------------------------------------------------------- what is chosen


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.1:16", [(0.1, 16)]),
        ("0:1", [(0.0, 1)]),
        ("1:3", [(1.0, 3)]),
        (".5:2", [(0.5, 2)]),
        (".1:64,.2:4,.7:2", [(0.1, 64), (0.2, 4), (0.7, 2)]),
    ],
)
def test_duplicates(text: str, wanted: list[tuple[float, int]]) -> None:
    assert SubsetRecipe(duplicate=text).duplicates() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.1",
        "16",
        "0.1:",
        ":16",
        "0.1:16:2",
        "a:b",
        "0.1:1.5",
        "-0.1:2",
        "0.1.2:3",
        ".:3",
        "0,1:16",
        "nan:2",
        "1e-1:2",
        " 0.1:2",
        "0.1:2,",
        "0.1:2,0.1",
    ],
)
def test_duplicates_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError, match=r"duplicate=[^:]*.*: write FRACTION:TIMES, such as 0.1:16"):
        SubsetRecipe(duplicate=text).duplicates()


@pytest.mark.parametrize("text", ["2:3", "1.01:2", "0.1:0", f"0.1:{10**10}", f"0.1:{10**20 - 1}"])
def test_duplicates_out_of_range(text: str) -> None:
    with pytest.raises(
        UserError, match=r"must lie in \[0, 1\], and times must be from 1 to 100,000"
    ):
        SubsetRecipe(duplicate=text).duplicates()


def test_copies_of_more_rows_than_memory_holds() -> None:
    with pytest.raises(UserError, match="more than 100,000,000 images in all"):
        SubsetRecipe(subset=5000, duplicate="1:100000").duplicates()


def test_fractions_of_more_than_all() -> None:
    with pytest.raises(UserError, match="add up to more than 1"):
        SubsetRecipe(duplicate="0.6:2,0.5:3").duplicates()


def test_several_multiplicities() -> None:
    """The images of each are others, and are the same rows as those of one alone."""
    found = choose_subset(1000, 20, [(0.25, 64), (0.5, 4)], seed=0)
    assert found.copies.tolist() == [64] * 5 + [4] * 10 + [1] * 5
    assert np.array_equal(found.rows, choose_subset(1000, 20, [(0.1, 2)], seed=0).rows)


def test_a_subset() -> None:
    found = choose_subset(1000, 200, [(0.1, 16)], seed=0)
    assert (
        len(set(found.rows.tolist())) == 200 and found.rows.min() >= 0 and found.rows.max() < 1000
    )
    assert found.copies.tolist() == [16] * 20 + [1] * 180
    # Of all rows, in no order
    assert found.rows.mean() == pytest.approx(500, abs=60) and (np.diff(found.rows) < 0).any()
    again, other = (
        choose_subset(1000, 200, [(0.1, 16)], seed=0),
        choose_subset(1000, 200, [(0.1, 16)], seed=1),
    )
    assert np.array_equal(found.rows, again.rows) and not np.array_equal(found.rows, other.rows)
    # A smaller subset is the beginning of a larger one, and more copies choose no other
    # images.
    assert np.array_equal(choose_subset(1000, 50, [(0.5, 2)], seed=0).rows, found.rows[:50])
    assert choose_subset(10, 10, [(0.0, 5)], seed=0).copies.tolist() == [1] * 10
    assert sorted(choose_subset(10, 10, [(1.0, 5)], seed=0).rows) == list(range(10))
    with pytest.raises(UserError, match=r"subset=11 .*the training set has 10 images"):
        choose_subset(10, 11, [(0.1, 2)], seed=0)
    # A stored model is only worth its images: these must not change with a new version.
    assert choose_subset(50_000, 3, [(0.0, 1)], seed=0).rows.tolist() == [49671, 18830, 43888]


def test_a_control_models_subset_shares_no_image(cifar, tmp_path) -> None:
    """skip: what comes after the first so many of the same permutation."""
    first, second = (choose_subset(1000, 300, [(0.1, 4)], seed=2, skip=skip) for skip in (0, 300))
    both = choose_subset(1000, 600, [(0.0, 1)], seed=2).rows
    assert np.array_equal(np.concatenate([first.rows, second.rows]), both)
    assert second.copies.tolist() == first.copies.tolist() == [4] * 30 + [1] * 270
    assert len(choose_subset(10, 4, [(0.5, 2)], seed=0, skip=6).rows) == 4
    with pytest.raises(UserError, match="subset=4 after skip=7: the training set has 10 images"):
        choose_subset(10, 4, [(0.5, 2)], seed=0, skip=7)
    own, control = (subset_data(SubsetRecipe(subset=12, skip=skip)).record for skip in (0, 12))
    assert not set(own["rows"]) & set(control["rows"]) and own["hash"] != control["hash"]


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_labels() -> None:
    images, classes = pictures(400), np.arange(400) % 10
    assert make_labels("none", images, classes, 10, 0) is None
    assert np.array_equal(make_labels("class", images, classes, 10, 0), classes)
    chance = make_labels("random", images, classes, 10, 0)
    # Of neither images nor classes
    assert np.array_equal(chance, make_labels("random", images[::-1], classes[::-1], 10, 0))
    assert not np.array_equal(chance, make_labels("random", images, classes, 10, 1))
    assert (
        np.bincount(chance, minlength=10).min() > 20
        and chance.max() == 9
        and (chance == classes).mean() < 0.2
    )


def test_clusters_are_of_what_images_look_like() -> None:
    """Ten plain colours, five equal images each and five that differ from them by
    little: a cluster a colour.
    """
    colours = np.random.default_rng(1).integers(0, 256, (10, 1, 1, 3))
    noise = np.random.default_rng(2).integers(-3, 4, (10, 5, 32, 32, 3))
    images = np.concatenate(
        [np.broadcast_to(colours[:, None], noise.shape), colours[:, None] + noise], axis=1
    )
    images = images.clip(0, 255).astype(np.uint8).reshape(100, 32, 32, 3)
    order = np.random.default_rng(3).permutation(100)
    labels = make_labels("cluster", images[order], np.zeros(100, int), 10, 0)
    of_colour = [set(labels[order // 10 == k].tolist()) for k in range(10)]
    assert all(len(s) == 1 for s in of_colour) and set.union(*of_colour) == set(range(10))
    # Whatever the classes
    assert np.array_equal(labels, make_labels("cluster", images[order], np.arange(100) % 10, 10, 0))


def test_fewer_images_than_clusters() -> None:
    with pytest.raises(UserError, match=r"labels=cluster.* 10 .*there are 9"):
        make_labels("cluster", pictures(9), np.zeros(9, int), 10, 0)


@pytest.fixture
def cifar(monkeypatch) -> np.ndarray:
    """Forty images in place of the 50,000, of which the last two are equal."""
    images = pictures(40)
    images[39] = images[38]
    for module in (cifar10, cifar10_train):
        monkeypatch.setattr(module, "read_cifar10", lambda root: (images, np.arange(40) % 10))
    return images


def test_the_record_of_a_subset_says_all_that_was_shown(cifar) -> None:
    recipe = SubsetRecipe(subset=12, duplicate="0.25:5", labels="class")
    data = subset_data(recipe)
    rows, copies = data.record["rows"], data.record["copies"]
    assert (
        np.array_equal(data.images, cifar[rows])
        and data.copies.tolist() == copies == [5] * 3 + [1] * 9
    )
    assert (
        data.labels.tolist() == data.record["told"] == [row % 10 for row in rows]
        and data.classes == 10
    )
    assert json.loads(json.dumps(data.record)) == data.record
    others = [
        replace(recipe, seed=1),
        replace(recipe, duplicate="0.5:5"),
        replace(recipe, subset=11),
    ]
    assert len({subset_data(r).record["hash"] for r in (recipe, *others)}) == 4
    assert subset_data(replace(recipe, labels="none")).record["told"] is None
    # Of the images
    assert subset_data(replace(recipe, labels="none")).record["hash"] == data.record["hash"]


def test_a_mistake_costs_no_data(monkeypatch) -> None:
    """Duplicates are read before CIFAR-10 is, which may have to be fetched."""
    monkeypatch.setattr(
        cifar10_train, "read_cifar10", lambda root: pytest.fail("the data were read")
    )
    with pytest.raises(UserError, match="duplicate=2:3"):
        subset_data(SubsetRecipe(duplicate="2:3"))


def test_a_trained_subset_and_its_task_agree_on_the_images(cifar, tmp_path) -> None:
    """train --profile full writes, run --profile full reads: rows, copies and what a
    label means.
    """
    settings = [
        "subset=12",
        "duplicate=0.25:5",
        "labels=random",
        "channels=8,8",
        "steps=1",
        "batch=2",
        "grid_every=0",
    ]
    train_subset(tmp_path, settings, progress=False)
    folder = tmp_path / "cifar10-12-random"
    record = json.loads((folder / "training.json").read_text())
    assert (
        record["rows"] == 3 * 5 + 9
        and record["steps"] == 1
        and record["recipe"]["labels"] == "random"
    )
    assert classes_of(folder, 10, 32) == 10
    training = Cifar10().training(folder)
    assert np.array_equal(training.images(), cifar[record["data"]["rows"]])
    assert (
        list(training.copies) == [5] * 3 + [1] * 9
        and list(training.kinds) == ["x5"] * 3 + ["x1"] * 9
    )
    assert (
        training.ids[0] == f"train/{record['data']['rows'][0]:05d}" and len(set(training.ids)) == 12
    )
    named = Cifar10(Cifar10Options(trained_on=str(folder / "training.json"))).training(tmp_path)
    assert named.hash == training.hash != Cifar10().training(tmp_path).hash
    # The same images, of which another file says that their classes were told
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"data": record["data"] | {"labels": "class"}}))
    classes = Cifar10(Cifar10Options(trained_on=str(told))).training(tmp_path)
    assert classes.classes and not named.classes and classes.hash != named.hash
    whole = Cifar10().training(tmp_path)  # no training.json: all of them, equal ones once
    assert list(whole.copies) == [1] * 38 + [2] and np.array_equal(whole.images(), cifar[:39])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"data": {"hash": "h"}}',
        '{"data": {"rows": [1, 2], "copies": [1]}}',
        '{"data": {"rows": [], "copies": []}}',
        '{"data": {"rows": [1, 40], "copies": [1, 1]}}',
        '{"data": {"rows": [-1, 2], "copies": [1, 1]}}',
        '{"data": {"rows": [2, 2], "copies": [1, 1]}}',
        '{"data": {"rows": ["a"], "copies": [1]}}',
        '{"data": {"rows": 3, "copies": 1}}',
    ],
)
def test_a_training_json_that_names_no_images(cifar, tmp_path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(
        UserError, match=r"training.json(: its rows and copies do not fit| does not say which)"
    ):
        Cifar10().training(tmp_path)
    with pytest.raises(UserError, match=r"trained_on=no/such.json is not there"):
        Cifar10(Cifar10Options(trained_on="no/such.json")).training(tmp_path)


# ---------------------------------------------------------------------- what is trained


@pytest.fixture
def seen(monkeypatch) -> Iterator[SimpleNamespace]:
    """What goes into the network and the loss of each step."""
    found = SimpleNamespace(x=[], t=[], told=[], x0=[], noise=[], target=[])
    forward, noisy, mse = (
        UNet2DModel.forward,
        pixel_train.DDIMScheduler.add_noise,
        torch.nn.functional.mse_loss,
    )

    def spied_forward(
        self: Any, x: Any, t: Any, told: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if torch.is_tensor(t) and t.ndim:  # not the grid
            found.x.append(x.clone()), found.t.append(t), found.told.append(told)
        return forward(self, x, t, told, *args, **kwargs)

    def spied_noise(self: Any, x0: Any, noise: Any, t: Any) -> Any:
        found.x0.append(x0.clone()), found.noise.append(noise)
        return noisy(self, x0, noise, t)

    def spied_mse(predicted: Any, target: Any) -> Any:
        found.target.append(target)
        return mse(predicted, target)

    monkeypatch.setattr(UNet2DModel, "forward", spied_forward)
    monkeypatch.setattr(pixel_train.DDIMScheduler, "add_noise", spied_noise)
    monkeypatch.setattr(pixel_train, "F", SimpleNamespace(mse_loss=spied_mse))
    yield found


def which(x0: torch.Tensor) -> tuple[list[int], list[bool]]:
    """Of each row, the image that it is and whether it is mirrored."""
    clean = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 127.5 - 1
    both = torch.cat([clean, clean.flip(-1)]).flatten(1)
    far, index = torch.cdist(x0.flatten(1), both, compute_mode="donot_use_mm_for_euclid_dist").min(
        dim=1
    )
    assert far.max() < 1e-4
    return [int(i) % len(IMAGES) for i in index], [bool(i >= len(IMAGES)) for i in index]


def test_a_step_asks_for_v_at_a_noised_image(seen, tmp_path) -> None:
    train(tmp_path, batch=16)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    assert len(seen.x) == len(seen.target) == 3
    for k in range(3):
        alpha, sigma = (
            a[seen.t[k]].float()[:, None, None, None] for a in (abar.sqrt(), (1 - abar).sqrt())
        )
        torch.testing.assert_close(
            seen.x[k], alpha * seen.x0[k] + sigma * seen.noise[k], rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(
            seen.target[k], alpha * seen.noise[k] - sigma * seen.x0[k], rtol=1e-3, atol=1e-4
        )
    times, noise = torch.cat(seen.t), torch.cat(seen.noise)
    assert times.min() < 100 and times.max() > 900 and len(set(times.tolist())) > 40
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


def test_images_are_shown_as_often_as_they_are_copied_with_their_own_labels(seen, tmp_path) -> None:
    labels, copies = [0, 1, 2, 2, 1, 0], (1, 1, 1, 1, 1, 15)
    train(tmp_path, training_set(labels, copies), batch=128, label_dropout=0.5)
    index, mirrored = which(torch.cat(seen.x0))
    told = torch.cat(seen.told).tolist()
    share = np.bincount(index, minlength=6) / len(index)
    assert (
        share[5] == pytest.approx(0.75, abs=0.08) and share[:5].min() > 0.015 and not any(mirrored)
    )
    null = [label == 3 for label in told]
    assert np.mean(null) == pytest.approx(0.5, abs=0.1)
    assert all(
        label == labels[i]
        for label, i, dropped in zip(told, index, null, strict=True)
        if not dropped
    )
    assert json.loads((tmp_path / "m" / "training.json").read_text())["rows"] == 20


@pytest.mark.parametrize(("dropout", "null"), [(0.0, {0, 1, 2}), (1.0, {3})])
def test_label_dropout_at_its_ends(seen, tmp_path, dropout: float, null: set[int]) -> None:
    train(tmp_path, steps=1, batch=32, label_dropout=dropout)
    assert set(torch.cat(seen.told).tolist()) == null


def test_flips_are_of_half_of_the_images(seen, tmp_path) -> None:
    train(tmp_path, steps=1, batch=128, flip=True)
    _, mirrored = which(torch.cat(seen.x0))
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.15)


# ---------------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        # One step begins at timestep 0, which is refused
        patch.setattr(pixel_train, "GRID_STEPS", 2)
        train(work)
    return work


def test_a_pipeline_with_its_record(made) -> None:
    folder = made / "m"
    assert {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()} == {
        "model_index.json",
        "samples.png",
        "training.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        str(WEIGHTS),
    }
    record = json.loads((folder / "training.json").read_text())
    assert (
        record["steps"] == 3
        and record["rows"] == 6
        and record["data"] == {"hash": "h"}
        and record["loss_curve"] == []
    )
    assert (
        record["recipe"] == json.loads(json.dumps(asdict(TINY)))
        and record["commit"]
        and record["torch"] == torch.__version__
    )
    tensors = load_file(folder / WEIGHTS)
    assert record["parameters"] == sum(t.numel() for t in tensors.values())
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.size == (64, 64) and sheet.mode == "RGB"


def test_diffusers_and_membench_load_the_same_model(made) -> None:
    pipeline = DDIMPipeline.from_pretrained(made / "m")
    config = pipeline.scheduler.config
    assert (config.prediction_type, config.clip_sample, config.beta_schedule) == (
        "v_prediction",
        True,
        "linear",
    )
    assert pipeline.unet.config.num_class_embeds == 4 and pipeline.unet.config.sample_size == 8
    model = load_pixel_model(made / "m", classes_of(made / "m", 3, 8))
    assert (model.classes, model.has_null, model.shape) == (3, True, (3, 8, 8))
    x, labels = torch.randn(3, 3, 8, 8, generator=generator("x")), torch.tensor([0, 2, 3])
    with torch.no_grad():
        theirs = pipeline.unet(x, 400, labels).sample
        torch.testing.assert_close(
            model.network(x, 400, labels).sample, theirs, rtol=1e-5, atol=1e-5
        )


def test_no_labels_make_an_unconditional_model(tmp_path) -> None:
    tensors = train(tmp_path, training_set(None), steps=1)
    assert not any("class" in name for name in tensors)
    assert (
        classes_of(tmp_path / "m", 3, 8) == 0
        and not load_pixel_model(tmp_path / "m", 0).has_condition
    )
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "m")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 3)


def test_the_loss_curve_is_drawn(tmp_path) -> None:
    pixel_train._loss_curve([[100, 0.5], [200, 0.1]], tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as image:
        assert image.size[0] > 400
    pixel_train._loss_curve([], tmp_path / "none.png")  # shorter than the first point: no file
    assert not (tmp_path / "none.png").exists()


def test_the_grid_shows_the_classes_in_turn_from_the_same_noise(tmp_path, monkeypatch) -> None:
    asked = SimpleNamespace(labels=None, x=None)

    def sampled(model: Any, x: torch.Tensor, condition: Any, **settings: Any) -> torch.Tensor:
        asked.labels, asked.x, asked.settings = condition.embeddings, x, settings
        return torch.linspace(-1, 1, 64)[:, None, None, None].expand(64, 3, 8, 8)

    monkeypatch.setattr(pixel_train, "ddim", sampled)
    unet = make_unet(8, 3, TINY)
    unet.conv_in.requires_grad_(False)
    before = [p.requires_grad for p in unet.parameters()]
    pixel_train._grid(unet, pixel_train.make_scheduler(), 3, 8, tmp_path / "grid.png")
    assert asked.labels.tolist() == [i % 3 for i in range(64)] and asked.settings["guidance"] == 1.0
    assert torch.equal(asked.x[5], torch.randn(3, 8, 8, generator=generator("grid", 5)))
    assert [p.requires_grad for p in unet.parameters()] == before
    sheet = np.array(Image.open(tmp_path / "grid.png"))[4::8, 4::8, 0].ravel()
    assert len(sheet) == 64 and (np.diff(sheet.astype(int)) > 0).all()  # image 0 first, row by row


# --------------------------------------------------------------------------- continuing


def test_watching_changes_nothing(made, tmp_path, monkeypatch) -> None:
    drawn: list[int] = []
    grid = pixel_train._grid
    monkeypatch.setattr(pixel_train, "_grid", lambda *args: (drawn.append(1), grid(*args)))
    watched = train(tmp_path, grid_every=1)
    assert len(drawn) == 3 + 1
    assert equal(watched, load_file(made / "m" / WEIGHTS))
    # The steps after a grid did train
    assert not equal(watched, train(tmp_path / "first", steps=1))


def test_an_interrupted_training_goes_on_to_the_same_weights(made, tmp_path, monkeypatch) -> None:
    """Stopped while the grid of step 2 is drawn; the checkpoint is of step 1."""
    grid, calls = pixel_train._grid, []

    def killed(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        grid(*args)

    monkeypatch.setattr(pixel_train, "Plan", partial(Plan, checkpoint_seconds=0.0))
    monkeypatch.setattr(pixel_train, "_grid", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, grid_every=1)
    assert (
        torch.load(io.BytesIO(read_sealed(tmp_path / "m.checkpoint")), weights_only=True)["step"]
        == 1
        and not (tmp_path / "m" / WEIGHTS).exists()
    )
    monkeypatch.setattr(pixel_train, "_grid", grid)
    assert equal(train(tmp_path), load_file(made / "m" / WEIGHTS))


def test_a_full_disk_is_one_line_and_leaves_the_weights_that_were_there(
    made, tmp_path, monkeypatch
) -> None:
    shutil.copytree(made, tmp_path / "w")
    weights = tmp_path / "w" / "m" / WEIGHTS
    before = weights.read_bytes()
    monkeypatch.setattr(pixel_train, "_grid", lambda *_: None)
    with (
        small_files(len(before) - 1),
        pytest.raises(UserError, match=r"cannot write in .*: File too large"),
    ):
        train(tmp_path / "w")  # trained to its end: its files alone are written
    assert weights.read_bytes() == before and not list(tmp_path.rglob("*.partial"))


def test_nobody_else_trains_a_part_while_it_is_saved(made, tmp_path, monkeypatch) -> None:
    """training.json of the one would stand beside the weights of the other."""
    shutil.copytree(made, tmp_path / "w")
    saved = []

    def save(*args) -> None:
        with (
            pytest.raises(UserError, match="another process trains m in"),
            alone("m", args[2].parent),
        ):
            pass
        saved.append(args)

    monkeypatch.setattr(pixel_train, "_save_pipeline", save)
    train(tmp_path / "w")
    assert saved


def test_more_steps_go_on_from_the_end(made, tmp_path, seen) -> None:
    train(tmp_path, steps=2)
    assert equal(train(tmp_path, steps=3), load_file(made / "m" / WEIGHTS)) and len(seen.x) == 3
    # Nothing is left to do
    assert equal(train(tmp_path, steps=3), load_file(made / "m" / WEIGHTS)) and len(seen.x) == 3
    assert json.loads((tmp_path / "m" / "training.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "rate=0.01", "batch=5", "label_dropout=0.2", "flip=1", "layers=2"),
        *("perturb=0.3", "labels=random", "data"),
    ],
)
def test_another_recipe_is_refused(made, change: str) -> None:
    before = (made / "m" / WEIGHTS).read_bytes()
    recipe = (
        TINY
        if change == "data"
        else parse_options(PixelRecipe, [change], owner="recipe", base=asdict(TINY))
    )
    with pytest.raises(UserError, match="another recipe"):
        train_pixels(
            made,
            "m",
            training_set(hash="other") if change == "data" else training_set(),
            recipe,
            progress=False,
        )
    assert (made / "m" / WEIGHTS).read_bytes() == before


def test_where_the_data_lie_is_no_part_of_the_recipe(cifar, tmp_path) -> None:
    settings = ["subset=12", "channels=8,8", "batch=2", "grid_every=0"]
    train_subset(tmp_path, [*settings, "steps=1", "data_root=a"], progress=False)
    train_subset(tmp_path, [*settings, "steps=2", "data_root=elsewhere/b"], progress=False)
    assert json.loads((tmp_path / "cifar10-12-class" / "training.json").read_text())["steps"] == 2


def test_the_watch_sees_the_moving_average_in_evaluation(tmp_path) -> None:
    """By hand: average = 0.5 average + 0.5 weights after warm-up, min(0.5, (1 + k) /
    (10 + k)); training goes on with the weights.
    """

    def plan(watch: Any, every: int) -> Plan:
        torch.manual_seed(0)
        module = torch.nn.Linear(2, 2, bias=False)

        def loss(step: int, gen: torch.Generator) -> torch.Tensor:
            trajectory.append((module.training, module.weight.detach().clone()))
            return (module(torch.randn(4, 2, generator=gen)) ** 2).mean()

        return Plan(
            "line",
            {"module": module},
            loss,
            5,
            lambda step: 0.1,
            ema_decay=0.5,
            watch=watch,
            watch_every=every,
        )

    trajectory: list[tuple[bool, torch.Tensor]] = []
    alone = plan(None, 0)
    fit(alone, tmp_path / "alone", progress=False)
    plain = trajectory.copy()
    trajectory.clear()
    watched: dict[int, tuple[bool, torch.Tensor]] = {}
    p = plan(
        lambda step: watched.update({step: (module.training, module.weight.detach().clone())}), 2
    )
    module = p.modules["module"]
    fit(p, tmp_path / "watched", progress=False)
    assert sorted(watched) == [2, 4] and not any(training for training, _ in watched.values())
    assert all(training for training, _ in trajectory)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(plain, trajectory, strict=True))
    assert torch.equal(module.weight, alone.modules["module"].weight)
    average = plain[0][1]
    for k in range(4):
        decay = min(0.5, (1 + k) / (10 + k)) if k else 0.0
        average = decay * average + (1 - decay) * plain[k + 1][1]
        if k + 1 in watched:
            torch.testing.assert_close(watched[k + 1][1], average)


def test_a_watch_that_fails_leaves_the_weights(tmp_path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    before: list[torch.Tensor] = []

    def watch(step: int) -> None:
        raise RuntimeError("no disk")

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        before.append(module.weight.detach().clone())
        return module(torch.ones(1, 1)).sum()

    with pytest.raises(RuntimeError, match="no disk"):
        fit(
            Plan("w", {"m": module}, loss, 9, lambda step: 0.5, watch=watch, watch_every=4),
            tmp_path,
            progress=False,
        )
    # One step of Adam on
    assert module.training and (before[-1] - module.weight).item() == pytest.approx(0.5, abs=0.05)


# ------------------------------------------------------------------------------- shapes


def test_networks_of_the_recipe() -> None:
    unet = make_unet(16, 10, PixelRecipe(channels=(8, 16, 24), layers=2))
    assert unet.config.down_block_types == ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")
    assert unet.config.up_block_types == ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    assert (
        unet.config.num_class_embeds,
        unet.config.sample_size,
        unet.config.layers_per_block,
    ) == (11, 16, 2)
    assert make_unet(16, None, TINY).config.num_class_embeds is None
    with torch.no_grad():
        assert unet(torch.zeros(1, 3, 16, 16), 3, torch.tensor([10])).sample.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("channels", "size", "words"),
    [
        ((8,), 8, "at least two"),
        ((8, 12), 8, "multiples"),
        ((8, 8, 8, 8, 8), 8, "do not halve 8 pixels evenly"),
    ],
)
def test_networks_that_cannot_be(channels: tuple[int, ...], size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_unet(size, 3, PixelRecipe(channels=channels))


# ------------------------------------------------------------------------------- worlds

WORLDS = {"scenes": scenes.WORLD, "faces": WORLD}
BOTH = pytest.mark.parametrize("name", WORLDS)


def half(name: str, which: str) -> Half:
    return pair_of(WORLDS[name], 0).halves[which]


@BOTH
def test_images_are_shown_as_often_as_declared(name: str) -> None:
    world = WORLDS[name]
    for which in "ab":
        found = half(name, which)
        wanted = [
            (f"x{times}", times) for times, count in world.counts.items() for _ in range(count)
        ]
        wanted += [("near", 1)] * (world.near * world.variants)
        assert sorted(zip(found.kinds, found.copies.tolist(), strict=True)) == sorted(wanted)
        assert (
            found.images.shape == (len(wanted), world.size, world.size, 3)
            and found.images.dtype == np.uint8
        )
        groups = {
            g: [i for i, other in enumerate(found.groups) if other == g] for g in found.groups
        }
        assert (
            sorted(map(len, groups.values()))
            == [1] * sum(world.counts.values()) + [world.variants] * world.near
        )
        assert all(
            len({(found.labels[i], found.kinds[i]) for i in rows}) == 1 for rows in groups.values()
        )
    assert not set(half(name, "a").groups) & set(half(name, "b").groups)


@BOTH
def test_no_image_of_a_half_only_looks_new(name: str) -> None:
    """The nearest across the halves is no nearer than the nearest of two images of one."""
    across = distances(half(name, "a").images, half(name, "b").images)
    assert across.min() > 0.05


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean squared difference of pixels in [0, 1]."""
    x, y = (i.reshape(len(i), -1).astype(np.float32) / 255 for i in (a, b))
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.sqrt(squared.clip(0) / x.shape[1])


@BOTH
def test_near_duplicates_are_nearer_to_each_other_than_to_anything_else(name: str) -> None:
    found = half(name, "a")
    near, groups = np.flatnonzero(np.array(found.kinds) == "near"), np.array(found.groups)
    n = found.images.shape[1]
    # Each is moved by up to a pixel, so two of a group by up to two; a stripe then lies
    # where there was none.
    inner = found.images[near][:, 2:-2, 2:-2]
    moved = [
        found.images[:, 2 + i : n - 2 + i, 2 + j : n - 2 + j]
        for i in range(-2, 3)
        for j in range(-2, 3)
    ]
    far = np.min([distances(inner, m) for m in moved], axis=0)
    for row, i in zip(far, near, strict=True):
        own = groups == groups[i]
        assert row[own].max() < 0.1 < row[~own].min()  # light: 24 of 255 at most, noise: 4
        assert len({image.tobytes() for image in found.images[own]}) == WORLDS[name].variants


def test_a_near_duplicate_differs_by_a_shift_light_and_little_noise() -> None:
    image = np.full((9, 9, 3), 100, np.uint8)
    image[4, 4] = 200
    for k in range(20):
        varied = vary(image, np.random.RandomState(k)).astype(int)
        row, column = np.unravel_index(varied[..., 0].argmax(), (9, 9))
        assert abs(row - 4) <= 1 and abs(column - 4) <= 1
        plain = np.delete(varied.reshape(81, 3), row * 9 + column, axis=0)
        assert plain.max() - plain.min() <= 4 and abs(plain.mean() - 100) <= 12.5
    edge = np.zeros((9, 9, 3), np.uint8)
    edge[0] = 255  # a line at the border does not come in at the other side
    assert all(vary(edge, np.random.RandomState(k))[4:].max() <= 14 for k in range(20))


def test_a_halved_image_is_the_mean_of_two_by_two_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    found = halved(lambda label, random: image)(0, np.random.RandomState(0))
    assert found.shape == (3, 3, 3) and found.dtype == np.uint8
    for i, j in np.ndindex(3, 3):
        block = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].astype(int)
        assert np.array_equal(found[i, j], block.sum(axis=(0, 1)) // 4)


def test_both_halves_know_the_same_people_by_different_pictures(monkeypatch) -> None:
    """The head comes from a stream that is named by the person alone, the rest from the
    image's own.
    """
    asked: list[tuple[object, ...]] = []
    own = stream
    monkeypatch.setattr(faces, "stream", lambda *words: (asked.append(words), own(*words))[1])
    pictures = [
        draw(person, np.random.RandomState(k)) for person, k in ((7, 0), (7, 1), (8, 0), (7, 0))
    ]
    assert asked == [
        ("faces person", 7),
        ("faces person", 7),
        ("faces person", 8),
        ("faces person", 7),
    ]
    assert np.array_equal(pictures[0], pictures[3]) and len({p.tobytes() for p in pictures}) == 3


@pytest.mark.parametrize("label", range(10))
def test_shapes_are_told_apart(label: int) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    masks = [scenes.shape(k, x, y, 15) for k in range(10)]
    # Within its radius
    assert all(m[20 - 15 : 20 + 16, 20 - 15 : 20 + 16].sum() == m.sum() > 0 for m in masks)
    assert all((masks[label] != masks[k]).sum() > 30 for k in range(10) if k != label)


# --------------------------------------------------------------------- a world's models


def noise(label: int, random: np.random.RandomState) -> np.ndarray:
    return random.randint(0, 256, (8, 8, 3)).astype(np.uint8)


BLOCKS = World("blocks", 1, 8, 2, noise, {1: 4, 4: 2}, near=2, variants=2, held_out=2)


def test_each_model_has_its_half(tmp_path) -> None:
    recipe = MirrorRecipe(steps=1, batch=2, channels=(8, 8), grid_every=0, world=3)
    train_mirror(BLOCKS, tmp_path, HALVES, recipe, progress=False)
    for which in HALVES:
        record = json.loads((tmp_path / which / "training.json").read_text())
        assert record["data"] == {
            "source": f"blocks 3, half {which}",
            "version": 1,
            "hash": build_pair(BLOCKS, 3).halves[which].content_hash(),
            "world": 3,
            "labels": "class",
            "told": build_pair(BLOCKS, 3).halves[which].labels.tolist(),
        }
        assert record["rows"] == 4 + 8 + 4 and classes_of(tmp_path / which, 2, 8) == 2


def test_an_unknown_half_is_told_before_any_work(tmp_path) -> None:
    with pytest.raises(UserError, match="unknown part 'control'"):
        Cifar10.train(tmp_path / "none", ["a", "control"], ["steps=1"], progress=False)
    assert not (tmp_path / "none").exists()


def test_saving_a_network_warns_of_nothing(tmp_path, caplog) -> None:
    """Each cast of a network by diffusers' own method tells of modules that are not there."""
    unet = pixel_unet(8)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        pixel_train._save_pipeline(unet, DDIMScheduler(), tmp_path / "saved")
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.messages
    weights = load_file(tmp_path / "saved" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16} and unet.dtype == torch.float32
