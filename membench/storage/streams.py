"""Tables that are larger than memory: written and read some rows at a time."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from membench.storage.files import atomic_write
from membench.storage.tables import TABLES, WRITTEN, damage, metadata, open_table

SOME = 64  # rows in memory at once
BUFFER = 1 << 20  # bytes of a column that are read ahead


def write_groups(
    path: Path, parts: Iterable[pa.Table], name: str, notes: Mapping[str, str] | None = None
) -> None:
    """Writes a table of ``TABLES[name]`` atomically, one row group a part.

    parts: of :func:`membench.storage.tables.as_table`, made when they are asked for.
    Raises UserError if the disk refuses.
    """
    schema = TABLES[name].with_metadata(metadata(name, notes))

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, **WRITTEN) as writer:
            for part in parts:
                writer.write_table(part)

    atomic_write(path, write)


def read_cells(
    path: Path, name: str, key: str, wanted: Collection[str], column: str
) -> Iterator[tuple[str, Any]]:
    """(key, cell of ``column``) of the rows of ``TABLES[name]`` whose key is wanted, in
    the file's order. Row groups without such a row are not read.

    Raises as :func:`membench.storage.tables.read_table`, when the damage is met.
    """
    with open_table(path, name, buffer_size=BUFFER) as file:
        with damage(path):
            keys = file.read(columns=[key])[key].to_pylist()
        places = np.flatnonzero([each in wanted for each in keys])
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if inside := set((places[(start <= places) & (places < end)] - start).tolist()):
                for row, value in enumerate(_cells(path, file, column, group)):
                    if row in inside:
                        yield keys[start + row], value.as_py()
            start = end


def check_pages(path: Path, name: str, column: str) -> np.ndarray:
    """Reads a column and keeps nothing of it, so that damage to it shows. Returns which
    rows hold something, bool [n]. Raises as :func:`membench.storage.tables.read_table`.
    """
    held = array("b")
    with open_table(path, name, buffer_size=BUFFER) as file:
        for group in range(file.num_row_groups):
            held.extend(cell.is_valid for cell in _cells(path, file, column, group))
    return np.array(held, dtype=bool)


def _cells(path: Path, file: pq.ParquetFile, column: str, group: int) -> Iterator[pa.Scalar]:
    # One group: an iterator over several keeps what it has read of each
    with damage(path):
        for batch in file.iter_batches(SOME, row_groups=[group], columns=[column]):
            yield from batch.column(0)
