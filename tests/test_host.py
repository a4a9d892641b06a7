"""macOS: what Linux alone has is taken away, and the main paths are run."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from membench.cli.main import main
from membench.errors import UserError
from membench.storage import host
from membench.storage.cache import cached_array
from membench.tasks.celeba.data import read_celeba

# What CPython documents as missing on macOS (3.11), of the modules that membench could
# reach for.
LINUX_ALONE: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *(
            "posix_fallocate",
            "posix_fadvise",
            "fdatasync",
            "copy_file_range",
            "memfd_create",
            "splice",
            "eventfd",
            "pipe2",
        ),
        *(
            "sched_getaffinity",
            "sched_setaffinity",
            "getrandom",
            "pidfd_open",
            "getxattr",
            "setxattr",
            "listxattr",
            "removexattr",
        ),
        *("O_TMPFILE", "O_DIRECT", "O_NOATIME", "O_PATH", "RWF_DSYNC", "preadv2"),
    ),
    resource: ("prlimit",),
    fcntl: ("F_OFD_SETLK", "F_ADD_SEALS", "F_SETPIPE_SZ"),
    select: ("epoll",),
    signal: ("sigtimedwait", "sigwaitinfo", "SIGRTMIN"),
}


@pytest.fixture
def without_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    for module, calls in LINUX_ALONE.items():
        for call in calls:
            monkeypatch.delattr(module, call, raising=False)


def test_the_main_paths_need_nothing_that_linux_alone_has(
    without_linux: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "runs")
    command = [
        "run",
        "--detector",
        "cfg_norm,random",
        "--task",
        "sd_webster",
        "--limit",
        "4",
        "--runs",
        out,
        "--offline",
        "--quiet",
    ]
    assert main([*command, "--set", "cfg_norm.steps=2", "--set", "random.draws=2"]) == 0
    assert main(["leaderboard", "--runs", out, "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("cfg_norm") > 0
    assert main(["report", "--runs", out, "--output", str(tmp_path / "report")]) == 0


def test_faces_and_their_cache_need_nothing_that_linux_alone_has(
    without_linux: None, tmp_path: Path
) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    for i in range(3):
        Image.new("RGB", (178, 218), (60 * i, 10, 20)).save(
            tmp_path / "img_align_celeba" / f"{i + 1:06}.jpg", quality=95
        )
    found = read_celeba(tmp_path, 64, progress=False).images[:, 32, 32].astype(int)
    assert np.abs(found - [[60 * i, 10, 20] for i in range(3)]).max() <= 3  # JPEG


def test_cores_are_those_of_the_process_or_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert host.cores() == (12 if sys.platform == "darwin" else 3)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert host.cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.cores() == 1


@pytest.mark.parametrize(("system", "peak"), [("linux", 3 * 2**10), ("darwin", 3 * 2**20)])
def test_peak_memory_is_in_mib(system: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Usage = namedtuple("Usage", "ru_maxrss")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: Usage(peak + 7))
    assert host.peak_memory_mb() == 3


@pytest.mark.parametrize("refusal", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_full_disk_is_told_where_nothing_can_be_reserved(
    refusal: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such call, or a file system that does not know it: what is free is looked at
    before the work.
    """

    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal or 0))

    if refusal is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Usage = namedtuple("Usage", "free")
    # A header takes 128
    monkeypatch.setattr(
        host.shutil, "disk_usage", lambda folder: Usage(139 if folder == tmp_path else 0)
    )
    with pytest.raises(
        UserError, match=r"cannot write x-\w+.npy in .*: No space left on device; mend it"
    ):
        cached_array(
            "x", {}, rows.shape, np.uint8, lambda: pytest.fail("worked for nothing"), root=tmp_path
        )
    monkeypatch.setattr(
        host.shutil, "disk_usage", lambda folder: Usage(140 if folder == tmp_path else 0)
    )
    assert np.array_equal(
        cached_array("x", {}, rows.shape, np.uint8, lambda: iter([rows]), root=tmp_path), rows
    )
