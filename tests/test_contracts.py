"""``membench.testing``: every built-in detector and task keeps its contract, and what
breaks it is named.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pixel_task import PixelTask

from membench import plugins, registry
from membench.detector import Detector, adopted
from membench.errors import UserError
from membench.plugins import staying
from membench.task import LoadedTask, Task
from membench.testing import Broken, check_detector, check_task, tiny_pixel_model
from membench.testing import detectors as testing_detectors
from membench.testing.detectors import run_once
from membench.testing.rules import options_of
from membench.testing.tiny import Setting
from membench.types import Access, Condition, Cost, Example, Request, Sample, Training

ROOT = Path(__file__).resolve().parent.parent
BUILT_IN = [
    n
    for n in registry.detectors().names()
    if registry.detectors().get(n).target.startswith("membench.")
]
CAPTIONS, CLASSES, NOTHING = "captions", "images with a class", "images without a class"
SIDE = {
    "synthetic": 8,
    "clusters": 2,
    "min_members": 1,
    "keep": 1.0,
    "generations": 4,
    "batch": 4,
    "steps": 2,
}
CLASSIFIER = SIDE | {"surrogate": "classifier", "classifier_steps": 2}
LORA = SIDE | {"surrogate": "lora", "lora_steps": 2, "lora_rank": 2}
PROMPTS = {
    "synthetic": 8,
    "clusters": 2,
    "min_members": 1,
    "keep": 1.0,
    "targets": 1,
    "population": 3,
    "rounds": 2,
    "classifier_steps": 2,
    "batch": 4,
}
# Of each built-in detector the options that make it quick, and the settings that it
# takes.
EXPECTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "adaptive": ({"threshold": 1.0, "rounds": 3}, [CAPTIONS, CLASSES]),
    "anisotropy": ({}, [CAPTIONS, CLASSES]),
    "attention_entropy": ({"layer": "down_blocks.1.attentions.0"}, [CAPTIONS]),
    "bright_ending": ({"trajectory": 5, "steps": 5}, [CAPTIONS]),
    "calibrated": ({}, [CAPTIONS, CLASSES]),
    "caption_case": ({}, [CAPTIONS]),
    "caption_length": ({}, [CAPTIONS]),
    "caption_ngrams": ({"folds": 2}, [CAPTIONS]),
    "carlini_conditional": (CLASSIFIER, [CAPTIONS, CLASSES, NOTHING]),
    "cfg_norm": ({}, [CAPTIONS, CLASSES]),
    "clid": ({}, [CAPTIONS, CLASSES]),
    "combined": ({"detectors": ("cfg_norm", "dcs")}, [CAPTIONS, CLASSES]),
    "dcs": ({}, [CAPTIONS, CLASSES]),
    "decomposition": ({}, [CAPTIONS, CLASSES]),
    "dsm": ({}, [CAPTIONS, CLASSES]),
    "edge": ({"size": 16}, [CAPTIONS]),
    "filter": ({"candidates": 4, "keep": 2, "steps": 2}, [CAPTIONS, CLASSES, NOTHING]),
    "flipd": ({"probes": 2, "trace": "hutchinson"}, [CAPTIONS, CLASSES, NOTHING]),
    "hessian_difference": ({}, [CAPTIONS, CLASSES]),
    "likelihood": ({"steps": 2, "probes": 1, "tolerance": 1e3}, [CAPTIONS, CLASSES, NOTHING]),
    "loss": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "membership": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "nemo_ssim": ({"scales": 1, "kernel": 3, "draws": 3}, [CAPTIONS]),
    "normal_bundle": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "p_laplace": ({"samples": 8}, [CAPTIONS, CLASSES, NOTHING]),
    "png_size": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "random": ({"draws": 2, "steps": 2}, [CAPTIONS, CLASSES, NOTHING]),
    "representation": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "score_norm": ({}, [CAPTIONS, CLASSES, NOTHING]),
    "sharpness": ({}, [CAPTIONS, CLASSES]),
    "side": (CLASSIFIER, [CAPTIONS, CLASSES, NOTHING]),
    "side_prompts": (PROMPTS, [CAPTIONS]),
    "transition_step": ({}, [CAPTIONS, CLASSES]),
    "update_norm": ({"trajectory": 5}, [CAPTIONS]),
}


# Evaluations from which on two batch sizes, those of the contract's own runs, are enough
DEAR = 700
# Of a score's size, beyond the 1e-4 of most, on the tiny models
LOOSER = {"side": 1e-2, "carlini_conditional": 1e-2, "side_prompts": 1e-2}


@dataclass(frozen=True)
class Checked:
    """What ``check_detector`` returns, and the runs that it made: setting, scores and
    confidences by id, and evaluations.
    """

    settings: list[str]
    runs: list[tuple[Setting, dict[str, float], int]]


@cache
def checked(name: str) -> Checked:
    """Of a built-in detector, once for all tests."""
    assert name in EXPECTED, (
        f"{name} is new: say here which options make it quick and which settings it takes"
    )
    runs = []

    def noted(cls: Any, options: Any, setting: Setting, seed: int, **how: Any) -> Any:
        found = run_once(cls, options, setting, seed, **how)
        runs.append((setting, *found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing_detectors, "run_once", noted)
        found = check_detector(registry.detectors().load(name), EXPECTED[name][0], seeds=(0,))
    return Checked(found, runs)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_detector_keeps_the_contract(name: str) -> None:
    assert checked(name).settings == EXPECTED[name][1]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_size_changes_rounding_alone(name: str) -> None:
    """What docs/design/determinism.md promises: scores and confidences on the first kind
    of model that the detector takes, at the contract's two batch sizes and at 1.
    """
    (setting, first, spent), *others = checked(name).runs
    others = [run for run in others if run[0] is setting]
    assert len(others) == 1
    if spent < DEAR:
        cls = registry.detectors().load(name)
        options = options_of(cls.Options, EXPECTED[name][0], name)
        others.append((setting, *run_once(cls, options, setting, 0, batch_size=1)))
    for _, other, _ in others:
        assert other.keys() == first.keys()
        wrong = {
            id_: (value, other[id_])
            for id_, value in first.items()
            if not math.isclose(value, other[id_], rel_tol=LOOSER.get(name, 1e-4), abs_tol=1e-5)
        }
        assert not wrong, wrong


def test_side_with_a_lora_keeps_the_contract() -> None:
    assert check_detector(registry.detectors().load("side"), LORA, seeds=(0,)) == [CAPTIONS]


def test_the_example_of_the_readme_keeps_the_contract(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def score(" in block
    ]
    file = tmp_path / "eps_norm.py"
    file.write_text(code)
    registry.detectors.cache_clear()
    try:
        [entry] = plugins.load_plugin(file)
        found = registry.detectors().load(entry.name)
        assert check_detector(found) == [CAPTIONS, CLASSES, NOTHING]
    finally:
        registry.detectors.cache_clear()


# ---------------------------------------------------------- detectors that break a rule


@dataclass(frozen=True)
class Options:
    t: int = field(default=500, metadata={"help": "timestep", "min": 0, "max": 999})


class Plain(Detector):
    """The norm of eps at one timestep; one image a condition, as its start."""

    Options = Options
    version = 1
    access = Access()

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, 0) for c in {c.bare.id: c.bare for c in conditions}.values()]

    def image_forwards(self, model: Any, request: Request) -> int | None:
        return 0

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        x = model.noise([(r.condition.id, r.draw) for r in requests], self.seed)
        rows = zip(requests, model.decode(x), x.flatten(1).norm(dim=1).tolist(), strict=True)
        return [Sample(r.condition, r.draw, image, confidence) for r, image, confidence in rows]

    def score(
        self, model: Any, conditions: Sequence[Condition], extracted: Mapping[str, Any]
    ) -> Sequence[float]:
        x = model.noise([(c.id, 0) for c in conditions], self.seed)
        return (
            model.eps(x, self.options.t, model.condition(conditions))
            .flatten(1)
            .norm(dim=1)
            .tolist()
        )


class ShortScores(Plain):
    def score(self, model, conditions, extracted):
        return super().score(model, conditions, extracted)[1:]


class Tensors(Plain):
    def score(self, model, conditions, extracted):
        return torch.tensor(super().score(model, conditions, extracted))


class Columns(Plain):
    def score(self, model, conditions, extracted):
        return np.array(super().score(model, conditions, extracted))[:, None]


class NaN(Plain):
    def score(self, model, conditions, extracted):
        return [float("nan"), *super().score(model, conditions, extracted)[1:]]


class ByPlace(Plain):
    def score(self, model, conditions, extracted):
        return [value + i for i, value in enumerate(super().score(model, conditions, extracted))]


class BatchNoise(Plain):
    def score(self, model, conditions, extracted):
        generator = torch.Generator().manual_seed(model.batch_size)
        return (
            torch.tensor(super().score(model, conditions, extracted))
            + 100 * torch.rand(1, generator=generator)
        ).tolist()


class GlobalNoise(Plain):
    drawn = itertools.count()  # two draws of a generator are alike once in 1,000 times

    def score(self, model, conditions, extracted):
        return (
            torch.tensor(super().score(model, conditions, extracted)) + 100 * next(self.drawn)
        ).tolist()


class Hooked(Plain):
    def score(self, model, conditions, extracted):
        model.network.register_forward_hook(lambda module, args, out: None)
        return super().score(model, conditions, extracted)


class Trained(Plain):
    def score(self, model, conditions, extracted):
        with torch.no_grad():
            next(model.network.parameters()).add_(0.1)
        return super().score(model, conditions, extracted)


class HookedAlone(Hooked):
    alone = True


class TrainedAlone(Trained):
    alone = True


class Gradients(Plain):
    def score(self, model, conditions, extracted):
        x = model.noise([(c.id, 0) for c in conditions], self.seed).requires_grad_(True)
        model.cost.forwards += len(x)
        with torch.enable_grad():
            norms = (
                model.raw_eps(x, self.options.t, model.condition(conditions)).flatten(1).norm(dim=1)
            )
            return torch.autograd.grad(norms.sum(), x)[0].flatten(1).norm(dim=1).tolist()


class Twice(Plain):
    def plan(self, conditions):
        return [*super().plan(conditions)] * 2


class Chatty(Plain):
    def check(self, model, conditions):
        raise UserError("it does not suit\nfor two reasons")


class Uncounted(Plain):
    def score(self, model, conditions, extracted):
        x = model.noise([(c.id, 0) for c in conditions], self.seed)
        return (
            model.raw_eps(x, self.options.t, model.condition(conditions))
            .flatten(1)
            .norm(dim=1)
            .tolist()
        )


class Cheap(Plain):
    def extract(self, model, requests):
        found = super().extract(model, requests)
        model.eps(
            model.noise([(r.condition.id, 0) for r in requests], 0),
            0,
            model.condition([r.condition for r in requests]),
        )
        return found


class Shuffled(Plain):
    def extract(self, model, requests):
        return super().extract(model, requests)[::-1]


class Floats(Plain):
    def extract(self, model, requests):
        return [
            Sample(s.condition, s.draw, s.image / 255, s.confidence)
            for s in super().extract(model, requests)
        ]


class Peeks(Plain):
    def score(self, model, conditions, extracted):
        return [
            len(extracted[c.id]) + value
            for c, value in zip(
                conditions, super().score(model, conditions, extracted), strict=True
            )
        ]


class PeeksAtOne(Plain):
    def score(self, model, conditions, extracted):
        return [float(len(extracted.get(c.id, ()))) for c in conditions]


class PeeksAtAll(Plain):
    def score(self, model, conditions, extracted):
        return [float(sum(map(len, extracted.values())))] * len(conditions)


class PeeksWhether(Plain):
    def score(self, model, conditions, extracted):
        return [float(c.id in extracted) for c in conditions]


class TakesItsOwn(Plain):
    """Of a class, whose label a run's samples do not carry."""

    access = Access(images=True)

    def score(self, model, conditions, extracted):
        own = [
            [s.confidence for s in extracted[c.bare.id] if s.condition == c.bare]
            for c in conditions
        ]
        return [float(np.mean(values)) if values else float("nan") for values in own]


