"""What the shipped pixel models show: of the last rung duplicates come back, the more
often they were shown the more; of the earlier rungs fewer do; images of the other half
never do.

Measured on images that are generated here from fixed noise.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMPipeline

from membench.datasets.pool import generate
from membench.errors import UserError
from membench.models.pixel import load_pixel_model
from membench.models.pixel_files import model_config
from membench.similarity.l2 import normalised_l2
from membench.tasks.celeba import task as celeba
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.pixels.mirror import Pair
from membench.tasks.pixels.mirror_task import pair_of
from membench.tasks.shared import HALVES, mirror_of, rung_folder
from membench.types import Condition

TASKS = {"cifar10": cifar10, "celeba": celeba}
# Images of half a, and of half b: celeba has 24 classes and 8 images that were shown 64
# times, cifar10 10 and 20. Of six steps as of twenty the same images come back.
MANY, FEW, STEPS = {"cifar10": 300, "celeba": 144}, {"cifar10": 60, "celeba": 48}, 6
NAMES = pytest.mark.parametrize("name", list(TASKS))


def task(name: str, **given: object):
    module = TASKS[name]
    made = module.Cifar10 if name == "cifar10" else module.Celeba
    return made(made.Options(**given))


def pair(name: str) -> Pair:
    return pair_of(TASKS[name].WORLD, 0)


def weights(name: str, half: str, rung: int) -> Path:
    """rung: from 1 on; 0: the last."""
    return rung_folder(TASKS[name].DATA / half, TASKS[name].RUNGS[rung - 1])


@cache
def generated(name: str, half: str, rung: int, n: int, told: bool) -> np.ndarray:
    """n images of a model, told each class in turn or nothing."""
    classes = TASKS[name].WORLD.classes
    asked = [
        Condition(str(i), class_label=i % classes if told else None, start=("rungs", str(i)))
        for i in range(n)
    ]
    model = load_pixel_model(weights(name, half, rung), classes)
    return generate(model, asked, {"steps": STEPS, "guidance": 1.0})


def copied(name: str, images: np.ndarray, half: str) -> list[int]:
    """Which image of that half each copy is one of."""
    found = normalised_l2(images, pair(name).halves[half].images, floor=0.0)
    return found[(found["rank"] == 0) & (found.similarity <= 1.0)].training.tolist()


@NAMES
def test_duplicates_come_back_and_the_more_often_shown_the_more(name: str) -> None:
    """Of images that were each told a class in turn."""
    half = pair(name).halves["a"]
    returned = set(copied(name, generated(name, "a", 0, MANY[name], True), "a"))
    share = {
        kind: np.mean([i in returned for i, k in enumerate(half.kinds) if k == kind])
        for kind in ("x64", "x16", "x4", "x1")
    }
    assert share["x64"] >= 0.95 and share["x16"] > 0
    assert share["x16"] >= share["x4"] >= share["x1"] and share["x1"] <= 0.02


def test_copies_become_more_from_rung_to_rung() -> None:
    """Among images of the null class; every other rung, for the sake of time."""
    n = 100
    images = [generated("cifar10", "a", rung, n, False) for rung in (1, 3, 5)]
    rates = [len(copied("cifar10", made, "a")) / n for made in images]
    assert rates[0] < rates[1] < rates[2]
    assert rates[0] <= 0.1 and rates[2] >= 0.25


@NAMES
@pytest.mark.parametrize("half", HALVES)
def test_images_of_the_other_half_do_not_come_back(name: str, half: str) -> None:
    """They are of the same world, and the mirror's model returns them."""
    images = generated(name, half, 0, (MANY if half == "a" else FEW)[name], True)
    assert not copied(name, images, mirror_of(half))
    assert len(copied(name, images, half)) >= 0.25 * len(images)


