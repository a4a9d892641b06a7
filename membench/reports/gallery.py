"""Extracted images beside their nearest training images, for the pages: of one run, and
of several.

The training images are those that the run has stored beside its tables
(:func:`nearest_table`): a page is made from run folders alone.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from membench.runs.images import stored_images
from membench.runs.nearest import NEAREST, SIDE, chosen_pairs, middle_rows, nearest_first, small_png
from membench.storage.files import DamagedFile
from membench.storage.images import png_image
from membench.types import Space

ROUNDING = 1e-4  # of a similarity, between runs that made an image in batches of other sizes

# Pairs with one training image among several runs' nearest, so that one image does
# not fill the gallery
OFTEN = 2
LEFT_RIGHT = "Left: extracted. Right: its nearest training image, where the run has stored it. "
ALONE = "Extracted images alone: these runs have stored no training images beside them. "


@dataclass(frozen=True)
class Gallery:
    """pairs: what the template shows of each, images as base64 of their PNG; empty
    where there is none, or none that can be read.
    """

    title: str
    note: str
    pairs: list[dict[str, Any]]


def measure_word(space: Space) -> str:
    """``similarity`` or ``distance``."""
    return "similarity" if space.higher_is_closer else "distance"


def copy_words(space: Space) -> str:
    """What a copy is: ``distance ≤ 1``."""
    return f"{measure_word(space)} {'≥' if space.higher_is_closer else '≤'} {space.copy:g}"


# ------------------------------------------------------------------------------ one run


def of_run(
    frame: pd.DataFrame, space: Space, training: Mapping[str, bytes]
) -> tuple[str, list[Gallery]]:
    """A sentence on what is shown, and the galleries. frame: of :func:`frame_of`, at
    least one row. training: of :func:`stored_nearest`.
    """
    nearest, missed, failed, why = chosen_pairs(frame)
    found = (
        f"{nearest.training.nunique()} different training images; {nearest.copied.sum()} of these"
        " images are copies."
    )
    parts = (
        ("Nearest", found, nearest),
        ("Near misses", "The next nearest that are not copies.", missed),
        ("Failures", why, failed),
    )
    intro = LEFT_RIGHT if training else ALONE
    intro += (
        f"{frame.copied.sum():,} of {len(frame):,} images are copies"
        f" ({copy_words(space)}).{_smaller(nearest, SIDE)}"
    )
    return intro, [
        Gallery(title, note, _pairs(part, training, SIDE))
        for title, note, part in parts
        if len(part)
    ]


def _smaller(frame: pd.DataFrame, side: int) -> str:
    """That images are shown smaller than they are, where the first of them is; empty
    where not.
    """
    first = frame[:1]
    for folder, name in zip(first.folder, first.sample_id, strict=True):
        for _, png in stored_images(Path(folder), [name]):
            with (
                contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
                Image.open(io.BytesIO(png), formats=("PNG",)) as image,
            ):
                return f" Images are shown at {side} pixels." if max(image.size) > side else ""
    return ""


# ------------------------------------------------------------------------- several runs


def of_runs(
    frames: Mapping[str, pd.DataFrame],
    space: Space,
    training: Mapping[str, bytes],
    *,
    most: int = NEAREST,
    side: int = SIDE,
) -> tuple[str, list[Gallery]]:
    """The same of several runs together; ("", []) if none has images.

    frames: of each run's name its :func:`frame_of`; their order does not matter. An
    image that several runs made (for the same, as near to the same image up to
    ROUNDING) is one. Nearest: at most ``most``, of one training image at most OFTEN.
    Near misses: the next that are not copies, half as many, likewise. Failures: half as
    many others that are not copies, each run's most confident in turn, since
    confidences of different detectors do not compare; from the middle where no run is
    surer of one image than of another. training: of :func:`stored_nearest`, of all
    runs; an extracted image whose training image is not among them is shown alone.
    """
    named = [frame.assign(run=name) for name, frame in sorted(frames.items()) if len(frame)]
    if not named:
        return "", []
    every = nearest_first(pd.concat(named, ignore_index=True), space)
    every["image_number"] = _image_numbers(every)
    every["made_by"] = every.groupby("image_number", sort=False).run.transform(
        lambda names: _several(sorted(set(names)))
    )
    first = every.drop_duplicates("image_number", ignore_index=True)
    first["place"] = first.index + 1
    nearest = _spread(first, most)
    missed = _spread(first[~first.copied & ~first.place.isin(nearest.place)], most // 2)
    left = first[~first.copied & ~first.place.isin([*nearest.place, *missed.place])]
    failed, why = _failures(every.merge(left[["image_number", "place"]]), left, most // 2)
    found = (
        f"{nearest.training.nunique()} different training images, of one at most {OFTEN} images. "
    )
    found += f"{nearest.copied.sum()} of these images are copies."
    next_ones = f"The next nearest that are not copies, of one training image at most {OFTEN}."
    # A confidence is a detector's own; of the nearest, which several may have made,
    # none is told.
    nearest, missed = nearest.assign(confidence=np.nan), missed.assign(confidence=np.nan)
    parts = (
        ("Nearest", found, nearest),
        ("Near misses", next_ones, missed),
        ("Failures", why, nearest_first(failed, space)),
    )
    intro = LEFT_RIGHT if training else ALONE
    intro += (
        f"Of all runs shown here, {first.copied.sum():,} of {len(first):,} different images are"
        f" copies ({copy_words(space)})."
    )
    intro += " Sorted by nearness; #: the place among all of them."
    intro += _smaller(first, side)
    return intro, [
        Gallery(title, note, _pairs(part, training, side))
        for title, note, part in parts
        if len(part)
    ]


def _image_numbers(every: pd.DataFrame) -> pd.Series:
    """A number for each row, the same for rows that show one image."""
    ordered = every.sort_values(["sample_id", "training", "similarity"])
    before = ordered.shift()
    new = (
        (ordered.sample_id != before.sample_id)
        | (ordered.training != before.training)
        | (ordered.similarity - before.similarity > ROUNDING)
    )
    return new.cumsum()


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _spread(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first ``count`` rows, of one training image at most OFTEN."""
    return frame[frame.groupby("training").cumcount() < OFTEN][:count]


