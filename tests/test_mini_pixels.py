"""What the shipped pixel models show: planted duplicates come back, held-out images
do not, the control knows nothing.

Measured on the pools that ship with the package, and the pools on the weights: some of
their images are generated again.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMPipeline

from membench.datasets.pool import draw
from membench.errors import UserError
from membench.models.pixel import load_pixel_model, model_config
from membench.similarity.l2 import normalised_l2
from membench.tasks.celeba import task as celeba
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.pixels.task import planted
from membench.tasks.shared import HALVES, shipped_model
from membench.types import Condition, Example

TASKS = {"cifar10": cifar10, "celeba": celeba}
NAMES = pytest.mark.parametrize("name", list(TASKS))


def options(name: str, **given: object):
    module = TASKS[name]
    return (module.Cifar10Options if name == "cifar10" else module.CelebaOptions)(**given)


@cache
def pool(name: str) -> list[Example]:
    return list(task(name).load("mini").examples)


def task(name: str, **given: object):
    module = TASKS[name]
    return (module.Cifar10 if name == "cifar10" else module.Celeba)(options(name, **given))


def returned(name: str, kind: str) -> float:
    """Share of the images of a kind that at least one pool image is a copy of."""
    data = planted(TASKS[name].WORLD, "a")
    of_kind = {i for i, k in zip(data.ids, data.kinds, strict=True) if k == kind}
    return len(of_kind & {e.nearest for e in pool(name) if e.memorized}) / len(of_kind)


def copied(name: str, images: np.ndarray, half: str) -> float:
    """Share of images that are copies of an image of that half."""
    found = normalised_l2(images, planted(TASKS[name].WORLD, half).images(), floor=0.0)
    return float((found[found["rank"] == 0].similarity <= 1.0).mean())


@NAMES
def test_duplicated_pictures_come_back_and_the_more_often_shown_the_more(name: str) -> None:
    assert returned(name, "x64") == 1.0 and returned(name, "x16") >= 0.5
    assert (
        returned(name, "x16") >= returned(name, "x4") >= returned(name, "x1")
        and returned(name, "x1") <= 0.05
    )


@NAMES
def test_pictures_that_were_held_out_do_not_come_back(name: str) -> None:
    """The other half's images, of the same world."""
    assert copied(name, np.stack([e.condition.image for e in pool(name)]), "b") <= 0.01


@NAMES
def test_the_control_model_draws_its_own_pictures_and_none_of_the_others(name: str) -> None:
    module = TASKS[name]
    classes = module.WORLD.classes
    asked = [
        Condition(str(i), class_label=i % classes, start=("control test", str(i)))
        for i in range(48)
    ]
    images = draw(
        load_pixel_model(module.DATA / "control", classes), asked, {"steps": 20, "guidance": 1.0}
    )
    assert copied(name, images, "a") <= 0.02 and copied(name, images, "b") >= 0.3


@NAMES
def test_the_pool_that_ships_is_what_the_weights_draw(name: str) -> None:
    module = TASKS[name]
    model = load_pixel_model(module.DATA / "model", module.WORLD.classes)
    chosen = pool(name)[5::75]
    again = draw(model, [e.condition for e in chosen], {"steps": 20, "guidance": 1.0})
    off = np.abs(again.astype(int) - np.stack([e.condition.image for e in chosen]).astype(int))
    # Another shape of batch, another order of sums
    assert off.max() <= 3 and (off > 1).mean() < 0.01


@NAMES
def test_the_pool_is_read_from_the_package(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    for control in (False, True):
        task(name).load("mini", control=control, dtype="float16", batch_size=3)
    assert not (tmp_path / "cache").exists()


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_training_json_says_what_the_model_saw(name: str, half: str) -> None:
    module = TASKS[name]
    found = json.loads(
        (module.DATA / shipped_model(half, control=False) / "training.json").read_text()
    )
    assert found["data"]["hash"] == planted(module.WORLD, half).hash
    assert (
        found["rows"] == sum(planted(module.WORLD, half).copies)
        and found["steps"] > 0
        and found["loss_curve"]
    )


@NAMES
def test_the_shipped_models_are_small_pipelines_of_diffusers(name: str) -> None:
    module = TASKS[name]
    for part in HALVES:
        files = [f for f in (module.DATA / part).rglob("*") if f.is_file()]
        assert sum(f.stat().st_size for f in files) < 10e6 and not [
            f for f in files if f.suffix in (".bin", ".pt", ".ckpt")
        ]
        pipeline = DDIMPipeline.from_pretrained(module.DATA / part)
        assert pipeline.unet.config.num_class_embeds == module.WORLD.classes + 1
        assert model_config(module.DATA / part)["sample_size"] == module.WORLD.size


@NAMES
def test_the_control_scores_the_same_pool(name: str) -> None:
    own, control = task(name).load("mini"), task(name).load("mini", control=True)
    assert [e.id for e in own.examples] == [e.id for e in control.examples]
    assert (
        own.hashes["weights"] != control.hashes["weights"]
        and own.hashes["prompts"] == control.hashes["prompts"]
    )
    assert own.training.kinds == control.training.kinds and set(own.training.kinds) == {
        "x64",
        "x16",
        "x4",
        "x1",
        "near",
    }
    labels = [e.memorized for e in own.examples]
    assert labels.count(0) >= 100 and labels.count(1) >= 100  # TPR at 1 % FPR needs the negatives


@NAMES
def test_options_that_do_not_fit_the_mini_profile(name: str) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        task(name, model="m").load("mini", control=True)
    for given in (
        {"control_model": "m"},
        {"data_root": "d"},
        {"trained_on": "t"} if name == "cifar10" else {"size": 128},
    ):
        with pytest.raises(UserError, match="is for --profile full"):
            task(name, **given).load("mini")
