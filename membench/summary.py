"""The leaderboard in one small table: a row a detector and its options, AUROC and AMS of each task, model beside control."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from membench.board_text import captions_lines
from membench.comparison import BOARD
from membench.errors import UserError
from membench.printing import DETERMINISTIC, interval, marked


def summary_tables(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(title, text, notes) of rows of ``seeds_table.over_seeds``. Rows in the order of their mean AUROC, in which a missing one is 0.5.

    Raises :class:`UserError` where a task has several boards, or a board two settings of one name, which a small table cannot keep apart.
    """
    if "seeds" not in frame:
        raise UserError("--summary is over seeds: this leaderboard was written without --seeds")
    model = frame[~frame.control.astype(bool)]
    for task, rows in model.groupby("task"):
        if len(rows.drop_duplicates(list(BOARD))) > 1:
            raise UserError(f"--summary needs one board a task, and {task} has several; choose by --runs, or leave --summary out")
        if twice := [" ".join(name).strip() for name, same in rows.groupby(["detector", "options"]) if len(same) > 1]:
            raise UserError(f"--summary: {task} has two settings of {twice[0]}, such as of two versions; choose by --runs")
    if model.empty:
        raise UserError("--summary needs runs on a model; there are runs on control models alone")
    tasks, names = sorted(model.task.unique()), ["detector", "options"]
    # A task that a detector is left out of counts as chance, so that one good task does not put it above those with three.
    wide = model.set_index([*names, "task"]).auroc.unstack("task").fillna(0.5).sort_index()
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    out = pd.DataFrame(list(order), columns=names)
    for task in tasks:
        rows = model[model.task == task].set_index(names)
        out[f"{task} AUROC"] = [_cell(rows, key, "auroc", 1) for key in order]
        if rows.control_auroc.notna().any():
            out[f"{task} control"] = [_cell(rows, key, "control_auroc", 1, short=True) for key in order]
    for task in tasks:
        rows = model[model.task == task].set_index(names)
        out[f"{task} AMS %"] = [_cell(rows, key, "ams_cumulative", 100, short=True) for key in order]
    least, most = int(model.seeds.min()), int(model.seeds.max())
    seeds = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    if model.get("deterministic", pd.Series(False, model.index)).any():
        seeds += f" ({DETERMINISTIC}: the same scores for each of them)"
    note = (
        f"mean of {seeds}; 95 % intervals over groups and seeds; control: AUROC on a model that never saw the data; AMS: copies among the "
    )
    captions = [f"{task}: {line}" for task in tasks for line in captions_lines(model[model.task == task])]
    yield "summary", out, [note + "images that the detector extracts", *captions]


def _cell(rows: pd.DataFrame, key: tuple[str, str], metric: str, scale: int, short: bool = False) -> str:
    if key not in rows.index:
        return "left out"
    row = rows.loc[key]
    digits = 1 if scale == 100 else 3
    value = row[metric]
    if pd.isna(value):
        return "not run" if metric.startswith("control") else "n/a"
    status = row.get("control_status") if metric.startswith("control") else row.status
    return marked(_number(row, metric, scale, digits, short), "partial" if status == "partial" else "complete")


def _number(row: pd.Series, metric: str, scale: int, digits: int, short: bool) -> str:
    value, low, high = row[metric], row[f"{metric}_low"], row[f"{metric}_high"]
    seeds = int(row.control_seeds) if metric.startswith("control") else int(row.seeds)
    if short and seeds < row.seeds:
        return f"{value * scale:.{digits}f} ({seeds} seed{'s' * (seeds > 1)})"
    if short:
        return f"{value * scale:.{digits}f}"
    text = interval(value, low, high, scale=scale, digits=digits)
    return f"{text} ({DETERMINISTIC})" if row.get("deterministic", False) else text
