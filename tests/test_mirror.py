"""Mirror pairs: halves that differ by coin flips alone, content-only classifiers at
chance, and what a task makes of them.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import membench
from membench import api
from membench.boards.collect import collect_kinds
from membench.boards.mirror import collect_mirror
from membench.boards.resampling import Resampler
from membench.cli.main import main
from membench.detectors.cfg_norm import CfgNorm, CfgNormOptions
from membench.detectors.score_norm import ScoreNorm, ScoreNormOptions
from membench.errors import UserError
from membench.metrics.detection import of_kind
from membench.metrics.mirror import mirrored_auroc
from membench.models.pixel import load_pixel_model
from membench.reports.run_plots import run_roc
from membench.seeds import generator
from membench.storage.images import png_bits
from membench.tasks.celeba import faces
from membench.tasks.celeba import task as celeba
from membench.tasks.celeba.task import Celeba
from membench.tasks.cifar10 import scenes
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.cifar10 import train as cifar10_train
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.cifar10.train import train_subset
from membench.tasks.pixels import train as pixel_train
from membench.tasks.pixels.mirror import Pair, build_pair, detail, split
from membench.tasks.pixels.mirror_task import load_mirror, mirror_examples, pair_of
from membench.tasks.pixels.planted import World, stream
from membench.tasks.pixels.recipe import MirrorRecipe
from membench.tasks.pixels.train import train_mirror
from membench.tasks.sd_webster import task as sd_webster
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.shared import HALVES

TINY = World(
    "tiny",
    1,
    8,
    2,
    lambda label, random: random.randint(0, 256, (8, 8, 3)).astype(np.uint8),
    {1: 4, 4: 2},
    2,
    2,
    held_out=2,
)
RUNGS = (1, 2, 3, 4, 5)
SAMPLING = {"steps": 4, "guidance": 1.0}
IMAGES = {**SAMPLING, "examples": "images"}
KINDS = {
    "scenes": {"x1": 100, "x4": 100, "x16": 80, "x64": 20, "near": 80},
    "faces": {"x1": 96, "x4": 24, "x16": 12, "x64": 8, "near": 48},
}
WORLDS = {"scenes": scenes.WORLD, "faces": faces.WORLD}
NAMES = pytest.mark.parametrize("name", list(WORLDS))
HASHES = {
    "scenes": {
        "a": "7c85d37db5d6b3a7e262b746b59b90b44b880e87cba584ec7bd63ac033ac5ded",
        "b": "20ddc86c109e6ffbb4c1d116406e143c258d5854bbefe8138caf31c1f07ec98f",
        "held_out": "8f28026d48274ad04f98262d0da111a9703c23d684f839cf19e9f6abd7930652",
    },
    "faces": {
        "a": "bcf2381c6b74d40c973d296549244d3387c64eed841f55550b6f14eaf5815edc",
        "b": "60313db1b833b295ae855e94fd4520e54441431c31685f00eb4fa162b4f57a84",
        "held_out": "41e7d0a479c6ba3a34a464d691983afd40669f9c5985a3e815905e9c5d8592fd",
    },
}


@pytest.fixture(scope="module", autouse=True)
def small_grid() -> Iterator[None]:
    """Of a training's samples, at which nothing here looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_train, "GRID", 8)
        patch.setattr(pixel_train, "GRID_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def pair() -> Pair:
    return pair_of(scenes.WORLD, 0)


# ------------------------------------------------------------------------ what is drawn


@NAMES
def test_the_development_world_is_the_one_that_the_models_were_trained_on(name: str) -> None:
    """Golden hashes: another platform or numpy must draw the same bytes, part the same
    pairs and flip the same coins.
    """
    pair = pair_of(WORLDS[name], 0)
    assert {
        part: half.content_hash()
        for part, half in {**pair.halves, "held_out": pair.held_out}.items()
    } == HASHES[name]


@NAMES
def test_every_kind_and_label_has_as_many_images_in_either_half(name: str) -> None:
    pair, world = pair_of(WORLDS[name], 0), WORLDS[name]
    for half in pair.halves.values():
        assert Counter(half.kinds) == KINDS[name]
        cells = Counter(zip(half.kinds, half.labels.tolist(), strict=True))
        if world.paired:
            shares = {n // world.classes for n in KINDS[name].values()}
            assert set(cells.values()) == shares
        assert all(
            n == (int(kind[1:]) if kind != "near" else 1)
            for kind, n in zip(half.kinds, half.copies.tolist(), strict=True)
        )
    a, b = (Counter(zip(h.kinds, h.labels.tolist(), strict=True)) for h in pair.halves.values())
    assert a == b
    assert len(pair.held_out.images) == world.held_out and not pair.held_out.copies.any()


@NAMES
def test_no_image_stands_in_two_places(name: str) -> None:
    pair, world = pair_of(WORLDS[name], 0), WORLDS[name]
    every = [
        image.tobytes() for half in (*pair.halves.values(), pair.held_out) for image in half.images
    ]
    assert len(set(every)) == len(every) == 2 * sum(KINDS[name].values()) + world.held_out
    groups = [set(half.groups) for half in (*pair.halves.values(), pair.held_out)]
    originals = 2 * (sum(world.counts.values()) + world.near) + world.held_out
    assert sum(map(len, groups)) == len(set.union(*groups)) == originals


@pytest.mark.parametrize("paired", [True, False])
def test_another_world_draws_other_images(paired: bool) -> None:
    world = replace(TINY, paired=paired)
    first, second = build_pair(world, 0), build_pair(world, 1)
    assert not {i.tobytes() for i in first.halves["a"].images} & {
        i.tobytes() for h in second.halves.values() for i in h.images
    }
    assert all(
        build_pair(world, 0).halves[h].content_hash() == first.halves[h].content_hash()
        for h in HALVES
    )


def test_detail_counts_the_colours_of_the_mixed_difference() -> None:
    plain = np.full((4, 4, 3), 7, np.uint8)
    step = plain.copy()
    step[2:, 2:] = 9  # one corner: its mixed difference is 2 at one place, 0 elsewhere
    assert detail(np.stack([plain, step])).tolist() == [1, 2]


def test_neighbours_in_detail_are_parted_by_fair_coins() -> None:
    images = np.stack([scenes.draw(0, stream("test", i)) for i in range(8)])
    order = np.argsort(detail(images), kind="stable").reshape(-1, 2)
    went = []
    for seed in range(100):
        a, b = split(images, np.random.RandomState(seed))
        assert all(
            {x, y} == set(two)
            for x, y, two in zip(a.tolist(), b.tolist(), order.tolist(), strict=True)
        )
        went.append(a == order[:, 0])
    assert abs(np.mean(went, axis=0) - 0.5).max() < 4 * (0.25 / 100) ** 0.5  # each coin is fair
    # And none knows of another
    assert abs(np.corrcoef(np.array(went).T) - np.eye(4)).max() < 4 / 100**0.5


# ----------------------------------------------------------- that content tells nothing


def pair_of_rows(pair: Pair) -> np.ndarray:
    """Which coin decided each row of a half: near-duplicates of one image share theirs.

    Row i of a and row i of b are a pair.
    """
    return np.unique(pair.halves["a"].groups, return_inverse=True)[1]


def permuted(
    values: dict[str, np.ndarray], coins: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The two halves' values after the coins were flipped anew."""
    heads = np.random.RandomState(seed).randint(2, size=coins.max() + 1)[coins].astype(bool)
    return np.where(heads, values["b"], values["a"]), np.where(heads, values["a"], values["b"])


def auroc(a: np.ndarray, b: np.ndarray) -> float:
    """Of a above b, by the sum of ranks: quicker than a curve."""
    return float((rankdata(np.r_[a, b])[: len(a)].sum() / len(a) - (len(a) + 1) / 2) / len(b))


def p_value(values: dict[str, np.ndarray], coins: np.ndarray, flips: int = 400) -> float:
    """Of |AUROC - 0.5| of half a against half b under new coins: the permutation test
    of exchangeability.
    """
    found = abs(auroc(values["a"], values["b"]) - 0.5)
    null = [abs(auroc(*permuted(values, coins, seed)) - 0.5) for seed in range(flips)]
    return (1 + sum(x >= found - 1e-12 for x in null)) / (1 + flips)


def test_the_rank_sum_is_the_auroc() -> None:
    a, b = np.array([1.0, 2, 2, 5]), np.array([0.0, 2, 3])
    assert auroc(a, b) == pytest.approx(roc_auc_score([1] * 4 + [0] * 3, np.r_[a, b]))


def content(pair: Pair) -> dict[str, dict[str, np.ndarray]]:
    """What a detector without a model can measure of an image, for each half."""
    measures = {
        "png": png_bits,
        "brightness": lambda image: image.mean(),
        "contrast": lambda image: image.std(),
        "red": lambda image: image[..., 0].mean(),
    }
    return {
        name: {h: np.array([float(f(i)) for i in pair.halves[h].images]) for h in HALVES}
        for name, f in measures.items()
    }


@pytest.mark.parametrize(("name", "number"), [("scenes", 0), ("scenes", 1)])
def test_the_size_of_the_png_is_at_chance_in_every_cell_of_a_hundred(
    name: str, number: int
) -> None:
    pair = pair_of(WORLDS[name], number)
    sizes = content(pair)["png"]
    for kind in ("x1", "x4"):
        rows = np.array([k == kind for k in pair.halves["a"].kinds])
        assert rows.sum() >= 100 and abs(auroc(sizes["a"][rows], sizes["b"][rows]) - 0.5) <= 0.05
    assert abs(auroc(sizes["a"], sizes["b"]) - 0.5) <= 0.05


def test_pairs_make_the_size_of_the_png_vary_less_than_a_free_draw_would(pair: Pair) -> None:
    sizes = content(pair)["png"]
    coins = pair_of_rows(pair)
    spread = np.std([auroc(*permuted(sizes, coins, seed)) for seed in range(200)])
    both, n = np.r_[sizes["a"], sizes["b"]], len(sizes["a"])
    free = np.std(
        [
            auroc(both[order[:n]], both[order[n:]])
            for order in (np.random.RandomState(s).permutation(2 * n) for s in range(200))
        ]
    )
    assert spread < 0.6 * free


def test_coins_flipped_anew_leave_every_content_only_measure_where_it_is(pair: Pair) -> None:
    """The permutation test: with 4 measures, the smallest p-value is below 0.01 in 4 %
    of worlds; the world is fixed.
    """
    coins = pair_of_rows(pair)
    assert min(p_value(values, coins) for values in content(pair).values()) > 0.01


def test_the_permutation_test_finds_what_a_half_gives_away(pair: Pair) -> None:
    """The control of the control: half a two grey levels brighter in each image's own
    pair is seen at once.
    """
    values = content(pair)["brightness"]
    order = np.sort(np.stack([values["a"], values["b"]]), axis=0)
    assert p_value({"a": order[1], "b": order[0]}, pair_of_rows(pair)) < 0.01


def test_a_trained_classifier_of_content_is_at_chance(pair: Pair) -> None:
    """Logistic regression on 8 x 8 means, cross-validated with both images of a pair on
    one side.
    """
    images = np.concatenate([pair.halves[h].images for h in HALVES]).astype(np.float64)
    n, cell = len(images), images.shape[1] // 8
    small = images.reshape(n, 8, cell, 8, cell, 3).mean(axis=(2, 4)).reshape(n, -1)
    labels, coins = np.repeat([1, 0], len(images) // 2), np.tile(pair_of_rows(pair), 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    guess = cross_val_predict(
        model, small, labels, groups=coins, cv=GroupKFold(5), method="decision_function"
    )
    assert abs(roc_auc_score(labels, guess) - 0.5) <= 0.08


# ------------------------------------------------------------------ examples and models


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models of the tiny world, with a snapshot after each of five steps."""
    out = tmp_path_factory.mktemp("world")
    train_mirror(
        TINY,
        out,
        HALVES,
        MirrorRecipe(steps=5, batch=2, channels=(8, 8), rungs=RUNGS, grid_every=0),
        progress=False,
    )
    return out


def load(folder: Path, control: bool = False, **options: object):
    given = Cifar10Options(**{"examples": "training", "models": str(folder), **options})
    task = replace(Cifar10.info, sampling=SAMPLING)
    return load_mirror(
        task,
        TINY,
        folder,
        RUNGS,
        given,
        control=control,
        device="cpu",
        dtype="float32",
        batch_size=8,
    )


def test_examples_are_the_images_of_both_halves_and_of_neither() -> None:
    pair = build_pair(TINY)
    found = {half: mirror_examples(pair, half) for half in HALVES}
    for half, examples in found.items():
        assert len({e.id for e in examples}) == len(examples) == 2 * 10 + 2
        assert all(e.memorized == int(e.source == half) for e in examples)
        kinds = {
            s: Counter(e.kind for e in examples if e.source == s) for s in ("a", "b", "held_out")
        }
        assert kinds["a"] == kinds["b"] == {"x1": 4, "x4": 2, "near": 4} and kinds["held_out"] == {
            "held_out": 2
        }
        for e in examples:
            assert e.condition.start is None and e.condition.prompt is None
            source = pair.held_out if e.source == "held_out" else pair.halves[e.source]
            row = next(
                i
                for i, image in enumerate(source.images)
                if np.array_equal(image, e.condition.image)
            )
            assert (e.kind, e.group, e.condition.class_label) == (
                source.kinds[row],
                source.groups[row],
                source.labels[row],
            )
    assert [e.id for e in found["a"]] == [e.id for e in found["b"]]
    flipped = [1 - e.memorized if e.source != "held_out" else 0 for e in found["b"]]
    assert [e.memorized for e in found["a"]] == flipped


def test_each_model_scores_the_same_examples(trained: Path) -> None:
    own, control, mirror = load(trained), load(trained, control=True), load(trained, half="b")
    assert (
        [e.memorized for e in own.examples]
        == [e.memorized for e in control.examples]
        != [e.memorized for e in mirror.examples]
    )
    assert own.hashes["prompts"] == control.hashes["prompts"] != mirror.hashes["prompts"]
    assert control.hashes["weights"] == mirror.hashes["weights"] != own.hashes["weights"]
    assert (
        own.training.ids == control.training.ids
        and own.training.ids[0] == "a/0000"
        and mirror.training.ids[0] == "b/0000"
    )
    assert np.array_equal(own.training.images(), build_pair(TINY).halves["a"].images)
    assert set(own.training.kinds) == {"x1", "x4", "near"} and sum(own.training.copies) == 4 + 8 + 4


def test_a_rung_is_the_moving_average_after_its_step(trained: Path, tmp_path: Path) -> None:
    hashes = [load(trained, rung=k).hashes["weights"] for k in range(1, 6)]
    assert len(set(hashes)) == 5 and load(trained).hashes["weights"] == hashes[4]
    train_mirror(
        TINY,
        tmp_path,
        ["a"],
        MirrorRecipe(steps=2, batch=2, channels=(8, 8), grid_every=0),
        progress=False,
    )
    short, rung = (
        load_pixel_model(f, 2).network.state_dict()
        for f in (tmp_path / "a", trained / "a" / "step-00002")
    )
    assert all(torch.equal(short[name], rung[name]) for name in short)


def test_the_generated_pool_is_of_the_rung_and_half(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path))
    own, other = (load(trained, examples="generated", pool=3, half=half) for half in HALVES)
    assert len(own.examples) == 3 and all(e.condition.start for e in own.examples)
    assert {e.id for e in own.examples}.isdisjoint(e.id for e in other.examples)
    assert all(e.nearest.startswith("a/") for e in own.examples) and all(
        e.nearest.startswith("b/") for e in other.examples
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"world": 1}, "was not trained on half a of world 1"),
        ({"world": 1, "models": ""}, "world 1 does not ship: membench train cifar10 --world 1"),
        (
            {"model": "somebody/else", "examples": "training"},
            "nobody knows which of these images it saw",
        ),
        ({"pool": 7, "examples": "training"}, "pool=7: the examples are training images"),
        ({"labels": "none", "examples": "training"}, "labels=none"),
        ({"data_root": "d"}, "is for --profile full"),
        (
            {"models": "nowhere"},
            "nowhere/a/step-00005 is missing: its training has not come so far",
        ),
        ({"models": "no-{world}-where"}, "no-0-where/a/step-00005 is missing"),
    ],
)
def test_what_does_not_fit_is_one_line(
    trained: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        load(trained, **options)
    assert "\n" not in str(error.value)


def test_a_training_that_was_interrupted_is_no_world(trained: Path, tmp_path: Path) -> None:
    recipe = MirrorRecipe(steps=2, batch=2, channels=(8, 8), rungs=(1, 5), grid_every=0)
    train_mirror(TINY, tmp_path, HALVES, recipe, progress=False)
    with pytest.raises(UserError, match="a/step-00005 is missing"):
        load(tmp_path)
    assert load(tmp_path, rung=1).examples
    (tmp_path / "b" / "training.json").unlink()
    with pytest.raises(UserError, match=r"b/training.json does not say"):
        load(tmp_path, rung=1)


def test_a_rung_that_was_passed_cannot_be_kept_later(tmp_path: Path) -> None:
    recipe = MirrorRecipe(steps=2, batch=2, channels=(8, 8), grid_every=0)
    train_mirror(TINY, tmp_path, ["a"], recipe, progress=False)
    with pytest.raises(UserError, match="is past step 1, which was not kept"):
        train_mirror(TINY, tmp_path, ["a"], replace(recipe, rungs=(1,)), progress=False)
    train_mirror(TINY, tmp_path, ["a"], replace(recipe, steps=3, rungs=(3,)), progress=False)
    report = json.loads((tmp_path / "a" / "training.json").read_text())
    assert (
        report["data"] | {"hash": build_pair(TINY).halves["a"].content_hash(), "world": 0}
        == report["data"]
    )
    assert report["steps"] == 3 and report["rows"] == 16


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (Cifar10, {"world": 1}),
        (Celeba, {"rung": 2}),
        (Cifar10, {"world": 3}),
        (Celeba, {"half": "b"}),
        (Celeba, {"examples": "training"}),
    ],
)
def test_what_only_drawn_worlds_have(task: type, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="is for --profile mini"):
        task(task.Options(**options)).load("full")


def test_the_command_line_trains_both_halves_of_a_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[World, list[str], MirrorRecipe]] = []
    monkeypatch.setattr(
        pixel_train,
        "train_mirror",
        lambda world, out, parts, recipe, progress, tracker: asked.append(
            (world, list(parts), recipe)
        ),
    )
    for task in ("cifar10", "celeba"):
        assert main(["train", task, "--world", "3", "--output", str(tmp_path), "--quiet"]) == 0
        assert main(["train", task, "--part", "b", "--output", str(tmp_path), "--quiet"]) == 0
    assert [(world.name, parts, recipe.world) for world, parts, recipe in asked] == [
        *(("scenes", ["a", "b"], 3), ("scenes", ["b"], 0)),
        *(("faces", ["a", "b"], 3), ("faces", ["b"], 0)),
    ]
    for k, (_, _, recipe) in enumerate(asked):
        module = (cifar10, celeba)[k // 2]
        assert recipe.rungs == module.RUNGS and recipe.steps == module.RUNGS[-1]
        assert recipe.channels == module.CHANNELS
        assert recipe.label_dropout == (0.3, 0.1)[k // 2]
    assert main(["train", "cifar10", "--world", "-1"]) == 2


# ------------------------------------------------------------------------ real CIFAR-10


@pytest.fixture(scope="module")
def trainings() -> dict[tuple[str, ...], Path]:
    """What was trained by which settings: most tests ask for the same two models."""
    return {}


@pytest.fixture
def real(
    trainings: dict[tuple[str, ...], Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Cifar10]:
    """Forty images in place of the 50,000, and models of parts of them."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for module in (cifar10, cifar10_train):
        monkeypatch.setattr(module, "read_cifar10", lambda root: (images, np.arange(40) % 10))

    def trained(to: Path, *settings: str) -> None:
        if settings not in trainings:
            made = tmp_path_factory.mktemp("subset")
            train_subset(made, list(settings), progress=False)
            trainings[settings] = made
        shutil.copytree(trainings[settings], to)  # tests change what they are given

    def task(
        labels: str = "class", mirror: str = "skip=8", rungs: str = "", **options: object
    ) -> Cifar10:
        settings = [
            *([f"rungs={rungs}"] if rungs else []),
            "subset=8",
            "duplicate=0.25:5",
            f"labels={labels}",
            "channels=8,8",
            "steps=2",
            "batch=2",
            "grid_every=0",
        ]
        others = [s for s in settings if s.split("=")[0] != mirror.split("=")[0]]
        trained(tmp_path / "own", *settings)
        trained(tmp_path / "mirror", *others, mirror)
        [other] = [f.parent for f in (tmp_path / "mirror").glob("*/training.json")]
        given = {
            "examples": "training",
            "model": str(tmp_path / "own" / f"cifar10-8-{labels}"),
            "control_model": str(other),
        }
        return Cifar10(Cifar10Options(**{**given, **options}))

    return task


@pytest.mark.parametrize("labels", ["class", "none"])
def test_a_model_of_real_images_and_its_mirror(real: Callable[..., Cifar10], labels: str) -> None:
    task = real(labels)
    own, control = task.load("full"), task.load("full", control=True)
    count = Counter((e.source, e.kind, e.memorized) for e in own.examples)
    assert count == {
        ("a", "x5", 1): 2,
        ("a", "x1", 1): 6,
        ("b", "x5", 0): 2,
        ("b", "x1", 0): 6,
        ("held_out", "held_out", 0): 8,
    }
    for e in own.examples:
        row = int(e.group.removeprefix("train/"))
        assert np.array_equal(e.condition.image, cifar10.read_cifar10(None)[0][row])
        assert e.condition.class_label == (row % 10 if labels == "class" else None)
    assert {e.group for e in own.examples if e.memorized} == set(own.training.ids)
    assert [e.id for e in own.examples] == [
        e.id for e in control.examples
    ] and own.profile == "full"
    assert own.hashes["weights"] != control.hashes["weights"] and own.model().classes == (
        10 if labels == "class" else 0
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mirror": "skip=4"}, "was trained on 4 of the images"),
        ({"mirror": "subset=7"}, "was trained on 7 of the images"),
        ({"labels": "random"}, "labels=random: what a model was told of its own images"),
        ({"control_model": ""}, "compares a model with its mirror"),
    ],
)
def test_models_of_real_images_that_are_no_mirror(
    real: Callable[..., Cifar10], changes: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        real(**changes).load("full")


def test_a_mirror_by_another_recipe_is_refused(real: Callable[..., Cifar10]) -> None:
    task = real()
    file = Path(task.options.control_model) / "training.json"
    report = json.loads(file.read_text())
    report["data"]["copies"][0] = 9
    file.write_text(json.dumps(report))
    with pytest.raises(UserError, match="were not trained by one recipe"):
        task.load("full")
    file.unlink()
    with pytest.raises(UserError, match="does not say which images the model was trained on"):
        task.load("full")


@pytest.mark.parametrize("option", [{"labels": "none"}, {"pool": 7}, {"pool_seed": 3}])
def test_real_training_images_heed_no_option_of_a_pool(option: dict[str, Any]) -> None:
    named = {"model": "m", "control_model": "n", "examples": "training"}
    [(name, value)] = option.items()
    with pytest.raises(UserError, match=f"{name}={value}: the examples are training images"):
        Cifar10(Cifar10Options(**named, **option)).load("full")


def rewrite(file: Path, **recipe: object) -> None:
    report = json.loads(file.read_text())
    report["recipe"] |= recipe
    file.write_text(json.dumps(report))


def test_a_real_pair_is_of_one_recipe_in_all_numbers(real: Callable[..., Cifar10]) -> None:
    """But for those that change no weight; rungs count where one is asked for."""
    task = real(rungs="1,2")
    file = Path(task.options.control_model) / "training.json"
    rewrite(file, device="cuda", grid_every=7, data_root="elsewhere", rungs=[2])
    assert task.load("full").examples
    with pytest.raises(UserError, match=r"not trained by one recipe: rungs is \[1, 2\] and \[2\]"):
        Cifar10(replace(task.options, rung=1)).load("full")
    for changed in ({"rate": 0.1}, {"steps": 9}, {"flip": True}, {"seed": 3}, {"more": 1}):
        before = file.read_text()
        rewrite(file, **changed)
        with pytest.raises(UserError, match=f"by one recipe: {next(iter(changed))} is"):
            task.load("full")
        file.write_text(before)


def test_a_pair_of_a_world_is_of_one_recipe(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "w")
    file = tmp_path / "w" / "b" / "training.json"
    rewrite(file, device="cuda", grid_every=7)
    assert load(tmp_path / "w").examples
    rewrite(file, rate=0.1)
    for how in ({}, {"half": "b"}, {"examples": "generated", "control": True}):
        with pytest.raises(UserError, match=r"not trained by one recipe: rate is 0\.001 and 0\.1"):
            load(tmp_path / "w", **how)


def test_the_ladder_of_a_model_of_real_images(real: Callable[..., Cifar10]) -> None:
    """Each rung has the same examples and other weights, of model and mirror alike."""
    task = real(rungs="1,2")
    rungs = [Cifar10(replace(task.options, rung=k)) for k in range(3)]
    plain, low, high = (t.load("full") for t in rungs)
    assert low.hashes["weights"] != high.hashes["weights"] == plain.hashes["weights"]
    assert [e.id for e in low.examples] == [e.id for e in high.examples]
    assert low.training.hash == plain.training.hash
    controls = [t.load("full", control=True).hashes["weights"] for t in rungs]
    assert len({*controls, low.hashes["weights"], high.hashes["weights"]}) == 4
    # A snapshot that is named as the model has the images of its training
    named = replace(task.options, model=f"{task.options.model}/step-00001")
    assert Cifar10(named).load("full").training.hash == plain.training.hash
    for options, words in (
        ({"rung": 3}, "has rungs 1 to 2"),
        ({"rung": 1, "model": ""}, "name it: --model FOLDER"),
        ({"rung": 1, "model": named.model}, "does not say which snapshots"),
    ):
        with pytest.raises(UserError, match=words):
            Cifar10(replace(task.options, **options)).load("full")
    shutil.rmtree(named.model)
    with pytest.raises(UserError, match="step-00001 is missing"):
        rungs[1].load("full")


def test_half_b_of_a_real_pair_asks_the_mirror(real: Callable[..., Cifar10]) -> None:
    """The same examples in the same order, with the labels of the halves exchanged; each
    is the other's control.
    """
    task = real()
    other = Cifar10(replace(task.options, half="b"))
    a, b, control = task.load("full"), other.load("full"), other.load("full", control=True)
    assert [e.id for e in a.examples] == [e.id for e in b.examples]
    for e, f in zip(a.examples, b.examples, strict=True):
        assert e.source == f.source and e.memorized == (e.source == "a")
        assert f.memorized == (f.source == "b")
    assert {e.group for e in b.examples if e.memorized} == set(b.training.ids)
    assert a.hashes["weights"] == control.hashes["weights"] != b.hashes["weights"]
    assert task.load("full", control=True).hashes["weights"] == b.hashes["weights"]
    for options in ({"examples": "generated"}, {"examples": "auto"}, {"control_model": ""}):
        with pytest.raises(UserError, match="half=b with --profile full asks the mirror"):
            Cifar10(replace(other.options, **options)).load("full")


def test_a_real_pair_is_one_row_of_the_board_of_mirrors(
    real: Callable[..., Cifar10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "write_pages", lambda runs: None)
    options = real().options
    words = [f"{name}={getattr(options, name)}" for name in ("model", "control_model", "examples")]
    runs = [
        membench.run(
            "png_size",
            "cifar10",
            profile="full",
            task_options=[*words, f"half={half}"],
            options=["images=0"],
            out=tmp_path / "runs",
            progress=False,
        )
        for half in "ab"
    ]
    board = collect_mirror(runs).set_index("kind")
    assert set(board.index) == {"all", "x1", "x5"}
    assert board.mirrored["x1"] == board.mirrored["x5"] == 0.5  # content tells nothing
    assert board.auroc_a["x5"] == 1 - board.auroc_b["x5"]


def test_a_rung_of_a_training_without_any(real: Callable[..., Cifar10]) -> None:
    with pytest.raises(UserError, match="has no snapshots; train it with --set rungs="):
        real(rung=1).load("full")


def test_the_named_training_json_is_of_the_model_alone(
    real: Callable[..., Cifar10], tmp_path: Path
) -> None:
    """A model that was moved from its training.json: the file is read for its examples,
    and never for its mirror, of which it says nothing.
    """
    task = real()
    wanted = task.load("full")
    moved = tmp_path / "moved"
    shutil.copytree(task.options.model, moved)
    file = tmp_path / "named.json"
    (moved / "training.json").rename(file)
    given = Cifar10(replace(task.options, model=str(moved), trained_on=str(file)))
    found = given.load("full")
    assert [e.id for e in found.examples] == [e.id for e in wanted.examples]
    assert [e.memorized for e in found.examples] == [e.memorized for e in wanted.examples]
    assert found.training.hash == wanted.training.hash
    given.load("full", control=True)


# ------------------------------------------------------------------------ how it counts


def test_a_kind_is_compared_with_the_same_kind_of_the_other_half() -> None:
    labels, kinds = (
        np.array([1, 1, 0, 0, 0, 1]),
        np.array(["x1", "x4", "x1", "x4", "held_out", "RV"]),
    )
    assert of_kind(labels, kinds, "x1").tolist() == [True, False, True, False, False, False]
    # No such negative: all of them
    assert of_kind(labels, kinds, "RV").tolist() == [False, False, True, True, True, True]


def test_a_run_holds_the_metrics_of_each_kind_against_the_same_kind(tmp_path: Path) -> None:
    """From the scores to the stored table, which is computed again when the folder is
    read, and to the board.
    """
    run = membench.run(
        "caption_length",
        "sd_webster",
        task_options=["examples=mirror"],
        out=tmp_path,
        progress=False,
    )
    found = run.metrics[run.metrics.metric == "auroc"].set_index("subset").value
    kinds = collect_kinds([run]).set_index("kind").auroc
    resampler = Resampler(resamples=2)
    for kind in ("MV", "TV", "RV"):
        alike = run.scores[run.scores.kind == kind]
        assert set(alike.label) == {0, 1}
        wanted = pytest.approx(roc_auc_score(alike.label, alike.score))
        assert found[f"kind={kind}"] == kinds[kind] == wanted
        assert resampler.detection([run], f"kind={kind}")[0]["auroc"].value == wanted


def test_the_roc_of_a_kind_is_against_the_same_kind_of_the_other_half() -> None:
    """Held-out images score above all others: they lower the curve of all examples, and
    none of a kind's.
    """
    frame = pd.DataFrame(
        {
            "score": [2, 2, 1, 1, 9, 9],
            "label": [1, 1, 0, 0, 0, 0],
            "kind": ["x1", "x4", "x1", "x4", "held_out", "held_out"],
        }
    )
    lines = {line.name: line for line in run_roc(frame).lines}
    assert set(lines) == {"all", "x1", "x4", "chance"}
    assert lines["x1"].y[0] == lines["x4"].y[0] == 1 and lines["all"].y[0] == 0


def test_norms_at_an_image_with_noise_added(trained: Path) -> None:
    """cfg_norm and score_norm at=noised against a plain loop over images and noises."""
    model = load_pixel_model(trained / "a" / "step-00005", 2, batch_size=3)
    asked = [e.condition for e in mirror_examples(build_pair(TINY), "a")][:4]
    t = round(0.4 * 1000) - 1
    alpha, sigma = float(model.alphas_cumprod[t]) ** 0.5, float(1 - model.alphas_cumprod[t]) ** 0.5
    norms: dict[str, list[float]] = {"difference": [], "conditional": []}
    for c in asked:
        x0 = torch.tensor(c.image / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)
        found = []
        for draw in range(3):
            x = (
                alpha * x0
                + sigma * torch.randn(3, 8, 8, generator=generator(5, f"noised/{c.id}", draw))
            )[None]
            v_c, v_0 = (model.network(x, t, torch.tensor([k])).sample for k in (c.class_label, 2))
            found.append(
                [(alpha * (v_c - v_0)).norm().item(), (alpha * v_c + sigma * x).norm().item()]
            )
        for name, column in zip(norms, np.mean(found, axis=0), strict=True):
            norms[name].append(column)
    guided = CfgNorm(CfgNormOptions(image_draws=3, image_t=0.4), seed=5, sampling=IMAGES)
    guided.check(model, asked)
    assert guided.score(model, asked, {}) == pytest.approx(norms["difference"], rel=1e-4)
    for variant, wanted in norms.items():
        options = ScoreNormOptions(at="noised", t=0.4, draws=3, condition=variant)
        detector = ScoreNorm(options, seed=5, sampling=IMAGES)
        detector.check(model, asked)
        assert detector.score(model, asked, {}) == pytest.approx(wanted, rel=1e-4)


def test_options_that_a_training_image_does_not_read(trained: Path) -> None:
    model = load_pixel_model(trained / "a" / "step-00005", 2)
    asked = [e.condition for e in mirror_examples(build_pair(TINY), "a")][:4]
    for given in ({"steps": 2}, {"draws": 3}, {"trajectory": 20}, {"guidance": 2.0}):
        with pytest.raises(
            UserError, match="an image that was not generated is scored with noise added"
        ):
            CfgNorm(CfgNormOptions(**given), seed=0, sampling=IMAGES).check(model, asked)
    drawn = [replace(c, start=("pool", "0", "1")) for c in asked]
    with pytest.raises(UserError, match="image_draws=2"):
        CfgNorm(CfgNormOptions(image_draws=2), seed=0, sampling=IMAGES).check(model, drawn)
    with pytest.raises(UserError, match="of some of these images the noise is known"):
        CfgNorm(CfgNormOptions(), seed=0, sampling=IMAGES).check(model, [*drawn[:2], *asked[2:]])


def scored(scores: list[float], labels: list[int], **columns: object) -> pd.DataFrame:
    n = len(scores)
    frame = pd.DataFrame(
        {
            "id": [f"e{i}" for i in range(n)],
            "score": scores,
            "label": labels,
            "kind": ["x1", "x4"] * (n // 2),
        }
    )
    return frame.assign(group=[f"g{i}" for i in range(n)], status="ok").assign(**columns)


def test_the_mirrored_auroc_is_the_mean_of_both_models() -> None:
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]  # the last two are held out: label 0 in both
    other = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    a = scored([5, 1, 2, 6, 4, 3, 0, 1, 99, 99], labels)
    b = scored([0, 1, 2, 3, 7, 2, 8, 2, 99, 99], other).sample(frac=1, random_state=0)
    found = mirrored_auroc(a, b).set_index("kind")
    # By hand, over the pairs of a memorized and another image: x1 are rows 0, 2 | 4, 6,
    # x4 rows 1, 3 | 5, 7.
    assert found.a.to_dict() == pytest.approx({"all": 11.5 / 16, "x1": 3 / 4, "x4": 2.5 / 4})
    assert found.b.to_dict() == pytest.approx({"all": 13 / 16, "x1": 1.0, "x4": 2 / 4})
    assert found.mirrored.to_dict() == pytest.approx(
        {k: (found.a[k] + found.b[k]) / 2 for k in found.index}
    )
    assert (
        found.n.to_dict() == {"all": 8, "x1": 4, "x4": 4}
        and (found.low <= found.mirrored).all()
        and (found.mirrored <= found.high).all()
    )


def test_what_content_gives_away_cancels_in_the_mirrored_auroc() -> None:
    """One and the same score of both models: whatever the images are, the mean is 0.5,
    and so is every resample.
    """
    labels = np.tile([1, 0, 0, 1], 10)
    score = np.random.default_rng(0).normal(labels, 1).tolist()
    found = mirrored_auroc(scored(score, labels.tolist()), scored(score, (1 - labels).tolist()))
    assert found.a.iloc[0] > 0.6
    assert found[["mirrored", "low", "high"]].to_numpy() == pytest.approx(np.full((3, 3), 0.5))


def test_runs_that_are_no_mirror_are_refused() -> None:
    a = scored([1, 2, 3, 4], [1, 1, 0, 0])
    with pytest.raises(ValueError, match="memorized by both"):
        mirrored_auroc(a, a)
    with pytest.raises(ValueError, match="other examples"):
        mirrored_auroc(a, scored([1, 2], [0, 0]))


# --------------------------------------------------------------------------- sd_webster


def test_captions_of_both_halves_are_examples_and_their_labels_are_exchanged() -> None:
    a, b = ({e.id: e for e in sd_webster.mirror_examples(half)} for half in HALVES)
    assert a.keys() == b.keys() and len(a) == 2 * 804
    planted = Counter(e.kind for e in a.values() if e.memorized)
    assert (
        planted
        == Counter(e.kind for e in a.values() if e.source == "mirror")
        == {"MV": 120, "TV": 140, "RV": 140}
    )
    assert sum(not e.memorized for e in a.values()) == 1208 >= 1000
    for name, e in a.items():
        other = b[name]
        assert (e.kind, e.group) == (other.kind, other.group) and e.condition.image is None
        if e.memorized or e.source == "mirror":
            assert e.memorized == 1 - other.memorized
        else:
            assert e.memorized == other.memorized == 0
            # A singleton was seen by the model of its own half alone.
            assert {e.source, other.source} == (
                {"singleton", "held_out"} if e.kind == "N" else {"held_out"}
            )


def test_the_mirror_of_sd_webster_is_its_control_on_the_same_captions() -> None:
    own, control, mirror = (
        sd_webster.SdWebster(SdWebsterOptions(examples="mirror", half=half)).load("mini", control=c)
        for half, c in (("a", False), ("a", True), ("b", False))
    )
    assert (
        [e.memorized for e in own.examples]
        == [e.memorized for e in control.examples]
        != [e.memorized for e in mirror.examples]
    )
    assert control.hashes["weights"] == mirror.hashes["weights"] != own.hashes["weights"]
    assert own.training.ids == control.training.ids != mirror.training.ids


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "m"}, "nobody knows which captions it saw"),
        ({"prompts": "p.csv"}, "have no mirror"),
    ],
)
def test_a_users_model_or_prompts_have_no_mirror(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sd_webster.SdWebster(SdWebsterOptions(examples="mirror", **options)).load("mini")


def test_length_and_capitals_of_captions_are_at_chance_between_the_halves() -> None:
    examples = [e for e in sd_webster.mirror_examples("a") if e.memorized or e.source == "mirror"]
    labels, prompts = [e.memorized for e in examples], [e.condition.prompt or "" for e in examples]
    assert abs(roc_auc_score(labels, [len(p) for p in prompts]) - 0.5) <= 0.05
    assert (
        abs(roc_auc_score(labels, [sum(c.isupper() for c in p) / len(p) for p in prompts]) - 0.5)
        <= 0.05
    )


@pytest.mark.parametrize(("n", "shown"), [(99, False), (100, True)])
def test_a_tpr_at_1_percent_takes_100_negatives_of_either_model(n: int, shown: bool) -> None:
    """Of model a they are half b's images, of model b half a's: 100 and n here."""
    labels = np.repeat([1, 0], [n, 100])
    rng = np.random.default_rng(0)
    a = pd.DataFrame({"id": [str(i) for i in range(len(labels))], "label": labels})
    a = a.assign(kind="x1", group=a.id, status="ok", score=rng.normal(labels))
    b = a.assign(label=1 - labels, score=rng.normal(1 - labels))
    row = mirrored_auroc(a, b, resamples=10).iloc[0]
    assert np.isfinite(row.tpr_a) and np.isfinite(row.tpr_b) == shown
    assert np.isfinite(row.tpr) == shown