class Prepares(Plain):
    """Five evaluations in a stage, and five that are said."""

    said, staged, counted = 5, True, True

    def preparation_forwards(self, model, conditions):
        return self.said

    def prepare(self, model, conditions, workspace):
        def make(folder):
            before = replace(model.cost)
            model.eps(model.noise([("fit", k) for k in range(5)], 0), 9, model.condition(null))
            return model.cost - before if self.counted else Cost(), 0.1

        null = [Condition("null")] * 5
        if self.staged:
            workspace.stage("mine", {}, make)
        else:
            make(None)
        return {}


class SaysMore(Prepares):
    said = 6


class OutsideOfStages(Prepares):
    staged = False


class ReturnsNoCost(Prepares):
    counted = False


class Leaves(Plain):
    def score(self, model, conditions, extracted):
        sys.exit(0)


class Changes(Plain):
    def plan(self, conditions):
        self.access = Access(images=True)
        return super().plan(conditions)


class Forgets(Plain):
    def __init__(self, options, *, seed, sampling):
        self.settings = options


class NoHelp(Plain):
    @dataclass(frozen=True)
    class Options:
        t: int = 500


class Other(Plain):
    def score(self, model, conditions):
        return []


def test_a_whole_detector_is_whole() -> None:
    assert check_detector(Plain) == [CAPTIONS, CLASSES, NOTHING]
    assert check_detector(Prepares, seeds=(0,)) == [CAPTIONS, CLASSES, NOTHING]


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (ShortScores, "ShortScores.score returns 3 values for 4 conditions"),
        (
            Tensors,
            "Tensors.score returns an object of type Tensor; it must return a list of floats",
        ),
        (Columns, "Columns.score returns a float64 array of shape [4, 1]"),
        (NaN, "NaN returns NaN or infinity on captions"),
        (ByPlace, "on captions ByPlace gives caption/0 .* and in another order"),
        (BatchNoise, "on captions BatchNoise gives caption/0 .* and at batch size 3"),
        (GlobalNoise, "on captions GlobalNoise gives caption/0 .* and a second time"),
        (Hooked, "Hooked.score changes the model's hooks"),
        (Trained, "Trained.score changes the model's weights"),
        (HookedAlone, "HookedAlone leaves 1 hooks on the network"),
        (TrainedAlone, "TrainedAlone leaves the network changed"),
        (
            Gradients,
            "Gradients takes gradients of the target, and its access does not say gradients=True",
        ),
        (Twice, "Twice.plan asks for the same image twice (caption/0, draw 0)"),
        (Chatty, "a refusal is one line; Chatty says"),
        (Uncounted, "Uncounted: the network saw 4 rows, and 0 are counted"),
        (Cheap, "Cheap.image_forwards says 0 for images that took 3"),
        (Shuffled, "Shuffled.extract returns samples in another order than was asked for"),
        (
            Floats,
            (
                "Floats.extract returns an image of a float64 array of shape [8, 8, 3]; it must be"
                " a uint8 array"
            ),
        ),
        (Peeks, "Peeks scores by its extracted images, and its access does not say images=True"),
        (SaysMore, "SaysMore.preparation_forwards says 6 for a preparation that took 5"),
        (OutsideOfStages, "OutsideOfStages.prepare took 5 evaluations, and its stages say 0"),
        (ReturnsNoCost, "ReturnsNoCost.prepare took 5 evaluations, and its stages say 0"),
        (PeeksAtOne, "PeeksAtOne scores by its extracted images"),
        (PeeksAtAll, "PeeksAtAll scores by its extracted images"),
        (PeeksWhether, "PeeksWhether scores by its extracted images"),
        (TakesItsOwn, "TakesItsOwn returns NaN or infinity on images with a class"),
        (Leaves, "Leaves.score ends the process (exit 0)"),
        (Changes, "Changes.access changes after construction"),
        (Forgets, "Forgets.__init__ does not call super().__init__"),
        (NoHelp, "option t of NoHelp has no metadata"),
        (
            Other,
            (
                "Other.score takes other arguments than a detector's (self, model, conditions,"
                " extracted)"
            ),
        ),
    ],
)
def test_what_breaks_the_contract_is_named(cls: type, told: str) -> None:
    pattern = ".*".join(map(re.escape, told.split(" .* ")))
    with pytest.raises(Broken, match=pattern) as caught:
        check_detector(cls, seeds=(0,))
    assert "\n" not in str(caught.value)


