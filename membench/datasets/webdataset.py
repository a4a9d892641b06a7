"""WebDataset's shards: tar archives whose members of one name are one example
(``000012.jpg``, ``000012.txt``, ``000012.json``, ``000012.cls``), as img2dataset writes
them. Nothing is unpacked to the disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from membench.datasets.inside import IMAGE_BYTES, NOTE_BYTES
from membench.datasets.items import Bad, Item
from membench.datasets.records import Record, column
from membench.errors import reason
from membench.storage.archives import ARCHIVE_ERRORS, members

Part = tuple[int, int]  # offset, size


def tar_items(
    root: Path, archives: Sequence[Path], images: Collection[str]
) -> tuple[list[Item], list[Bad]]:
    """The images of shards, and what cannot be read. images: endings of image files."""
    items: list[Item] = []
    bad: list[Bad] = []
    for archive in archives:
        shown = archive.relative_to(root).as_posix() if archive != root else archive.name
        parts: dict[str, dict[str, Part]] = {}
        try:
            for member, offset, size in members(archive):
                path = PurePosixPath(member)
                if path.name.startswith("."):
                    continue
                key, _, end = path.name.partition(".")
                ends = parts.setdefault(str(path.parent / key), {})
                if (end := f".{end.lower()}") in ends:
                    bad.append(Bad(f"{shown}/{member}", "a second file of this name"))
                    continue
                ends[end] = (offset, size)
        except ARCHIVE_ERRORS as error:
            bad.append(Bad(shown, f"damaged ({reason(error)})"))
        for key, ends in parts.items():
            found = [end for end in ends if PurePosixPath(f"x{end}").suffix in images]
            if not found and set(ends) & {".txt", ".cls"}:
                bad.append(Bad(f"{shown}/{key}", "no image beside its caption"))
            for image in found:
                name = f"{shown}/{key}{image}"
                if ends[image][1] > IMAGE_BYTES:
                    bad.append(Bad(name, f"more than {IMAGE_BYTES:,} bytes"))
                    continue
                texts, label = _told(archive, _beside(image, found, ends))
                items.append(Item(name, _reader(archive, *ends[image]), texts, label))
    return items, bad


def _beside(image: str, images: Sequence[str], ends: dict[str, Part]) -> dict[str, Part]:
    """What stands beside one of the images of a key: all of the key, for an image that
    has nothing but its suffix behind it or for a key without such a one
    (``000012.input.jpg``); else, or where a name has dots (``IMG_2021.05.01.jpg``), what
    has the image's whole name.
    """
    stem = image[: image.rindex(".")]
    own = {end[len(stem) :]: part for end, part in ends.items() if end.startswith(f"{stem}.")}
    has_own = set(own) & {".txt", ".json", ".cls"}
    return own if has_own or any(end.count(".") == 1 for end in images) else ends


def _reader(archive: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(archive, "rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _told(archive: Path, ends: dict[str, Part]) -> tuple[tuple[str, ...], str | None]:
    """(captions, class) of what stands beside an image."""

    def text(end: str) -> str:
        if end not in ends or ends[end][1] > NOTE_BYTES:
            return ""
        return _reader(archive, *ends[end])().decode("utf-8-sig", "replace").strip()

    texts, label = [text(".txt")], text(".cls") or None
    if not texts[0]:
        try:
            value: Any = json.loads(text(".json") or "{}")
        except (ValueError, RecursionError):
            value = {}
        if isinstance(value, dict):
            texts = Record("", {column(k): v for k, v in value.items()}).texts()
    return tuple(filter(None, texts)), label
