"""Stable Diffusion on Webster's prompts: which captions give back a training picture?

Webster (2023, arXiv 2305.08694) sorts memorized captions into MV (matching verbatim), TV (template verbatim) and RV
(retrieval verbatim). The mini profile is a small true case of it: a real Stable Diffusion pipeline trained on the
catalogue world (catalogue.py) by ``membench train``, whose positives and negatives are known by construction, and a
control model that never saw them. The full profile (sd_webster_full.py) asks a Stable Diffusion 1.x or 2.x checkpoint about the
published prompt sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from membench.errors import UserError
from membench.hashing import json_hash
from membench.prompts import example_id
from membench.registry import unknown_name
from membench.types import Band, Condition, Example, LoadedTask, Space, TaskInfo

from . import catalogue

if TYPE_CHECKING:
    from membench.denoiser import Denoiser
    from membench.fetching.resources import Resource

DATA = Path(__file__).resolve().parent / "data" / "sd_webster"
# Which shipped model has seen which half of the catalogue.
MODELS = {"a": "model", "b": "control"}

# Carlini et al. (2023) call d < 1 a copy; AMG (CVPR 2024) goes to 1.4; what lies far below 1 is a copy to the eye.
SPACE = Space(
    id="normalised-l2/pixels64/alpha0.5/n50",
    higher_is_closer=False,
    bands=(Band("high", 0.0, 0.7), Band("mid", 0.7, 1.0), Band("low", 1.0, 1.4)),
    copy=1.0,
    floor=1.5,
    source="Carlini et al. 2023, arXiv 2301.13188",
)


@dataclass(frozen=True)
class SdWebsterOptions:
    model: str = field(
        default="",
        metadata={
            "help": "folder, hub id (ID@REVISION) or short name (sd-1.4, sd-2.1 ...) of a StableDiffusionPipeline, 1.x or 2.x; "
            "A,B: B is A's mirror; empty: the one that ships (mini), CompVis/stable-diffusion-v1-4 (full)"
        },
    )
    prompts: str = field(
        default="", metadata={"help": "prompt sets or files, A,B; empty: the catalogue's examples (mini), hintersdorf (full)"}
    )
    negatives: str = field(
        default="", metadata={"help": "the same, of prompts that are not memorized; empty: laion (full, where prompts is empty, too)"}
    )
    half: Literal["a", "b"] = field(
        default="a", metadata={"help": "mini: b lets the two models change roles, for choosing options apart from what is reported"}
    )
    examples: Literal["half", "mirror"] = field(
        default="half",
        metadata={"help": "mini: the captions of one half, or those of both, of which the model's own are memorized (mirror pairs)"},
    )
    control_model: str = field(
        default="", metadata={"help": "a model of the same kind that never saw the prompts' pictures, for --control", "full": True}
    )
    ground_truth: str = field(
        default="",
        metadata={
            "help": "the memorized prompts' training pictures: a folder, or urls (membench download sd_webster --images); "
            "empty: extracted images are compared with nothing",
            "full": True,
        },
    )
    criterion: Literal["sscd", "sscd-int8", "clip"] = field(
        default="sscd", metadata={"help": "cosine of which features makes a copy of a ground-truth picture", "full": True}
    )
    criterion_weights: str = field(
        default="",
        metadata={"help": "of sscd a file or a variant's name, of clip MODEL:TAG or MODEL:FILE; empty: disc_mixup", "full": True},
    )
    criterion_preprocess: str = field(
        default="",
        metadata={"help": "how a picture is brought to SSCD's size; published papers differ; empty: the authors' own", "full": True},
    )
    steps: int = field(default=50, metadata={"help": "DDIM steps of extracted images", "min": 1, "max": 1000, "full": True})
    guidance: float = field(default=7.5, metadata={"help": "their guidance weight", "min": 0.0, "full": True})


class SdWebster:
    info = TaskInfo(
        name="sd_webster",
        version=1,
        summary="Stable Diffusion, captions that return training pictures (MV, TV, RV) against matched ones that do not",
        profiles=("mini", "full"),
        space=SPACE,
        sampling={"steps": 10, "guidance": 3.0},
    )
    Options = SdWebsterOptions
    model_optional = True  # load(needs_model=False), for detectors that read captions alone

    def __init__(self, options: SdWebsterOptions = SdWebsterOptions()) -> None:
        self.options = options

    def load(
        self,
        profile: str,
        *,
        control: bool = False,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
        needs_model: bool = True,
    ) -> LoadedTask:
        """The examples of one half of the catalogue, and the model that was trained on it, or with ``control`` the other one.

        The full profile: the published prompts and a published checkpoint.
        """
        if profile == "full":
            from .sd_webster_full import load_full

            return load_full(
                self.info,
                self.options,
                control=control,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                needs_model=needs_model,
            )
        return self._mini(control, device, dtype, batch_size)

    def resources(self) -> list[Resource]:
        """What the full profile needs from the network: ``membench download sd_webster``."""
        from .sd_webster_full import resources

        return resources(self.options)

    def _mini(self, control: bool, device: str, dtype: str, batch_size: int) -> LoadedTask:
        from membench.pipelines import folder_hash

        if control and self.options.model:
            raise UserError("--control and --model exclude each other: the control model is the one that ships")
        for option in fields(self.options):
            if option.metadata.get("full") and getattr(self.options, option.name) != option.default:
                raise UserError(f"{option.name} is for --profile full; the mini profile's model and pictures ship with membench")
        name = self.options.half
        seen = {"a": "b", "b": "a"}[name] if control else name
        folder = Path(self.options.model) if self.options.model else DATA / MODELS[seen]
        half = world(name)
        index = unique_pictures(half)
        from .sd_webster_full import chosen_prompts

        if self.options.negatives and not self.options.prompts:
            raise UserError("--negatives without --prompts is for --profile full: the catalogue has negatives of its own; name both")
        given = self.options.prompts
        if self.options.examples == "mirror":
            for given_name, why in (("model", "nobody knows which captions it saw"), ("prompts", "they have no mirror")):
                if value := getattr(self.options, given_name):
                    raise UserError(f"{given_name}={value}: {why}; choose --set sd_webster.examples=half")
            examples = mirror_examples(name)
        else:
            examples = chosen_prompts(given, self.options.negatives)[0] if given else list(catalogue_examples(half))
        return LoadedTask(
            info=self.info,
            profile="mini",
            examples=examples,
            training_images=lambda: training_pictures(name),
            training_ids=[f"{name}/{i:04d}" for i in range(len(index))],
            training_copies=list(index.values()),
            model=lambda: load_model(folder, device, dtype, batch_size),
            hashes={
                "weights": folder_hash(folder),
                "data": json_hash([catalogue.WORLD_VERSION, name, [repr(look) for look in index], list(index.values())]),
                "prompts": json_hash([[e.id, e.label, e.kind, e.group, e.source] for e in examples]),
            },
            control=control,
        )

    @staticmethod
    def train(out: Path, parts: Sequence[str] | None, options: Sequence[str], *, profile: str = "mini", progress: bool = True) -> None:
        """``membench train sd_webster``: the recipe that made the shipped weights (sd_webster_train.py)."""
        from membench.options import parse_options

        from .sd_webster_train import PARTS, Recipe, train

        if profile != "mini":
            raise UserError("membench train sd_webster is for --profile mini: the full profile asks published checkpoints")
        for part in parts or ():
            if part not in PARTS:
                raise unknown_name("part", part, PARTS, "membench train sd_webster --help")
        train(out, tuple(parts or PARTS), parse_options(Recipe, options, owner="recipe of sd_webster"), progress=progress)


@cache
def world(half: str = "a") -> catalogue.Half:
    return catalogue.build(half)


@cache
def training_pictures(half: str = "a") -> np.ndarray:
    """Every different training picture, drawn once a process: ``uint8`` [n, 64, 64, 3]."""
    return np.stack([catalogue.draw(look) for look in unique_pictures(world(half))])


def load_model(folder: Path, device: str, dtype: str, batch_size: int) -> Denoiser:
    from membench.latent_denoiser import LatentDenoiser
    from membench.pipelines import load_text_to_image

    return LatentDenoiser(load_text_to_image(folder, device=device, dtype=dtype), batch_size=batch_size)


def unique_pictures(half: catalogue.Half) -> dict[catalogue.Look, int]:
    """Each different training picture with its number of training rows."""
    index: dict[catalogue.Look, int] = {}
    for e in half.entries:
        if e.copies:
            index[e.look] = index.get(e.look, 0) + e.copies
    return index


def catalogue_examples(half: catalogue.Half) -> Iterator[Example]:
    """Memorized: MV, TV, RV. Not: N (its picture was trained on once an epoch) and held-out captions."""
    for _, e in half.examples():
        memorized = e.kind in ("MV", "TV", "RV")
        source = "catalogue" if memorized else {"N": "singleton", "held_out": "held_out"}[e.kind]
        yield Example(Condition(example_id(e.caption), e.caption), int(memorized), e.kind, e.group, source)


def mirror_examples(name: str) -> list[Example]:
    """The captions of both halves. Memorized: what is planted in half ``name``; not: the same kinds of the other half (source
    ``mirror``), the half's own singletons, and what was held out of both trainings or seen by the other model alone.
    """
    found = []
    for half in ("a", "b"):
        for e in catalogue_examples(world(half)):
            if half == name:
                found.append(e)
            else:
                found.append(replace(e, label=0, source="mirror" if e.label else "held_out"))
    return found
