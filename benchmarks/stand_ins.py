"""What ``boards.py`` and ``memory.py`` have in common: no model, runs that are another's
tables under other keys, and what a process of its own took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from membench.runs.finished import Run
from membench.runs.folder import RunFolder
from membench.runs.images import Samples
from membench.storage.hashing import content_key
from membench.storage.tables import read_table
from membench.types import Condition, Cost


class Silent:
    """In place of a model: nothing is asked of it."""

    steps, batch_size, memo = 1000, 64, None

    def __init__(self) -> None:
        self.cost = Cost()

    def condition(self, conditions: Sequence[Condition]) -> None:
        pass

    def ready_images(self) -> None:
        pass


class Made:
    """A run that was made, and whose tables other runs are given."""

    def __init__(self, run: Run, root: Path) -> None:
        self.run, self.root = run, root
        names = ("scores", "samples", "matches", "metrics", "nearest")
        files = {name: run.path / f"{name}.parquet" for name in names}
        self.tables = {n: read_table(file, n) for n, file in files.items() if file.exists()}
        self.samples = Samples.of([self.tables.pop("samples")])

    def again(self, tables: Mapping[str, pd.DataFrame], **parts: Any) -> None:
        """A run beside it: ``tables`` in place of its own, ``parts`` in its key and in its
        run.json, where ``options_passed`` alone stands.
        """
        told = {name: parts.pop(name) for name in ("options_passed",) if name in parts}
        key_parts = self.run.info["key_parts"] | parts
        drop = ("key", "key_parts", "schema_version")
        info = {name: value for name, value in self.run.info.items() if name not in drop}
        place = (self.run.info[name] for name in ("task", "profile", "detector"))
        with RunFolder.open(self.root, *place, content_key(key_parts), key_parts) as folder:
            folder.finish(self.tables | dict(tables), self.samples, info | parts | told)


class Took(NamedTuple):
    """code: of the exit, minus the signal. seconds: wall-clock; cpu: seconds of CPU;
    peak: of resident memory, MiB.
    """

    code: int
    seconds: float
    cpu: float
    peak: int


# What a process takes is asked by one that is small: Linux counts what the parent held
# before the start to the child's largest memory.
LAUNCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def measured(command: Sequence[str], **environment: object) -> Took:
    """What a process took. Of what it prints its errors are shown, if it fails."""
    given = {name: str(value) for name, value in environment.items()}
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", LAUNCH, *command],
        env={**os.environ, **given},
        capture_output=True,
        check=True,
    )
    code, cpu, most = json.loads(ended.stdout)
    if code > 0:
        sys.stderr.write(ended.stderr.decode(errors="replace"))
    peak = most // (2**20 if sys.platform == "darwin" else 2**10)
    return Took(code, time.monotonic() - began, cpu, peak)
