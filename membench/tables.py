"""Files that are whole or not there: Parquet tables of fixed schemas, JSON, and PNG bytes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from membench.errors import UserError

SCHEMA_VERSION = 4
MOST_PIXELS = 64_000_000  # of a stored image


def _schema(columns: Mapping[str, pa.DataType], nullable: Collection[str] = ()) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


_TEXT, _REAL = pa.string(), pa.float64()
SCHEMAS: dict[str, pa.Schema] = {
    "scores": _schema(  # one row an example; a failed one has a null score, its status and its error
        {"id": _TEXT, "score": _REAL, "label": pa.int8(), "kind": _TEXT, "group": _TEXT, "source": _TEXT}
        | {"prompt": _TEXT, "status": _TEXT, "error": _TEXT}
        | {"png_bits": _REAL}  # size of the example's image, or the mean over the images extracted for it; null without one
        | {"similarity": _REAL, "nearest": _TEXT},  # of an example that is an image, to its nearest training image
        nullable=("score", "prompt", "error", "png_bits", "similarity", "nearest"),
    ),
    "samples": _schema(  # one row an extracted image; condition: its id; image: PNG bytes
        {"sample_id": _TEXT, "condition": _TEXT, "draw": pa.int32(), "prompt": _TEXT}
        | {"confidence": _REAL, "status": _TEXT, "image": pa.binary()}
        | {"truth_similarity": _REAL, "truth_label": pa.int8()},  # to its prompt's own training pictures; 1: a copy of one of them
        nullable=("prompt", "confidence", "image", "truth_similarity", "truth_label"),
    ),
    "matches": _schema(  # one row a generated-training pair; training: row of the training picture; rank: of nearness
        {"sample_id": _TEXT, "training_id": _TEXT, "training": pa.int32(), "similarity": pa.float32(), "rank": pa.int32()}
    ),
    "metrics": _schema(  # long form; low and high: the interval; n: how many examples or images it is computed from
        {"metric": _TEXT, "band": _TEXT, "threshold": _REAL, "subset": _TEXT}
        | {"value": _REAL, "low": _REAL, "high": _REAL, "n": pa.int64()},
        nullable=("band", "threshold", "value", "low", "high"),
    ),
}
TABLES = SCHEMAS | {
    # Of a task, not of a run. One row a generated image that is an example; start: JSON of the words that its noise is hashed from.
    "pool": _schema(
        {"index": pa.int32(), "label": pa.int32(), "start": _TEXT, "training": pa.int32(), "training_id": _TEXT}
        | {"similarity": pa.float32(), "image": pa.binary()},
        nullable=("label",),
    ),
    # Of a run. One row a training image that its report shows beside an extracted one; image: PNG bytes, made smaller where it is large.
    "nearest": _schema({"training_id": _TEXT, "image": pa.binary()}),
}
ADDED = {
    ("scores", "png_bits"): 2,
    ("scores", "similarity"): 3,
    ("scores", "nearest"): 3,
    ("samples", "truth_similarity"): 4,
    ("samples", "truth_label"): 4,
}  # nullable columns, and the schema version from which on files hold them


SPECIAL = {
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


class DamagedFile(UserError):
    """A stored file that cannot be read back."""


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns a disk's refusal (full, read-only, not ours) into UserError: it is the user's to mend."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot write in {folder}: {why}; mend it or choose another --out (what was computed before is kept)") from error


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Makes a file that appears whole or not at all, also after a power cut. write: fills the path that it is given.

    Makes the folder if need be. Raises UserError if the disk refuses, or what bears the name is not a regular file; it is then untouched.
    """
    check_target(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def check_target(path: Path) -> None:
    """Raises UserError where a file of that name cannot be written, or would replace a folder, a link, a device or the like."""
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name too long, a file where a folder should be; a null character
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose another name") from None
    if kind != stat.S_IFREG:
        what = SPECIAL.get(kind, "special file")
        raise UserError(f"{path} is a {what}, which is not replaced by a file; choose another name, or move it away")


def check_own(path: Path) -> None:
    """Raises UserError for a link, which could lead out of its folder, and for a device, a pipe or the like."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is a link or a special file, which is not followed; put the file itself there")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically. Raises UserError if the disk refuses, ValueError for NaN, TypeError for what JSON cannot hold."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame | pa.Table, name: str, notes: Mapping[str, str] | None = None) -> None:
    """Writes a table of ``TABLES[name]`` atomically; NaN and None become null. notes: kept in the file's metadata.

    Raises UserError if the disk refuses, ValueError if columns are missing, unknown or null where they may not be.
    """
    schema = TABLES[name]
    columns = set(table.columns if isinstance(table, pd.DataFrame) else table.column_names)
    if wrong := columns ^ set(schema.names):
        raise ValueError(f"table {name}: columns missing or unknown: {', '.join(sorted(map(str, wrong)))}")
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    table = table.select(schema.names).cast(schema).replace_schema_metadata({**schema.metadata, **(notes or {})})
    atomic_write(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def read_table(path: Path, name: str, *, without: Collection[str] = ()) -> pd.DataFrame:
    """A table of ``TABLES[name]``; null is NaN or None, as are columns that came after an older file's schema version.

    without: nullable columns that are not read, and null.

    Raises UserError if missing, newer or another table, DamagedFile if unreadable or null where it may not be.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; membench run makes it")
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        held = file.schema_arrow.names
        table = file.read(columns=[column for column in held if column not in without or column not in TABLES[name].names])
        version = int((file.schema_arrow.metadata or {}).get(b"schema_version", 0))
        missing = [column for (owner, column), since in ADDED.items() if owner == name and version < since and column not in held]
        missing += [column for column in without if column in TABLES[name].names and column in held]
        for field in map(TABLES[name].field, missing):
            table = table.append_column(field, pa.nulls(len(table), field.type))
        if without and set(table.column_names) == set(TABLES[name].names):
            table = table.select(TABLES[name].names)
        fits = table.schema.equals(TABLES[name])
        absent = [field.name for field in TABLES[name] if fits and not field.nullable and table[field.name].null_count]
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a damaged name is no UTF-8
        raise DamagedFile(f"{path} is damaged ({' '.join(str(error).split())}); delete it and run again") from error
    refuse_newer(path, version)
    if not fits:
        raise UserError(f"{path} is not a {name} table of membench; move it away and run again")
    if absent:
        raise DamagedFile(f"{path} is damaged (its column {absent[0]} has empty cells); delete it and run again")
    return table.to_pandas(ignore_metadata=True)


def read_notes(path: Path) -> dict[str, str]:
    """The notes that :func:`write_table` put beside the table. Raises DamagedFile if unreadable."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} is damaged ({' '.join(str(error).split())}); get it again") from error
    return {k.decode(errors="replace"): v.decode(errors="replace") for k, v in metadata.items() if k != b"schema_version"}


def refuse_newer(path: Path, version: int) -> None:
    """Raises UserError if a file's schema version is above the one that this membench reads."""
    if version > SCHEMA_VERSION:
        raise UserError(f"{path} was written by a newer membench (schema {version}, this one reads {SCHEMA_VERSION}); update membench")


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of a ``uint8`` [h, w, 3] image: the same bytes each time, no metadata. Raises ValueError for another array."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [h, w, 3], got {image.dtype} {list(image.shape)}")
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=6)
    return out.getvalue()


def png_bits(image: np.ndarray) -> int:
    """Bits of the PNG of a ``uint8`` [h, w, 3] image: a proxy of its visual complexity (Kamkari et al., NeurIPS 2024).

    Depends a little on the build of zlib: compare sizes of one machine. Raises ValueError for another array.
    """
    return 8 * len(png_bytes(image))


def png_image(data: bytes) -> np.ndarray:
    """The ``uint8`` [h, w, 3] image of a PNG. Raises DamagedFile for other bytes, and for an image of more than ``MOST_PIXELS``."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DamagedFile(f"an image of {image.width} x {image.height} pixels is larger than membench stores")
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise DamagedFile(f"an image is not a PNG ({' '.join(str(error).split())[:80] or type(error).__name__})") from None
