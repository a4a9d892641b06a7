"""The folder of Ray's files, and a cluster that does not start: without Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from membench.errors import UserError
from membench.runs.ray_cluster import own_folder, start


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
            try:
                assert driver.stdout
                theirs = Path(driver.stdout.readline().strip())
                (theirs / "session").mkdir()
                ours, lock = own_folder()
                assert theirs.is_dir() and ours.is_dir() and ours != theirs
            finally:
                driver.kill()
                driver.wait()
        lock.release()
        again, lock = own_folder()
        lock.release()
        assert {f.name for f in place.iterdir()} == {"mb-somebody", again.name}
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because.\nMore"),
        RuntimeError("no port"),
        OSError("no room"),
        Exception(),
    ],
)
def test_a_cluster_that_does_not_start_is_one_line(error: Exception) -> None:
    def init(**_: object) -> None:
        raise error

    with pytest.raises(UserError, match="Ray cannot be started here") as found:
        start(SimpleNamespace(init=init), 2, "/tmp")
    assert "\n" not in str(found.value) and "leave --executor ray out" in str(found.value)
