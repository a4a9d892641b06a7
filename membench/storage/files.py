"""Files that are whole or not there, locks, and a disk's refusal in one line."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from membench.errors import UserError

# What to do where the disk refuses: of a run's folder, and of the cache.
OUT = "mend it or choose another folder (--runs or --output); what was computed before is kept"
CACHE = "mend it, or set MEMBENCH_CACHE to another folder"

FEW = 1000  # entries of a folder that are looked at for what was left
# A process number says something on its own machine alone
_HERE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]

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
def disk_errors(folder: Path, *, what: str = "", advice: str = OUT) -> Iterator[None]:
    """Turns a disk's refusal (full, read-only, not ours) into UserError: it is the
    user's to mend.

    what: the file that cannot be written, where its name helps. advice: what to do.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(
            f"cannot write {what}{' ' * bool(what)}in {folder}: {why}; {advice}"
        ) from error


@contextlib.contextmanager
def replacing(
    path: Path, *, what: str = "", advice: str = OUT, is_locked: bool = False
) -> Iterator[Path]:
    """A temporary path beside ``path``, to be filled; at the end it takes its place,
    whole also after a power cut.

    If the block raises, nothing is left; what a killed process of this machine left is
    removed. Makes the folder if need be. is_locked: nobody else writes this file, so one
    temporary name will do.

    Raises UserError if the disk refuses (with ``what`` and ``advice`` of
    :func:`disk_errors`), or what bears the name is not a regular file; it is then
    untouched.
    """
    check_target(path)
    own = "" if is_locked else f"{_HERE}-{os.getpid()}."
    # Absolute: pyarrow takes a new file's relative name with a colon for an address
    temporary = path.absolute().with_name(f".{path.name}.{own}partial")
    with disk_errors(path.parent, what=what, advice=advice):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not is_locked:
        _remove_left(path)
    try:
        yield temporary
        with disk_errors(path.parent, what=what, advice=advice):
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the first refusal is the one to report
            temporary.unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Removes temporary files of this path whose processes, of this machine, are gone; in
    a folder of many files, as a cache is, those that come first.
    """
    named = re.compile(rf"\.{re.escape(path.name)}\.{_HERE}-(\d+)\.partial")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in itertools.islice(entries, FEW):
            if (found := named.fullmatch(entry.name)) and not _lives(int(found[1])):
                os.unlink(entry.path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; a name that is not ours
        return True
    return True


def remove_partial(folder: Path) -> None:
    """Removes every half written file below a folder whose lock is held: nobody is writing
    there.
    """
    for left in folder.rglob("*.partial"):
        left.unlink()


def abandoned(locks: Iterable[Path]) -> Iterator[Path]:
    """Those of the lock files whose process is gone, each held until the next is asked for;
    no links.
    """
    for file in locks:
        if not file.is_file() or file.is_symlink():
            continue
        try:
            lock = take_lock(file, "")
        except UserError:  # its process lives, or the disk refuses
            continue
        try:
            yield file
        finally:
            lock.release()


def atomic_write(
    path: Path, write: Callable[[Path], object], *, what: str = "", advice: str = OUT
) -> None:
    """Makes a file that appears whole or not at all. write: fills the path that it is
    given.

    Raises UserError as :func:`replacing`, and where ``write`` raises OSError.
    """
    with (
        replacing(path, what=what, advice=advice) as temporary,
        disk_errors(path.parent, what=what, advice=advice),
    ):
        write(temporary)


def atomic_folder(
    path: Path,
    make: Callable[[Path], object],
    *,
    is_whole: Callable[[Path], bool] = Path.is_dir,
    advice: str = OUT,
) -> None:
    """Makes a folder that appears with all its files or not at all; one of that name
    that ``is_whole`` is left as it is, another replaced.

    make: fills the empty folder that it is given. Of two processes at once, the second
    waits. Raises UserError if the disk refuses.
    """
    lock = take_lock(path.with_name(f".{path.name}.lock"), "", wait=True, advice=advice)
    try:
        if is_whole(path):
            return
        partial = path.with_name(f".{path.name}.partial")
        with disk_errors(path.parent, advice=advice):
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process
            partial.mkdir(parents=True)
            make(partial)
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        lock.release()


def take_lock(
    file: Path, busy: str, *, wait: bool = False, what: str = "", advice: str = OUT
) -> BaseFileLock:
    """The lock of that file, held until its ``release()``; the system releases it when
    the process dies.

    busy: what to say while another process holds it: a UserError, or with ``wait`` a
    line on stderr ("": none). Makes the folder if need be. Raises UserError if the disk
    refuses, too.
    """
    lock = FileLock(file, thread_local=False)
    with disk_errors(file.parent, what=what, advice=advice):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise UserError(busy) from None
            if busy:
                print(f"membench: {busy}", file=sys.stderr)
            lock.acquire()
    return lock


@contextlib.contextmanager
def locked(path: Path, progress: bool) -> Iterator[None]:
    """Holds the lock of a cached file; waits for whoever else holds it, with a line on
    stderr if ``progress``.
    """
    busy = f"waiting for another process, which is making {path}" if progress else ""
    lock = take_lock(
        path.with_name(f".{path.name}.lock"), busy, wait=True, what=path.name, advice=CACHE
    )
    try:
        yield
    finally:
        lock.release()


def check_target(path: Path) -> None:
    """Raises UserError where a file of that name cannot be written, or would replace a
    folder, a link, a device or the like.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return
    # A name too long, a file where a folder should be; a null character
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose another name"
        ) from None
    if kind != stat.S_IFREG:
        what = SPECIAL.get(kind, "special file")
        raise UserError(
            f"{path} is a {what}, which is not replaced by a file; choose another name, or move it"
            " away"
        )


def check_own(path: Path) -> None:
    """Raises UserError for a link, which could lead out of its folder, and for a
    device, a pipe or the like.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(
            f"{path} is a link or a special file, which is not followed; put the file itself there"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically.

    Raises UserError if the disk refuses, ValueError for NaN, TypeError for what JSON
    cannot hold.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # A file's name may be no text: JSON has escapes for what UTF-8 has not
    data = text.encode("utf-8", "backslashreplace")
    atomic_write(path, lambda temporary: temporary.write_bytes(data))
