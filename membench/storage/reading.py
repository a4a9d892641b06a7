"""Reading a file that a user names: a plain file of bounded size, or one line that says
why it is not read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.storage.files import SPECIAL

LARGEST = 1 << 30  # bytes of a table or list
LARGEST_NUMBER = 2**62  # beyond it sums and columns of int64 overflow
LONGEST_NAME = 400  # characters of a path that are shown

# How a stand-in of Git LFS begins, and what is said of it behind its name
POINTER = b"version https://git-lfs.github.com/spec/"
IS_POINTER = "is a Git LFS pointer, not the file itself: run git lfs pull in its repository"


def expanded(name: str | Path) -> Path:
    """The path, with the home folder for its ``~``; a name that only begins with one, as
    ``~w.pt`` does, is that of a file.
    """
    return Path(os.path.expanduser(name))


def read_plain(path: Path, *, most: int = LARGEST, what: str = "") -> bytes:
    """The bytes of a plain file, links followed. what: said in front of its name.

    Raises :class:`UserError` for a file that is missing, a folder, a pipe or a device
    (which may have no end), larger than ``most`` bytes, a stand-in of Git LFS, or not
    to be read.
    """
    name = f"{what} {shown(path)}".strip()
    try:
        # Not blocking: a pipe that nobody writes to is refused, in place of waiting
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = SPECIAL.get(stat.S_IFMT(status.st_mode), "special file")
                raise UserError(f"{name} is a {kind}; give a file")
            if status.st_size > most:
                raise UserError(f"{name} has {status.st_size:,} bytes, more than {most:,}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(most)
            if data.startswith(POINTER):
                raise UserError(f"{name} {IS_POINTER}")
            return data
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise UserError(f"{name} does not exist") from None
        raise UserError(
            f"cannot read {name}: {getattr(error, 'strerror', None) or error}"
        ) from None


def read_text(path: Path, *, most: int = LARGEST, what: str = "") -> str:
    """The text of a plain file in UTF-8, a byte order mark skipped.

    Raises :class:`UserError` as :func:`read_plain`, and where it is not UTF-8.
    """
    try:
        return read_plain(path, most=most, what=what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = f"{what} {shown(path)}".strip()
        raise UserError(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def parse_json(data: bytes | str) -> Any:
    """The value of JSON text. Raises ValueError for all that is none, however deep."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_amount(value: Any) -> bool:
    """Whether a JSON value is a count or a time: a number, neither negative nor NaN."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < LARGEST_NUMBER
    )


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: not half a surrogate pair, which stands in JSON as
    ``\\ud800`` and in the name of a file that is not UTF-8, and which no table takes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(path: Path) -> str:
    """A path as it is told, a long one cut in the middle."""
    text = str(path)
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME // 2]}...{text[-LONGEST_NAME // 2 :]}"
