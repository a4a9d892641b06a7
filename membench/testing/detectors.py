"""The check of a detector class."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from membench import detector as detectors
from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.runs import contract
from membench.runs.contract import ContractError
from membench.runs.images import Extracted, Samples
from membench.runs.shards import NoModel, sample_rows
from membench.runs.untouched import hooks
from membench.storage.hashing import tensor_hash
from membench.storage.workspace import Workspace
from membench.testing.rules import Broken, check_fields, one_line, options_of, require
from membench.testing.tiny import Setting, settings
from membench.types import Sample

SAMPLING = {"steps": 4, "guidance": 2.0}
# Of scores and confidences between batches of other sizes; a surrogate's training
# amplifies rounding
TOLERANCE = 1e-2
MANY = 64  # images; a detector that plans more is given options that make it quick
FEW, SOME = 3, 48  # images at once in the second run; SOME where it takes DEAR evaluations
DEAR = 700


def check_detector(
    cls: type, options: Mapping[str, Any] | None = None, *, seeds: Sequence[int] = (0, 1)
) -> list[str]:
    """Runs a detector class on tiny models and checks everything that the harness
    relies on.

    Declarations; lengths, types and order of what ``plan``, ``extract`` and ``score``
    return; finite values; the same numbers for the same seed whatever the batch size
    and the order; evaluations counted, and as many as ``image_forwards`` says; no more
    looked at than ``access`` says; the network left as it was; and refusals in one
    line.

    options: in place of the defaults, such as ``{"steps": 2}``, to make it quick.
    seeds: the first is compared, the others are run. Returns the names of the settings
    (captions, images with a class, images without a class) that the detector does not
    refuse. Raises :class:`Broken`, and whatever the class raises but UserError.
    """
    try:
        found = detectors.adopted(cls)
    except TypeError as error:
        raise Broken(str(error)) from None
    _declared(found)
    chosen = options_of(found.Options, options, f"detector {cls.__name__}")
    took = []
    for setting in settings():
        try:
            first, spent = run_once(found, chosen, setting, seeds[0])
        except ContractError as error:
            raise Broken(str(error)) from error
        except UserError as error:
            one_line(error, cls.__name__)
            continue
        took.append(setting.name)
        _compared(found, chosen, setting, seeds[0], first, FEW if spent < DEAR else SOME)
        for seed in seeds[1:]:
            run_once(found, chosen, setting, seed)
    require(bool(took), f"{cls.__name__} refuses every setting; see its check")
    return took


def _compared(
    cls: type[Detector],
    options: Any,
    setting: Setting,
    seed: int,
    first: Mapping[str, float],
    small: int,
) -> None:
    """Raises :class:`Broken` where a run in another order and in other batches gives
    other numbers, and says why.
    """

    def difference(**how: Any) -> str:
        other = run_once(cls, options, setting, seed, **how)[0]
        for id_, value in first.items():
            again = other.get(id_, math.nan)
            if not math.isclose(value, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return f"{id_} {value:.6g}, and {{}} {again:.6g}"
        return ""

    if not difference(batch_size=small, reverse=True):
        return
    name = f"on {setting.name} {cls.__name__} gives "
    ways: list[tuple[str, dict[str, Any]]] = [
        ("a second time", {}),
        (f"at batch size {small}", {"batch_size": small}),
    ]
    for words, how in ways:
        found = difference(**how)
        require(not found, name + found.format(words))
    raise Broken(name + difference(batch_size=small, reverse=True).format("in another order"))


def _declared(cls: type[Detector]) -> None:
    name = cls.__name__
    require(cls.Options.__dataclass_params__.frozen, f"{name}.Options is not a frozen dataclass")  # type: ignore[attr-defined]
    check_fields(cls.Options, name)
    known = {field.name for field in dataclasses.fields(cls.Options)}
    for preset, values in cls.presets.items():
        unknown = sorted(set(values) - known)
        require(not unknown, f"preset {preset} of {name} names {unknown}, which are not options")
    for examples, named in cls.tuning.items():
        require(examples in ("prompts", "images"), f"{name}.tuning names {examples!r}")
        unknown = sorted(set(named) - known)
        require(not unknown, f"{name}.tuning names {unknown}, which are not options")
        for option, tried in named.items():
            for value in tried:
                options_of(cls.Options, {option: value}, f"{name}.tuning")


class _Counted:
    """Counts rows that go through a network, forwards and backwards."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.forwards = self.backwards = 0
        self.handle = network.register_forward_hook(self._saw)

    def _saw(self, module: Any, args: Any, out: Any) -> None:
        self.forwards += len(args[0])
        if out.sample.requires_grad:
            out.sample.register_hook(self._went_back)

    def _went_back(self, grad: torch.Tensor) -> None:
        self.backwards += len(grad)


def _state(network: torch.nn.Module) -> tuple[Any, ...]:
    """What a detector must leave as it was.

    An adapter that is switched off (SIDE's LoRA) is no part of it.
    """
    learning = sorted(name for name, p in network.named_parameters() if p.requires_grad)
    adapted = any(not m.disable_adapters for m in network.modules() if hasattr(m, "base_layer"))
    weights = {
        k.replace(".base_layer.", "."): v
        for k, v in network.state_dict().items()
        if adapted or "lora_" not in k
    }
    return tensor_hash(weights), network.training, learning, adapted


