"""Tar archives, of which nothing is unpacked: where each plain file lies in one."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

# What a damaged archive raises: of its headers (of a number, a text, a size that no
# file has) and of its compression
ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    tarfile.TarError,
    ValueError,
    OverflowError,
    zlib.error,
    lzma.LZMAError,
)


def members(archive: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of each plain file of an archive that is not compressed;
    links, devices and sparse files are none. Raises ``ARCHIVE_ERRORS``.
    """
    end = archive.stat().st_size
    with tarfile.open(archive, "r:") as opened:
        for member in opened:
            if member.isreg() and not member.issparse():
                if not 0 <= member.size <= end - member.offset_data:
                    raise tarfile.ReadError(f"{member.name[:100]} has {member.size} bytes there")
                yield member.name.removeprefix("./"), member.offset_data, member.size
