"""Where the command line writes: a closed or full output, and one that a plug-in closes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

DETECTOR = """
import sys
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    t: int = 1

class Shut:
    Options = Options
    version = 1

    def score(self, model, conditions, extracted):
        return [1.0] * len(conditions)

sys.stdout.close()
"""


@pytest.mark.parametrize(
    ("where", "code", "told"),
    [
        ("list >&-", 0, ""),
        ("list >/dev/full", 2, "membench: No space left on device; what is finished is kept\n"),
        ("list | true", 0, ""),
        ("nope 2>&-", 2, ""),
        ("list --plugin {file}", 2, "membench: a plug-in has closed the standard output"),
    ],
)
def test_output_that_cannot_be_written(tmp_path: Path, where: str, code: int, told: str) -> None:
    (tmp_path / "shut.py").write_text(DETECTOR)
    words = where.format(file=tmp_path / "shut.py")
    shell = f"set -o pipefail; {sys.executable} -m membench {words}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(told) and done.stderr.count("\n") == bool(told)
