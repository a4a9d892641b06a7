"""A run that is ended between any two files goes on and ends with the same numbers.

A child ends itself at the k-th file that it puts into its place; the same command is
then run to its end. Some of all k, under a seed that is printed (MEMBENCH_FUZZ).
"""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from membench.cli.main import main
from membench.storage.tables import SCHEMAS

SEED = int(os.environ.get("MEMBENCH_FUZZ") or time.time_ns() // 1000 % 10**6)
RUN = ["run", "--detector", "caption_length", "--task", "sd_webster"]
RUN += ["--limit", "70", "--quiet", "--runs"]
ROUNDS = 3


def forked(act: Callable[[], int]) -> int:
    """The exit code of a child that runs ``act``, or minus the signal that ended it."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(root: Path, at: int | None = None, how: int = signal.SIGKILL) -> tuple[int, int]:
    """Runs the command in a child that ends itself by a signal before its at-th
    ``os.replace``; its exit code, and how many there were.
    """
    count, replace = root.with_suffix(".count"), os.replace

    def counted(old: str, new: str) -> None:
        done = int(count.read_text())
        if done == at:
            os.kill(os.getpid(), how)
        count.write_text(str(done + 1))
        replace(old, new)

    def act() -> int:
        os.replace = counted  # type: ignore[assignment]  # in a child
        return main([*RUN, str(root)])

    count.write_text("0")
    return forked(act), int(count.read_text())


def tables(root: Path) -> dict[str, object]:
    return {
        str(file.relative_to(root)): pq.read_table(file).to_pydict()
        for file in sorted(root.rglob("*.parquet"))
    }


def test_a_run_that_ends_between_any_two_files_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    code, many = run(tmp_path / "whole")
    whole = tables(tmp_path / "whole")
    assert code == 0 and len(whole) >= len(SCHEMAS) and many > len(whole)
    rng = random.Random(SEED)
    for nth, how in enumerate([signal.SIGKILL] * (ROUNDS - 1) + [signal.SIGINT]):
        at = rng.randrange(many)
        root = tmp_path / str(nth)
        told = f"MEMBENCH_FUZZ={SEED}: {signal.Signals(how).name} before file {at} of {many}"
        code, _ = run(root, at, how)
        assert code == (130 if how == signal.SIGINT else -how), told
        assert run(root)[0] == 0, told
        assert tables(root) == whole, told
        left = [p.name for p in root.rglob("*") if ".partial" in p.name or p.name == "shards"]
        assert not left, f"{told}: {left}"


def test_ctrl_c_while_the_command_line_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "membench.cli.main", Slow("membench.cli.main"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("membench", run_name="__main__")
    assert ended.value.code == 130 and capsys.readouterr().err == "membench: stopped\n"
