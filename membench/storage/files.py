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
    except Exception as error:
        if not (why := _refusal(error)):
            raise
        raise UserError(
            f"cannot write {what}{' ' * bool(what)}in {folder}: {why}; {advice}"
        ) from error


def _refusal(error: Exception) -> str:
    """What the disk says in an error; empty for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Safetensors has an error of its own, told by name since it is not imported here
    if type(error).__name__ == "SafetensorError":
        code = re.search(r"\bos error (\d+)|\bcode: (\d+)", str(error))
        return os.strerror(int(code[1] or code[2])) if code else ""
    return ""


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
    """Removes temporary files and folders of this path whose processes, of this machine,
    are gone; in a folder of many files, as a cache is, those that come first.
    """
    named = re.compile(rf"\.{re.escape(path.name)}\.{_HERE}-(\d+)\.partial")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in itertools.islice(entries, FEW):
            if (found := named.fullmatch(entry.name)) and not _lives(int(found[1])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
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
    """Removes half written files below a folder whose lock is held, but those of living
    processes of this machine: a run's page is written without its lock.
    """
    for left in folder.rglob("*.partial"):
        found = re.search(rf"\.{_HERE}-(\d+)\.partial$", left.name)
        if not found or int(found[1]) == os.getpid() or not _lives(int(found[1])):
            left.unlink(missing_ok=True)


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
        with (
            disk_errors(path.parent, advice=advice),
            _aside(path.with_name(f".{path.name}.partial"), make) as partial,
        ):
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        lock.release()


def replace_files(folder: Path, make: Callable[[Path], object], *, advice: str = OUT) -> None:
    """Puts files into a folder that may hold others: all are made before the first takes
    its place, and each is whole.

    make: fills the empty folder that it is given. Raises UserError if the disk refuses;
    nothing is changed then.
    """
    _remove_left(folder)
    own = folder.with_name(f".{folder.name}.{_HERE}-{os.getpid()}.partial")
    with disk_errors(folder, advice=advice), _aside(own, make) as partial:
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        for file in files:
            _sync(file)
        for file in files:
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


@contextlib.contextmanager
def _aside(partial: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A folder that ``make`` has filled, and nobody else writes to. What a killed process
    left of it is not in it, and what is left of it at the end goes.
    """
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        make(partial)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def write_json(path: Path, value: Any, *, advice: str = OUT) -> None:
    """Writes JSON atomically.

    Raises UserError if the disk refuses (with ``advice``), ValueError for NaN, TypeError
    for what JSON cannot hold.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # A file's name may be no text: JSON has escapes for what UTF-8 has not
    data = text.encode("utf-8", "backslashreplace")
    atomic_write(path, lambda temporary: temporary.write_bytes(data), advice=advice)
