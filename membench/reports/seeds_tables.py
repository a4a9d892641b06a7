"""Boards over seeds as tables, and the summary of several tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from membench.boards.identity import BOARD, DETERMINISTIC, marked
from membench.boards.seeds import SUBSETS
from membench.errors import UserError
from membench.metrics.names import COPIES
from membench.reports.board_tables import (
    alike_lines,
    captions_lines,
    shown_detection,
    unlabelled,
    unlabelled_lines,
    unsupported,
)
from membench.reports.text import interval, number, supported

# ----------------------------------------------------------------------------- printing


def seeds_tables(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes below it) of a board's rows of :func:`over_seeds`.

    A metric of no row is left out.
    """
    control = bool(frame.control.iloc[0])
    out = pd.DataFrame(
        {
            name: frame[name].astype(str)
            for name in ("detector", "options", *SUBSETS, "seeds")
            if name in frame
        }
    )
    out["detector"] = [
        marked(name, status) for name, status in zip(frame.detector, frame.status, strict=True)
    ]
    if "deterministic" in frame:
        out["seeds"] = out.seeds.mask(frame.deterministic.astype(bool), DETERMINISTIC)
    for metric, title in shown_detection(frame).items():
        some = (
            metric in frame
            and frame[metric if not metric.startswith("tpr_at_fpr_") else "auroc"].notna().any()
        )
        if some:  # a TPR that no row's negatives support says what it needs
            out[title] = [
                supported(_cell(row, metric, 1), metric) if row.auroc == row.auroc else "n/a"
                for _, row in frame.iterrows()
            ]
    if "control_auroc" in frame and frame.control_auroc.notna().any():
        out["control AUROC"] = [
            of_control(_cell(row, "control_auroc", 1) + _fewer(row), row)
            for _, row in frame.iterrows()
        ]
    if "reported_auroc" in frame:
        out["reported AUROC"] = [
            "none" if pd.isna(value) else f"{value:.3f}" for value in frame.reported_auroc
        ]
    for metric, title in COPIES.items():
        if metric in frame and frame[metric].notna().any():
            out[title] = [_cell(row, metric, 100) for _, row in frame.iterrows()]
    if "excess_ams" in frame and not control and frame.excess_ams.notna().any():
        out["excess AMS %"] = [_cell(row, "excess_ams", 100) for _, row in frame.iterrows()]
        out["excess UMS %"] = [_cell(row, "excess_ums", 100) for _, row in frame.iterrows()]
    if "forwards_per_example" in frame:
        evaluations = frame.forwards_per_example + frame.jvps_per_example
        columns = {"N_G": frame.n_g, "eval/ex": evaluations, "seconds": frame.seconds}
        out = out.assign(
            **{title: values.map(number) for title, values in columns.items()},
            sees=frame.sees,
            commit=frame.commit,
        )
    out["scored"] = [_scored(row) for _, row in frame.iterrows()]
    yield "over seeds", out, list(_notes(frame))


def _cell(row: pd.Series, metric: str, scale: int) -> str:
    text = interval(
        row[metric],
        row[f"{metric}_low"],
        row[f"{metric}_high"],
        scale=scale,
        digits=1 if scale == 100 else 3,
    )
    n = row.get(f"{metric}_seeds", row.seeds)
    return text if n in (0, row.seeds) else f"{text} ({n} of {row.seeds} seeds)"


def of_control(cell: str, row: pd.Series) -> str:
    """A cell with a number of the row's control run, marked where that is not whole."""
    status = row.get("control_status")
    return marked(cell, status) if isinstance(status, str) else cell


def _fewer(row: pd.Series) -> str:
    """Of a control with fewer seeds than the model's row."""
    held = row.get("control_seeds", row.seeds)
    return f" ({held} of {row.seeds} seeds)" if 0 < held < row.seeds else ""


def _scored(row: pd.Series) -> str:
    partial = "" if row["status"] == "complete" else "PARTIAL"
    if "scored" not in row:
        return partial
    done = (
        "extraction only"
        if row["extract_only"]
        else f"{row['scored']:.0f}/{row['of']}{unlabelled(row)}"
    )
    return f"{done} {partial}".strip()


