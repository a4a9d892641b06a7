"""Checks of somebody's own detector or task: all that the harness relies on, on tiny models, in seconds.

    from membench.testing import check_detector
    check_detector(MyDetector)

Each check raises :class:`Broken` with one line that names the rule. Nothing is downloaded.
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

from membench.detector import Detector, adopted
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser, from_uint8, to_uint8
from membench.models.pixel import PixelDenoiser
from membench.options import parse_options
from membench.runs.shards import NoModel
from membench.seeds import generator
from membench.storage.hashing import tensor_hash
from membench.storage.workspace import Workspace
from membench.task import LoadedTask, Task, TaskInfo, training_kinds
from membench.types import Access, Condition, Sample

SAMPLING = {"steps": 4, "guidance": 2.0}
TOLERANCE = 1e-3  # of scores and confidences between batches of other sizes, relative; rounding is far below it


class Broken(AssertionError):
    """A rule that the class does not keep, in one line."""


def require(kept: bool, rule: str) -> None:
    if not kept:
        raise Broken(rule)


# ------------------------------------------------------------------------------- tiny models


class TinyTextModel(Denoiser):
    """A UNet2DConditionModel of 4x8x8 latents with random weights, v-prediction. Captions are told by a hash of their text."""

    takes_text = True

    def _forward(self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning) -> torch.Tensor:
        return self._run(x, t, encoder_hidden_states=condition.embeddings).sample

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        rows = [torch.randn(6, 16, generator=generator("caption", c.prompt or "")) for c in conditions]
        return Conditioning(torch.stack(rows))

    def decode(self, x: torch.Tensor) -> np.ndarray:
        return to_uint8(torch.nn.functional.interpolate(x[:, :3].float(), scale_factor=2) / 3)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        if images.shape[1:] != (16, 16, 3):
            raise UserError(f"images of {images.shape[1:]} are not of this model's 16x16; resize them")
        x = torch.nn.functional.avg_pool2d(from_uint8(images), 2) * 3
        return torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1)


def tiny_text_model() -> Denoiser:
    """States [4, 8, 8], images ``uint8`` [16, 16, 3]."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    scheduler = DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return TinyTextModel(network.eval().requires_grad_(False), scheduler, shape=(4, 8, 8))


