"""The table of several runs that one ``membench run`` made: a row a detector, a column a
task.
"""

from __future__ import annotations

import pandas as pd

from membench.boards.identity import asked, common, mixed
from membench.metrics.names import COPIES, DETECTION
from membench.reports.run_summary import run_summary
from membench.reports.terminal import table
from membench.reports.text import interval, with_more
from membench.runs.finished import Run
from membench.runs.grid import Grid


def grid_table(grid: Grid) -> str:
    """Detection and extraction: a row a detector, a column a task, with their options
    where one has run with several.

    Then what each run cost and where it lies.
    """
    infos = [run.info for run in grid.runs]
    columns = with_more(
        [info["task"] for info in infos],
        [" ".join(info["task_options_passed"]) for info in infos],
    )
    lines = with_more([info["detector"] for info in infos], [asked(info) for info in infos])
    lines = [f"{line} {more}".strip() for line, more in zip(lines, mixed(infos), strict=True)]
    tasks = list(dict.fromkeys([*columns, *(s.task for s in grid.skipped)]))
    names = sorted({*lines, *(s.detector for s in grid.skipped)})
    runs = dict(zip(zip(columns, lines, strict=True), grid.runs, strict=True))
    settings = common(infos) if infos else "no run"
    parts = []
    for title, metrics in (("detection", DETECTION), ("extraction", COPIES)):
        shown = {"detection": ("auroc", "tpr_at_fpr_0.01"), "extraction": tuple(COPIES)}[title]
        rows = []
        for name in names:
            cells = {
                f"{task} {metrics[m]}": _grid_cell(runs.get((task, name)), m)
                for task in tasks
                for m in shown
            }
            rows.append({"detector": name, **cells})
        parts.append(
            table(
                f"{title}, {settings}, 95 % intervals over groups",
                pd.DataFrame(rows),
            )
        )
    runs_word = "run" if len(grid.runs) == 1 else "runs"
    many = len({of["task"] for of in infos} | {s.task for s in grid.skipped})
    done = (
        f"{len(grid.runs)} {runs_word} on {many} task{'s' * (many > 1)} in"
        f" {grid.seconds / 60:.1f} min"
    )
    return "\n".join([*parts, *map(run_summary, grid.runs), done])


def _why(run: Run, metric: str) -> str:
    """Why a metric has no value."""
    labels = run.scores[run.scores.status == "ok"].label
    negatives = int((labels == 0).sum())
    if labels.nunique() < 2:
        return "n/a: one label"
    return f"n/a: {negatives} negatives" if metric.startswith("tpr") else "n/a: not supported"


def _grid_cell(run: Run | None, metric: str) -> str:
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
    return interval(
        r["value"],
        r.low,
        r.high,
        scale=1 if metric in DETECTION else 100,
        digits=3 if metric in DETECTION else 2,
    )
