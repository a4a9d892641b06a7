"""Other groupings of a run's examples: by caption, by image, or both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from membench.errors import UserError, suggest
from membench.similarity.near_duplicates import by_label, image_groups, merged, text_groups
from membench.storage.files import disk_errors
from membench.storage.images import png_image

Read = Callable[[Iterable[str]], Iterable[tuple[str, bytes]]]
GROUPINGS = ("task", "text", "image", "text+image")


def regrouped(
    scores: pd.DataFrame, samples: pd.DataFrame | None, how: str, images: Read
) -> pd.Series:
    """New groups, indexed as scores, of a run's stored tables ``scores`` and
    ``samples`` (None: it has none). images: what reads its images by their ids
    (``images.stored_images``), where ``how`` asks for them.

    how: "task", as stored. "text", by prompt (:func:`text_groups`). "image", by the
    image that was extracted for the example's own condition, the one of the lowest draw
    among those that did not fail (:func:`image_groups`). "text+image", both,
    :func:`merged`. These replace the stored groups; a row that has neither the prompt
    nor the image that ``how`` asks for keeps its stored one. Labels are kept apart
    (:func:`by_label`), but for "task". Raises UserError for another ``how``, and if no
    row has a prompt or an image and ``how`` asks for it.
    """
    if how not in GROUPINGS:
        raise UserError(
            f"unknown grouping {how!r}.{suggest(how, GROUPINGS)} Choose from {', '.join(GROUPINGS)}"
        )
    stored = scores["group"].astype(object).rename("group")
    if how == "task":
        return stored
    parts = [
        _by_prompt(scores) if part == "text" else _by_first_image(scores, samples, images)
        for part in how.split("+")
    ]
    known = np.any([part.notna() for part in parts], axis=0)
    # In one of two groupings a row may be alone, in no group of the run's own: it is
    # joined by the other alone.
    alone = [
        part[known].where(part[known].notna(), "alone/" + scores["id"][known]).tolist()
        for part in parts
    ]
    groups = stored.copy()
    groups[known] = alone[0] if len(alone) == 1 else merged(*alone)
    return pd.Series(
        by_label(groups.tolist(), scores["label"].tolist()),
        scores.index,
        dtype=object,
        name="group",
    )


def _by_prompt(scores: pd.DataFrame) -> pd.Series:
    """The group of each row by its prompt; None without one."""
    there = scores["prompt"].notna()
    if not there.any():
        raise UserError("no example has a prompt to group by; group by image, or as the task does")
    groups = pd.Series(None, scores.index, dtype=object)
    groups[there] = text_groups(scores["prompt"][there].tolist())
    return groups


def _by_first_image(scores: pd.DataFrame, samples: pd.DataFrame | None, images: Read) -> pd.Series:
    """The group of each row by the first image of its condition; None without one."""
    owner: dict[str, str] = {}
    if samples is not None:
        own = samples[(samples["status"] == "ok") & samples["condition"].isin(scores["id"])]
        first = own.sort_values(["draw", "sample_id"]).drop_duplicates("condition")
        owner = dict(zip(first["sample_id"], first["condition"], strict=True))
    groups = _image_groups(images(owner))
    if not groups:
        raise UserError(
            "no example has an extracted image of its own to group by; group by text, or as the"
            " task does"
        )
    of = {owner[name]: group for name, group in groups.items()}
    return scores["id"].map(of).astype(object)


def _image_groups(stored: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """The group of each image by its id. The pixels lie on disk: those of a large run
    would not fit in memory.
    """
    names, shape = list[str](), (0, 0, 3)
    with tempfile.TemporaryFile() as file:
        with disk_errors(Path(tempfile.gettempdir())):
            for name, png in stored:
                image = png_image(png)
                if names and image.shape != shape:
                    raise UserError("--groups image needs images of one size; group by text")
                file.write(image.tobytes())
                names.append(name)
                shape = image.shape
            file.flush()
        if not names:
            return {}
        pixels = np.memmap(file, np.uint8, "r", shape=(len(names), *shape))
        return dict(zip(names, image_groups(pixels), strict=True))
