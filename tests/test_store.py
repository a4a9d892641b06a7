"""Run folders: keys that must not drift, and runs that are killed, resumed and raced."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from frames import names, scores, tables

from membench.errors import UserError
from membench.runs.folder import RunFolder
from membench.runs.images import Samples
from membench.runs.stored import is_finished, read_info, read_run
from membench.storage import hashing
from membench.storage.files import DamagedFile
from membench.storage.hashing import content_key
from membench.storage.tables import SCHEMAS, write_table

PARTS = {
    "task": "sd_webster",
    "task_version": 1,
    "seed": 0,
    "options": {"steps": 1, "scale": 7.5, "times": (1, 2)},
    "caption": "é",
}
KEY = "55918123febe4f15"


def opened(root: Path, parts: dict = PARTS) -> RunFolder:
    return RunFolder.open(root, "sd_webster", "mini", "cfg_norm", KEY, parts)


def finished(*ids: str) -> tuple[dict, Samples]:
    """What ``finish`` is given of a run with these examples."""
    held = tables(*ids)
    return held, Samples.of([held.pop("samples")])


# --------------------------------------------------------------------------------- keys


def test_golden_key() -> None:
    """A key that drifts orphans everybody's runs: change it only together with
    KEY_VERSION.
    """
    assert content_key(PARTS) == KEY
    canonical = (
        '{"caption":"é","key_version":1,"options":{"scale":7.5,"steps":1,"times":[1,2]},'
        '"seed":0,"task":"sd_webster","task_version":1}'
    )
    assert hashlib.sha256(canonical.encode()).hexdigest()[:16] == KEY


def test_key_depends_on_content_not_order() -> None:
    assert content_key(dict(reversed(PARTS.items()))) == KEY
    assert content_key({**PARTS, "seed": 1}) != KEY
    with pytest.raises(ValueError):
        content_key({"x": float("nan")})
    with pytest.raises(TypeError):
        content_key({"x": {1, 2}})


def test_key_version_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "KEY_VERSION", 2)
    assert content_key(PARTS) != KEY


# ------------------------------------------------------------------------------ folders


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"cannot write in .*runs.*--runs"):
        opened(tmp_path / "runs")


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        assert (
            folder.path == tmp_path / "sd_webster" / "mini" / "cfg_norm" / KEY
            and not folder.complete
        )
        folder.start({"device": "cpu", "seed": 0})
        run = json.loads((folder.path / "run.json").read_text())
        assert (
            run["status"] == "running"
            and run["schema_version"] == 1
            and run["key"] == KEY
            and run["device"] == "cpu"
        )
        assert run["key_parts"]["options"]["times"] == [1, 2]
        assert (
            not folder.shard_done("scores", 0)
            and len(folder.read_shards("scores")) == 0
            and folder.costs() == {}
        )
        folder.write_shard("scores", 1, scores("a"), {"forwards": 2, "seconds": 0.5})
        folder.write_shard("scores", 0, scores("c", "b"), {"forwards": 3, "seconds": 0.25})
        assert (
            folder.shard_done("scores", 0)
            and not folder.shard_done("samples", 0)
            and not folder.complete
        )
        assert list(folder.read_shards("scores", expected=["a", "b", "c"]).id) == ["c", "b", "a"]
        assert folder.costs() == {"scores": {"forwards": 5, "seconds": 0.75}}
        assert not is_finished(folder.path)
        folder.finish(*finished("c", "b", "a"), {"status": "complete", "seconds": 1.5})
        assert folder.complete and is_finished(folder.path)
    assert names(folder.path) == {".lock", "run.json", *(f"{name}.parquet" for name in SCHEMAS)}
    run, frames = read_run(folder.path)
    assert (
        run["status"] == "complete"
        and run["seconds"] == 1.5
        and run["device"] == "cpu"
        and set(frames) == set(SCHEMAS)
    )
    assert list(frames["scores"].id) == ["a", "b", "c"] and list(frames["samples"].sample_id) == [
        "a/0",
        "b/0",
        "c/0",
    ]
    assert set(read_run(folder.path, ["metrics"])[1]) == {"metrics"}


def test_shards_that_a_kill_left_beside_a_finished_run_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between run.json and their removal; while tables are missing they are needed."""
    with opened(tmp_path) as folder:
        folder.start({})
        folder.write_shard("scores", 0, scores("a"))
        monkeypatch.setattr(RunFolder, "cleanup_shards", lambda self: None)
        folder.finish(*finished("a"), {"status": "complete"})
        monkeypatch.undo()
    held = (table := folder.path / "matches.parquet").read_bytes()
    table.unlink()
    with opened(tmp_path):
        assert (folder.path / "shards").is_dir()
    table.write_bytes(held)
    with opened(tmp_path) as folder:
        assert folder.complete and not (folder.path / "shards").exists()


