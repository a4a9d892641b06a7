"""What ``membench run`` ends with: a verdict, one table, the files, the next command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from membench.boards.board import board
from membench.boards.collect import about
from membench.boards.counterparts import HALVES, counterparts, is_half, other_model
from membench.boards.identity import DETERMINISTIC, asked, marked
from membench.boards.judged import what_of
from membench.boards.mirror import half_of, mirror_rows, paired
from membench.boards.verdict import CONTROL, MIRROR, Verdict, control_verdict, mirror_verdict
from membench.plain import plain
from membench.reports.lines import folded
from membench.reports.run_summary import lacking
from membench.reports.short import told_apart
from membench.reports.terminal import laid_out
from membench.reports.text import interval, number, told_briefly
from membench.runs.finished import Run
from membench.runs.places import RUNS

LINES = 15


def run_end(runs: Sequence[Run], root: Path, room: int | None) -> str:
    """At most :data:`LINES` lines about runs that have just ended, best first.

    root: the folder of runs; the other model's runs that lie there are read, too. room:
    columns of the terminal; None: any. A table that is too long is cut between two
    rows, and says where all of them are.
    """
    runs = list({run.path: run for run in runs}.values())
    beside = counterparts(runs)
    pairs, others = paired([*runs, *beside])
    # Of the other half alone nothing was asked here
    halves = {run.path for run in beside if not run.info["control"]}
    others = [run for run in others if run.path not in halves]
    single = _single(others, runs, beside=bool(pairs))
    found = sorted([*_mirrored(pairs, runs), *single], key=lambda row: -row.value)
    # What is found without a model is no verdict on one
    judged = [row for row in found if row.asks] or found
    best = judged[0]
    task = f"{best.task}: " if len({row.task for row in found}) > 1 else ""
    first = folded(plain(f"{_partial(runs)}{task}{best.verdict.text}."), room)
    where = "" if root == RUNS else f" --runs {shlex.quote(str(root))}"
    last = [*folded(_files(runs, root), room), f"next: {_next(runs, judged)}{where}"]
    frame = pd.DataFrame([row.cells for row in found]).fillna("")
    frame["detector"] = told_briefly(
        frame.filter(["task", "detector", "profile", "dtype", "model"]), "detector"
    )
    frame, same = told_apart(frame)
    title = ", ".join(filter(None, [_about(runs), same]))
    for shown in range(len(frame), 0, -1):
        kept = frame[:shown].loc[:, (frame[:shown] != "").any()]
        text = laid_out(title, kept, room).splitlines()
        if shown < len(frame):
            text += [f"and {len(frame) - shown} more: membench leaderboard{where}"]
        if len(first) + len(text) + len(last) <= LINES:
            break
    return "\n".join([*first, *text, *last]) + "\n"


@dataclass(frozen=True)
class Row:
    """A row of the table; value: by which rows are ordered. task, detector, options: what
    ran. asks: whether the detector asks the model anything.
    """

    cells: Mapping[str, str]
    value: float
    verdict: Verdict
    task: str
    detector: str
    options: str
    asks: bool


def _mirrored(pairs: Sequence[Run], asked: Sequence[Run]) -> Iterator[Row]:
    """Rows of settings on both models; the sentence is of the model asked first."""
    if not pairs:
        return
    frame = mirror_rows(pairs)
    several = frame.task.nunique() > 1
    for _, r in frame[frame.kind == "all"].iterrows():
        cells = {"task": r.task} if several else {}
        cells |= {
            "detector": marked(f"{r.detector} {r.options}".strip(), r.status),
            "AUROC mirrored": interval(r.mirrored, r.mirrored_low, r.mirrored_high),
            "a / b": f"{r.auroc_a:.3f} / {r.auroc_b:.3f}",
            "TPR@1%": _alone(r.mirrored_tpr),
            "eval/ex": number(r.evaluations_per_example),
        }
        [first, *_] = _of_task(r.task, asked)
        found = mirror_verdict(r, what_of(first), half_of(first))
        ran = r.task, r.detector, r.options
        yield Row(cells, r.mirrored, found, *ran, r.evaluations_per_example > 0)


def _single(runs: Sequence[Run], asked: Sequence[Run], *, beside: bool) -> Iterator[Row]:
    """Rows of settings that are no pair; those of the other model alone are left out.

    beside: they stand below rows of pairs, in whose columns they are told.
    """
    if not runs:
        return
    seeds = len({run.info["seed"] for run in runs}) > 1
    frame = board(runs, "seeds" if seeds else "run").frame
    frame = frame[frame.control.isin({run.info["control"] for run in asked})]
    several = frame.task.nunique() > 1
    # A file of runs may name more than one of them
    mixed = [name for name in ("profile", "dtype") if frame[name].nunique() > 1]
    for _, r in frame.iterrows():
        cells = {"task": r.task} if several else {}
        cells["detector"] = marked(f"{r.detector} {r.options}".strip(), r.status)
        cells |= {name: r[name] for name in mixed}
        if frame.control.nunique() > 1:
            cells["model"] = "control" if r.control else "model"
        if r.extract_only:
            cells["images"] = number(r.n_ok)  # those that AMS is a share of
            cells["AMS copies %"] = interval(
                r.ams_cumulative, r.ams_cumulative_low, r.ams_cumulative_high, scale=100, digits=1
            )
            value = r.ams_cumulative
        else:
            half = _half(r, runs) if beside else ""
            if half:
                one = {half: f"{r.auroc:.3f}"}
                cells["AUROC mirrored"] = f"needs half {HALVES[half]}"
                cells["a / b"] = " / ".join(one.get(name, "n/a") for name in "ab")
            else:
                cells["AUROC"] = interval(r.auroc, r.auroc_low, r.auroc_high)
            if pd.notna(r.get("control_auroc")):
                cells["on control"] = f"{r.control_auroc:.3f}"
            cells["TPR@1%"] = _alone(r["tpr_at_fpr_0.01"])
            cells["eval/ex"] = number(r.forwards_per_example + r.jvps_per_example)
            value = r.auroc
        if seeds:
            cells["seeds"] = DETERMINISTIC if r.get("deterministic") else str(r.seeds)
        of_task = _of_task(r.task, asked)
        other = MIRROR if any(map(is_half, of_task)) else CONTROL
        found = control_verdict(r, what_of(of_task[0]), other, runs)
        value = value if pd.notna(value) else float("-inf")
        asks = bool(r.extract_only) or r.forwards_per_example + r.jvps_per_example > 0
        yield Row(cells, value, found, r.task, r.detector, r.options, asks)


def _of_task(task: str, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.info["task"] == task]


def _half(row: pd.Series, runs: Sequence[Run]) -> str:
    """The half whose model the run of a row asked; empty where there are none, or where
    it has no AUROC.
    """
    if pd.isna(row.auroc):
        return ""
    same = ("task", "detector", "options", "weights")
    of = [run for run in runs if is_half(run)]
    told = ((run, about(run)) for run in of)
    return next((half_of(run) for run, its in told if all(its[n] == row[n] for n in same)), "")


def _alone(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3f}"


def _partial(runs: Sequence[Run]) -> str:
    infos = [run.info for run in runs if run.info["status"] != "complete"]
    return f"PARTIAL ({lacking(infos)}; not comparable with whole runs): " if infos else ""


def _about(runs: Sequence[Run]) -> str:
    tasks = list(dict.fromkeys(run.info["task"] for run in runs))
    seconds = sum(run.info["seconds"] for run in runs)
    control = ", CONTROL model" if all(run.info["control"] for run in runs) else ""
    profiles = list(dict.fromkeys(run.info["profile"] for run in runs))
    word = "profile" if len(profiles) == 1 else "profiles"
    return f"{', '.join(tasks)}, {' and '.join(profiles)} {word}{control}, {seconds:,.0f} s"


def _files(runs: Sequence[Run], root: Path) -> str:
    if len(runs) == 1:
        return f"files: {runs[0].path} (report.html: the page)"
    return f"files: {len(runs)} folders under {root} (report.html in each: its page)"


def _next(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """The command that comes next, on one line, so that it can be copied."""
    for row in rows:
        if row.verdict.level == "open" and not runs[0].info["control"]:
            ran = row.task, row.detector, row.options
            infos = ((run, run.info) for run in runs)
            return other_model(
                next(run for run, i in infos if (i["task"], i["detector"], asked(i)) == ran)
            )
    # No labels, so no AUROC: what there is are the scores
    if all(row.verdict.level == "none" for row in rows):
        names = ",".join(dict.fromkeys(row.detector for row in rows))
        return f"membench leaderboard --by example --detector {names} --format csv"
    return f"membench {'leaderboard' if len(runs) > 1 else 'report'}"


def as_json(runs: Sequence[Run]) -> str:
    """A list of objects, one a run: folder, settings, status and its metrics over all
    examples by name, each with the ends of its interval. A missing number is null; the
    rarefaction curve, a number at each of many n, is in metrics.parquet.
    """
    found = []
    for run in runs:
        whole = run.metrics[(run.metrics.subset == "all") & run.metrics.band.isna()]
        single = whole[whole.metric != "rarefaction"]
        values = single[["metric", "value", "low", "high"]].astype(object)
        rows = values.where(values.notna(), None).itertuples(index=False)
        kept = ("detector", "task", "profile", "control", "seed", "status", "key", "seconds")
        found.append(
            {"path": str(run.path)}
            | {name: run.info[name] for name in kept}
            | {"options": run.info["options"], "task_options": run.info["task_options_passed"]}
            | {"metrics": {r.metric: [r.value, r.low, r.high] for r in rows}}
        )
    return json.dumps(found, indent=1)
