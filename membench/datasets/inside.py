"""Reading a file that lies in a folder of data: no link leads out of it, and nothing is
larger than its kind may be.
"""

from __future__ import annotations

import stat
from pathlib import Path

from membench.errors import UserError

IMAGE_BYTES = 64 << 20  # of an image's file
NOTE_BYTES = 1 << 20  # of a caption beside one

# What asking for a file raises. RuntimeError: links in a circle; ValueError: a NUL in its name
UNREADABLE = (OSError, RuntimeError, ValueError)


def is_inside(root: Path, path: Path) -> bool:
    """Whether what a path leads to lies in a folder, or is the file ``root`` itself. A
    snapshot in the hub's cache consists of links to the blobs beside it: they are in it.

    Raises ``UNREADABLE``.
    """
    whole, found = root.resolve(), path.resolve(strict=True)
    return found.is_relative_to(whole) or any(
        found.is_relative_to(blobs) for blobs in _blobs_of(whole)
    )


def _blobs_of(root: Path) -> list[Path]:
    """The folder of blobs of a repository in the hub's cache (REPOSITORY/snapshots/COMMIT)
    that ``root`` is a part of; empty where it is of none.
    """
    return [
        part.parent.parent / "blobs"
        for part in (root, *root.parents)
        if part.parent.name == "snapshots"
        and part.parent.parent.name.startswith(("datasets--", "models--"))
    ]


def bytes_inside(root: Path, path: Path, most: int, what: str) -> bytes:
    """The bytes of a plain file in a folder, at most ``most`` of them. what: the kind of
    file, for messages.

    Raises :class:`UserError`.
    """
    try:
        if not is_inside(root, path):
            raise UserError(f"{path} lies outside {root}; copy it into the folder")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a file; remove it")
        if status.st_size > most:
            raise UserError(
                f"{path} has {status.st_size:,} bytes, more than the {most:,} of {what}; make it"
                " smaller"
            )
        with open(path, "rb") as file:
            return file.read(most)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> UserError:
    """What is said of a file that the system does not give."""
    why = getattr(error, "strerror", None) or error
    return UserError(f"{path} cannot be read: {why}; mend or remove it")
