"""What a run folder holds, read and checked: run.json and the tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from membench.errors import UserError
from membench.storage.files import DamagedFile, check_own
from membench.storage.streams import check_pages
from membench.storage.tables import SCHEMAS, read_notes, read_table, refuse_newer

LARGEST_INFO = 16_000_000  # bytes of a run.json
# Before the name of a detector inside another, in ``plugin_code`` and ``source``
HELD = "held "
ID_COLUMNS = {"samples": "sample_id", "scores": "id"}


def verify_ids(
    frame: pd.DataFrame, name: str, where: Path, expected: Iterable[str] | None = None
) -> None:
    """Raises UserError unless the ids of a "scores" or "samples" frame are unique and,
    if given, the expected set.
    """
    ids = frame[ID_COLUMNS[name]]
    if not ids.is_unique:
        raise UserError(
            f"{where}: {ids[ids.duplicated()].iloc[0]} stands twice among the {name}; delete this"
            " and run again"
        )
    if expected is not None and (wrong := set(ids) ^ set(expected)):
        raise UserError(
            f"{where}: {len(wrong)} {name} missing or foreign, such as {min(wrong)}; delete this"
            " and run again"
        )


def read_info(folder: Path) -> dict[str, Any]:
    """What run.json holds. Raises UserError if it is missing, damaged or newer."""
    path = folder / "run.json"
    check_own(path)
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it holds no run.json")
    try:
        if path.stat().st_size > LARGEST_INFO:
            raise ValueError("too large")
        run = json.loads(path.read_bytes(), parse_constant=_refused)
        version = run["schema_version"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise TypeError("schema_version")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged; delete {folder} and run again") from error
    refuse_newer(path, version)
    return run


def _refused(constant: str) -> None:
    raise ValueError(constant)  # NaN and infinities are not JSON


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds a run that has ended, whole or partial, with its
    tables. Raises UserError as :func:`read_info`.
    """
    return ended(folder, read_info(folder))


def ended(folder: Path, run: Mapping[str, Any]) -> bool:
    """Whether this run.json says that the run has ended, and its tables are there."""
    return run.get("status") in ("complete", "partial") and all(
        (folder / f"{name}.parquet").is_file() for name in SCHEMAS
    )


def read_run(
    folder: Path, tables: Collection[str] = tuple(SCHEMAS), *, verified: bool = True
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """(run.json, tables by name), the samples without their images
    (``images.stored_images``). verified: these are read all the same, a few at a time, so
    that damage to them shows.

    Raises UserError if one is missing, a link, damaged, newer or of another run, or an
    id stands twice.
    """
    for name in tables:
        check_own(folder / f"{name}.parquet")
    info = read_info(folder)
    frames = {
        name: read_table(
            folder / f"{name}.parquet", name, without=("image",) if name == "samples" else ()
        )
        for name in tables
    }
    if verified and "samples" in tables:
        held = check_pages(folder / "samples.parquet", "samples", "image")
        if not held[frames["samples"].status.to_numpy() == "ok"].all():
            raise DamagedFile(
                f"{folder} is damaged or edited: it holds an image without its bytes; delete it"
                " and run again"
            )
    for name in tables:
        if (
            owner := read_notes(folder / f"{name}.parquet").get("run", info.get("key"))
        ) != info.get("key"):
            raise DamagedFile(
                f"{folder / name}.parquet is a table of another run, of key {owner}; delete"
                f" {folder} and run again"
            )
    for name in ID_COLUMNS.keys() & frames.keys():
        verify_ids(frames[name], name, folder)
    return info, frames