def test_a_plain_class_is_completed_by_the_defaults() -> None:
    class Bare:
        """Not a subclass of Detector, and without what it does not need."""

        Options = Options
        version = 1

        def __init__(self, options, *, seed, sampling):
            self.mine = options.t

        def score(self, model, conditions, extracted):
            return [float(self.mine)] * len(conditions)

    found = adopted(Bare)
    assert issubclass(found, Bare) and issubclass(found, Detector) and adopted(Bare) is found
    detector = found(Options(), seed=3, sampling={"examples": "images"})
    assert (detector.seed, detector.options, detector.examples, detector.mine) == (
        3,
        Options(),
        "images",
        500,
    )  # type: ignore[attr-defined]
    assert detector.plan([]) == [] and detector.access == Access() and check_detector(Bare)
    for name, value, told in (
        ("version", 0, "version is 0, not a whole number from 1"),
        ("Options", None, "Options is not a dataclass"),
        ("access", None, "access is None, not membench.types.Access"),
        ("Options", dict, "Options is not a dataclass"),
        ("score", None, "lacks score"),
    ):
        with pytest.raises(TypeError, match=told):
            adopted(type("Wrong", (Bare,), {name: value}))


# -------------------------------------------------------------------------------- tasks


class Whole(PixelTask):
    """Another model as control."""

    def load(self, profile: str, **how: Any) -> LoadedTask:
        loaded = super().load(profile, **how)
        hashes = dict(loaded.hashes) | {"weights": "c" if how.get("control") else "w"}
        return _replaced(loaded, info=self.info, hashes=hashes, model=lambda: tiny_pixel_model(0))


