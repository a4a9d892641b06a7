"""Parquet files with a column of images: bytes, or a struct with ``bytes`` and
``path``, as Hugging Face's data sets keep them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from membench.datasets.class_numbers import whole_number
from membench.datasets.inside import IMAGE_BYTES
from membench.datasets.items import Bad, Item
from membench.datasets.records import NAMES, Record, column
from membench.errors import reason
from membench.storage.tables import PARQUET_ERRORS

COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "bytes", "image_bytes")


def has_images(path: Path) -> bool:
    """Whether a file is Parquet with a column of images."""
    try:
        return bool(_image_column(pq.read_schema(path.absolute())))
    except PARQUET_ERRORS:
        return False


def _image_column(schema: pa.Schema) -> str:
    fits = [f.name for f in schema if column(f.name) in COLUMNS and _is_image(f.type)]
    return fits[0] if fits else ""


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def parquet_items(
    root: Path, tables: Sequence[Path]
) -> tuple[list[Item], list[Bad], tuple[str, ...]]:
    """The images of tables, what cannot be read, and the names of all classes where the
    tables list them.
    """
    items: list[Item] = []
    listed: list[str] = []
    bad: list[Bad] = []
    for path in tables:
        shown = path.relative_to(root).as_posix() if path != root else path.name
        try:
            file = pq.ParquetFile(path.absolute())
            told = {n for w in ("text", "label") for n in NAMES[w]}
            beside = [n for n in file.schema_arrow.names if column(n) in told]
            rows = file.read(columns=beside).to_pylist() if beside else []
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        except PARQUET_ERRORS as error:
            bad.append(Bad(shown, f"damaged ({reason(error)})"))
            continue
        classes = _class_names(file.schema_arrow, _label_column(beside))
        listed = listed or classes
        image, first = _image_column(file.schema_arrow), 0
        for group, count in enumerate(groups):
            page = _Group(path, group, image)
            for k in range(count):
                values = rows[first + k] if rows else {}
                record = Record("", {column(n): v for n, v in values.items()})
                name = f"{shown}/{first + k:07d}"
                label, number = _class(record.label(), classes)
                if classes and label and number is None:
                    bad.append(Bad(name, f"class {label[:60]}, where {len(classes)} are named"))
                    label = None
                items.append(Item(name, page.reader(k), tuple(record.texts()), label, number))
            first += count
    return items, bad, tuple(listed)


def _class(told: str, names: Sequence[str]) -> tuple[str | None, int | None]:
    """(name, number) of a cell of the label column; a number below 0 is no class."""
    number = names.index(told) if told in names else whole_number(told)
    if number is not None and number < 0:
        return None, None
    if names and number is not None:
        return (names[number], number) if number < len(names) else (told, None)
    return told or None, number


class _Group:
    """The images of a row group, read together when the first is asked for; one group
    is kept at a time.
    """

    _held: tuple[Any, ...] = ()

    def __init__(self, path: Path, group: int, name: str) -> None:
        self.path, self.group, self.name = path, group, name

    def reader(self, row: int) -> Callable[[], bytes]:
        return lambda: self._bytes(row)

    def _bytes(self, row: int) -> bytes:
        held = _Group._held
        if not held or held[0] is not self:
            try:
                table = pq.ParquetFile(self.path.absolute()).read_row_group(
                    self.group, columns=[self.name]
                )
            except PARQUET_ERRORS as error:
                raise OSError(f"damaged ({reason(error)})") from None
            held = _Group._held = (self, table.column(0))
        value = held[1][row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if value and len(value) > IMAGE_BYTES:
            raise OSError(f"{len(value):,} bytes, more than the {IMAGE_BYTES:,} of an image")
        return value or b""


def _label_column(names: Sequence[str]) -> str:
    """The column that a record's label comes from."""
    by_name = {column(name): name for name in names}
    return next((by_name[n] for n in NAMES["label"] if n in by_name), "")


def _class_names(schema: pa.Schema, label: str) -> list[str]:
    """The names of the classes in a column, as Hugging Face notes them in the file."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return [str(name) for name in told["info"]["features"][label]["names"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