def _notes(frame: pd.DataFrame) -> Iterable[str]:
    yield (
        "means over seeds; 95 % intervals over groups of near-duplicate examples and over seeds; of"
        " a single seed, over groups alone"
    )
    yield from alike_lines(frame)
    if "negatives" in frame:
        yield from unlabelled_lines(frame)
        yield from unsupported(frame)
    yield from captions_lines(frame)


def summary_tables(
    frame: pd.DataFrame, *, images: bool = True
) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(title, text, notes) of rows of ``seeds_table.over_seeds``. images: with the AMS
    of what each detector extracts.

    Rows in the order of their mean AUROC, in which a missing one is 0.5.

    Raises :class:`UserError` where a task has several boards, or a board two settings
    of one name, which a small table cannot keep apart.
    """
    if "seeds" not in frame:
        raise UserError(
            "--by summary is over seeds: this leaderboard was written without --by seeds"
        )
    model = frame[~frame.control.astype(bool)]
    for task, rows in model.groupby("task"):
        if len(rows.drop_duplicates(list(BOARD))) > 1:
            raise UserError(
                f"--by summary needs one board a task, and {task} has several; choose by --runs, or"
                " use --by seeds"
            )
        if twice := [
            " ".join(name).strip()
            for name, same in rows.groupby(["detector", "options"])
            if len(same) > 1
        ]:
            raise UserError(
                f"--by summary: {task} has two settings of {twice[0]}, such as of two versions;"
                " choose by --runs"
            )
    if model.empty:
        raise UserError(
            "--by summary needs runs on a model; there are runs on control models alone"
        )
    tasks, names = sorted(model.task.unique()), ["detector", "options"]
    # A task that a detector is left out of counts as chance, so that one good task does
    # not put it above those with three.
    wide = model.set_index([*names, "task"]).auroc.unstack("task").fillna(0.5).sort_index()
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    out = pd.DataFrame(list(order), columns=names)
    for task in tasks:
        rows = model[model.task == task].set_index(names)
        out[f"{task} AUROC"] = [_summary_cell(rows, key, "auroc", 1) for key in order]
        if rows.control_auroc.notna().any():
            out[f"{task} control"] = [
                _summary_cell(rows, key, "control_auroc", 1, short=True) for key in order
            ]
    for task in tasks if images else ():
        rows = model[model.task == task].set_index(names)
        out[f"{task} AMS %"] = [
            _summary_cell(rows, key, "ams_cumulative", 100, short=True) for key in order
        ]
    least, most = int(model.seeds.min()), int(model.seeds.max())
    seeds = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    if model.get("deterministic", pd.Series(False, model.index)).any():
        seeds += f" ({DETERMINISTIC}: the same scores for each of them)"
    note = (
        f"mean of {seeds}; 95 % intervals over groups and seeds; control: AUROC on a model that"
        " never saw the data"
    )
    if images:
        note += "; AMS: copies among the images that an attack extracts (--by attack)"
    captions = [
        f"{task}: {line}" for task in tasks for line in captions_lines(model[model.task == task])
    ]
    yield "summary", out, [note, *captions]


def _summary_cell(
    rows: pd.DataFrame, key: tuple[str, str], metric: str, scale: int, short: bool = False
) -> str:
    if key not in rows.index:
        return "left out"
    row = rows.loc[key]
    digits = 1 if scale == 100 else 3
    value = row[metric]
    if pd.isna(value):
        return "not run" if metric.startswith("control") else "n/a"
    status = row.get("control_status") if metric.startswith("control") else row.status
    return marked(
        _number(row, metric, scale, digits, short), "partial" if status == "partial" else "complete"
    )


def _number(row: pd.Series, metric: str, scale: int, digits: int, short: bool) -> str:
    value, low, high = row[metric], row[f"{metric}_low"], row[f"{metric}_high"]
    seeds = int(row.control_seeds) if metric.startswith("control") else int(row.seeds)
    if short and seeds < row.seeds:
        return f"{value * scale:.{digits}f} ({seeds} seed{'s' * (seeds > 1)})"
    if short:
        return f"{value * scale:.{digits}f}"
    text = interval(value, low, high, scale=scale, digits=digits)
    return f"{text} ({DETERMINISTIC})" if row.get("deterministic", False) else text
