"""Parquet tables of fixed schemas, written whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from membench.errors import UserError, reason
from membench.storage.files import OUT, DamagedFile, atomic_write

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


def _schema(columns: Mapping[str, pa.DataType], nullable: Collection[str] = ()) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


_TEXT, _REAL = pa.string(), pa.float64()

SCHEMAS: dict[str, pa.Schema] = {
    # One row an example; a failed one has a null score, its status and its error
    "scores": _schema(
        {
            "id": _TEXT,
            "score": _REAL,
            "label": pa.int8(),
            "kind": _TEXT,
            "group": _TEXT,
            "source": _TEXT,
        }
        | {"prompt": _TEXT, "status": _TEXT, "error": _TEXT}
        # Size of the example's image, or the mean over the images extracted for it;
        # null without one
        | {"png_bits": _REAL}
        # Of an example that is an image, to its nearest training image
        | {"similarity": _REAL, "nearest": _TEXT},
        nullable=("score", "prompt", "error", "png_bits", "similarity", "nearest"),
    ),
    "samples": _schema(  # one row an extracted image; condition: its id; image: PNG bytes
        {"sample_id": _TEXT, "condition": _TEXT, "draw": pa.int32(), "prompt": _TEXT}
        | {"confidence": _REAL, "status": _TEXT, "image": pa.binary()}
        # To its prompt's own training images; 1: a copy of one of them
        | {"truth_similarity": _REAL, "truth_label": pa.int8()},
        nullable=("prompt", "confidence", "image", "truth_similarity", "truth_label"),
    ),
    # One row a generated-training pair; training: row of the training image; rank: of
    # nearness
    "matches": _schema(
        {
            "sample_id": _TEXT,
            "training_id": _TEXT,
            "training": pa.int32(),
            "similarity": pa.float32(),
            "rank": pa.int32(),
        }
    ),
    # Long form; low and high: the interval; n: how many examples or images it is
    # computed from
    "metrics": _schema(
        {"metric": _TEXT, "band": _TEXT, "threshold": _REAL, "subset": _TEXT}
        | {"value": _REAL, "low": _REAL, "high": _REAL, "n": pa.int64()},
        nullable=("band", "threshold", "value", "low", "high"),
    ),
}

TABLES = SCHEMAS | {
    # Of a task, not of a run. One row a generated image that is an example; start: JSON
    # of the words that its noise is hashed from.
    "pool": _schema(
        {
            "index": pa.int32(),
            "label": pa.int32(),
            "start": _TEXT,
            "training": pa.int32(),
            "training_id": _TEXT,
        }
        | {"similarity": pa.float32(), "image": pa.binary()},
        nullable=("label",),
    ),
    # Of a run. One row a training image that its report shows beside an extracted one;
    # image: PNG bytes, made smaller where it is large.
    "nearest": _schema({"training_id": _TEXT, "image": pa.binary()}),
    # Of a run that was asked for it (run --quality). error: the standard error, or null;
    # n: generated images, reference: those that they are compared with.
    "quality": _schema(
        {"metric": _TEXT, "value": _REAL, "error": _REAL, "n": pa.int64(), "reference": pa.int64()},
        nullable=("error",),
    ),
    # Of audits. A failed score or image is null.
    "audit_scores": _schema({"id": _TEXT, "score": _REAL}, nullable=("score",)),
    "audit_images": _schema(
        {"condition": _TEXT, "draw": pa.int32(), "image": pa.binary()}, nullable=("image",)
    ),
    # One row a generated image that is a copy; images: PNG bytes
    "audit_copies": _schema(
        {"training_id": _TEXT, "file": _TEXT, "copies": pa.int64(), "similarity": pa.float32()}
        | {"asked": _TEXT, "prompt": _TEXT, "own": pa.bool_(), "draw": pa.int32()}
        | {"mirror": pa.bool_(), "image": pa.binary(), "training_image": pa.binary()},
        nullable=("prompt",),
    ),
}

# What reading a damaged Parquet file raises. ValueError: a name or text that is no
# UTF-8; OverflowError: a date that Python cannot hold
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)

WRITTEN: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write_table(
    path: Path,
    table: pd.DataFrame | pa.Table,
    name: str,
    notes: Mapping[str, str] | None = None,
    *,
    advice: str = OUT,
) -> None:
    """Writes a table of ``TABLES[name]`` atomically; NaN and None become null. notes:
    kept in the file's metadata.

    Raises UserError if the disk refuses (with ``advice``), ValueError if columns are
    missing, unknown or null where they may not be.
    """
    table = as_table(table, name, notes)
    atomic_write(path, lambda temporary: pq.write_table(table, temporary, **WRITTEN), advice=advice)


def as_table(
    table: pd.DataFrame | pa.Table, name: str, notes: Mapping[str, str] | None = None
) -> pa.Table:
    """A table of ``TABLES[name]``, notes and version in its metadata. Raises ValueError as
    :func:`write_table`.
    """
    schema = TABLES[name]
    columns = set(table.columns if not isinstance(table, pa.Table) else table.column_names)
    if wrong := columns ^ set(schema.names):
        raise ValueError(
            f"table {name}: columns missing or unknown: {', '.join(sorted(map(str, wrong)))}"
        )
    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    return table.select(schema.names).cast(schema).replace_schema_metadata(metadata(name, notes))


def metadata(name: str, notes: Mapping[str, str] | None) -> dict[bytes | str, bytes | str]:
    """What a file of ``TABLES[name]`` says of itself: its schema's version, and the notes."""
    return {**TABLES[name].metadata, **(notes or {})}


