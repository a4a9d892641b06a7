"""Training sets too big for memory: memory-mapped .npy files under content keys, made
once, block by block.

They lie in one cache for all runs and all folders of runs: ``$MEMBENCH_CACHE``, else
``~/.cache/membench``. Any of them may be deleted at any time; it is made again when it
is next asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
import tokenize
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.storage import host
from membench.storage.files import CACHE, DamagedFile, atomic_write, disk_errors, locked, replacing
from membench.storage.hashing import content_key, file_hash
from membench.storage.reading import expanded

Blocks = Callable[[], Iterator[np.ndarray]]

# What a damaged .npy file raises: its header is a Python literal
NPY_ERRORS = (ValueError, EOFError, SyntaxError, tokenize.TokenError, OverflowError, TypeError)


def cache_root() -> Path:
    """The folder of all cached arrays: ``$MEMBENCH_CACHE``, else ``~/.cache/membench``.

    It need not exist yet. Raises UserError where there is no home folder.
    """
    given = os.environ.get("MEMBENCH_CACHE")
    root = expanded(given or "~/.cache/membench")
    if not given and not root.is_absolute():  # of a container's user whom nobody knows
        raise UserError(
            "this user has no home folder for the cache; set MEMBENCH_CACHE to a folder"
        )
    return root


def cached_array(
    name: str,
    parts: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: Any,
    blocks: Blocks,
    *,
    root: Path | None = None,
    progress: bool = False,
) -> np.ndarray:
    """The array of these parts as a read-only memory map of
    ``<root>/<name>-<key>.npy``, which is made unless it is there.

    parts: all that changes the values, and nothing else; JSON. blocks: starts the
    making, and is not called for an array that is there; its arrays [b, *shape[1:]] of
    this dtype, b >= 1, follow one another along the first axis and are written one at a
    time. The file appears whole or not at all; a second process that asks for it
    meanwhile waits. Its SHA-256 stands beside it and is proved when it is opened; of a
    large file that has not changed, once (:func:`remembered_hash`). root: default
    :func:`cache_root`.

    Raises ValueError for an empty shape and for blocks that do not make it up,
    :class:`DamagedFile` for a file of another size or shape, :class:`UserError` if the
    disk refuses; what ``blocks`` raises passes through, and nothing is left then.
    """
    dtype, shape = np.dtype(dtype), tuple(int(n) for n in shape)
    if not shape or min(shape) < 1 or dtype.hasobject:
        raise ValueError(
            f"cannot keep {dtype} of shape {list(shape)} in a file: it must be numbers, and not"
            " empty"
        )
    key = content_key({"parts": dict(parts), "shape": shape, "dtype": dtype.str})
    path = (cache_root() if root is None else root) / f"{name}-{key}.npy"

    if not is_proved(path):
        with locked(path, progress):
            if not is_proved(path):  # another process may have made it while we waited
                _make(
                    path,
                    shape,
                    dtype,
                    blocks,
                    tqdm(
                        total=shape[0], desc=name, unit="row", disable=not progress, mininterval=1
                    ),
                )
    return _open(path, shape, dtype)


def cached_features(
    images: np.ndarray,
    encoder_id: str,
    encode: Callable[[np.ndarray], np.ndarray],
    dim: int | None,
    images_key: str,
    block: int = 256,
    *,
    root: Path | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Features float32 [n, dim] of images ``uint8`` [n, h, w, 3], which may be a memory
    map, as :func:`cached_array` keeps them.

    For a :class:`membench.similarity.criterion.Features` f: ``cached_features(images,
    f.id, f, None, images_key)``. dim: None takes that of the first image's features, at
    the price of one image. images_key: the content key of the images, so that they need
    not be read again. block: images read and encoded at once; no part of the key, since
    features do not depend on it beyond rounding.

    Raises as :func:`cached_array`, and ValueError for features of another shape or
    dtype and for ``block`` < 1.
    """
    if block < 1:
        raise ValueError(f"block is {block}, but must be at least 1")
    if dim is None:
        dim = int(encode(np.array(images[:1])).shape[1])

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(images), block):
            # A copy in memory: torch takes no read-only array
            features = encode(np.array(images[start : start + block]))
            if len(features) != min(block, len(images) - start):
                raise ValueError(
                    f"{encoder_id} gives {len(features)} vectors for"
                    f" {min(block, len(images) - start)} images"
                )
            yield features

    parts = {"encoder": encoder_id, "images": images_key}
    return cached_array(
        "features", parts, (len(images), dim), np.float32, blocks, root=root, progress=progress
    )


