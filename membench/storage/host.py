"""What the operating system is asked for that Linux and macOS answer differently."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
from io import FileIO
from pathlib import Path


def cores() -> int:
    """The CPU cores that this process may run on; on macOS, those of the machine."""
    if sys.platform != "darwin" and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb() -> int:
    """The most resident memory that this process has had so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux


def free_memory() -> int:
    """Bytes that can be had without swapping: what Linux calls available; elsewhere
    half of the machine's memory.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def reserve(file: FileIO, size: int) -> None:
    """Makes room for ``size`` bytes from the start of an open file, before the work.

    Raises OSError where the disk has no room. Where the system or the file system
    cannot reserve (macOS, some network disks), the room that is free now is looked at.
    """
    if sys.platform != "darwin" and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    folder = Path(os.fsdecode(file.name)).parent
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
