"""A reference set that is descriptors alone: unit vectors with ids, from .npy or Parquet
files, memory-mapped, read block by block. Ten million of 512 numbers are 20 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm.auto import tqdm

from membench.errors import UserError, reason
from membench.storage.cache import NPY_ERRORS, cached_array, remembered_hash
from membench.storage.hashing import json_hash
from membench.storage.reading import parse_json, read_plain, read_text

BLOCK = 1 << 16  # rows at once
UNIT = 5e-3  # how far from 1 a length may be: float16 rounds by up to 1e-3
IDS, NOTES = ".ids.txt", ".json"  # endings of what may lie beside FILE.npy

LAYOUTS = (
    "FILE.npy [n, d] with FILE.ids.txt (an id a line) beside it or none, FILE.parquet with columns"
    " id and descriptor, or a folder of either"
)


@dataclass(frozen=True, eq=False)
class Descriptors:
    """n unit vectors. parts: arrays [m, d], float32 or float16, which follow one
    another. ids: [n]. hash: of the files' bytes. features: the id of the extractor that
    made them; "" where nothing says so.
    """

    parts: tuple[np.ndarray, ...]
    ids: Sequence[str]
    hash: str
    features: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def dimension(self) -> int:
        return int(self.parts[0].shape[1])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(position of its first row, float32 [m, d]) of each block, in order; each row
        divided by its length, which ``UNIT`` lets differ from 1 by more than cosines do.
        """
        first = 0
        for part in self.parts:
            for start in range(0, len(part), BLOCK):
                rows = np.asarray(part[start : start + BLOCK], dtype=np.float32)
                lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
                yield first + start, rows / lengths[:, None]
            first += len(part)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """float64 [k, d] of the rows at these positions. Raises IndexError for one outside
        [0, n).
        """
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"a position is not among {len(self)} descriptors")
        ends = np.cumsum([len(part) for part in self.parts])
        which = np.searchsorted(ends, positions, side="right")
        found = np.empty((len(positions), self.dimension))
        for i, part in enumerate(self.parts):
            mine = which == i
            found[mine] = part[positions[mine] - (ends[i] - len(part))]
        return found


class RowIds(Sequence[str]):
    """ "0", "1" ... without holding them."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: Any) -> Any:
        rows = range(self._n)[index]
        return str(rows) if isinstance(rows, int) else [str(row) for row in rows]


class Texts(Sequence[str]):
    """Texts as Arrow holds them, a few bytes each."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def distinct(self) -> int:
        import pyarrow.compute as pc

        return int(pc.count_distinct(self._array).as_py())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._array[index].to_pylist()
        return self._array[range(len(self))[index]].as_py()


