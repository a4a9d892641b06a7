"""What a classifier learns from generated images: where the answer is known, and by
``run --quality classifier``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pixel_task import PixelTask

from membench import registry
from membench.boards.board import board
from membench.boards.quality import features_of
from membench.cli.main import main
from membench.datasets.trained_on import hash_with_labels, was_told_classes
from membench.detector import Detector
from membench.errors import UserError
from membench.models import downstream
from membench.models.downstream import downstream_accuracy
from membench.reports.attack_tables import attack_tables
from membench.runs import quality as run_quality
from membench.runs.execute import execute_all
from membench.runs.finished import Run
from membench.runs.quality_file import read_quality
from membench.runs.spec import Spec
from membench.task import LoadedTask
from membench.tasks.cifar10.scenes import WORLD
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.pixels.mirror_task import pair_of, training_of
from membench.types import Condition, Request, Sample, Training

STEPS, WIDTH = 60, 8  # of a quick classifier
COLOURS = np.array([[220, 30, 30], [30, 30, 220], [30, 220, 30]])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "STEPS", STEPS)
    monkeypatch.setattr(downstream, "WIDTH", WIDTH)


def coloured(classes: Sequence[int], seed: int) -> np.ndarray:
    """Noisy images ``uint8`` [n, 8, 8, 3] of a colour a class."""
    noise = np.random.default_rng(seed).integers(-25, 26, (len(classes), 8, 8, 3))
    return (COLOURS[np.asarray(classes)][:, None, None] + noise).astype(np.uint8)


def turns(n: int) -> np.ndarray:
    return np.arange(n) % 3


# ------------------------------------------------------------------------- the classifier


def test_classes_that_a_colour_tells_are_learnt() -> None:
    """The same images with their classes exchanged are learnt as well, and wrong."""
    images, held_out = coloured(turns(30), 0), coloured(turns(60), 1)
    assert downstream_accuracy(images, turns(30), held_out, turns(60)) == (1.0, 0.0)
    assert downstream_accuracy(images, 4 + turns(30), held_out, 4 + turns(60))[0] == 1.0
    swapped = (turns(30) + 1) % 3
    assert downstream_accuracy(images, swapped, held_out, turns(60))[0] == 0.0


def test_of_two_classes_that_look_alike_half_is_named() -> None:
    """A class that no image was generated from is never named."""
    images, held_out = coloured(turns(30), 0), coloured(turns(90), 1)
    known = turns(30) < 2
    value, error = downstream_accuracy(images[known], turns(30)[known], held_out, turns(90))
    assert value == pytest.approx(2 / 3)
    assert error == pytest.approx(math.sqrt(2 / 3 * 1 / 3 / 90))


def test_where_classes_mean_nothing_it_is_chance() -> None:
    """Colours and classes are independent of each other."""
    rng = np.random.default_rng(2)
    images, held_out = coloured(turns(60), 0), coloured(turns(300), 1)
    value, error = downstream_accuracy(
        images, rng.integers(0, 3, 60), held_out, rng.integers(0, 3, 300)
    )
    assert value == pytest.approx(1 / 3, abs=0.12) and error == pytest.approx(0.027, abs=0.003)


def test_one_seed_is_one_number_and_sizes_must_agree() -> None:
    rng = np.random.default_rng(3)
    images, held_out = (rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in (30, 200))
    first, again = (
        downstream_accuracy(images, turns(30), held_out, turns(200), seed=5) for _ in range(2)
    )
    assert first == again
    with pytest.raises(ValueError, match="another's"):
        downstream_accuracy(images, turns(30), held_out[:, :4], turns(200))


# ------------------------------------------------------------------------------ of a run


@dataclass(frozen=True)
class PainterOptions:
    classes: bool = True
    images: int = 24


class Painter(Detector):
    """Its images are of the colour of the class after the one that it asks for."""

    Options = PainterOptions
    version = 1
    attack = True

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        conditions = conditions[: self.options.images]
        asked = [c.bare if self.options.classes else Condition("none") for c in conditions]
        return [Request(c, draw) for draw, c in enumerate(asked)]

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        shown = [(r.condition.class_label or 0) for r in requests]
        images = coloured([(label + 1) % 3 for label in shown], 5)
        return [Sample(r.condition, r.draw, x, 0.0) for r, x in zip(requests, images, strict=True)]

    def score(self, model: Any, conditions: Sequence[Condition], extracted: Any) -> list[float]:
        return [0.0] * len(conditions)


class Coloured(PixelTask):
    """Training images of the first two colours alone, named by their own classes."""

    info = replace(PixelTask.info, name="coloured")

    def load(self, profile: str, **given: Any) -> LoadedTask:
        task = super().load(profile, **given)
        classes = turns(24).tolist()
        two = [c for c in classes if c < 2]
        images = coloured(two, 6)
        return replace(
            task,
            examples=[
                replace(e, condition=replace(e.condition, class_label=c))
                for e, c in zip(task.examples, classes, strict=False)
            ],
            training=Training(
                lambda: images, [str(i) for i in range(16)], [1] * 16, classes=tuple(two)
            ),
            held_out=lambda n: coloured(turns(n), 7),
            held_out_classes=lambda n: turns(n).tolist(),
        )


class Classless(Coloured):
    info = replace(PixelTask.info, name="classless")

    def load(self, profile: str, **given: Any) -> LoadedTask:
        task = super().load(profile, **given)
        return replace(task, training=replace(task.training, classes=()))


def ask(out: Path, task: type, *options: str, quality: str = "classifier") -> Run:
    spec = Spec(
        registry.detectors().of(Painter),
        registry.tasks().of(task),
        options=options,
        extract_only=True,
    )
    [run] = execute_all([spec], out, progress=False, quality=[quality]).runs
    return run


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run that several tests read, and its folder of runs."""
    out = tmp_path_factory.mktemp("painted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downstream, "STEPS", STEPS)
        patch.setattr(downstream, "WIDTH", WIDTH)
        return out, ask(out, Coloured)


def test_run_and_board(painted: tuple[Path, Run], capsys: pytest.CaptureFixture[str]) -> None:
    """What the painter's images teach is wrong everywhere; training images teach two of
    three classes, of 16 held-out images 11.
    """
    out, run = painted
    frame = read_quality(run).set_index("metric")
    assert frame.value.to_dict() == {
        "downstream@classifier": 0.0,
        "downstream_training@classifier": 11 / 16,
    }
    assert frame.n.tolist() == [24, 16] and frame.reference.tolist() == [16, 16]
    assert main(["leaderboard", "--by", "attack", "--quality", "--runs", str(out)]) == 0
    told = capsys.readouterr().out
    assert "what a classifier learns from the images" in told
    assert "0.000 ± 0.000" in told and "0.688 ± 0.116" in told
    assert "quality by classifier" not in told
    frame = board([run], "attack", quality=True).frame
    assert frame["downstream_training@classifier"].tolist() == [11 / 16]
    assert frame["downstream_error@classifier"].tolist() == [0.0]


def test_it_learns_from_as_many_training_images(tmp_path: Path) -> None:
    """And what is written can be read: no more images than the run has."""
    frame = read_quality(ask(tmp_path, Coloured, "images=9")).set_index("metric")
    assert frame.n.tolist() == [9, 9] and frame.reference.tolist() == [16, 16]
    # Each with its own class: they teach two of the three
    assert frame.value["downstream_training@classifier"] == 11 / 16


def test_of_many_images_a_sample_of_all_classes_is_taken(
    painted: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are stored class by class."""
    _, run = painted
    monkeypatch.setattr(run_quality, "MOST", 12)
    sets = run_quality._sets(run, Coloured().load("mini"))
    assert len(sets.images) == len(sets.told) == 12 and set(sets.told) == {0, 1, 2}
    # Each with the class that it was generated from, of which it has the next colour
    channel = [[0, 2, 1][(told + 1) % 3] for told in sets.told]
    assert sets.images[:].mean(axis=(1, 2)).argmax(axis=1).tolist() == channel


def test_images_without_classes_get_a_line_and_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ask(tmp_path, Coloured, "classes=false")
    assert "were not generated from classes" in capsys.readouterr().err
    assert read_quality(run).empty
    with pytest.raises(UserError, match="classes of training and held-out images"):
        ask(tmp_path, Classless)


def test_classes_of_the_mini_world(tmp_path: Path) -> None:
    """A class is the shape: of training images and of held-out ones alike."""
    task = Cifar10(Cifar10Options()).load("mini")
    own = [e for e in task.examples if e.memorized == 1]
    assert list(task.training.classes) == [e.condition.class_label for e in own]
    assert np.array_equal(
        task.training.images(),
        np.stack([e.condition.image for e in own]),  # type: ignore[misc]
    )
    assert task.held_out_classes is not None
    assert list(task.held_out_classes(12)) == [*range(10), 0, 1]
    with pytest.raises(ValueError, match="2 classes for 1 training images"):
        Training(lambda: np.zeros((1, 8, 8, 3), np.uint8), ["a"], [1], classes=(0, 1))


def test_what_a_model_was_told(tmp_path: Path) -> None:
    """In whichever file says so: ``trained_on`` may name another."""
    file = tmp_path / "mine.json"
    assert was_told_classes(file)  # nothing is said
    for text, told in (
        ('{"data": {"labels": "random"}}', False),
        ('{"data": {"labels": "class"}}', True),
        ("[1]", True),
    ):
        file.write_text(text)
        assert was_told_classes(file) == told
        assert (hash_with_labels("images", file) == "images") == told
    hashes = set()
    for labels in ("random", "none", "class"):
        file.write_text(json.dumps({"data": {"labels": labels}}))
        hashes.add(hash_with_labels("images", file))
    assert len(hashes) == 3


def test_a_mini_training_set_is_named_with_its_labels(tmp_path: Path) -> None:
    """Else the figures of one run would be taken for those of the other."""
    half, file = pair_of(WORLD, 0).halves["a"], tmp_path / "training.json"
    found = {}
    for labels in ("class", "random"):
        file.write_text(json.dumps({"data": {"labels": labels}}))
        found[labels] = training_of(half, "a", file)
    assert found["class"].classes and not found["random"].classes
    assert found["class"].hash != found["random"].hash


def test_a_part_without_figures_has_no_table_of_them(painted: tuple[Path, Run]) -> None:
    frame = board([painted[1]], "attack", quality=True).frame
    assert features_of(frame) == ["classifier"]
    empty = frame.assign(**{name: np.nan for name in frame if "@classifier" in name})
    assert features_of(empty) == []
    assert "classifier learns" not in str([title for title, *_ in attack_tables(empty)])
