"""Several detectors on several tasks, and one table of all of it. A cell without a number says why."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from membench.executor import Executor
from membench.jobs import open_task
from membench.printing import COPIES, DETECTION, interval, table
from membench.run_report import run_summary
from membench.runner import Run, Skipped, Spec, execute_all


@dataclass(frozen=True)
class Grid:
    """Runs in order of task and detector; those that were left out, with the reason; what it took."""

    runs: list[Run]
    skipped: list[Skipped]
    seconds: float


def run_grid(specs: Sequence[Sequence[Spec]], out: Path, *, skip: bool, progress: bool = True, executor: Executor | None = None) -> Grid:
    """Runs the specs of each task side by side. skip: leave out detectors that do not suit a task, instead of refusing the task.
    executor: who computes the shards; None: this process.

    Raises :class:`UserError`; runs that were finished before it are kept.
    """
    began, runs, skipped = time.monotonic(), [], []
    for of_task in specs:  # a mistake in the last task's options must not cost the first its hours
        open_task(of_task[0])
    for k, of_task in enumerate(specs):
        if len(specs) > 1:
            print(f"membench: task {k + 1} of {len(specs)}: {of_task[0].task}", file=sys.stderr)
        left_out: list[Skipped] | None = [] if skip else None
        for run in execute_all(of_task, out, progress=progress, skipped=left_out, executor=executor):
            print(f"{run.info['detector']}: {run.info['seconds']:.0f} s, written to {run.path}", file=sys.stderr)
            runs.append(run)
        skipped += left_out or []
    return Grid(runs, skipped, time.monotonic() - began)


def skipped_lines(grid: Grid) -> Iterator[str]:
    """A line for each detector that was left out."""
    for s in grid.skipped:
        yield f"left out: {s.detector} on {s.task}: {s.reason}"


def grid_table(grid: Grid) -> str:
    """Detection and extraction: a row a detector, a column a task. Then what each run cost and where it lies."""
    tasks = list(dict.fromkeys([r.info["task"] for r in grid.runs] + [s.task for s in grid.skipped]))
    names = sorted({r.info["detector"] for r in grid.runs} | {s.detector for s in grid.skipped})
    runs = {(r.info["task"], r.info["detector"]): r for r in grid.runs}
    parts = []
    for title, metrics in (("detection", DETECTION), ("extraction", COPIES)):
        shown = {"detection": ("auroc", "tpr_at_fpr_0.01"), "extraction": tuple(COPIES)}[title]
        rows = []
        for name in names:
            cells = {f"{task} {metrics[m]}": _cell(runs.get((task, name)), m) for task in tasks for m in shown}
            rows.append({"detector": name, **cells})
        parts.append(table(f"{title}, {_settings(grid.runs)}, 95 % intervals over groups", pd.DataFrame(rows)))
    runs_word = "run" if len(grid.runs) == 1 else "runs"
    done = f"{len(grid.runs)} {runs_word} on {len(tasks)} task{'s' * (len(tasks) > 1)} in {grid.seconds / 60:.1f} min"
    return "\n".join([*parts, *map(run_summary, grid.runs), done])


def _settings(runs: Sequence[Run]) -> str:
    if not runs:
        return "no run"
    info = runs[0].info
    return f"{info['profile']}{', CONTROL models' if info['control'] else ''}, seed {info['seed']}"


def _why(run: Run, metric: str) -> str:
    """Why a metric has no value."""
    labels = run.scores[run.scores.status == "ok"].label
    negatives = int((labels == 0).sum())
    if labels.nunique() < 2:
        return "n/a: one label"
    return f"n/a: {negatives} negatives" if metric.startswith("tpr") else "n/a: not supported"


def _cell(run: Run | None, metric: str) -> str:
    if run is None:
        return "left out"
    m = run.metrics
    row = m[(m.metric == metric) & (m.subset == "all") & m.band.isna()]
    if row.empty:
        if metric in DETECTION:
            return "not scored" if run.scores.empty else _why(run, metric)
        return "no images"
    r = row.iloc[0]
    if pd.isna(r["value"]):
        return _why(run, metric)
    return interval(r["value"], r.low, r.high, scale=1 if metric in DETECTION else 100, digits=3 if metric in DETECTION else 2)