def read_descriptors(path: Path, *, progress: bool = False) -> Descriptors:
    """The reference set of a file or folder (``LAYOUTS``).

    ``FILE.json`` beside a file, and ``descriptors.json`` in the folder, may say
    ``{"features": ID}``, all the same. Files of a folder follow one another in the
    order of their names. Every row is checked once; that it was is remembered. Raises
    :class:`UserError`, naming the file and the row, for another shape or type, NaN or
    infinity, and vectors that are not of unit length.
    """
    files = _files(path)
    hashes = [remembered_hash(file) for file in files]
    parts = tuple(
        _array(file, digest, progress) for file, digest in zip(files, hashes, strict=True)
    )
    for file, part in zip(files, parts, strict=True):
        if part.shape[1] != parts[0].shape[1]:
            raise UserError(
                f"{file} holds descriptors of {part.shape[1]} dimensions, {files[0].name} of"
                f" {parts[0].shape[1]}; a reference set has one"
            )
    for file, part, digest in zip(files, parts, hashes, strict=True):
        _check(file, part, digest, progress)
    ids = _joined([_ids(file, part) for file, part in zip(files, parts, strict=True)])
    if isinstance(ids, Texts) and (distinct := ids.distinct()) < len(ids):
        raise UserError(
            f"reference={path}: {len(ids) - distinct} ids stand there twice or are empty; give each"
            " descriptor its own"
        )
    return Descriptors(
        parts, ids, json_hash([*hashes, *_ids_hashes(files)]), _features(path, files)
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = [f for end in ("npy", "parquet") for f in sorted(path.glob(f"[!.]*.{end}"))]
        if not found or len({f.suffix for f in found}) > 1:
            raise UserError(f"reference={path} holds no descriptors, or both kinds: give {LAYOUTS}")
        return found
    if not path.is_file() or path.suffix not in (".npy", ".parquet"):
        raise UserError(f"reference={path} is no file of descriptors: give {LAYOUTS}")
    return [path]


def _array(file: Path, digest: str, progress: bool) -> np.ndarray:
    if file.suffix == ".parquet":
        return _from_parquet(file, digest, progress)
    try:
        found = np.lib.format.open_memmap(file, mode="r")
    except (*NPY_ERRORS, OSError) as error:
        raise UserError(f"{file} is no whole .npy file ({reason(error)}); make it again") from None
    if found.ndim != 2 or not found.size or found.dtype not in (np.float32, np.float16):
        raise UserError(
            f"{file} holds {found.dtype} of shape {[*found.shape]}, not descriptors float32 or"
            " float16 [n, d]"
        )
    return found


def _from_parquet(file: Path, digest: str, progress: bool) -> np.ndarray:
    """Its column ``descriptor``, once written to the cache as an array."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from membench.storage.tables import PARQUET_ERRORS

    table = _parquet(file)
    kind = table.schema_arrow.field("descriptor").type
    lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (lists and (pa.types.is_floating(kind.value_type))):
        raise UserError(f"{file}: column descriptor is of {kind}, not of lists of numbers")

    def blocks() -> Iterator[np.ndarray]:
        for batch in pq.ParquetFile(file.absolute()).iter_batches(BLOCK, columns=["descriptor"]):
            column = batch.column(0)
            flat = column.flatten()
            even = np.all(np.diff(column.offsets) == width) if pa.types.is_list(kind) else True
            if column.null_count or flat.null_count or not even:
                raise UserError(f"{file}: a descriptor is empty or has not {width} numbers")
            yield flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)

    try:
        first = next(table.iter_batches(1, columns=["descriptor"]), None)
        width = len(first.column(0)[0]) if first and first.column(0)[0].is_valid else 0
        if not width:
            raise UserError(f"{file} holds no descriptor, or an empty one")
        shape = (table.metadata.num_rows, width)
        return cached_array(
            "descriptors", {"file": digest}, shape, np.float32, blocks, progress=progress
        )
    except PARQUET_ERRORS as error:
        raise UserError(f"{file} is damaged ({reason(error)})") from None


def _parquet(file: Path) -> Any:
    import pyarrow.parquet as pq

    from membench.storage.tables import PARQUET_ERRORS

    try:
        table = pq.ParquetFile(file.absolute())
    except PARQUET_ERRORS as error:
        raise UserError(
            f"{file} is no whole Parquet file ({reason(error)}); make it again"
        ) from None
    names = table.schema_arrow.names
    if missing := {"id", "descriptor"} - set(names):
        raise UserError(f"{file} has no column {' and '.join(sorted(missing))}")
    if twice := [name for name in ("id", "descriptor") if names.count(name) > 1]:
        raise UserError(f"{file} has the column {twice[0]} twice; remove one")
    return table


def _check(file: Path, part: np.ndarray, digest: str, progress: bool) -> None:
    """Raises :class:`UserError` for a row that is not finite or not of unit length."""

    def blocks() -> Iterator[np.ndarray]:
        starts = range(0, len(part), BLOCK)
        for start in tqdm(starts, desc=f"check {file.name}", disable=not progress, delay=1):
            rows = np.asarray(part[start : start + BLOCK], dtype=np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))  # NaN is wrong, too
            if len(wrong):
                row, length = start + int(wrong[0]), float(lengths[wrong[0]])
                why = (
                    f"is of length {length:.4g}, not 1; divide each row by its length"
                    if np.isfinite(length)
                    else "holds NaN or infinity; make the descriptors again"
                )
                raise UserError(f"{file}: row {row} {why}")
        yield np.ones(1, np.uint8)

    cached_array("checked", {"file": digest, "unit": UNIT}, (1,), np.uint8, blocks)


def _ids(file: Path, part: np.ndarray) -> Sequence[str]:
    import pyarrow as pa

    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        from membench.storage.tables import PARQUET_ERRORS

        try:
            return Texts(pq.read_table(file.absolute(), columns=["id"]).column(0).cast(pa.string()))
        except PARQUET_ERRORS as error:
            raise UserError(f"{file}: its column id holds no texts ({reason(error)})") from None
    beside = file.with_suffix(IDS)
    if not beside.is_file():
        return RowIds(len(part))
    lines = read_text(beside).splitlines()
    if len(lines) != len(part):
        raise UserError(f"{beside} has {len(lines)} lines for {len(part)} descriptors")
    return Texts(pa.array(lines, pa.string()))


def _ids_hashes(files: Sequence[Path]) -> list[str]:
    beside = [file.with_suffix(IDS) for file in files if file.suffix == ".npy"]
    return [remembered_hash(file) for file in beside if file.is_file()]


def _joined(ids: Sequence[Sequence[str]]) -> Sequence[str]:
    import pyarrow as pa

    if len(ids) == 1:
        return ids[0]
    if all(isinstance(part, RowIds) for part in ids):
        return RowIds(sum(map(len, ids)))
    return Texts(pa.chunked_array([pa.array(part[:], pa.string()) for part in ids]))


def _features(path: Path, files: Sequence[Path]) -> str:
    """What the notes say, of the folder and of each file; "" where there is none."""
    notes = [path / "descriptors.json"] if path.is_dir() else []
    notes = [n for n in (*notes, *(f.with_suffix(NOTES) for f in files)) if n.is_file()]
    told = {_note(note): note for note in notes}
    if len(told) > 1:
        (one, its), (other, others), *_ = told.items()
        raise UserError(
            f"{its} says features {one[:60]}, and {others} {other[:60]}; a reference set has one"
        )
    return next(iter(told), "")


def _note(file: Path) -> str:
    try:
        told = parse_json(read_plain(file))["features"]
        if not isinstance(told, str) or not told.strip():
            raise ValueError("no name")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{file} does not say {{"features": ID}} ({reason(error)}); mend it'
        ) from None
    return told
