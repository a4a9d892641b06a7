"""The table of a download folder: which image is there, and why another is not."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from membench.errors import UserError
from membench.storage.files import atomic_write
from membench.storage.tables import PARQUET_ERRORS

STATUS, PICTURES = "status.parquet", "images"
KEPT = "mend it and run again (what is there is kept)"
TRANSIENT = frozenset({"http_error", "timeout", "unreachable"})  # may be over at the next call
SMALLEST = 16  # pixels of the shorter side

SCHEMA = pa.schema(
    {"id": pa.string(), "url": pa.string(), "status": pa.string(), "file": pa.string()}
    | {"width": pa.int32(), "height": pa.int32(), "bytes": pa.int64(), "sha256": pa.string()}
    | {"detail": pa.string(), "attempts": pa.int32(), "final_url": pa.string()}
)


@dataclass(frozen=True)
class Row:
    """One id.

    The columns are explained at
    :func:`membench.fetching.image_download.download_images`; 0 and "" where there is no
    image.
    """

    id: str
    url: str
    status: str
    file: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    detail: str = ""
    attempts: int = 0
    final_url: str = ""


class StatusTable:
    """``folder/status.parquet`` in memory; empty if there is none.

    Raises :class:`UserError` for a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, Row] = {}
        path = folder / STATUS
        if not path.exists():
            return
        try:
            values = pq.read_table(path.absolute()).select(SCHEMA.names).cast(SCHEMA).to_pylist()
            self.rows = {row.id: row for row in map(_checked, values)}
        except (*PARQUET_ERRORS, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} is damaged ({why}); delete it, and all its images are fetched again"
            ) from None

    def enter(self, row: Row) -> None:
        """Replaces the id's row.

        Its tries add up, and a file that the new row does not have is removed.
        """
        if old := self.rows.get(row.id):
            if old.url == row.url:
                row = replace(row, attempts=old.attempts + row.attempts)
            if old.file and old.file != row.file:
                (self.folder / old.file).unlink(missing_ok=True)
        self.rows[row.id] = row

    def is_intact(self, row: Row) -> bool:
        """Whether the row's file is there with its size and SHA-256."""
        path = self.folder / row.file
        if not path.is_file() or path.stat().st_size != row.bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == row.sha256

    def mark_placeholders(self, urls: int) -> None:
        """Sets "ok" or "placeholder?" of all rows with an image: see
        :func:`membench.fetching.image_download.download_images`.
        """
        same: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in self.rows.values():
            if row.file:
                same[_host(row), row.sha256].add(row.url)
        for row in list(self.rows.values()):
            if not row.file:
                continue
            others = len(same[_host(row), row.sha256])
            if min(row.width, row.height) < SMALLEST:
                status, detail = "placeholder?", f"{row.width} x {row.height} pixels"
            elif urls and others >= urls:
                status, detail = (
                    "placeholder?",
                    f"{_host(row)} served the same bytes for {others} addresses",
                )
            else:
                status, detail = "ok", ""
            self.rows[row.id] = replace(row, status=status, detail=detail)

    def save(self) -> None:
        """Writes the table, in the order of the ids.

        Raises :class:`UserError` if the disk refuses.
        """
        table = pa.Table.from_pylist(
            [asdict(self.rows[name]) for name in sorted(self.rows)], schema=SCHEMA
        )
        atomic_write(
            self.folder / STATUS, lambda path: pq.write_table(table, path), what=STATUS, advice=KEPT
        )

    def frame(self, ids: Iterable[str]) -> pd.DataFrame:
        return pa.Table.from_pylist(
            [asdict(self.rows[name]) for name in ids], schema=SCHEMA
        ).to_pandas()


def _checked(values: Mapping[str, Any]) -> Row:
    """A stored row; null is the default of its column.

    Raises TypeError for a row without an id, an address or a status, and ValueError
    for one whose file is not in the folder of images: it may be read, and removed.
    """
    row = Row(**{name: value for name, value in values.items() if value is not None})
    parts = PurePosixPath(row.file).parts
    if row.file and (
        len(parts) != 2 or parts[0] != PICTURES or parts[1] in ("..", "") or "\0" in row.file
    ):
        raise ValueError(f"{row.file[:80]!r} is not in {PICTURES}")
    if row.status == "ok" and not row.file:
        raise ValueError(f"{row.id[:80]!r} is ok, and has no file")
    _host(row)
    return row


def _host(row: Row) -> str:
    return urlsplit(row.final_url).hostname or ""
