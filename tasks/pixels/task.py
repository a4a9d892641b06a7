"""What ``cifar10`` and ``celeba`` share where examples are a pool of images that the
model generated; a control model scores the same pool.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from membench.datasets.pool import PoolSpec, read_pool
from membench.errors import UserError
from membench.seeds import LARGEST_SEED
from membench.similarity.spaces import pixel_space
from membench.task import LoadedTask, TaskInfo
from membench.types import Example, Training

from ..shared import examples_hash

if TYPE_CHECKING:
    from membench.similarity.criterion import Match


@dataclass(frozen=True)
class PixelOptions:
    model: str = field(
        default="",
        metadata={
            "help": "folder or hub id of a UNet2DModel or its pipeline; empty: the task's own"
        },
    )
    control_model: str = field(
        default="",
        metadata={
            "help": "the same recipe on other images, for --control with --profile full",
            "full": True,
        },
    )
    data_root: str = field(
        default="data",
        metadata={"help": "folder of the real data set (--profile full)", "full": True},
    )
    variant: str = field(
        default="",
        metadata={
            "help": (
                "which weight files of these models: fp16, bf16 or non_ema; empty: the plain ones,"
                " else fp16 or bf16"
            ),
            "full": True,
        },
    )
    pool: int = field(
        default=600, metadata={"help": "generated images that detectors score", "min": 2}
    )
    pool_seed: int = field(
        default=0, metadata={"help": "of their noises", "min": 0, "max": LARGEST_SEED}
    )
    labels: Literal["auto", "class", "none"] = field(
        default="auto",
        metadata={
            "help": (
                "what the pool is generated from: each class in turn, or the null class; auto:"
                " classes where there are any"
            )
        },
    )
    criterion: Literal["normalised-l2", "sscd"] = field(
        default="normalised-l2",
        metadata={
            "help": (
                "what makes a copy: Carlini's distance of pixels, or SSCD's cosine (larger images)"
            )
        },
    )
    criterion_weights: str = field(
        default="", metadata={"help": "SSCD's published weights, a file"}
    )


@dataclass(frozen=True)
class Setting:
    """A model with the training set that it is asked about. folder: of the model that
    generated the pool; asked: of the one that is scored. match: how images are compared;
    None: by normalised L2. held_out, held_out_classes: of :class:`LoadedTask`.
    """

    info: TaskInfo
    profile: str
    folder: Path
    asked: Path
    classes: int
    size: int
    training: Training
    match: Match | None = None
    held_out: Callable[[int], np.ndarray] | None = None
    held_out_classes: Callable[[int], Sequence[int]] | None = None


def load_setting(
    s: Setting,
    options: PixelOptions,
    *,
    control: bool,
    device: str,
    dtype: str,
    batch_size: int,
    progress: bool = True,
) -> LoadedTask:
    """The pool of ``folder``'s model as examples, and ``asked``'s model to score them
    with.
    """
    from membench.models.pixel import classes_of, load_pixel_model

    s = compared(s, options, device, batch_size, progress)
    variant = options.variant
    told = {f: classes_of(f, s.classes, s.size, variant) for f in (s.folder, s.asked)}
    if options.labels == "class" and not told[s.folder]:
        raise UserError(
            f"labels=class, but {s.folder} is unconditional: it was told nothing of its images;"
            " choose labels=none"
        )
    if told[s.folder] != told[s.asked]:
        raise UserError(
            f"{s.folder} and {s.asked} are not told the same of an image, so the one is not a"
            " control of the other"
        )

    examples = read_pool(
        pool_spec(s, options),
        lambda: load_pixel_model(
            s.folder,
            told[s.folder],
            device=device,
            dtype="float32",
            batch_size=batch_size,
            variant=variant,
        ),
        s.training,
        match=s.match,
        progress=progress,
    )
    return loaded(
        s,
        examples,
        told[s.asked],
        variant,
        control=control,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )


def loaded(
    s: Setting,
    examples: Sequence[Example],
    told: int,
    variant: str,
    *,
    control: bool,
    device: str,
    dtype: str,
    batch_size: int,
    control_saw: Collection[str] = (),
) -> LoadedTask:
    """Examples with the setting's model to score them. told: how many classes it is
    told; 0: none. variant: of its weights ("", fp16 ...).
    """
    from membench.models.pixel import load_pixel_model, pixel_hash

    return LoadedTask(
        info=s.info,
        profile=s.profile,
        examples=examples,
        training=s.training,
        model=lambda: load_pixel_model(
            s.asked, told, device=device, dtype=dtype, batch_size=batch_size, variant=variant
        ),
        hashes={
            "weights": pixel_hash(s.asked, variant),
            "data": s.training.hash,
            "prompts": examples_hash(examples),
        },
        control=control,
        match=s.match,
        held_out=s.held_out,
        held_out_classes=s.held_out_classes,
        control_saw=frozenset(control_saw),
    )


def compared(
    s: Setting, options: PixelOptions, device: str, batch_size: int, progress: bool = True
) -> Setting:
    """The setting under the criterion that was asked for."""
    if options.criterion == "normalised-l2":
        if options.criterion_weights:
            raise UserError(
                f"criterion_weights={options.criterion_weights} is read with criterion=sscd only"
            )
        return s
    from membench.features.loading import load_features
    from membench.similarity.criterion import by_features
    from membench.similarity.spaces import space_of

    if not options.criterion_weights:
        raise UserError(
            "criterion=sscd needs its weights: --set"
            f" {s.info.name}.criterion_weights=sscd_disc_mixup.torchscript.pt"
        )
    features = load_features(
        "sscd",
        options.criterion_weights,
        device=device,
        batch_size=batch_size,
        option=f"--set {s.info.name}.criterion_weights=",
    )
    match = by_features(features, s.training.images, s.training.hash, progress=progress)
    return replace(s, info=replace(s.info, space=space_of("sscd", features.id)), match=match)


def pool_spec(s: Setting, options: PixelOptions) -> PoolSpec:
    from membench.models.pixel import classes_of, pixel_hash

    return PoolSpec(
        n=options.pool,
        seed=options.pool_seed,
        classes=(
            0
            if options.labels == "none"
            else classes_of(s.folder, s.classes, s.size, options.variant)
        ),
        sampling=s.info.sampling,
        space=s.info.space,
        weights=pixel_hash(s.folder, options.variant),
        data=s.training.hash,
    )


def full_setting(
    info: TaskInfo,
    default: str,
    classes: int,
    size: int,
    training: Callable[[Path], Training],
    options: PixelOptions,
    control: bool,
    *,
    snapshot: Callable[[Path], Path] = lambda folder: folder,
    seen: Callable[[Path], set[str]] = lambda folder: set(),
) -> Setting:
    """A user's model, or the published one.

    training: makes the training set of a model's folder; snapshot: chooses a folder of
    weights in it; seen: ids of the training images that a control is known to have seen.
    """
    from membench.models.pixel import classes_of

    if not (options.model or default):
        raise UserError(
            f"membench knows of no published UNet2DModel of {size}x{size} pixels for {info.name};"
            " name one: --model FOLDER or hub id"
        )
    if control and not options.control_model:  # before anything is fetched
        recipe = (
            " (membench train cifar10 --profile full --set skip=N)"
            if info.name == "cifar10"
            else ""
        )
        raise UserError(
            "--profile full ships no control model; train one in the same way on other"
            f" images{recipe} and name it: --set {info.name}.control_model=FOLDER"
        )
    variant = options.variant
    folder = snapshot(found(options.model or default, variant))
    classes_of(folder, classes, size, variant)  # before the data are read, or fetched
    asked = snapshot(found(options.control_model, variant)) if control else folder
    data = training(folder)
    if control and (both := set(data.ids) & seen(asked)):
        raise UserError(
            f"{asked} was trained on {len(both)} of the images that {folder} saw, so it is no"
            " control; choose other images (skip=N)"
        )
    return Setting(
        replace(info, space=pixel_space(size)), "full", folder, asked, classes, size, data
    )


def found(model: str, variant: str = "") -> Path:
    from membench.models.pixel import find_model

    return find_model(model, variant)


def unique(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first of each set of equal images, and how many there are of it."""
    seen: dict[bytes, int] = {}
    counts: dict[int, int] = {}
    for i, image in enumerate(images):
        first = seen.setdefault(image.tobytes(), i)
        counts[first] = counts.get(first, 0) + 1
    return np.array(list(counts)), np.array(list(counts.values()))
