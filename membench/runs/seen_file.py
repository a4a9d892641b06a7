"""A file in the output folder by which Ray's workers prove that they see it."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock

from membench.errors import UserError
from membench.storage.files import disk_errors, take_lock

PREFIX = ".shared-"


class SeenFile(NamedTuple):
    """Locked as long as the process that made it lives."""

    path: Path
    lock: BaseFileLock

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.lock.release()


def put(out: Path) -> SeenFile:
    """A new one. Raises :class:`UserError` if the disk refuses."""
    path = out / f"{PREFIX}{uuid.uuid4().hex}"
    lock = take_lock(path, "")
    with disk_errors(out):
        path.write_text("membench's workers look for this file\n")
    return SeenFile(path, lock)


def remove_left(out: Path) -> None:
    """Removes those of processes that were killed."""
    for path in out.glob(f"{PREFIX}*"):
        if path.is_file() and not path.is_symlink():
            with suppress(UserError):  # its process lives, or the folder is not ours
                SeenFile(path, take_lock(path, "")).remove()
