"""A run's images while it is made and after: on disk, a few at a time in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from membench.storage.files import check_own, disk_errors
from membench.storage.streams import read_cells
from membench.storage.tables import SCHEMAS, as_table

MEMORY = 32 << 20  # bytes of images beyond which they lie on disk

# A row group of samples.parquet ends with the image that makes it so large; what is
# written does not depend on how it was computed
GROUP_BYTES, GROUP_ROWS = 8 << 20, 1024


class Images:
    """PNG bytes by place, 0 .. n - 1; none (b"") of an image that is not there.

    Up to MEMORY bytes in memory, beyond in a file without a name: nothing is left of it
    where the process dies. folder: where that is; None: the system's. Raises UserError
    if the disk refuses.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._end = folder, 0
        where = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(MEMORY, dir=where)  # noqa: SIM115
        self._starts, self._sizes = array("q"), array("q")

    def __del__(self) -> None:
        self._file.close()

    def append(self, png: bytes) -> None:
        with disk_errors(self._folder or Path(tempfile.gettempdir())):
            self._file.seek(self._end)
            self._file.write(png)
            self._file.flush()
        self._starts.append(self._end)
        self._sizes.append(len(png))
        self._end += len(png)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, place: int) -> bytes:
        self._file.seek(self._starts[place])
        return self._file.read(self._sizes[place])

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each, int64 [n]."""
        return np.array(self._sizes, dtype=np.int64)


@dataclass(frozen=True)
class Samples:
    """The samples of a run that is made. rows: their table without the images; its index
    is the place of each among ``images``.
    """

    rows: pd.DataFrame
    images: Images

    @classmethod
    def of(cls, frames: Iterable[pd.DataFrame], folder: Path | None = None) -> Samples:
        """Of samples tables, one after another, of which one is in memory at once.

        folder: of :class:`Images`.
        """
        images, rows = Images(folder), []
        for frame in frames:
            for png in frame.image:
                images.append(png or b"")
            rows.append(frame.drop(columns="image"))
        empty = SCHEMAS["samples"].empty_table().to_pandas().drop(columns="image")
        return cls(pd.concat(rows, ignore_index=True) if rows else empty, images)

    def groups(self) -> Iterator[pa.Table]:
        """The table in row groups, by sample_id."""
        rows, sizes = self.rows.sort_values("sample_id"), self.images.sizes
        start = size = 0
        for end, place in enumerate(rows.index, 1):
            size += int(sizes[place])
            if size >= GROUP_BYTES or end - start == GROUP_ROWS or end == len(rows):
                part = rows[start:end]
                png = pd.Series(
                    [self.images[i] or None for i in part.index], part.index, dtype=object
                )
                yield as_table(part.assign(image=png), "samples")
                start, size = end, 0


def stored_images(folder: Path, ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(sample_id, PNG bytes) of these images of a finished run, in the order of its file;
    one that is not there is left out.

    Raises UserError for a file that is missing, a link, damaged or newer.
    """
    path = folder / "samples.parquet"
    check_own(path)
    for name, png in read_cells(path, "samples", "sample_id", set(ids), "image"):
        if png is not None:
            yield name, png
