"""A run's images while it is made and after: on disk, a few at a time in memory."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa

from membench.storage.files import check_own, disk_errors
from membench.storage.images import png_image
from membench.storage.streams import read_cells
from membench.storage.tables import as_table, joined
from membench.types import Condition, Sample

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
        with contextlib.suppress(OSError):  # of what a full disk did not take
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
        images, parts = Images(folder), []
        for frame in frames:
            for png in frame.image:
                images.append(png or b"")
            parts.append(frame.drop(columns="image"))
        return cls(joined(parts, "samples", without=("image",)), images)

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


class Extracted(Mapping[str, Sequence[Sample]]):
    """A run's samples by condition id, in order of draw; the confidence of a failed one
    is NaN.

    An image is read and decoded when its sample is looked up and not kept: at full scale
    those of a run, or of a single condition, would not fit in memory. A condition of
    which nothing was extracted has no samples.
    """

    def __init__(self, samples: Samples) -> None:
        rows = samples.rows.sort_values("draw")
        self._images, self._prompts = samples.images, rows.prompt.array
        self._place, self._draw = rows.index.to_numpy(), rows.draw.to_numpy()
        self._confidence = rows.confidence.to_numpy(dtype=np.float64)
        self._rows = dict(sorted(rows.groupby("condition").indices.items()))

    def __getitem__(self, condition: str) -> Sequence[Sample]:
        rows = self._rows.get(condition)
        if rows is None:
            return []
        prompt = self._prompts[int(rows[0])]
        owner = Condition(condition, prompt if isinstance(prompt, str) else None)
        return _Drawn(self, owner, rows)

    def __contains__(self, condition: object) -> bool:
        return condition in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, owner: Condition, row: int) -> Sample:
        image = png_image(self._images[self._place[row]])
        return Sample(owner, int(self._draw[row]), image, float(self._confidence[row]))


class _Drawn(Sequence[Sample]):
    """The samples of one condition."""

    def __init__(self, of: Extracted, owner: Condition, rows: np.ndarray) -> None:
        self._of, self._owner, self._rows = of, owner, rows

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self._of.sample(self._owner, row) for row in self._rows[place]]
        return self._of.sample(self._owner, self._rows[place])

    def __len__(self) -> int:
        return len(self._rows)


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
