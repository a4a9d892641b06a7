"""Asking git for the commit leaves the user's repository as it is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from membench.storage import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_the_index_is_not_written_again(tmp_path: Path) -> None:
    """``git status`` would, under a lock that a killed process leaves behind."""
    copy = tmp_path / "membench" / "storage" / "provenance.py"
    copy.parent.mkdir(parents=True)
    shutil.copy(str(provenance.__file__), copy)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    os.utime(copy, (1e9, 1e9))  # so that git looks at its content again
    before = (tmp_path / ".git" / "index").read_bytes()
    spec = importlib.util.spec_from_file_location("copied_provenance", copy)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.commit()
    assert len(found["commit"]) == 40 and found["dirty"] is False
    assert (tmp_path / ".git" / "index").read_bytes() == before
    (tmp_path / "results").mkdir()
    for name in ("results/board.parquet", "README.md"):  # which change no number
        (tmp_path / name).write_text("")
    module.commit.cache_clear()
    assert module.commit()["dirty"] is False
    (tmp_path / "more.py").write_text("")
    module.commit.cache_clear()
    assert module.commit()["dirty"] is True
