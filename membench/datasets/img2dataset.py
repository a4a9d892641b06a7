"""The output folder of img2dataset (https://github.com/rom1504/img2dataset): which
image was downloaded from where.

One shard is ``00000.parquet`` with a row an address, beside the folder ``00000/`` of
``KEY.jpg`` or the archive ``00000.tar`` of the same files. Without the tables, the
``KEY.json`` beside the images say the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from membench.errors import UserError, reason
from membench.storage.archives import ARCHIVE_ERRORS, members
from membench.storage.reading import shown
from membench.storage.tables import PARQUET_ERRORS

NEEDED = ("key", "url", "status")
SIZES = ("width", "height", "original_width", "original_height")
EXTENSIONS = (".jpg", ".png", ".webp")  # its --encode_format
LONGEST_JSON = 1 << 20  # bytes


@dataclass(frozen=True)
class Download:
    """An image that came. path: its file; in an archive, that of the archive with the
    member's name behind.
    """

    path: Path
    url: str
    caption: str


def read_downloads(folder: Path) -> list[Download]:
    """The images of status "success" in the order of the shards and rows; empty for a
    folder that img2dataset did not write.

    img2dataset's ``--resize_mode border``, its default, puts white bars beside images
    that are not square: how many images may have them is said on stderr. Raises
    :class:`UserError` for a damaged table, or an image that is listed and not there.
    """
    found, squared = [], 0
    for shard, row in _rows(folder):
        if row["status"] == "success":
            found.append(
                Download(
                    _file(shard, str(row["key"])),
                    str(row["url"] or ""),
                    str(row.get("caption") or "").strip(),
                )
            )
            width, height, *original = (row.get(name) for name in SIZES)
            squared += width == height and original[0] != original[1]
    if squared:
        told = (
            f"membench: {squared} of {len(found)} images in {folder} were made square by"
            " img2dataset: its --resize_mode border"
        )
        print(
            f"{told} (the default) adds white bars, which no generation has; keep_ratio or no"
            " do not",
            file=sys.stderr,
        )
    return found


def member_bytes(path: Path, most: int) -> bytes | None:
    """The bytes of a file in an archive, None for any other path; at most ``most``,
    else UserError.
    """
    archive = path.parent
    if archive.suffix != ".tar" or not archive.is_file():
        return None
    held = _members(archive, archive.stat().st_mtime_ns)
    if path.name not in held:
        raise UserError(f"{archive} holds no {path.name}; mend the table that names it")
    offset, size = held[path.name]
    if size > most:
        raise UserError(
            f"{path} has {size:,} bytes, more than the {most:,} of a ground-truth image; make it"
            " smaller"
        )
    with open(archive, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise UserError(
            f"{archive} is damaged (it ends before {path.name} does); download it again"
        )
    return data


def _rows(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """(shard's folder or archive without ending, a row of it)."""
    tables = [path for path in _visible(folder, "*.parquet") if set(NEEDED) <= set(_columns(path))]
    for path in tables:
        try:
            columns = [name for name in (*NEEDED, "caption", *SIZES) if name in _columns(path)]
            rows = pq.read_table(path.absolute(), columns=columns).to_pylist()
        except PARQUET_ERRORS as error:
            raise UserError(
                f"{path} is damaged ({reason(error)}); download its shard again"
            ) from None
        yield from ((path.with_suffix(""), row) for row in rows)
    for path in [] if tables else [*_visible(folder, "*.json"), *_visible(folder, "*/*.json")]:
        try:
            row = json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST_JSON else None
        except (OSError, ValueError, RecursionError):  # something else's
            continue
        if (
            isinstance(row, dict)
            and all(isinstance(row.get(name), str) for name in NEEDED)
            and row["key"] == path.stem
        ):
            yield path.parent, row


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path for path in folder.glob(pattern) if not path.name.startswith(".") and path.is_file()
    )


def _columns(path: Path) -> list[str]:
    try:
        return pq.read_schema(path.absolute()).names
    except PARQUET_ERRORS:
        if path.stem.isdecimal():  # as img2dataset names them
            raise UserError(f"{path} is damaged; download its shard again") from None
        return []


def _file(shard: Path, key: str) -> Path:
    if Path(key).name != key:
        raise UserError(f"{shard}.parquet names the image {key!r}, which is not a file's name")
    archive = shard.with_name(f"{shard.name}.tar")
    if not shard.is_dir() and archive.is_file():
        held = _members(archive, archive.stat().st_mtime_ns)
        names = [archive / f"{key}{end}" for end in EXTENSIONS if f"{key}{end}" in held]
    else:
        # Unlike Path.is_file, no error for a name that is too long
        beside = [shard / f"{key}{end}" for end in EXTENSIONS]
        names = [path for path in beside if os.path.isfile(path)]
    if not names:
        raise UserError(
            f"{shown(shard / key)}.jpg is not there, though img2dataset has downloaded it;"
            " download its shard again"
        )
    return names[0]


@lru_cache(maxsize=64)
def _members(archive: Path, changed: int) -> dict[str, tuple[int, int]]:
    """(offset, size) of each plain file in an archive by its name; nothing is unpacked."""
    try:
        return {name: (offset, size) for name, offset, size in members(archive)}
    except ARCHIVE_ERRORS as error:
        raise UserError(
            f"{archive} is damaged ({reason(error)}); download its shard again"
        ) from None
