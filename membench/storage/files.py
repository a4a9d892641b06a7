"""Files that are whole or not there, locks, and a disk's refusal in one line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from membench.errors import UserError


@contextlib.contextmanager
def locked(path: Path, progress: bool) -> Iterator[None]:
    """Holds the lock of a cached file; waits for whoever else holds it. The system lets go of it when a process dies."""
    with cache_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f".{path.name}.lock"), "wb")  # noqa: SIM115 - closed below
    with contextlib.closing(lock):
        with cache_errors(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress:
                    print(f"membench: waiting for another process, which is making {path}", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def cache_errors(path: Path, size: int = 0) -> Iterator[None]:
    """As :func:`membench.tables.disk_errors`, but with the cache's advice: --out has no part in it. size: bytes of the whole file."""
    try:
        yield
    except OSError as error:
        need = f" ({size / 1e9:.1f} GB)" if size >= 5e7 else ""
        why = error.strerror or str(error)
        advice = "mend it, or set MEMBENCH_CACHE to another folder"
        raise UserError(f"cannot write {path.name}{need} in {path.parent}: {why}; {advice}") from error


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
