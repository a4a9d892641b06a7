"""Images of one size as rows that are read in blocks, where all of them would not fit in
memory.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from membench.storage.cache import cache_root
from membench.storage.files import CACHE, disk_errors

MEMORY = 32 << 20  # bytes beyond which they lie on disk, and of a block


class Rows(Protocol):
    """What a reader of blocks asks of an array: a NumPy array or memory map, ``Pixels``,
    ``Chosen``.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Pixels:
    """``uint8`` [n, h, w, 3], in the order in which they were given.

    Decoded once, since a PNG takes longer to decode than its pixels to read. Up to MEMORY
    bytes in memory, beyond in a file without a name in the cache's folder: nothing is
    left of it where the process dies. Not a memory map, whose pages would count as the
    process's own. Raises ValueError for images of several sizes, UserError if the disk
    refuses.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        folder, self.shape = cache_root(), (0, 0, 0, 3)
        with disk_errors(folder, advice=CACHE):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.SpooledTemporaryFile(MEMORY, dir=str(folder))  # noqa: SIM115
        count, size = 0, None
        for image in images:
            if image.dtype != np.uint8 or image.shape != (size or image.shape):
                raise ValueError(
                    f"images of one size, uint8: not {image.dtype} {list(image.shape)} beside"
                    f" {list(size or ())}"
                )
            with disk_errors(folder, advice=CACHE):
                self._file.write(np.ascontiguousarray(image).data)
            count, size = count + 1, image.shape
        if size is not None:
            self.shape = (count, *size)
        with disk_errors(folder, advice=CACHE):
            self._file.flush()

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # unless the folder was refused
            with contextlib.suppress(OSError):  # of what a full disk did not take
                self._file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("read in order, without gaps")
        size = int(np.prod(self.shape[1:]))
        count = max(0, stop - start)
        self._file.seek(start * size)
        # Of a bytearray, since torch warns of arrays that cannot be written to
        read = np.frombuffer(bytearray(self._file.read(count * size)), dtype=np.uint8)
        return read.reshape(count, *self.shape[1:])

    def blocks(self) -> Iterator[np.ndarray]:
        """All of them, MEMORY bytes at a time."""
        step = max(1, MEMORY // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, len(self), step):
            yield self[start : start + step]


class Chosen:
    """Rows of an array, copied where they are read."""

    def __init__(self, of: np.ndarray, rows: np.ndarray) -> None:
        self._of, self._rows = of, rows
        self.shape, self.ndim, self.dtype = (len(rows), *of.shape[1:]), of.ndim, of.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._of[self._rows[rows]]
