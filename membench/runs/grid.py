"""Several detectors on several tasks, and one table of all of it.

A cell without a number says why.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from membench.runs.execute import Skipped, execute_all
from membench.runs.executor import Executor
from membench.runs.finished import Run
from membench.runs.job import open_task
from membench.runs.spec import Spec
from membench.types import Tracker


@dataclass(frozen=True)
class Grid:
    """Runs in order of task and detector; those that were left out, with the reason;
    what it took.
    """

    runs: list[Run]
    skipped: list[Skipped]
    seconds: float


def run_grid(
    specs: Sequence[Sequence[Spec]],
    out: Path,
    *,
    skip: bool,
    progress: bool = True,
    executor: Executor | None = None,
    quality: Sequence[str] = (),
    tracker: Tracker | None = None,
) -> Grid:
    """Runs the specs of each task side by side. skip: leave out detectors that do not
    suit a task, instead of refusing the task. executor: who computes the shards; None:
    this process. quality, tracker: of :func:`execute_all`.

    Raises :class:`UserError`; runs that were finished before it are kept.
    """
    began = time.monotonic()
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for of_task in specs:  # a mistake in the last task's options must not cost the first its hours
        open_task(of_task[0])
    for k, of_task in enumerate(specs):
        if len(specs) > 1 and progress:
            print(f"membench: task {k + 1} of {len(specs)}: {of_task[0].task}", file=sys.stderr)
        found = execute_all(
            of_task,
            out,
            progress=progress,
            skip=skip,
            executor=executor,
            quality=quality,
            tracker=tracker,
        )
        for run in found.runs if progress else ():
            print(
                f"{run.info['detector']}: {run.info['seconds']:.0f} s, written to {run.path}",
                file=sys.stderr,
            )
        runs += found.runs
        skipped += found.skipped
    return Grid(runs, skipped, time.monotonic() - began)