@NAMES
@pytest.mark.parametrize("half", HALVES)
def test_training_json_says_what_the_model_saw(name: str, half: str) -> None:
    module = TASKS[name]
    found = json.loads((module.DATA / half / "training.json").read_text())
    assert found["data"]["hash"] == pair(name).halves[half].content_hash()
    assert found["rows"] == pair(name).halves[half].copies.sum()
    assert found["steps"] >= module.RUNGS[-1] and found["loss_curve"]


@NAMES
@pytest.mark.parametrize("half", HALVES)
def test_the_shipped_models_are_small_pipelines_of_diffusers(name: str, half: str) -> None:
    module = TASKS[name]
    files = [f for f in (module.DATA / half).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 10e6
    assert {f.suffix for f in files} == {".json", ".safetensors"}
    for rung in range(len(module.RUNGS)):
        folder = weights(name, half, rung)
        unet = DDIMPipeline.from_pretrained(folder).unet
        assert unet.config.num_class_embeds == module.WORLD.classes + 1
        assert tuple(unet.config.block_out_channels) == module.CHANNELS
        assert model_config(folder)["sample_size"] == module.WORLD.size


@NAMES
def test_the_examples_are_the_images_of_both_halves(name: str) -> None:
    own = task(name).load("mini")
    labels = [e.memorized for e in own.examples]
    # TPR at 1 % FPR needs the negatives
    assert labels.count(0) >= 100 and labels.count(1) >= 100
    assert {e.source for e in own.examples} == {"a", "b", "held_out"}
    assert all(e.memorized == int(e.source == "a") for e in own.examples)
    assert own.info.space.id.startswith(f"normalised-l2/pixels{TASKS[name].WORLD.size}/")
    assert set(own.training.kinds) == {"x64", "x16", "x4", "x1", "near"}
    assert own.model().classes == TASKS[name].WORLD.classes


@NAMES
def test_half_b_exchanges_the_labels(name: str) -> None:
    a, b = task(name).load("mini"), task(name, half="b").load("mini")
    assert [e.id for e in a.examples] == [e.id for e in b.examples]
    for one, other in zip(a.examples, b.examples, strict=True):
        held_out = one.source == "held_out"
        assert one.source == other.source and one.memorized + other.memorized == 1 - held_out


@NAMES
def test_the_mirror_model_scores_the_same_examples_as_a_control(name: str) -> None:
    own, control, mirror = (
        task(name).load("mini"),
        task(name).load("mini", control=True),
        task(name, half="b").load("mini"),
    )
    assert [(e.id, e.memorized) for e in own.examples] == [
        (e.id, e.memorized) for e in control.examples
    ]
    assert own.hashes["prompts"] == control.hashes["prompts"]
    assert own.hashes["weights"] != control.hashes["weights"] == mirror.hashes["weights"]
    assert own.training.ids == control.training.ids


@NAMES
def test_a_pool_is_generated_once_and_the_control_scores_it_too(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In float32 and by the reported model, whatever scores it."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    asked = task(name, examples="generated", pool=4)
    own, control = asked.load("mini"), asked.load("mini", control=True, dtype="float16")
    again = asked.load("mini", batch_size=3)
    assert [e.id for e in own.examples] == [e.id for e in control.examples]
    assert [e.id for e in own.examples] == [e.id for e in again.examples]
    assert [e.condition.class_label for e in own.examples] == [0, 1, 2, 3]
    assert own.hashes["weights"] != control.hashes["weights"]
    assert len(list((tmp_path / "cache" / "pools").glob("*.parquet"))) == 1


@NAMES
def test_options_that_do_not_fit_the_mini_profile(name: str) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        task(name, model="m", examples="generated").load("mini", control=True)
    for given in (
        {"control_model": "m"},
        {"data_root": "d"},
        {"trained_on": "t"} if name == "cifar10" else {"size": 128},
    ):
        with pytest.raises(UserError, match="is for --profile full"):
            task(name, **given).load("mini")
    with pytest.raises(UserError, match=f"{name} has rungs 1 to {len(TASKS[name].RUNGS)}"):
        task(name, rung=6).load("mini")
    with pytest.raises(UserError, match="world 1 does not ship"):
        task(name, world=1).load("mini")
