"""Checks of somebody's own detector or task: all that the harness relies on, on tiny
models, in seconds.

    from membench.testing import check_detector
    check_detector(MyDetector)

Each check raises :class:`Broken` with one line that names the rule. Nothing is
downloaded.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from membench import detector as detectors
from membench import task as tasks
from membench.detector import Detector
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser, from_uint8, to_uint8
from membench.models.pixel import PixelDenoiser
from membench.options import parse_options
from membench.runs import contract
from membench.runs.contract import ContractError
from membench.runs.shards import NoModel
from membench.seeds import generator
from membench.storage.hashing import tensor_hash
from membench.storage.workspace import Workspace
from membench.task import LoadedTask
from membench.types import Condition, Sample

SAMPLING = {"steps": 4, "guidance": 2.0}
# Of scores and confidences between batches of other sizes; a surrogate's training
# amplifies rounding
TOLERANCE = 1e-2
MANY = 64  # images; a detector that plans more is given options that make it quick
FEW, SOME = 3, 24  # images at once in the second run; SOME where one takes thousands of evaluations


class Broken(AssertionError):
    """A rule that the class does not keep, in one line."""


def require(kept: bool, rule: str) -> None:
    if not kept:
        raise Broken(rule)


# -------------------------------------------------------------------------- tiny models


class TinyTextModel(Denoiser):
    """A UNet2DConditionModel of 4x4x4 latents with random weights, v-prediction.

    Captions are told apart by a hash of their text.
    """

    takes_text = True

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        return self._run(x, t, encoder_hidden_states=condition.embeddings).sample

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        rows = [
            torch.randn(6, 16, generator=generator("caption", c.prompt or "")) for c in conditions
        ]
        return Conditioning(torch.stack(rows) if rows else None)

    def token_counts(self, conditions: Sequence[Condition]) -> list[int]:
        return [min(len((c.prompt or "").split()) + 2, 6) for c in conditions]

    def decode(self, x: torch.Tensor) -> np.ndarray:
        self.cost.decodes += len(x)
        return to_uint8(torch.nn.functional.interpolate(x[:, :3].float(), scale_factor=2) / 3)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        if images.shape[1:] != (8, 8, 3):
            raise UserError(
                f"images of {images.shape[1:]} are not of this model's 8x8; resize them"
            )
        self.cost.encodes += len(images)
        x = torch.nn.functional.avg_pool2d(from_uint8(images), 2) * 3
        return torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1)


def tiny_text_model(seed: int = 0) -> Denoiser:
    """States [4, 4, 4], images ``uint8`` [8, 8, 3]. seed: of its weights."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    ends = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    scheduler = DDIMScheduler(**betas, **ends, prediction_type="v_prediction")
    return TinyTextModel(network.eval().requires_grad_(False), scheduler, shape=(4, 4, 4))


