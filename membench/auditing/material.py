"""The data of an audit, ready to be compared: near-duplicates as one, and what there is
to ask the model about them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from membench.auditing.settings import Settings
from membench.auditing.subject import Subject
from membench.auditing.unread import by_pixels as compares_pixels
from membench.datasets.collection import Collection, read_collection
from membench.datasets.prompts import LONGEST, example_id
from membench.errors import UserError
from membench.features.loading import load_features
from membench.similarity.criterion import by_features, by_pixels
from membench.similarity.near_duplicates import image_groups
from membench.similarity.search import nearest
from membench.similarity.spaces import pixel_space, space_of
from membench.types import Condition, Space

UNCONDITIONAL = Condition("unconditional")
SEARCHED = 20_000  # different images up to which near-duplicates are searched
SMALL = 64  # pixels a side at which they are


@dataclass(frozen=True)
class Material:
    """n training images, near-duplicates being one.

    images: gives one image of each group, ``uint8`` [n, side, side, 3]; every: all
    different images, whose groups are group_of. ids, files, copies, captions: of the
    group. prompts: what there is to ask, different, each with
    the training images that have it. near: how many images went into groups; None
    where nobody searched.
    """

    data: Collection
    images: Callable[[], np.ndarray]
    every: Callable[[], np.ndarray]
    group_of: np.ndarray
    ids: list[str]
    files: list[list[str]]
    copies: list[int]
    captions: list[list[str]]
    prompts: dict[Condition, list[int]]
    near: int | None
    too_long: int


def read_material(settings: Settings, model: Subject, progress: bool) -> Material:
    """The data at the model's size. Raises :class:`UserError` for data that cannot be
    read, or are smaller than what the model generates.
    """
    data = read_collection(
        settings.data,
        model.side,
        captions=settings.captions,
        max_bad=settings.max_bad,
        progress=progress,
    )
    edge = min(data.size)
    if edge < model.side and not settings.enlarge:
        raise UserError(
            f"data: the images of {settings.data} are {data.size[0]}x{data.size[1]}, and"
            f" {model.name} generates {model.side}x{model.side}; give the images that it was"
            " trained on, or --enlarge these"
        )
    if len(data.ids) < 2:
        raise UserError(
            f"data: {settings.data} holds one image only; nothing tells a copy of it from an image"
            " of the same kind"
        )
    images = data.images()
    groups, near = _groups(data, images)
    first = [rows[0] for rows in groups]
    captions = [list(dict.fromkeys(t for r in rows for t in data.captions[r])) for rows in groups]
    prompts, too_long = _prompts(settings, model, data, groups, captions)
    group_of = np.empty(len(images), int)
    for group, rows in enumerate(groups):
        group_of[rows] = group
    return Material(
        data=data,
        images=lambda: images if len(first) == len(images) else images[first],
        every=data.images,
        group_of=group_of,
        ids=[data.ids[r] for r in first],
        files=[[name for r in rows for name in data.files[r]] for rows in groups],
        copies=[sum(data.copies[r] for r in rows) for rows in groups],
        captions=captions,
        prompts=prompts,
        near=near,
        too_long=too_long,
    )


def _groups(data: Collection, images: np.ndarray) -> tuple[list[list[int]], int | None]:
    """Rows of near-duplicates, and how many rows have one."""
    if len(images) > SEARCHED:
        return [[r] for r in range(len(images))], None
    side = images.shape[1]
    small = images if side <= SMALL else np.stack([_smaller(image) for image in images])
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(image_groups(np.asarray(small))):
        rows[name].append(row)
    groups = sorted(rows.values())
    return groups, sum(len(g) for g in groups if len(g) > 1)


def _smaller(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SMALL, SMALL), Image.Resampling.BOX))


def _prompts(
    settings: Settings,
    model: Subject,
    data: Collection,
    groups: list[list[int]],
    captions: list[list[str]],
) -> tuple[dict[Condition, list[int]], int]:
    """What there is to ask, with its training images, and how many captions are too
    long to be one.
    """
    found: dict[Condition, list[int]] = defaultdict(list)
    too_long = 0
    if settings.unconditional or model.kind == "unconditional":
        return {}, 0
    if model.kind == "text":
        for image, texts in enumerate(captions):
            for text in texts:
                if len(text) > LONGEST or "\0" in text:
                    too_long += 1
                    continue
                found[Condition(example_id(text), text)].append(image)
        return dict(found), too_long
    told_classes(settings, model, data)
    for label in sorted(data.classes) or range(model.embeddings):
        condition = Condition(f"class/{label}", class_label=label)
        found[condition] = [
            g for g, rows in enumerate(groups) if any(data.labels[r] == label for r in rows)
        ]
    return dict(found), 0


def told_classes(settings: Settings, model: Subject, data: Collection) -> int:
    """How many classes the model is told, the null class not counted; 0 for one that is
    told none.

    Raises :class:`UserError` where the data's classes are not the model's.
    """
    if model.kind != "class":
        return 0
    if not data.classes:  # asked without a class, the last embedding is the null one
        return model.embeddings - settings.unconditional
    known = max(data.classes) + 1
    if data.unclear:
        raise UserError(
            f"data: {data.unclear}, so nobody can tell which class of {model.name} is which; name"
            " all folders or labels by number"
        )
    if model.embeddings not in (known, known + 1):
        raise UserError(
            f"{model.name} is told one of {model.embeddings} classes; the data have {known}, the"
            f" last {data.classes[known - 1][:60]!r} (and the model may have a null class after"
            " them); give the data that it was trained on"
        )
    # A class that is missing among the data: the last embedding may be one, too
    return known if len(data.classes) == known else model.embeddings


Nearest = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def comparison(settings: Settings, material: Material) -> tuple[Space, Nearest]:
    """How images are compared: of generated images ``uint8`` [n, side, side, 3], the
    nearest training image [n] and the similarity to it [n].

    Raises :class:`UserError` for weights that cannot be had.
    """
    side, name = int(material.every().shape[1]), settings.similarity
    if compares_pixels(settings, side):
        return pixel_space(side), lambda images: _by_pixels(images, material)
    name = "sscd" if name == "auto" else name
    features = load_features(
        name, settings.similarity_weights, device=settings.device, option="--similarity-weights "
    )
    match = by_features(features, material.every, material.data.hash)

    def by_cosine(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = match(images, None).sort_values("generated")
        return material.group_of[found.training.to_numpy()], found.similarity.to_numpy()

    return space_of(name, features.id), by_cosine


def _by_pixels(images: np.ndarray, material: Material) -> tuple[np.ndarray, np.ndarray]:
    """Carlini's distance to the nearest of all images, scaled by the neighbours among
    one image of each group: near-duplicates would fill the neighbourhood, and the one
    image of a group may not be the one that was copied.
    """
    groups = material.images()
    scaled = by_pixels(lambda: groups)(images, None).sort_values("generated")
    scaled_distance = scaled.similarity.to_numpy().astype(np.float64)
    of_group = nearest(images, groups, 1)[0][:, 0]
    distance, row = nearest(images, material.every(), 1)
    share = np.divide(distance[:, 0], of_group, out=np.ones(len(images)), where=of_group > 0)
    return material.group_of[row[:, 0]], (scaled_distance * share).astype(np.float32)
