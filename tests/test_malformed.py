"""A sample of malformed inputs: each is used, or refused in one line; none ends in a
traceback. One seed is fixed, one is another each time (MEMBENCH_FUZZ sets it).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from malformed import inputs

from membench.errors import UserError

FIXED = 20
CHANGING = int(os.environ.get("MEMBENCH_FUZZ") or time.time_ns() // 1000 % 10**6)


@pytest.mark.parametrize("which", ["fixed", "changing"])
def test_malformed_inputs_are_used_or_refused_in_one_line(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = {"fixed": FIXED, "changing": CHANGING}[which]
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    faults, refused, count = [], 0, 0
    for name, call in inputs(random.Random(seed), tmp_path):
        count += 1
        try:
            call()
        except UserError as error:
            refused += 1
            told = capsys.readouterr().err.splitlines() or [str(error)]
            lines = [line for line in told if not line.startswith("membench: ")]
            if str(error) != "refused by the command line":
                lines = str(error).splitlines()[1:]
            if lines or max(map(len, told)) > 3000:
                faults.append(f"{name}: more than a line: {told[0][:200]!r} {lines[:2]}")
        except BaseException as error:
            if type(error) is KeyboardInterrupt:
                raise
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        capsys.readouterr()
    assert not faults, f"MEMBENCH_FUZZ={seed}: {len(faults)} of {count}:\n" + "\n".join(faults)
    assert count >= 200 and refused > count / 3
