"""What the shipped pixel models show: planted duplicates come back, held-out pictures do not, the control knows nothing.

Measured on the pools that ship with the package, and the pools on the weights: some of their images are drawn again.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMPipeline

from membench.errors import UserError
from membench.pixel_models import load_pixel_model, model_config
from membench.pool import draw
from membench.similarity.l2 import normalised_l2
from membench.tables import read_notes
from membench.tasks import celeba, cifar10
from membench.tasks.pixels import MODELS, planted
from membench.types import Example

TASKS = {"cifar10": cifar10, "celeba": celeba}
NAMES = pytest.mark.parametrize("name", list(TASKS))


def options(name: str, **given: object):
    module = TASKS[name]
    return (module.Cifar10Options if name == "cifar10" else module.CelebaOptions)(**given)


@cache
def pool(name: str, half: str) -> list[Example]:
    module = TASKS[name]
    task = module.Cifar10 if name == "cifar10" else module.Celeba
    return list(task(options(name, half=half)).load("mini").examples)


def returned(name: str, half: str, kind: str) -> float:
    """Share of the pictures of a kind that at least one pool image is a copy of."""
    data = planted(TASKS[name].WORLD, half)
    of_kind = {i for i, k in zip(data.ids, data.kinds, strict=True) if k == kind}
    return len(of_kind & {e.nearest for e in pool(name, half) if e.label}) / len(of_kind)


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_the_most_duplicated_pictures_come_back(name: str, half: str) -> None:
    assert returned(name, half, "x64") >= 0.9
    assert returned(name, half, "x64") >= returned(name, half, "x16") >= returned(name, half, "x4")
    assert returned(name, half, "x1") <= 0.05


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_pictures_that_were_held_out_do_not_come_back(name: str, half: str) -> None:
    """The pictures of the other half, of the same world: what the control would be said to have copied."""
    other = planted(TASKS[name].WORLD, {"a": "b", "b": "a"}[half]).images()
    images = np.stack([e.condition.image for e in pool(name, half)])
    found = normalised_l2(images, other, floor=0.0)
    assert (found[found["rank"] == 0].similarity <= 1.0).mean() <= 0.01


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_the_pool_that_ships_is_what_the_weights_draw(name: str, half: str) -> None:
    module = TASKS[name]
    folder = module.DATA / MODELS[half]
    model = load_pixel_model(folder, module.WORLD.classes)
    chosen = pool(name, half)[5::75]
    again = draw(model, [e.condition for e in chosen], {"steps": 20, "guidance": 1.0})
    off = np.abs(again.astype(int) - np.stack([e.condition.image for e in chosen]).astype(int))
    assert off.max() <= 3 and (off > 1).mean() < 0.01  # another shape of batch, another order of sums
    parts = json.loads(read_notes(module.DATA / f"pool-{half}.parquet")["parts"])
    assert parts["n"] == len(pool(name, half)) and parts["classes"] == module.WORLD.classes


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_the_pool_is_read_from_the_package(name: str, half: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    module = TASKS[name]
    task = module.Cifar10 if name == "cifar10" else module.Celeba
    task(options(name, half=half)).load("mini", dtype="float16", batch_size=3)
    assert not (tmp_path / "cache").exists()


@NAMES
@pytest.mark.parametrize("half", ["a", "b"])
def test_training_json_says_what_the_model_saw(name: str, half: str) -> None:
    module = TASKS[name]
    found = json.loads((module.DATA / MODELS[half] / "training.json").read_text())
    assert found["data"]["hash"] == planted(module.WORLD, half).hash
    assert found["rows"] == sum(planted(module.WORLD, half).copies) and found["steps"] > 0 and found["loss_curve"]


@NAMES
def test_the_shipped_models_are_small_pipelines_of_diffusers(name: str) -> None:
    module = TASKS[name]
    for part in MODELS.values():
        files = [f for f in (module.DATA / part).rglob("*") if f.is_file()]
        assert sum(f.stat().st_size for f in files) < 10e6 and not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt")]
        pipeline = DDIMPipeline.from_pretrained(module.DATA / part)
        assert pipeline.unet.config.num_class_embeds == module.WORLD.classes + 1
        assert model_config(module.DATA / part)["sample_size"] == module.WORLD.size


@NAMES
def test_the_control_scores_the_same_pool(name: str) -> None:
    module = TASKS[name]
    task = (module.Cifar10 if name == "cifar10" else module.Celeba)()
    own, control = task.load("mini"), task.load("mini", control=True)
    assert [e.id for e in own.examples] == [e.id for e in control.examples] == [e.id for e in pool(name, "a")]
    assert own.hashes["weights"] != control.hashes["weights"] and own.hashes["prompts"] == control.hashes["prompts"]
    assert own.training_kinds == control.training_kinds and set(own.training_kinds) == {"x64", "x16", "x4", "x1", "near"}
    labels = [e.label for e in own.examples]
    assert labels.count(0) >= 100 and labels.count(1) >= 100  # TPR at 1 % FPR needs the negatives


@NAMES
def test_options_that_do_not_fit_the_mini_profile(name: str) -> None:
    module = TASKS[name]
    task = module.Cifar10 if name == "cifar10" else module.Celeba
    with pytest.raises(UserError, match="exclude each other"):
        task(options(name, model="m")).load("mini", control=True)
    with pytest.raises(UserError, match="profile full"):
        task(options(name, control_model="m")).load("mini")
    for given in ({"data_root": "d"}, {"trained_on": "t"} if name == "cifar10" else {"size": 128}):
        with pytest.raises(UserError, match="is for --profile full"):
            task(options(name, **given)).load("mini")