def tiny_pixel_model(classes: int = 3) -> Denoiser:
    """A UNet2DModel of 8x8 pixels with random weights, epsilon-prediction. classes: with a null class after them; 0: unconditional."""
    from diffusers import DDIMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            num_class_embeds=classes + 1 if classes else None,
        )
    return PixelDenoiser(network.eval().requires_grad_(False), DDIMScheduler(), shape=(3, 8, 8), classes=classes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A kind of task that a detector may meet."""

    name: str
    examples: str
    model: Denoiser
    conditions: tuple[Condition, ...]


def settings(n: int = 6) -> Iterator[Setting]:
    """Captions; images with a class; images of an unconditional model."""
    captions = tuple(Condition(f"caption/{i}", f"A tiny Caption number {i}") for i in range(n))
    yield Setting("captions", "prompts", tiny_text_model(), captions)
    noise = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    for name, classes in (("images with a class", 3), ("images without a class", 0)):
        told = [Condition(f"image/{i}", image=noise[i], class_label=i % 3 if classes else None, start=("start", str(i))) for i in range(n)]
        yield Setting(name, "images", tiny_pixel_model(classes), tuple(told))


# --------------------------------------------------------------------------------- detectors


def check_detector(cls: type, options: Mapping[str, Any] | None = None, *, seeds: Sequence[int] = (0, 1)) -> list[str]:
    """Runs a detector class on tiny models and checks everything that the harness relies on.

    Declarations; lengths and types of what ``plan``, ``extract`` and ``score`` return; finite values; the same numbers for the same seed
    whatever the batch size and the order; evaluations counted; no more looked at than ``access`` says; the network left as it was; and
    refusals in one line. options: ``{"steps": 2}``, in place of the defaults, to make it quick. Returns the names of the settings that
    the detector takes. Raises :class:`Broken`, and whatever the class raises but UserError.
    """
    try:
        found = adopted(cls)
    except TypeError as error:
        raise Broken(str(error)) from None
    _declared(found)
    words = [f"{k}={','.join(map(str, v)) if isinstance(v, tuple | list) else v}" for k, v in (options or {}).items()]
    chosen = parse_options(found.Options, words, owner=f"detector {cls.__name__}")
    took = []
    for setting in settings():
        try:
            first = _run(found, chosen, setting, seeds[0])
        except UserError as error:
            require("\n" not in str(error) and str(error).strip() != "", f"a refusal is one line; {cls.__name__} says {str(error)!r}")
            continue
        took.append(setting.name)
        for what, other in (
            ("a second time", _run(found, chosen, setting, seeds[0])),
            ("at batch size 1", _run(found, chosen, setting, seeds[0], batch_size=1)),
            ("in another order", _run(found, chosen, setting, seeds[0], reverse=True)),
        ):
            for id_, value in first.items():
                close = id_ in other and math.isclose(value, other[id_], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
                require(close, f"on {setting.name} {cls.__name__} gives {id_} {value:.6g}, and {what} {other.get(id_, math.nan):.6g}")
        for seed in seeds[1:]:
            _run(found, chosen, setting, seed)
    require(bool(took), f"{cls.__name__} refuses every setting; see its check")
    return took


def _declared(cls: type[Detector]) -> None:
    name = cls.__name__
    require(dataclasses.is_dataclass(cls.Options) and cls.Options.__dataclass_params__.frozen, f"{name}.Options is not a frozen dataclass")  # type: ignore[attr-defined]
    for field in dataclasses.fields(cls.Options):
        has = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        require(has, f"option {field.name} of {name} has no default")
        require(bool(field.metadata.get("help")), f"option {field.name} of {name} has no metadata={{'help': ...}}")
    require(isinstance(cls.version, int) and cls.version >= 1, f"{name}.version is {cls.version!r}, not a whole number from 1")
    require(isinstance(cls.access, Access), f"{name}.access is {cls.access!r}, not membench.types.Access")
    for preset, values in cls.presets.items():
        known = {field.name for field in dataclasses.fields(cls.Options)}
        require(set(values) <= known, f"preset {preset} of {name} names {sorted(set(values) - known)}, which are not options")


class _Counted:
    """Counts rows that go through a network, forwards and backwards."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.forwards = self.backwards = 0
        self.handle = network.register_forward_hook(self._saw)

    def _saw(self, module: Any, args: Any, out: Any) -> None:
        self.forwards += len(args[0])
        if out.sample.requires_grad:
            out.sample.register_hook(lambda grad: setattr(self, "backwards", self.backwards + len(grad)))


@contextmanager
def _watched(model: Denoiser, name: str) -> Iterator[_Counted]:
    """Counts evaluations, and sees that the network is afterwards what it was."""
    network = model.network
    before = (tensor_hash(network), network.training, sorted(n for n, p in network.named_parameters() if p.requires_grad))
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    counted = _Counted(network)
    try:
        yield counted
    finally:
        counted.handle.remove()
    after = (tensor_hash(network), network.training, sorted(n for n, p in network.named_parameters() if p.requires_grad))
    require(before == after, f"{name} leaves the network changed (weights, training mode or requires_grad)")
    left = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    require(left == hooks, f"{name} leaves {left - hooks} hooks on the network")


def _run(cls: type[Detector], options: Any, setting: Setting, seed: int, *, batch_size: int = 64, reverse: bool = False) -> dict[str, float]:
    """Scores and confidences by id, every rule of one run checked."""
    name, model = cls.__name__, setting.model
    model.batch_size = batch_size
    detector = cls(options, seed=seed, sampling={**SAMPLING, "examples": setting.examples})
    access = detector.access
    seen: Any = model if access.model else NoModel()
    conditions = list(reversed(setting.conditions)) if reverse else list(setting.conditions)
    detector.check(seen, conditions)
    if access.labels:
        detector.fit(conditions, [int(c.id.rsplit("/")[-1]) % 2 for c in conditions], [c.id for c in conditions])
    with tempfile.TemporaryDirectory() as folder, _watched(model, name) as counted:
        before = dataclasses.replace(model.cost)
        workspace = Workspace(Path(folder), {"weights": "tiny", "seed": seed}, progress=False)
        if detector.alone:
            require(isinstance(detector.prepare(seen, conditions, workspace), dict), f"{name}.prepare does not return a dict")
        requests = detector.plan(conditions)
        asked = [(r.condition.id, r.draw) for r in requests]
        require(len(set(asked)) == len(asked), f"{name}.plan asks for the same image twice")
        drawn: list[Sample] = []
        for part in (requests[:3], requests[3:12]) if len(requests) > 3 else (requests,):
            spent = model.cost.forwards
            got = detector.extract(seen, part) if part else []
            require(len(got) == len(part), f"{name}.extract returns {len(got)} samples for {len(part)} requests")
            price = [detector.image_forwards(seen, request) for request in part]
            if None not in price and part:
                took = model.cost.forwards - spent
                require(took == sum(map(int, price)), f"{name}.image_forwards says {sum(map(int, price))} for images that took {took}")  # type: ignore[arg-type]
            drawn += got
        for (id_, draw), sample in zip(asked, drawn, strict=False):
            require((sample.condition.id, sample.draw) == (id_, draw), f"{name}.extract returns samples in another order than was asked for")
            right = isinstance(sample.image, np.ndarray) and sample.image.dtype == np.uint8 and sample.image.ndim == 3
            require(right, f"{name}.extract returns an image that is not uint8 [h, w, 3]")
        extracted: dict[str, list[Sample]] = {c.id: [s for s in drawn if s.condition.id == c.id] for c in conditions}
        extracted |= {s.condition.id: [x for x in drawn if x.condition.id == s.condition.id] for s in drawn}
        enough = not access.images or all(len(extracted[c.id]) == sum(i == c.id for i, _ in asked) for c in conditions)
        scored = conditions if enough else [c for c in conditions if extracted[c.id]][:2]
        scores = list(detector.score(seen, scored, extracted)) if scored else []
        require(len(scores) == len(scored), f"{name}.score returns {len(scores)} values for {len(scored)} conditions")
        require(all(isinstance(s, float | int) for s in scores), f"{name}.score returns {type(scores[0]).__name__ if scores else None}, not floats")
        require(all(map(math.isfinite, scores)), f"{name}.score returns NaN or infinity on {setting.name}")
        cost = model.cost - before
        passes = cost.forwards + cost.jvps
        require(counted.forwards <= passes, f"{name}: the network saw {counted.forwards} rows, and {passes} are counted")
        require(not counted.backwards or access.gradients, f"{name} takes gradients of the target, and its access does not say so")
    return {c.id: float(s) for c, s in zip(scored, scores, strict=True)} | {f"{s.condition.id} image {s.draw}": float(s.confidence) for s in drawn}


# ------------------------------------------------------------------------------------- tasks


def check_task(cls: type[Task], options: Mapping[str, Any] | None = None) -> LoadedTask:
    """Loads the first profile of a task, twice, and checks everything that the harness relies on; returns what was loaded.

    Its declaration; ids that are unique and the same each time; labels, kinds and groups; hashes; training images beside their ids; a
    model that takes the examples; and the refusal of a profile that it does not have. Raises :class:`Broken`.
    """
    name, info = cls.__name__, getattr(cls, "info", None)
    require(isinstance(info, TaskInfo), f"{name}.info is {info!r}, not membench.task.TaskInfo")
    assert info is not None
    require(dataclasses.is_dataclass(cls.Options), f"{name}.Options is not a dataclass")
    require(bool(info.profiles) and {"steps", "guidance"} <= set(info.sampling), f"{name}.info needs profiles, and sampling with steps and guidance")
    task = cls(parse_options(cls.Options, [f"{k}={v}" for k, v in (options or {}).items()], owner=f"task {info.name}"))
    loaded, again = (task.load(info.profiles[0]) for _ in range(2))
    ids = [e.id for e in loaded.examples]
    require(len(set(ids)) == len(ids) > 0, f"{name}: the ids of its {len(ids)} examples are not unique")
    require(ids == [e.id for e in again.examples] and dict(loaded.hashes) == dict(again.hashes), f"{name} loads other examples or hashes each time")
    require({"data", "prompts", "weights"} <= set(loaded.hashes), f"{name}.hashes needs data, prompts and weights")
    for e in loaded.examples:
        require(e.memorized in (1, 0, -1), f"{name}: example {e.id} has memorized={e.memorized!r}; it must be 1, 0 or -1")
        require(bool(e.kind and e.group and e.source), f"{name}: example {e.id} lacks kind, group or source")
        require((e.condition.image is not None) == (info.examples == "images"), f"{name} declares examples={info.examples!r}, and {e.id} is another")
    images = loaded.training.images()
    require(len(images) == len(loaded.training.ids) == len(loaded.training.copies), f"{name}: training images, ids and copies differ in number")
    require(not len(images) or (images.dtype == np.uint8 and images.ndim == 4), f"{name}: training images are not uint8 [n, h, w, 3]")
    training_kinds(loaded)
    model = loaded.model()
    with torch.no_grad():
        told = [e.condition for e in loaded.examples[:2]]
        eps = model.eps(model.noise([(c.id, 0) for c in told], 0), model.steps // 2, model.condition(told))
    require(bool(eps.isfinite().all()), f"{name}: its model returns NaN or infinity")
    try:
        task.load("no such profile")
    except UserError as error:
        require("\n" not in str(error), f"{name} refuses a profile in several lines")
    else:
        raise Broken(f"{name} loads a profile that it does not declare")
    return loaded
