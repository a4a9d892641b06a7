"""Stable Diffusion on Webster's prompts: which captions give back a training image?

Webster (2023, arXiv 2305.08694) sorts memorized captions into MV (matching verbatim),
TV (template verbatim) and RV (retrieval verbatim). The mini profile is a small true
case of it: a real Stable Diffusion pipeline trained on the catalogue world
(catalogue.py) by ``membench train``, whose positives and negatives are known by
construction: two models, each trained on a half of it, and the captions of both halves
as examples (docs/design/mirror-pairs.md). The full profile (full.py) asks a
Stable Diffusion 1.x, 2.x or XL checkpoint about the published prompt sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.datasets.trained_on import same_training
from membench.errors import UserError, unknown_name
from membench.models.latent import load_model
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import UNLABELLED, Band, Space, Tracker, Training

from ..one_recipe import recipe_of
from ..shared import examples_hash, mirror_of, refuse_control_of
from . import products
from .options import SdWebsterOptions
from .world import (
    catalogue_examples,
    mirror_examples,
    models_of,
    public_images,
    seen,
    training_images_of,
    unique_images,
    world,
)

if TYPE_CHECKING:
    from membench.fetching.resources import Resource

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
        version=3,
        profiles=("mini", "full"),
        space=SPACE,
        sampling={"steps": 10, "guidance": 2.0},
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
                progress=self.progress,
            )
        return self._mini(control, device, dtype, batch_size)

    def resources(self) -> list[Resource]:
        """What the full profile needs from the network: ``membench download
        sd_webster``.
        """
        from .resources import refuse_mini, resources

        refuse_mini(self.options)
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
        name, number = self.options.half, self.options.world
        root = models_of(number, self.options.models)
        half = world(name, number)
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
            examples = mirror_examples(name, number)
        if given:
            examples, _, provenance = chosen_prompts(given, self.options.negatives)
        folder = (
            one_model(self.options.model)
            if self.options.model
            else root / (mirror_of(name) if control else name)
        )
        foreign = _foreign(self.options.model, folder, root / name) if self.options.model else ""
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
            else Training(
                lambda: training_images_of(name, number), ids, list(index.values()), hash=data
            )
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
            provenance={**provenance, **recipe_of(folder / "training.json")},
            held_out=public_images,
            control_saw=seen(mirror_of(name), number),
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

        from ..shared import HALVES
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
        recipe = parse_options(Recipe, options, owner="recipe of sd_webster")
        train(
            out,
            tuple(parts or (HALVES if recipe.world or recipe.start else PARTS)),
            recipe,
            progress=progress,
            tracker=tracker,
        )


def _foreign(model: str, folder: Path, half: Path) -> str:
    """Why the catalogue says nothing about what a model has memorized; empty for one
    that was trained on the half that the model ``half`` was.
    """
    from membench.models.pipeline_kinds import check_kind
    from membench.models.stable_diffusion_folder import image_size

    check_kind(folder)
    if (size := image_size(folder)) != (SIDE, SIDE):
        return f"{model} generates images of {size[0]}x{size[1]}, not the catalogue's {SIDE}x{SIDE}"
    if not same_training(folder, half):
        return (
            f"{model} was not trained on the mini profile's catalogue (no training.json beside it"
            " says so)"
        )
    return ""
