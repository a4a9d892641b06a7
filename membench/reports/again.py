"""The command that makes a page of finished runs again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from membench.runs.places import REPORT, RUNS


def again(
    runs: Sequence[Path], output: Path, given: Sequence[str] = (), *, pdf: bool = False
) -> str:
    """``membench report`` of these folders of runs, on one line, so that it can be copied;
    what the command does by itself is left out. given: its other options, as words.
    """
    words = ["membench", "report"]
    words += ["--runs", *map(str, runs)] if list(runs) != [RUNS] else []
    words += given
    words += ["--output", str(output)] if output != REPORT else []
    words += ["--pdf"] if pdf else []
    return shlex.join(words)