def test_partial_is_done_but_a_lost_table_is_not(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.start({})
        folder.finish(*finished("a"), {"status": "partial"})
    with opened(tmp_path) as folder:
        assert folder.complete and folder.run["status"] == "partial"
        (folder.path / "matches.parquet").unlink()
        assert not folder.complete
    with pytest.raises(UserError, match=r"matches\.parquet is not there"):
        read_run(folder.path)


def test_tables_that_are_made_again_do_not_keep_an_older_page(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.start({})
        folder.finish(*finished("a"), {"status": "complete"})
        page = folder.path / "report.html"
        page.write_text("of older metrics")
        (folder.path / "metrics.parquet").unlink()
    with opened(tmp_path) as folder:
        assert not folder.complete and page.exists()
        folder.start({})
        folder.finish(*finished("a"), {"status": "complete"})
    assert not page.exists()


def test_resuming_keeps_shards_and_tells_what_differed(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.start({"versions": {"torch": "1"}, "device": "cpu"})
        folder.write_shard("scores", 0, scores("a"))
        (folder.path / "shards" / ".scores-00001.parquet.99.partial").write_bytes(b"half")
    with opened(tmp_path) as folder:
        folder.start({"versions": {"torch": "2"}, "device": "cpu"})
        assert folder.shard_done("scores", 0) and names(folder.path / "shards") == {
            "scores-00000.parquet"
        }
    assert folder.run["earlier"] == [{"versions": {"torch": "1"}}] and folder.run["versions"] == {
        "torch": "2"
    }
    with opened(tmp_path) as folder:
        folder.start({"versions": {"torch": "2"}, "device": "cpu"})
    assert len(folder.run["earlier"]) == 1


def test_a_damaged_shard_is_deleted_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path) as folder:
        folder.write_shard("scores", 0, scores("a"))
        shard = folder.path / "shards" / "scores-00000.parquet"
        shard.write_bytes(shard.read_bytes()[:-9])
        with pytest.raises(DamagedFile, match="scores-00000"):
            folder.read_shards("scores")
        assert not folder.shard_done("scores", 0) and not shard.exists()
    out = capsys.readouterr()
    assert (
        out.out == ""
        and "scores-00000.parquet is damaged; it is deleted and computed again" in out.err
    )


def test_a_shard_that_does_not_say_what_it_cost_is_damaged(tmp_path: Path) -> None:
    """Of a copy that lost the file's notes, or holds odd ones."""
    notes: list[dict[str, str] | None]
    notes = [None, {"cost": "x"}, {"cost": "[1]"}]
    notes += [{"cost": f'{{"forwards": {n}}}'} for n in ('"many"', "true", "-1", "NaN", "1e999")]
    with opened(tmp_path) as folder:
        for note in notes:
            shard = folder.path / "shards" / "scores-00000.parquet"
            write_table(shard, scores("a"), "scores", note)
            with pytest.raises(DamagedFile, match="does not say what it cost"):
                folder.costs()
            assert not folder.shard_done("scores", 0) and not shard.exists()


@pytest.mark.parametrize("odd", [{"key_parts": None}, {"key_parts": [1]}, {"earlier": 5}, None])
def test_a_run_is_not_taken_up_from_an_odd_run_json(tmp_path: Path, odd: dict | None) -> None:
    with opened(tmp_path) as folder:
        folder.start({})
    file = folder.path / "run.json"
    held = {"schema_version": 1} if odd is None else {**json.loads(file.read_text()), **odd}
    file.write_text(json.dumps(held))
    with pytest.raises(DamagedFile, match=r"run\.json is damaged; delete .* and run again"):
        opened(tmp_path)


def test_a_newer_shard_is_not_deleted(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        shard = folder.path / "shards" / "scores-00000.parquet"
        folder.write_shard("scores", 0, scores("a"))
        pq.write_table(pq.read_table(shard).replace_schema_metadata({"schema_version": "9"}), shard)
        with pytest.raises(UserError, match="newer membench"):
            folder.shard_done("scores", 0)
        assert shard.exists()


def test_ids_must_be_unique_and_complete(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.write_shard("scores", 0, scores("a", "b"))
        with pytest.raises(UserError, match="1 scores missing or foreign, such as c"):
            folder.read_shards("scores", expected=["a", "b", "c"])
        with pytest.raises(UserError, match="1 scores missing or foreign, such as b"):
            folder.read_shards("scores", expected=["a"])
        folder.write_shard("scores", 1, scores("b"))
        with pytest.raises(UserError, match="b stands twice among the scores"):
            folder.read_shards("scores")
        with pytest.raises(UserError, match="a stands twice among the scores"):
            folder.finish({"scores": scores("a", "a")}, Samples.of([]), {"status": "complete"})
        assert not (folder.path / "scores.parquet").exists()
        folder.start({})
        folder.finish(*finished("a"), {"status": "complete"})
    write_table(folder.path / "scores.parquet", scores("a", "a"), "scores")
    with pytest.raises(UserError, match="a stands twice"):
        read_run(folder.path)


def test_other_parts_under_the_same_key_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.start({})
    with pytest.raises(
        UserError, match="holds a run with other seed, task_version; move it away"
    ) as error:
        opened(tmp_path, {**PARTS, "seed": 1, "task_version": 2})
    opened(tmp_path).close()  # the refusal let go of the lock, also while somebody looks at it:
    assert error.tb


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with opened(tmp_path):
        pool = multiprocessing.get_context("fork").Pool(1)
        with pool, pytest.raises(UserError, match="another process is writing to"):
            pool.apply(opened, (tmp_path,))
    opened(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path; import os, signal; from membench.runs.folder import RunFolder
place = Path({str(tmp_path)!r})
folder = RunFolder.open(place, "sd_webster", "mini", "cfg_norm", {KEY!r}, {PARTS!r})
folder.start({{}})
os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    assert done.returncode == -signal.SIGKILL
    with opened(tmp_path) as folder:
        assert folder.run["status"] == "running"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", r"run\.json is damaged"),
        ("[]", r"run\.json is damaged"),
        ("{}", r"run\.json is damaged"),
        ('{"schema_version": 0}', r"run\.json is damaged"),
        ('{"schema_version": 5}', "newer membench"),
        (None, "is not a run folder"),
    ],
)
def test_run_json_that_cannot_be_used(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_info(tmp_path)
