"""A file in the output folder by which Ray's workers prove that they see it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock

from membench.storage.files import abandoned, disk_errors, take_lock

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
    for path in abandoned(out.glob(f"{PREFIX}*")):
        path.unlink(missing_ok=True)
