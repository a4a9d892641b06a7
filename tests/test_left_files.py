"""What a killed process left half written is removed when its file is written again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from membench.storage.files import atomic_write, remove_partial, write_json
from membench.storage.workspace import Workspace
from membench.types import Cost

WRITES = (
    "import sys, time; from pathlib import Path; from membench.storage.files import atomic_write\n"
    "def slowly(path):\n"
    "    path.write_text('half')\n"
    "    print(path.name, flush=True)\n"
    "    time.sleep(600)\n"
    "atomic_write(Path(sys.argv[1]), slowly)\n"
)


def test_what_a_killed_process_left_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    file = tmp_path / "board [1].parquet"
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(file)], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout
            left = tmp_path / writer.stdout.readline().strip()
            atomic_write(file, lambda path: path.write_text("whole"))
            assert left.read_text() == "half" and file.read_text() == "whole"
        finally:
            writer.kill()
            writer.wait()
    others = [
        left.with_name(left.name.replace("[1]", "[2]")),  # of another file
        left.with_name(left.name.replace(".parquet.", ".parquet.0x")),  # of another machine
        tmp_path / ".mine.partial",
    ]
    for other in others:
        other.write_text("theirs")
    atomic_write(file, lambda path: path.write_text("again"))
    assert not left.exists() and file.read_text() == "again"
    assert {p.name for p in tmp_path.iterdir()} == {file.name, *(p.name for p in others)}


def test_a_file_whose_process_cannot_be_asked_for_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {})
    seen: list[Path] = []
    atomic_write(tmp_path / "x.json", lambda path: (path.write_text("{}"), seen.append(path)))
    machine = seen[0].name.split(".")[3].split("-")[0]
    kept = [tmp_path / f".x.json.{machine}-{number}.partial" for number in ("1", "9" * 30)]
    for path in kept:
        path.write_text("half")
    write_json(tmp_path / "x.json", {"a": 1})
    assert all(path.exists() for path in kept)  # the first process of all lives


def test_a_page_that_is_being_written_stays(tmp_path: Path) -> None:
    """By another process, while a run is taken up in the page's folder."""
    seen: list[Path] = []
    atomic_write(tmp_path / "report.html", lambda path: (path.write_text(""), seen.append(path)))
    own = f"-{os.getpid()}.partial"
    names = [seen[0].name.replace(own, f"-{number}.partial") for number in (1, 2**31 - 1)]
    for name in (seen[0].name, *names):
        (tmp_path / name).write_text("half")
    remove_partial(tmp_path)
    assert {p.name for p in tmp_path.glob(".*")} == {names[0]}  # the first of all lives


@pytest.mark.parametrize("inside", [".", "deeper"])
def test_a_stage_that_is_made_again_holds_no_half_files(tmp_path: Path, inside: str) -> None:
    space = Workspace(tmp_path, {"weights": "w"})

    def killed(folder: Path) -> tuple[Cost, float]:
        (folder / inside).mkdir(exist_ok=True)
        (folder / inside / ".thing.abc-1.partial").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        space.stage("draw", {}, killed)

    def make(folder: Path) -> tuple[Cost, float]:
        (folder / "thing").write_text("whole")
        return Cost(), 0.0

    folder = space.stage("draw", {}, make).path
    assert not list(folder.rglob("*.partial")) and (folder / "thing").read_text() == "whole"