def _replaced(loaded: LoadedTask, **changes: Any) -> LoadedTask:
    from dataclasses import replace

    return replace(loaded, **changes)


def _broken(name: str, change: Any) -> type[Task]:
    def load(self: Any, profile: str, **how: Any) -> LoadedTask:
        return change(Whole.load(self, profile, **how), how)

    return type(name, (Whole,), {"load": load})


def _with_first(**changes: Any) -> Any:
    from dataclasses import replace

    def change(loaded: LoadedTask, how: Any) -> LoadedTask:
        first, *others = loaded.examples
        return replace(loaded, examples=[replace(first, **changes), *others])

    return change


COUNTS = iter(range(1000))


def test_a_small_task_is_whole() -> None:
    loaded = check_task(Whole)
    assert len(loaded.examples) == 70 and loaded.training.kinds == ["x1"] * 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with_first(memorized=2), "memorized=2; it must be 1, 0 or -1"),
        (_with_first(group=""), "lacks kind, group or source"),
        (
            _with_first(condition=Condition("image-001", "a rug")),
            "info says examples='images', and example image-001 is not an image",
        ),
        (
            lambda loaded, how: _replaced(loaded, examples=[loaded.examples[0]] * 2),
            "the ids of its 2 examples are not unique",
        ),
        (
            lambda loaded, how: _replaced(loaded, hashes={"weights": "w"}),
            "hashes needs data, prompts and weights",
        ),
        (
            lambda loaded, how: _replaced(
                loaded, hashes=dict(loaded.hashes) | {"data": str(next(COUNTS))}
            ),
            "loads other examples or hashes each time",
        ),
        (
            lambda loaded, how: _replaced(
                loaded,
                training=Training(lambda: np.zeros((4, 8, 8, 3), np.uint8), list("abc"), [1] * 3),
            ),
            "4 training images and 3 ids",
        ),
        (
            lambda loaded, how: _replaced(loaded, hashes=dict(loaded.hashes) | {"weights": "w"}),
            "its control model has the weights",
        ),
        (lambda loaded, how: None, "load returns None; it must return a membench.task.LoadedTask"),
        (lambda loaded, how: sys.exit(3), "load ends the process (exit 3)"),
    ],
)
def test_what_a_task_breaks_is_named(change: Any, told: str) -> None:
    with pytest.raises(Broken, match=re.escape(told)) as caught:
        check_task(_broken("Wrong", change))
    assert "\n" not in str(caught.value)