@contextmanager
def _watched(model: Denoiser, name: str) -> Iterator[_Counted]:
    """Counts evaluations, and sees that the network is afterwards what it was."""
    before, there = _state(model.network), hooks(model.network)
    counted = _Counted(model.network)
    try:
        yield counted
    finally:
        counted.handle.remove()
    same = _state(model.network) == before
    require(same, f"{name} leaves the network changed (weights, training mode or requires_grad)")
    left = hooks(model.network) - there
    require(not left, f"{name} leaves {left} hooks on the network")


class _Extracted(Extracted):
    """Samples as a run gives them; remembers whether they were looked up."""

    read = False

    def __getitem__(self, condition: str) -> Sequence[Sample]:
        self.read = True
        return super().__getitem__(condition)

    def __contains__(self, condition: object) -> bool:
        self.read = True
        return super().__contains__(condition)

    def __iter__(self) -> Iterator[str]:
        self.read = True
        return super().__iter__()


def run_once(
    cls: type[Detector],
    options: Any,
    setting: Setting,
    seed: int,
    *,
    batch_size: int = 64,
    reverse: bool = False,
) -> tuple[dict[str, float], int]:
    """Scores and confidences by id, every rule of one run checked; and the evaluations
    that it took.
    """
    name, model = cls.__name__, setting.model
    model.batch_size = batch_size
    sampling = {**SAMPLING, "examples": setting.examples}
    try:
        detector = contract.construct(cls, options, seed=seed, sampling=sampling)
    except ValueError as error:
        raise UserError(str(error)) from error
    access = detector.access
    seen: Any = model if access.model else NoModel()
    if access.second_model:
        setting.other.batch_size = batch_size
        detector.refer(lambda: setting.other)
    conditions = list(reversed(setting.conditions)) if reverse else list(setting.conditions)
    contract.check(detector, seen, conditions)
    if access.training_data:
        detector.show(lambda images: np.arange(len(images)) % 2)
    if access.labels:
        labels = [int(c.id.rpartition("/")[2]) % 2 for c in conditions]
        detector.fit(conditions, labels, [c.id for c in conditions])
    with tempfile.TemporaryDirectory() as folder, _watched(model, name) as counted:
        before = dataclasses.replace(model.cost)
        parts = {"weights": "tiny", "seed": seed}
        beforehand = contract.preparation_forwards(detector, seen, conditions)
        workspace = Workspace(Path(folder), parts, progress=False)
        contract.prepare(detector, seen, conditions, workspace)
        _prepared(detector, workspace, _passes(model, before), beforehand)
        requests = contract.plan(detector, conditions)
        many = f"{name} plans {len(requests)} images; give options that make it {MANY} at most"
        require(len(requests) <= MANY, many)
        drawn: list[Sample] = []
        for part in filter(None, (requests[:FEW], requests[FEW:])):
            prices = [contract.price(detector, seen, request) for request in part]
            spent = _passes(model, before)
            drawn += contract.extract(detector, seen, part)
            took, said = (
                _passes(model, before) - spent,
                [price for price in prices if price is not None],
            )
            right = len(said) < len(part) or took == sum(said)
            require(right, f"{name}.image_forwards says {sum(said)} for images that took {took}")
        extracted = _Extracted(Samples.of([pd.DataFrame(sample_rows(drawn))] if drawn else []))
        scores = contract.score(detector, seen, conditions, extracted)
        unsaid = f"{name} scores by its extracted images, and its access does not say images=True"
        require(access.images or not extracted.read, unsaid)
        finite = all(map(math.isfinite, [*scores, *(float(s.confidence) for s in drawn)]))
        require(finite, f"{name} returns NaN or infinity on {setting.name}")
        require(detector.access == access, f"{name}.access changes after construction")
        passes = _passes(model, before)
        seen_by_network = (
            f"{name}: the network saw {counted.forwards} rows, and {passes} are counted"
        )
        require(counted.forwards <= passes, seen_by_network)
        gradients = (
            f"{name} takes gradients of the target, and its access does not say gradients=True"
        )
        require(not counted.backwards or access.gradients, gradients)
    found = {c.id: value for c, value in zip(conditions, scores, strict=True)}
    images = {f"{s.condition.id} image {s.draw}": float(s.confidence) for s in drawn}
    return found | images, passes


def _prepared(detector: Detector, workspace: Workspace, took: int, said: int) -> None:
    """Raises :class:`Broken` where the preparation took other evaluations than a run
    would count, or than were said beforehand.
    """
    name, counted = type(detector).__name__, workspace.cost.forwards + workspace.cost.jvps
    require(
        took == counted,
        f"{name}.prepare took {took} evaluations, and its stages say {counted}: a run counts what"
        " the function that makes a stage returns",
    )
    silent = type(detector).preparation_forwards is Detector.preparation_forwards
    require(
        silent or said == took,
        f"{name}.preparation_forwards says {said} for a preparation that took {took}",
    )


def _passes(model: Denoiser, before: Any) -> int:
    """Evaluations since ``before``, Jacobian-vector products included."""
    cost = model.cost - before
    return cost.forwards + cost.jvps