def _make(path: Path, shape: tuple[int, ...], dtype: np.dtype, blocks: Blocks, bar: tqdm) -> None:
    # Written in order rather than through a writable memory map: there a disk that
    # fills up kills the process (SIGBUS).
    size = math.prod(shape) * dtype.itemsize
    what = f"{path.name} ({size / 1e9:.1f} GB)" if size >= 5e7 else path.name
    refusals = partial(disk_errors, path.parent, what=what, advice=CACHE)
    with replacing(path, what=what, advice=CACHE, is_locked=True) as temporary:
        with refusals():
            file = open(temporary, "wb", buffering=0)  # noqa: SIM115 - closed below; a buffer would fail a second time on closing
        with bar, contextlib.closing(file):
            with refusals():
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(file, header)
                # A disk that is too full says so before the work
                host.reserve(file, file.tell() + size)
            done = 0
            for part in blocks():
                if (
                    part.dtype != dtype
                    or part.shape[1:] != shape[1:]
                    or not 1 <= len(part) <= shape[0] - done
                ):
                    raise ValueError(
                        f"{path.name}: a block {part.dtype} {list(part.shape)} at row {done} of"
                        f" {dtype} {list(shape)}"
                    )
                with refusals():
                    _write(file, np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
                done += len(part)
                bar.update(len(part))
            if done < shape[0]:
                raise ValueError(f"{path.name}: the blocks make up {done} rows of {shape[0]}")
        prove(path, temporary)


def _proof(path: Path) -> Path:
    """Where the SHA-256 of an array's file stands."""
    return path.with_name(f"{path.name}.sha256")


def _write(file: FileIO, data: memoryview) -> None:
    while data:  # the system may take less than all
        data = data[file.write(data) :]


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    advice = f"delete it and run again, and it is made anew: {path}"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except NPY_ERRORS as error:  # no .npy, or shorter than its header says
        raise DamagedFile(
            f"a cached array is damaged ({' '.join(str(error).split())}); {advice}"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if (
        array.shape != shape
        or array.dtype != dtype
        or array.offset + array.nbytes != path.stat().st_size
    ):
        raise DamagedFile(
            f"a cached array is damaged ({array.dtype} {list(array.shape)}, not {dtype}"
            f" {list(shape)}); {advice}"
        )
    check_proof(path)
    return array


def prove(path: Path, temporary: Path) -> None:
    """Writes the SHA-256 of a file of the cache, which is still at ``temporary``,
    beside its place.
    """
    digest = file_hash(temporary)
    # So that no file is ever there whose proof is another's
    path.unlink(missing_ok=True)
    atomic_write(_proof(path), lambda file: file.write_text(digest), advice=CACHE)


def prove_written(path: Path) -> None:
    """Writes the SHA-256 of a file of the cache, which is whole and in its place, beside
    it. Until then it is not proved, and made again.
    """
    digest = file_hash(path)
    atomic_write(_proof(path), lambda file: file.write_text(digest), advice=CACHE)


def is_proved(path: Path) -> bool:
    """Whether a file of the cache is there with its SHA-256."""
    return path.is_file() and _proof(path).is_file()


def check_proof(path: Path) -> None:
    """Raises :class:`DamagedFile` for a file of the cache that is not what was written."""
    if remembered_hash(path) != _proof(path).read_text(errors="replace"):
        raise DamagedFile(
            "a file of the cache is damaged (it is not what was written); delete it and run again,"
            f" and it is made anew: {path}"
        )


# Bytes from which on a file's hash is kept: what is smaller is hashed in a blink
REMEMBERED_FROM = 64 << 20
RACY = 2_000_000_000  # ns: a file as young as this could change again without a change of its times


def remembered_hash(file: Path) -> str:
    """:func:`membench.storage.hashing.file_hash`; that of a large file is kept in the
    cache and read anew when the file has changed.

    It has if its place, size, inode, time of change or time of status change is
    another. The last of these no program can set back. Raises UserError for a file that
    cannot be read: a link to nothing, links in a circle, a folder of its name.
    """
    try:
        before = _state(file)
        if before[1] < REMEMBERED_FROM:
            return file_hash(file)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        why = getattr(error, "strerror", None) or "links in a circle"
        raise UserError(f"{file} cannot be read ({why}); get it again") from None
    note = cache_root() / "hashes" / f"{hashlib.sha256(before[0].encode()).hexdigest()[:32]}.json"
    # No note, or not ours: hash
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_bytes())
        if known["state"] == before:
            return str(known["sha256"])
    found = file_hash(file)
    if _state(file) == before and time.time_ns() - max(before[3:]) > RACY:
        text = json.dumps({"state": before, "sha256": found})
        with contextlib.suppress(UserError, OSError):  # without a cache it is hashed each time
            note.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(note, lambda temporary: temporary.write_text(text))
    return found


def _state(file: Path) -> list[Any]:
    real = file.resolve()  # the hub's cache holds links to its files
    stat = real.stat()
    return [str(real), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