def _failures(every: pd.DataFrame, left: pd.DataFrame, count: int) -> tuple[pd.DataFrame, str]:
    """``count`` of the images left, and how they were chosen. every: the same images, a
    row a run that made one.
    """
    telling = every[every.groupby("run").confidence.transform("nunique") > 1]
    if telling.empty:
        return (
            middle_rows(left, count),
            (
                "From the middle of the other images that are not copies; no detector is surer of"
                " one than of another."
            ),
        )
    ranked = telling.sort_values(["run", "confidence", "place"], ascending=[True, False, True])
    ranked["turn"] = ranked.groupby("run").cumcount()
    chosen = ranked.sort_values(["turn", "run"]).drop_duplicates("place")[:count]
    return (
        chosen.assign(made_by="surest of " + chosen.run),
        "No copies, though a detector was sure of them: each detector's most confident in turn.",
    )


# ----------------------------------------------------------------------------- images


def extracted(frame: pd.DataFrame, side: int) -> list[str]:
    """The extracted image of each row as :func:`as_base64`, read from its run's folder.
    frame: rows of :func:`frame_of`, of one or several runs, that a page shows.
    """
    found: dict[tuple[str, str], str] = {}
    for folder, part in frame.groupby("folder"):
        for name, png in stored_images(Path(folder), part.sample_id):
            found[folder, name] = as_base64(png, side)
    return [found.get(of, "") for of in zip(frame.folder, frame.sample_id, strict=True)]


def _pairs(part: pd.DataFrame, training: Mapping[str, bytes], side: int) -> list[dict[str, Any]]:
    rows = zip(part.iterrows(), extracted(part, side), strict=True)
    return [_pair(row, image, training, side) for (_, row), image in rows]


def _pair(
    row: pd.Series, generated: str, training: Mapping[str, bytes], side: int
) -> dict[str, Any]:
    return {
        **row[["place", "similarity", "copied", "kind", "draw", "training_id"]],
        "confidence": None if pd.isna(row.confidence) else row.confidence,
        "made_by": row.get("made_by", ""),
        "prompt": row.prompt if isinstance(row.prompt, str) else "",
        "generated": generated,
        "training": as_base64(training.get(row.training_id), side),
    }


def as_base64(png: bytes | None, side: int) -> str:
    """Base64 of the PNG, no side longer than ``side``; empty for none, and for bytes
    that are not a PNG.
    """
    try:
        return (
            ""
            if png is None
            else base64.b64encode(small_png(Image.fromarray(png_image(png)), side)).decode("ascii")
        )
    except DamagedFile:
        return ""


def first_pairs(
    frame: pd.DataFrame, training: Mapping[str, bytes], count: int
) -> list[dict[str, Any]]:
    """The ``count`` nearest pairs, of different training images, of which both images
    can be shown. frame: of :func:`frame_of`.
    """
    both = frame[frame.training_id.isin(list(training))].drop_duplicates("training_id")[:count]
    pairs = _pairs(both.assign(place=both.index + 1), training, SIDE)
    return [pair for pair in pairs if pair["generated"] and pair["training"]]
