"""Stable Diffusion on Webster's prompts: which captions give back a training image?

Webster (2023, arXiv 2305.08694) sorts memorized captions into MV (matching verbatim),
TV (template verbatim) and RV (retrieval verbatim). The mini profile is a small true
case of it: a real Stable Diffusion pipeline trained on the catalogue world
(catalogue.py) by ``membench train``, whose positives and negatives are known by
construction: two models, each trained on a half of it, and the captions of both halves
as examples (docs/design/mirror-pairs.md). The full profile (full.py) asks a
Stable Diffusion 1.x or 2.x checkpoint about the published prompt sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from membench.datasets.prompts import UNLABELLED, example_id
from membench.datasets.trained_on import same_training
from membench.errors import UserError, unknown_name
from membench.models.latent import load_model
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Band, Condition, Example, Space, Tracker, Training

from ..shared import HALVES, examples_hash, mirror_of, refuse_control_of
from . import catalogue, products
from .options import SdWebsterOptions

if TYPE_CHECKING:
    from membench.fetching.resources import Resource

DATA = Path(__file__).resolve().parent.parent / "data" / "sd_webster"
SIDE = 64  # pixels of an image of the catalogue

COMPARE = (
    "to compare them with the prompts' own training images: --profile full --set"
    " sd_webster.ground_truth=FOLDER"
)

# Carlini et al. (2023) call d < 1 a copy; AMG (CVPR 2024) goes to 1.4; what lies far
# below 1 is a copy to the eye.
SPACE = Space(
    id="normalised-l2/pixels64/alpha0.5/n50",
    higher_is_closer=False,
    bands=(Band("high", 0.0, 0.7), Band("mid", 0.7, 1.0), Band("low", 1.0, 1.4)),
    copy=1.0,
    floor=1.5,
    source="Carlini et al. 2023, arXiv 2301.13188",
)


class SdWebster(Task):
    info = TaskInfo(
        name="sd_webster",
        version=2,
        summary=(
            "Stable Diffusion, captions that return training images (MV, TV, RV) against matched"
            " ones that do not"
        ),
        profiles=("mini", "full"),
        space=SPACE,
        sampling={"steps": 10, "guidance": 3.0},
    )
    Options = SdWebsterOptions
    model_optional = True  # load(needs_model=False), for detectors that read captions alone

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
        """The examples of one half of the catalogue, and the model that was trained on
        it, or with ``control`` the other one.

        The full profile: the published prompts and a published checkpoint.
        """
        if profile == "full":
            from .full import load_full

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
        """What the full profile needs from the network: ``membench download
        sd_webster``.
        """
        from .resources import resources

        return resources(self.options)

    def _mini(self, control: bool, device: str, dtype: str, batch_size: int) -> LoadedTask:
        from membench.models.stable_diffusion_folder import folder_hash

        if control:
            refuse_control_of(self.options.model)
        for option in fields(self.options):
            if option.metadata.get("full") and getattr(self.options, option.name) != option.default:
                raise UserError(
                    f"{option.name} is for --profile full; the mini profile's model and images"
                    " ship with membench"
                )
        name = self.options.half
        half = world(name)
        from .full import NOT_COMPARED
        from .resources import one_model
        from .sets import chosen_prompts

        if self.options.negatives and not self.options.prompts:
            raise UserError(
                "--negatives without --prompts is for --profile full: the catalogue has negatives"
                " of its own; name both"
            )
        given, examples = self.options.prompts, list(catalogue_examples(half))
        provenance: dict[str, Any] = {}
        mirrored = self.options.examples == "mirror"
        if self.options.examples == "auto":
            mirrored = not (self.options.model or given)
        if mirrored:
            for option_name, why in (
                ("model", "nobody knows which captions it saw"),
                ("prompts", "they have no mirror"),
            ):
                if value := getattr(self.options, option_name):
                    raise UserError(
                        f"{option_name}={value}: {why}; choose --set sd_webster.examples=half"
                    )
            examples = mirror_examples(name)
        if given:
            examples, _, provenance = chosen_prompts(given, self.options.negatives)
        folder = (
            one_model(self.options.model)
            if self.options.model
            else DATA / (mirror_of(name) if control else name)
        )
        foreign = _foreign(self.options.model, folder, name) if self.options.model else ""
        if foreign:
            labels = (
                ""
                if given
                else "; the catalogue's captions are unlabelled, so name your own with --prompts"
            )
            note = f"{foreign}: extracted images are compared with nothing{labels}; {COMPARE}"
            provenance = {**provenance, "notes": [*provenance.get("notes", ()), note]}
        if foreign and not given:
            examples = [replace(e, memorized=UNLABELLED, kind="unlabelled") for e in examples]
        index = {} if foreign else unique_images(half)
        ids = [f"{name}/{i:04d}" for i in range(len(index))]
        data = json_hash(
            [products.WORLD_VERSION, name, [repr(look) for look in index], list(index.values())]
        )
        training = (
            Training.none()
            if foreign
            else Training(lambda: training_images_of(name), ids, list(index.values()), hash=data)
        )
        return LoadedTask(
            info=replace(self.info, space=NOT_COMPARED) if foreign else self.info,
            profile="mini",
            examples=examples,
            training=training,
            model=lambda: load_model(folder, device, dtype, batch_size),
            hashes={
                "weights": folder_hash(folder),
                "data": training.hash,
                "prompts": examples_hash(examples),
            },
            control=control,
            provenance=provenance,
            held_out=public_images,
        )

    @classmethod
    def train(
        cls,
        out: Path,
        parts: Sequence[str] | None,
        options: Sequence[str],
        *,
        profile: str = "mini",
        progress: bool = True,
        tracker: Tracker | None = None,
    ) -> None:
        """``membench train sd_webster``: the recipe that made the shipped weights
        (train.py).
        """
        from membench.options import parse_options

        from .recipe import Recipe
        from .train import PARTS, train

        if profile != "mini":
            raise UserError(
                "membench train sd_webster is for --profile mini: the full profile asks published"
                " checkpoints"
            )
        for part in parts or ():
            if part not in PARTS:
                raise unknown_name("part", part, PARTS, "membench train sd_webster --help")
        train(
            out,
            tuple(parts or PARTS),
            parse_options(Recipe, options, owner="recipe of sd_webster"),
            progress=progress,
            tracker=tracker,
        )


@cache
def world(half: str = "a") -> catalogue.Split:
    return catalogue.build(half)


@cache
def training_images_of(half: str = "a") -> np.ndarray:
    """Every different training image, drawn once a process: ``uint8`` [n, 64, 64, 3]."""
    return np.stack([products.draw(look) for look in unique_images(world(half))])


def public_images(n: int) -> np.ndarray:
    """At most n different images of the split that neither half has: the VAE alone was
    trained on them. ``uint8`` [n, 64, 64, 3].
    """
    looks = list(unique_images(world("public")))[:n]
    return np.stack([products.draw(look) for look in looks])


def unique_images(half: catalogue.Split) -> dict[products.Look, int]:
    """Each different training image with its number of training rows."""
    index: dict[products.Look, int] = {}
    for e in half.entries:
        if e.copies:
            index[e.look] = index.get(e.look, 0) + e.copies
    return index


def _foreign(model: str, folder: Path, half: str) -> str:
    """Why the catalogue says nothing about what a model has memorized; empty for one
    that was trained on this half of it.
    """
    from membench.models.pipeline_kinds import check_kind
    from membench.models.stable_diffusion_folder import image_size

    check_kind(folder)
    if (size := image_size(folder)) != (SIDE, SIDE):
        return f"{model} generates images of {size[0]}x{size[1]}, not the catalogue's {SIDE}x{SIDE}"
    if not same_training(folder, DATA / half):
        return (
            f"{model} was not trained on the mini profile's catalogue (no training.json beside it"
            " says so)"
        )
    return ""


def catalogue_examples(half: catalogue.Split) -> Iterator[Example]:
    """Memorized: MV, TV, RV.

    Not: N (its image was trained on once an epoch) and held-out captions.
    """
    for _, e in half.examples():
        memorized = e.kind in ("MV", "TV", "RV")
        source = "catalogue" if memorized else {"N": "singleton", "held_out": "held_out"}[e.kind]
        yield Example(
            Condition(example_id(e.caption), e.caption), int(memorized), e.kind, e.group, source
        )


def mirror_examples(name: str) -> list[Example]:
    """The captions of both halves.

    Memorized: what is planted in half ``name``; not: the same kinds of the other half
    (source ``mirror``), the half's own singletons, and what was held out of both
    trainings or seen by the other model alone.
    """
    found = []
    for half in HALVES:
        for e in catalogue_examples(world(half)):
            if half == name:
                found.append(e)
            else:
                found.append(
                    replace(e, memorized=0, source="mirror" if e.memorized else "held_out")
                )
    return found
