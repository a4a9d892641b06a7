"""CIFAR-10 and CIFAR-100 as their authors publish them, unpacked or not, in the Python
and the binary version.

The Python version is pickled. No pickle is loaded as such: an unpickler that knows
numpy's arrays and nothing else reads it, so a file that would call anything is refused.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from membench.datasets.inside import bytes_inside
from membench.errors import UserError, reason
from membench.storage.archives import ARCHIVE_ERRORS

FOLDERS = ("cifar-10-batches-py", "cifar-100-python", "cifar-10-batches-bin", "cifar-100-binary")
ARCHIVES = (
    *("cifar-10-python", "cifar-100-python", "cifar-10-binary", "cifar-100-binary"),
    *("cifar-10-batches-py", "cifar-10-batches-bin"),
)
ENDS = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar")
MOST_BYTES = 1 << 28  # of a batch; the largest official one has 155 MB

# The names that pickles of arrays and dictionaries hold, as numpy has called them
ALLOWED = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    for name in ("_reconstruct", "ndarray", "dtype", "scalar")
} | {
    ("_codecs", "encode"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


@dataclass(frozen=True)
class Batches:
    """images ``uint8`` [n, 32, 32, 3] of the training set; labels int [n]; classes:
    their names, [] where the files do not say.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def unpickled(data: bytes, place: str) -> dict[str, Any]:
    """The dictionary of a batch, by text keys.

    Raises :class:`UserError`, naming ``place``, for a pickle of anything but numbers,
    texts, lists and arrays: it is not executed.
    """
    try:
        found = _Arrays(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes say
        raise UserError(f"{place} is no batch of CIFAR ({reason(error)}); get it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{place} is no batch of CIFAR; get it again")
    return {str(key): value for key, value in found.items()}


def find_cifar(place: Path) -> Path | None:
    """The folder or archive of CIFAR at a place, which may be it or hold it; None for
    none.
    """
    if place.is_file():
        return place if _archive(place) else None
    # Of "." and of a link, too, the name that the folder has
    if place.name in FOLDERS or place.resolve().name in FOLDERS:
        return place
    held = [place / name for name in FOLDERS if (place / name).is_dir()]
    held += [p for name in ARCHIVES for end in ENDS if (p := place / f"{name}{end}").is_file()]
    return held[0] if held else None


def _archive(file: Path) -> bool:
    return any(file.name == f"{name}{end}" for name in ARCHIVES for end in ENDS)


def files_of(place: Path) -> Mapping[str, Callable[[], bytes]]:
    """The files of a folder or archive of CIFAR by their own names; hidden ones are
    none. Nothing is unpacked to the disk.

    Raises :class:`UserError` for what cannot be read.
    """
    try:
        if place.is_dir():
            return {
                p.name: partial(bytes_inside, place, p, MOST_BYTES, "a batch of CIFAR")
                for p in sorted(place.iterdir())
                if p.is_file() and not p.name.startswith(".")
            }
        held: dict[str, bytes] = {}
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                if not member.isreg() or name.startswith(".") or member.size > MOST_BYTES:
                    continue
                opened = archive.extractfile(member)
                held[name] = opened.read() if opened else b""
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{place} cannot be read ({reason(error)}); get it again") from None
    return {name: lambda data=data: data for name, data in held.items()}  # type: ignore[misc]


def read_cifar(place: Path, *, train: bool = True) -> Batches:
    """The training images of CIFAR-10 or CIFAR-100 (or with ``train=False`` the test
    images) at what :func:`find_cifar` has found.

    Raises :class:`UserError` for a batch that is missing or damaged.
    """
    return batches_of(files_of(place), place, train=train)


def batches_of(
    files: Mapping[str, Callable[[], bytes]], place: Path, *, train: bool = True
) -> Batches:
    """The same of the files of :func:`files_of`; place: for messages."""
    parts = list(_parts(files, place, train))
    if not parts:
        raise UserError(f"{place} holds no batch of CIFAR; get it again")
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Batches(images, labels, _classes(files, place))


def _parts(
    files: Mapping[str, Callable[[], bytes]], place: Path, train: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    ten = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    lacking = [name for name in ten if not {name, f"{name}.bin"} & set(files)]
    if lacking and len(lacking) < len(ten):
        raise UserError(f"{place} lacks {', '.join(lacking)}; get it again")
    for name in [*ten, "train" if train else "test"]:
        if name in files:
            batch = unpickled(files[name](), f"{place}/{name}")
            labels = batch.get("labels", batch.get("fine_labels"))
            yield _checked(batch.get("data"), labels, f"{place}/{name}")
        elif f"{name}.bin" in files:  # one label byte a row, or a coarse and a fine one
            raw = np.frombuffer(files[f"{name}.bin"](), np.uint8)
            width = 3073 if name in ten else 3074
            if not len(raw) or len(raw) % width:
                raise UserError(f"{place}/{name}.bin is no batch of CIFAR; get it again")
            rows = raw.reshape(-1, width)
            yield _checked(rows[:, -3072:], rows[:, -3073].tolist(), f"{place}/{name}.bin")


def _checked(data: Any, labels: Any, place: str) -> tuple[np.ndarray, np.ndarray]:
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != 3072
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(label, int | np.integer) and 0 <= label < 1000 for label in labels)
    ):
        raise UserError(f"{place} is no batch of CIFAR; get it again")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64)


def _classes(files: Mapping[str, Callable[[], bytes]], place: Path) -> list[str]:
    for name, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if name in files:
            names = unpickled(files[name](), f"{place}/{name}").get(key, [])
            if not isinstance(names, list) or not all(isinstance(c, str) for c in names):
                raise UserError(f"{place}/{name} lists no names of classes; get it again")
            return names
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if name in files:
            return files[name]().decode("utf-8", "replace").split()
    return []