def joined(
    frames: Iterable[pd.DataFrame], name: str, *, without: Collection[str] = ()
) -> pd.DataFrame:
    """Frames of ``TABLES[name]``, one below the other, its columns in one piece: rows of
    thousands of pieces take thousands of times as long to look up. without: columns that
    they lack.
    """
    fields = [field for field in TABLES[name] if field.name not in without]
    schema = pa.schema(fields, metadata=TABLES[name].metadata)
    parts = [pa.Table.from_pandas(f, schema=schema, preserve_index=False) for f in frames]
    whole = pa.concat_tables(parts) if parts else schema.empty_table()
    return whole.combine_chunks().to_pandas(ignore_metadata=True)


def read_table(path: Path, name: str, *, without: Collection[str] = ()) -> pd.DataFrame:
    """A table of ``TABLES[name]``; null is NaN or None. without: columns that are not read.

    Raises UserError if missing, newer or another table, DamagedFile if unreadable or
    null where it may not be.
    """
    with open_table(path, name) as file, damage(path):
        table = file.read(columns=[n for n in TABLES[name].names if n not in without])
        table.validate(full=True)  # text that is no UTF-8
        absent = [f.name for f in table.schema if not f.nullable and table[f.name].null_count]
    if absent:
        raise DamagedFile(
            f"{path} is damaged (its column {absent[0]} has empty cells); delete it and run again"
        )
    return table.to_pandas(ignore_metadata=True)


def open_table(path: Path, name: str, *, buffer_size: int = 0) -> pq.ParquetFile:
    """The file of a table of ``TABLES[name]``; each page's checksum is compared when it is
    read. buffer_size: bytes of a column in memory at once; 0: a whole row group's.

    Raises UserError if missing, newer or another table, DamagedFile if unreadable.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; membench run makes it")
    with damage(path):
        file = pq.ParquetFile(
            path.absolute(), page_checksum_verification=True, buffer_size=buffer_size
        )
        version = int((file.schema_arrow.metadata or {}).get(b"schema_version", 0))
        fits = file.schema_arrow.equals(TABLES[name])
    refuse_newer(path, version)
    if not fits:
        raise UserError(f"{path} is not a {name} table of membench; move it away and run again")
    return file


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turns what reading a damaged file raises into DamagedFile."""
    try:
        yield
    except PARQUET_ERRORS as error:
        raise DamagedFile(
            f"{path} is damaged ({reason(error)}); delete it and run again"
        ) from error


def read_notes(path: Path) -> dict[str, str]:
    """The notes that :func:`write_table` put beside the table.

    Raises DamagedFile if unreadable.
    """
    try:
        metadata = pq.read_schema(path.absolute()).metadata or {}
    except PARQUET_ERRORS as error:
        raise DamagedFile(f"{path} is damaged ({reason(error)}); get it again") from error
    return {
        k.decode(errors="replace"): v.decode(errors="replace")
        for k, v in metadata.items()
        if k != b"schema_version"
    }


def refuse_newer(path: Path, version: int) -> None:
    """Raises UserError if a file's schema version is above the one that this membench
    reads.
    """
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path} was written by a newer membench (schema {version}, this one reads"
            f" {SCHEMA_VERSION}); update membench"
        )