def test_the_base_class_has_what_a_task_may_leave_out() -> None:
    class Little(Task):
        info = Whole.info

        def load(self, profile: str, **how: Any) -> LoadedTask:
            return Whole().load(profile, **how)

    assert Little().resources() == [] and not Little.model_optional
    with pytest.raises(UserError, match="task pixels has no training recipe"):
        Little.train(Path(), None, [])
    check_task(Little)


SLOW = pytest.mark.skipif(not os.environ.get("MEMBENCH_SLOW"), reason="slow: MEMBENCH_SLOW=1")


@pytest.mark.parametrize("name", registry.tasks().names())
def test_every_built_in_task_keeps_the_contract(name: str) -> None:
    loaded = check_task(registry.tasks().load(name))
    assert loaded.profile == "mini" and len(loaded.training.ids) > 100


# ----------------------------------------------------------------------------- plug-ins

PLUGIN = '''
import sys
from dataclasses import dataclass, field, replace

from membench.task import Task
from membench.testing import tiny_pixel_model
from pixel_task import PixelTask


@dataclass(frozen=True)
class Options:
    n: int = field(default=4, metadata={"help": "examples", "min": 1, "max": 70})


class Mine(PixelTask):
    """Four images of a tiny model."""

    info = replace(PixelTask.info, name="mine")
    Options = Options

    def __init__(self, options=Options()):
        self.options = options

    def load(self, profile, **how):
        if how.get("control"):
            from membench.errors import UserError
            raise UserError("it has no control model")
        loaded = super().load(profile, **how)
        return replace(
            loaded,
            info=self.info,
            examples=loaded.examples[: self.options.n],
            model=lambda: tiny_pixel_model(0),
        )


class Level:
    """Mean of an image."""

    Options = Options
    version = 1

    def __init__(self, options, *, seed, sampling):
        pass

    def score(self, model, conditions, extracted):
        SCORE
'''


