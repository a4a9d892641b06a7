"""What a pixel task on mirror pairs loads (mirror.py): the images of both halves as
examples, and one half's model to score them.

Label 1 is an image of the model's own half, however often that half shows it; label 0
is one of the other half, or held out. Kind and number of copies are alike in both
halves, so every kind is compared with the same kind of the other half. With ``control``
the same examples keep their labels and the other half's model scores them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from membench.datasets.trained_on import hash_with_labels, same_training, was_told_classes
from membench.errors import UserError, unknown_name
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, TaskInfo
from membench.types import Condition, Example, Training

from ..one_recipe import one_recipe, recipe_of
from ..shared import (
    HALVES,
    folder_of,
    mirror_of,
    models_option,
    refuse_control_of,
    rung_folder,
    world_option,
)
from .mirror import Pair, build_pair, fresh
from .planted import Half, World
from .task import PixelOptions, Setting, compared, found, load_setting, loaded

GENERATED = ("pool", "pool_seed", "labels", "model")  # options that examples=generated reads


@dataclass(frozen=True)
class MirrorOptions(PixelOptions):
    half: Literal["a", "b"] = field(
        default="a",
        metadata={
            "help": (
                "whose model is asked; its images are the memorized ones (full: b is control_model)"
            )
        },
    )
    examples: Literal["auto", "training", "generated"] = field(
        default="auto",
        metadata={
            "help": (
                "training: the images of both halves of a mirror pair and held-out ones (full: of"
                " model and control_model); generated: a pool of images that the model generated;"
                " auto: generated with --profile full, with a model of your own or an option of the"
                " pool, training otherwise"
            )
        },
    )
    world: int = world_option("seed of the generator")
    models: str = models_option()
    rung: int = field(
        default=0,
        metadata={
            "help": (
                "how much is memorized, from 1 (hardly anything) on; 0: the last rung (full: of a"
                " model that was trained with rungs)"
            ),
            "min": 0,
        },
    )


def kind_of_examples(options: MirrorOptions) -> str:
    """``training`` or ``generated``; auto: training, unless something is set that only
    generated images have.
    """
    if options.examples != "auto":
        return options.examples
    set_ = (getattr(options, name) != getattr(type(options)(), name) for name in GENERATED)
    return "generated" if any(set_) else "training"


def load_mirror(
    info: TaskInfo,
    world: World,
    data: Path,
    rungs: Sequence[int],
    options: MirrorOptions,
    *,
    control: bool,
    device: str,
    dtype: str,
    batch_size: int,
    progress: bool = True,
) -> LoadedTask:
    """The task in its mini profile. rungs: the steps of the five snapshots.

    Raises :class:`UserError`.
    """
    setting = mirror_setting(info, world, data, rungs, options, control)
    how: dict[str, Any] = {
        "control": control,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
    }
    if kind_of_examples(options) == "generated":
        return load_setting(setting, options, **how, progress=progress)
    examples = mirror_examples(pair_of(world, options.world), options.half)
    task = loaded(
        compared(setting, options, device, batch_size, progress),
        examples,
        world.classes,
        options.variant,
        **how,
        control_saw=of_mirror(examples, options.half),
    )
    recipe = recipe_of(setting.asked.parent / "training.json")
    return replace(task, provenance={**task.provenance, **recipe})


def halves_of(info: TaskInfo, parts: Sequence[str] | None) -> Sequence[str]:
    """The halves that ``membench train`` was asked for with --part; both by default."""
    for part in parts or ():
        if part not in HALVES:
            raise unknown_name("part", part, HALVES, f"membench train {info.name} --help")
    return parts or HALVES


def refuse_mirror_options(options: MirrorOptions, but: Sequence[str] = ()) -> None:
    """Raises :class:`UserError` for options of a drawn mirror pair where there is none,
    ``but`` for these.
    """
    for name in ("half", "world", "models", "rung"):
        if name not in but and (value := getattr(options, name)) != getattr(type(options)(), name):
            raise UserError(f"{name}={value} is for --profile mini")


def refuse_pool_options(info: TaskInfo, options: MirrorOptions, but: Sequence[str] = ()) -> None:
    """Raises :class:`UserError` for options that only generated images have, ``but`` for
    these: training images would not heed them.
    """
    for name in GENERATED:
        if name not in but and (value := getattr(options, name)) != getattr(type(options)(), name):
            why = (
                "nobody knows which of these images it saw"
                if name == "model"
                else "the examples are training images"
            )
            raise UserError(f"{name}={value}: {why}; choose --set {info.name}.examples=generated")


def mirror_setting(
    info: TaskInfo,
    world: World,
    data: Path,
    rungs: Sequence[int],
    options: MirrorOptions,
    control: bool,
) -> Setting:
    """The rung's models of both halves, and the half that ``options.half`` names as the
    training set.
    """
    if control:
        refuse_control_of(options.model)
    for option in fields(options):
        if option.metadata.get("full") and getattr(options, option.name) != option.default:
            raise UserError(
                f"{option.name} is for --profile full; the mini profile's data and models ship with"
                " membench"
            )
    if kind_of_examples(options) == "training":
        refuse_pool_options(info, options)
    if options.world and not options.models:
        raise UserError(
            f"world {options.world} does not ship: membench train {info.name} --world"
            f" {options.world} --output FOLDER, then --set {info.name}.models=FOLDER"
        )
    if options.rung > len(rungs):
        raise UserError(f"rung={options.rung}: {info.name} has rungs 1 to {len(rungs)}")
    pair, step = pair_of(world, options.world), rungs[options.rung - 1]
    root = folder_of(options.models, options.world) if options.models else data
    own, other = (
        trained(info, root / half, pair, half, step, kind_of_examples(options))
        for half in (options.half, mirror_of(options.half))
    )
    if control or kind_of_examples(options) == "training":
        one_recipe(root / "a" / "training.json", root / "b" / "training.json")
    folder = found(options.model) if options.model else own
    if options.model and not same_training(folder, root / options.half):
        raise UserError(
            f"{folder} was not trained on the mini profile's images (no training.json beside it"
            " says so), so none of its own can be a copy of them; for a model of real images:"
            f" --profile full --data-root DATA (membench show {info.name})"
        )
    training = training_of(
        pair.halves[options.half],
        options.half,
        (folder if options.model else root / options.half) / "training.json",
    )
    return Setting(
        info,
        "mini",
        folder,
        other if control else folder,
        world.classes,
        world.size,
        training,
        held_out=lambda n: fresh(world, options.world, n),
        held_out_classes=lambda n: [i % world.classes for i in range(n)],
    )


def trained(
    info: TaskInfo, folder: Path, pair: Pair, half: str, step: int, kind: str = "training"
) -> Path:
    """The snapshot of a half's model. kind: of examples (:func:`kind_of_examples`).

    Raises :class:`UserError` where it is missing, was trained on other images, or was
    told something else than the classes that training images are scored with.
    """
    rung, advice = (
        rung_folder(folder, step),
        f"membench train {info.name} --world {pair.number} --part {half}",
    )
    if not (rung / "unet" / "diffusion_pytorch_model.safetensors").is_file():
        raise UserError(
            f"{rung} is missing: its training has not come so far; go on with {advice} --output"
            f" {folder.parent}"
        )
    try:
        data = json.loads((folder / "training.json").read_bytes())["data"]
        hashed, told = data["hash"], data.get("labels", "class")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder / 'training.json'} does not say what the model was trained on; train it"
            f" again: {advice}"
        ) from None
    if hashed != pair.halves[half].content_hash():
        raise UserError(
            f"{folder} was not trained on half {half} of world {pair.number}; choose its own world,"
            f" or {advice}"
        )
    if told != "class" and kind == "training":
        raise UserError(
            f"{folder} was trained with labels={told}: what it was told of its own images is not"
            f" defined for its mirror's; choose --set {info.name}.examples=generated"
        )
    return rung


_PAIRS: dict[tuple[str, int, int], Pair] = {}


def pair_of(world: World, number: int) -> Pair:
    """World ``number``, drawn once a process."""
    key = world.name, world.version, number
    if key not in _PAIRS:
        _PAIRS[key] = build_pair(world, number)
    return _PAIRS[key]


def training_of(half: Half, name: str, file: Path) -> Training:
    """file: the training.json of the model that was trained on the half."""
    return Training(
        images=lambda: half.images,
        ids=[f"{name}/{i:04d}" for i in range(len(half.images))],
        copies=[int(n) for n in half.copies],
        kinds=half.kinds,
        groups=half.groups,
        hash=hash_with_labels(half.content_hash(), file),
        classes=half.labels.tolist() if was_told_classes(file) else (),
    )


def mirror_examples(pair: Pair, half: str) -> list[Example]:
    """The images of ``half`` (label 1), of the other half and the held-out ones (label
    0). source: whose they are.
    """
    parts: list[tuple[str, Half]] = [*sorted(pair.halves.items()), ("held_out", pair.held_out)]
    return [
        Example(_condition(part, i), int(source == half), part.kinds[i], part.groups[i], source)
        for source, part in parts
        for i in range(len(part.images))
    ]


def of_mirror(examples: Sequence[Example], half: str) -> list[str]:
    """Ids of the examples that are of the other half."""
    return [e.id for e in examples if e.source == mirror_of(half)]


def _condition(part: Half, i: int) -> Condition:
    image, label = part.images[i], int(part.labels[i])
    told = None if label < 0 else label
    return Condition(json_hash([image.tobytes().hex(), told])[:16], None, image, told)
