"""Bytes with their checksum: what a process writes for itself to go on from.

The first line is the SHA-256 of the rest. Weights that a bit flip has changed train on
without a word, so a file is proved before anything reads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from membench.storage.files import OUT, DamagedFile, atomic_write

SEAL = b"membench sha256 "


def write_sealed(path: Path, content: bytes | memoryview, *, advice: str = OUT) -> None:
    """The content under its checksum, whole or not at all. Raises UserError if the disk
    refuses (with ``advice``).
    """
    seal = SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as opened:
            opened.write(seal)
            opened.write(content)

    atomic_write(path, write, advice=advice)


def read_sealed(path: Path) -> bytes:
    """The content. Raises DamagedFile where it is not what was written."""
    seal, _, content = path.read_bytes().partition(b"\n")
    if seal != SEAL + hashlib.sha256(content).hexdigest().encode():
        raise DamagedFile(f"{path} is damaged; delete it and begin again without it")
    return content