def tiny_pixel_model(classes: int = 3, seed: int = 0) -> Denoiser:
    """A UNet2DModel of 8x8 pixels with random weights, epsilon-prediction.

    classes: how many, with a null class after them; 0: unconditional.
    """
    from diffusers import DDIMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            num_class_embeds=classes + 1 if classes else None,
        )
    network = network.eval().requires_grad_(False)
    return PixelDenoiser(network, DDIMScheduler(), shape=(3, 8, 8), classes=classes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A kind of task that a detector may meet."""

    name: str
    examples: str
    model: Denoiser
    other: Denoiser
    conditions: tuple[Condition, ...]


def settings(n: int = 6) -> Iterator[Setting]:
    """Captions; images with a class; images of an unconditional model."""
    captions = tuple(Condition(f"caption/{i}", f"A tiny Caption number {i}") for i in range(n))
    yield Setting("captions", "prompts", tiny_text_model(), tiny_text_model(1), captions)
    noise = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    for name, classes in (("images with a class", 3), ("images without a class", 0)):
        told = [
            Condition(f"image/{i}", None, noise[i], i % 3 if classes else None, ("start", str(i)))
            for i in range(n)
        ]
        yield Setting(
            name, "images", tiny_pixel_model(classes), tiny_pixel_model(classes, 1), tuple(told)
        )


# ---------------------------------------------------------------------------- detectors


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
    chosen = _options(found.Options, options, f"detector {cls.__name__}")
    took = []
    for setting in settings():
        try:
            first, spent = run_once(found, chosen, setting, seeds[0])
        except ContractError as error:
            raise Broken(str(error)) from error
        except UserError as error:
            _one_line(error, cls.__name__)
            continue
        took.append(setting.name)
        _compared(found, chosen, setting, seeds[0], first, FEW if spent < 2000 else SOME)
        for seed in seeds[1:]:
            run_once(found, chosen, setting, seed)
    require(bool(took), f"{cls.__name__} refuses every setting; see its check")
    return took


def _options(kind: type, given: Mapping[str, Any] | None, owner: str) -> Any:
    words = [
        f"{k}={','.join(map(str, v)) if isinstance(v, tuple | list) else v}"
        for k, v in (given or {}).items()
    ]
    return parse_options(kind, words, owner=owner)


def _one_line(error: UserError, name: str) -> None:
    text = str(error)
    require(bool(text.strip()) and "\n" not in text, f"a refusal is one line; {name} says {text!r}")


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
    _fields(cls.Options, name)
    known = {field.name for field in dataclasses.fields(cls.Options)}
    for preset, values in cls.presets.items():
        unknown = sorted(set(values) - known)
        require(not unknown, f"preset {preset} of {name} names {unknown}, which are not options")


def _fields(options: type, name: str) -> None:
    for field in dataclasses.fields(options):
        has = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        require(has, f"option {field.name} of {name} has no default")
        told = bool(field.metadata.get("help"))
        require(told, f"option {field.name} of {name} has no metadata={{'help': ...}}")


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


def _hooks(network: torch.nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in network.modules() for kind in kinds)


@contextmanager
def _watched(model: Denoiser, name: str) -> Iterator[_Counted]:
    """Counts evaluations, and sees that the network is afterwards what it was."""
    before, hooks = _state(model.network), _hooks(model.network)
    counted = _Counted(model.network)
    try:
        yield counted
    finally:
        counted.handle.remove()
    same = _state(model.network) == before
    require(same, f"{name} leaves the network changed (weights, training mode or requires_grad)")
    left = _hooks(model.network) - hooks
    require(not left, f"{name} leaves {left} hooks on the network")


class _Extracted(dict[str, list[Sample]]):
    """Samples by condition id, as the harness gives them; remembers whether they were
    read.
    """

    read = False

    def __getitem__(self, key: str) -> list[Sample]:
        self.read = True
        return self.get(key, [])

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
        contract.prepare(detector, seen, conditions, Workspace(Path(folder), parts, progress=False))
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
        extracted = _Extracted()
        for sample in drawn:
            extracted.setdefault(sample.condition.id, []).append(sample)
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


def _passes(model: Denoiser, before: Any) -> int:
    """Evaluations since ``before``, Jacobian-vector products included."""
    cost = model.cost - before
    return cost.forwards + cost.jvps


# -------------------------------------------------------------------------------- tasks


def check_task(cls: type, options: Mapping[str, Any] | None = None) -> LoadedTask:
    """Loads the first profile of a task, twice, and checks everything that the harness
    relies on.

    Its declaration; ids that are unique and the same each time; labels, kinds and
    groups; hashes; training images beside their ids; a model that takes the examples;
    and a control model, if it has one, on the same examples.

    options: in place of the defaults. Returns what was loaded. Raises :class:`Broken`,
    and whatever the class raises.
    """
    name = cls.__name__
    try:
        found = tasks.adopted(cls)
    except TypeError as error:
        raise Broken(str(error)) from None
    info = found.info
    sampled = bool(info.profiles) and {"steps", "guidance"} <= set(info.sampling)
    require(sampled, f"{name}.info needs profiles, and sampling with steps and guidance")
    _fields(found.Options, name)
    task = found(_options(found.Options, options, f"task {info.name}"))
    try:
        loaded, again = (contract.load(task, info.profiles[0]) for _ in range(2))
    except ContractError as error:
        raise Broken(str(error)) from error
    ids = [e.id for e in loaded.examples]
    require(
        len(set(ids)) == len(ids) > 0, f"{name}: the ids of its {len(ids)} examples are not unique"
    )
    same = ids == [e.id for e in again.examples] and dict(loaded.hashes) == dict(again.hashes)
    require(same, f"{name} loads other examples or hashes each time")
    require(
        {"data", "prompts", "weights"} <= set(loaded.hashes),
        f"{name}.hashes needs data, prompts and weights",
    )
    for e in loaded.examples:
        right = e.memorized in (1, 0, -1)
        require(
            right, f"{name}: example {e.id} has memorized={e.memorized!r}; it must be 1, 0 or -1"
        )
        require(
            bool(e.kind and e.group and e.source),
            f"{name}: example {e.id} lacks kind, group or source",
        )
    images = loaded.training.images()
    beside = len(images) == len(loaded.training.ids)
    require(beside, f"{name}: {len(images)} training images and {len(loaded.training.ids)} ids")
    require(
        images.dtype == np.uint8 and images.ndim == 4,
        f"{name}: training images are not uint8 [n, h, w, 3]",
    )
    model = loaded.model()
    with torch.no_grad():
        told = [e.condition for e in loaded.examples[:2]]
        x = model.noise([(c.id, 0) for c in told], 0)
        eps = model.eps(x, model.steps // 2, model.condition(told))
    require(bool(eps.isfinite().all()), f"{name}: its model returns NaN or infinity")
    _control(task, loaded, name)
    return loaded


def _control(task: tasks.Task, loaded: LoadedTask, name: str) -> None:
    """The control model: refused in one line, or another model on the same examples."""
    try:
        control = contract.load(task, loaded.profile, control=True)
    except ContractError as error:
        raise Broken(str(error)) from error
    except UserError as error:
        return _one_line(error, name)
    same = [e.id for e in control.examples] == [e.id for e in loaded.examples]
    require(
        same and control.control,
        f"{name}: with control=True it loads other examples, or does not say so",
    )
    differ = control.hashes.get("weights") != loaded.hashes.get("weights")
    require(
        differ,
        f"{name}: its control model has the weights of its model; refuse control where there is"
        " none",
    )
