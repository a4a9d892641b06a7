"""The folder of Ray's files, which needs no Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from membench.runs.ray_cluster import own_folder


def test_folders_of_killed_drivers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the living, and folders that only have such a name, stay."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        (place / "mb-somebody").mkdir()
        code = (
            "import tempfile, time; from membench.runs.ray_cluster import own_folder;"
            f" tempfile.tempdir = {str(place)!r}; kept = own_folder(); print(kept[0], flush=True);"
            " time.sleep(600)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as driver:
            assert driver.stdout
            theirs = Path(driver.stdout.readline().strip())
            (theirs / "session").mkdir()
            ours, lock = own_folder()
            assert theirs.is_dir() and ours.is_dir() and ours != theirs
            driver.kill()
            driver.wait()
        lock.release()
        again, lock = own_folder()
        lock.release()
        assert {f.name for f in place.iterdir()} == {"mb-somebody", again.name}
    finally:
        shutil.rmtree(place)