@pytest.fixture
def fresh() -> Any:
    yield
    registry.detectors.cache_clear()
    registry.tasks.cache_clear()


def plugin(folder: Path, score: str) -> ModuleType | Path:
    file = folder / "mine.py"
    file.write_text(PLUGIN.replace("SCORE", score))
    return file


def run(file: Any, out: Path, *more: str) -> int:
    from membench.cli.main import main

    command = [
        "run",
        "--plugin",
        str(file),
        "--detector",
        "level",
        "--task",
        "mine",
        "--runs",
        str(out),
        "--quiet",
    ]
    return main([*command, *more])


def test_a_plugin_file_brings_a_task_and_a_detector(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plugin(tmp_path, "return [float(c.image.mean()) for c in conditions]")
    assert run(file, tmp_path / "runs", "--set", "mine.n=6") == 0
    from membench.runs.finished import read_runs

    [found] = read_runs(tmp_path / "runs").runs
    assert (
        found.info["task"] == "mine"
        and found.info["detector"] == "level"
        and len(found.scores) == 6
    )
    examples: list[Example] = list(PixelTask().load("mini").examples[:6])
    expected = {
        e.id: float(e.condition.image.mean()) for e in examples if e.condition.image is not None
    }
    assert dict(zip(found.scores.id, found.scores.score, strict=True)) == pytest.approx(expected)
    assert (
        {"detector", "task"} <= set(found.info["key_parts"]["plugin_code"])
        if "key_parts" in found.info
        else True
    )


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (
            "return [0.0]",
            "Level.score returns 1 values for 4 conditions; it must return one each, in order",
        ),
        (
            "return ['a'] * len(conditions)",
            "Level.score returns a list of str; it must return a list of floats",
        ),
        ("return None", "Level.score returns None"),
        ("sys.exit(0)", "Level.score ends the process (exit 0)"),
        ("__import__('os')._exit(0)", "Level.score ends the process (exit 0)"),
        (
            "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})",
            "Mute; MEMBENCH_TRACEBACK=1",
        ),
        # Another detector of the same command would see it, too
        ("conditions[0].image[:] = 0", "ValueError: assignment destination is read-only"),
    ],
)
def test_a_plugins_mistake_is_one_line(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str], score: str, told: str
) -> None:
    assert run(plugin(tmp_path, score), tmp_path / "runs") == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("torch.set_default_dtype(torch.float64)", "default dtype at torch.float64 (it was"),
        ("torch.set_default_device('meta')", "default device at meta (it was cpu)"),
        ("torch.set_grad_enabled(False)", "grad mode at False (it was True)"),
        ("torch.set_float32_matmul_precision('medium')", "matmul precision at medium"),
    ],
)
def test_a_plugin_leaves_the_settings_of_torch_to_those_after_it(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str], code: str, told: str
) -> None:
    try:
        file = plugin(tmp_path, f"import torch; {code}; return [0.0] * len(conditions)")
        assert run(file, tmp_path / "runs") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"Level.score leaves torch's {told}" in line
        file.write_text(f"import torch\n{code}\n{file.read_text()}")
        back_to_default()
        assert run(file, tmp_path / "runs") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"fails on import: UserError: it leaves torch's {told}" in line
    finally:
        back_to_default()


