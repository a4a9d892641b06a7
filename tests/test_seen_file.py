"""The file by which Ray's workers prove that they see the output folder: without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from membench.runs.execute import execute_all
from membench.runs.seen_file import put, remove_left
from membench.runs.spec import Spec


def test_those_of_killed_drivers_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """Those of the living stay, and so does what only has such a name."""
    (tmp_path / ".shared-folder").mkdir()
    (tmp_path / "text").write_text("mine")
    (tmp_path / ".shared-link").symlink_to(tmp_path / "text")
    code = (
        "import sys, time; from pathlib import Path; from membench.runs.seen_file import put;"
        " kept = put(Path(sys.argv[1])); print(kept.path.name, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout
            theirs = tmp_path / driver.stdout.readline().strip()
            ours = put(tmp_path)
            remove_left(tmp_path)
            assert (
                theirs.read_text()
                == ours.path.read_text()
                == ("membench's workers look for this file\n")
            )
        finally:
            driver.kill()
            driver.wait()
    assert theirs.exists()
    spec = Spec("caption_length", "sd_webster", limit=4)
    execute_all([spec], tmp_path, progress=False)
    assert not theirs.exists() and ours.path.exists()
    ours.remove()
    left = {file.name for file in tmp_path.glob(".shared-*")}
    assert left == {".shared-folder", ".shared-link"}
    assert (tmp_path / "text").read_text() == "mine"