def back_to_default() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("[p.data.mul_(1.01) for p in model.network.parameters()]", "weights"),
        ("model.network.half()", "weights"),
        ("model.scheduler.alphas_cumprod.mul_(0.9)", "noise schedule"),
        ("model.network.train()", "training mode"),
        ("model.network.register_forward_hook(lambda m, a, out: None)", "hooks"),
    ],
)
def test_a_plugin_leaves_the_model_to_the_other_detectors(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str], code: str, told: str
) -> None:
    """Their runs are stored under the hash of the weights as they were loaded."""
    score = f"{code}; return [0.0] * len(conditions)"
    file = plugin(tmp_path, score)
    assert run(file, tmp_path / "runs") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"Level.score changes the model's {told}, and other" in line
    file.write_text(file.read_text().replace("    version = 1\n", "    version, alone = 1, True\n"))
    assert run(file, tmp_path / "runs") == 0  # nobody else is asked


def test_who_sees_no_model_draws_nothing(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plugin(tmp_path, "return [0.0] * len(conditions)")
    plans = """    from membench.types import Access, Request
    access = Access(model=False)

    def plan(self, conditions):
        return [self.Request(conditions[0].bare, 0)]
"""
    file.write_text(file.read_text().replace("    version = 1\n", f"    version = 1\n{plans}"))
    assert run(file, tmp_path / "runs") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "Level.plan asks for images, and its access says model=False" in line


def test_options_that_fail_are_one_line(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plugin(tmp_path, "return [0.0] * len(conditions)")
    fails = "    def __post_init__(self):\n        {4: 1}[self.n]\n\n\nclass Mine"
    file.write_text(file.read_text().replace("class Mine", fails, 1))
    assert run(file, tmp_path / "runs", "--set", "mine.n=5") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "its Options fail: KeyError: 5" in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_plugins_own_child_ends_as_it_likes() -> None:
    end = os._exit
    with staying():
        if not (child := os.fork()):
            os._exit(7)
        with pytest.raises(SystemExit, match="7"):
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os._exit is end
