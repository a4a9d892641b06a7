"""Tables of runs: after ``membench run``, and ``membench leaderboard``, a pure function of the run folders.

Runs that differ in task version, profile, data, examples, weights or control never share a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from membench import store
from membench.errors import UserError
from membench.runner import Run, load

BOARD = ("task", "task_version", "profile", "control", "data", "prompts", "examples", "weights", "dtype")
# Metrics (as in metrics.parquet, band None) on the leaderboard and their titles there.
DETECTION = {"auroc": "AUROC", "tpr_at_fpr_0.01": "TPR@1%FPR", "average_precision": "AP"}
COPIES = {"ams_cumulative": "AMS copies %", "ums_cumulative": "UMS copies %"}
UNIQUE = ("ums_nearest_cumulative", "unique_per_1000_evaluations")


def collect(root: Path) -> pd.DataFrame:
    """One row a finished run under ``root``. Raises :class:`UserError` where there is none."""
    folders = sorted(p.parent for p in root.glob("*/*/*/*/run.json"))
    rows = [_row(load(folder)) for folder in folders if store.is_finished(folder)]
    if not rows:
        raise UserError(f"no finished runs under {root}. Make one: membench run --detector cfg_norm --task sd_webster")
    frame = pd.DataFrame(rows)
    return frame.sort_values([*BOARD, "auroc", "detector", "seed"], ascending=[*[True] * len(BOARD), False, True, True], ignore_index=True)


def _row(run: Run) -> dict[str, Any]:
    info, m = run.info, run.metrics
    parts = info["key_parts"]
    overall = m[m.subset == "all"]
    row: dict[str, Any] = {name: parts[name] for name in ("task", "task_version", "profile", "control", "examples", "dtype")}
    row |= {name: parts["hashes"][name][:8] for name in ("data", "prompts", "weights")}
    row["examples"] = row["examples"][:8]
    row |= {"detector": info["detector"], "options": _options(info), "seed": info["seed"], "status": info["status"]}
    for metric in (*DETECTION, *COPIES, *UNIQUE):
        found = overall[(overall.metric == metric) & overall.band.isna()]
        for end in ("value", "low", "high"):
            row[metric + ("" if end == "value" else f"_{end}")] = float(found[end].iloc[0]) if len(found) else float("nan")
    scored, good = int((run.scores.status == "ok").sum()), int((run.samples.status == "ok").sum())
    phases = info["phases"]
    row |= {
        "scored": scored,
        "of": info["n_task_examples"],
        "n_g": len(run.samples),
        "unique_copies": round(row[UNIQUE[0]] * good) if good else 0,
        "forwards_per_example": _forwards_of_scores(run) / max(len(run.scores), 1),
        "forwards_per_image": phases.get("samples", {}).get("forwards", 0) / max(len(run.samples), 1),
        "sees": "+".join(name for name, used in info["access"].items() if used) or "outputs",
        "seconds": info["seconds"],
        "commit": (info["membench"]["commit"] or "")[:8] + ("+dirty" if info["membench"]["dirty"] else ""),
        "run": str(run.path),
    }
    return row


def _forwards_of_scores(run: Run) -> float:
    """Network evaluations that the scores took; with those of the images, where a detector scores by its images."""
    phases = run.info["phases"]
    spent = phases.get("scores", {}).get("forwards", 0)
    if run.info["access"]["images"] and len(run.samples):
        spent += phases["samples"]["forwards"] * run.samples.condition.isin(run.scores.id).mean()
    return spent


def _options(info: dict[str, Any]) -> str:
    return " ".join(sorted(info["options_passed"]))


# ------------------------------------------------------------------------------------------------ printing


def interval(value: float, low: float, high: float, *, scale: float = 1.0, digits: int = 3) -> str:
    """``0.912 [0.884, 0.936]``; ``n/a`` where the metric is not defined or not supported by the data."""
    if pd.isna(value):
        return "n/a"
    text = f"{value * scale:.{digits}f}"
    return text if pd.isna(low) else f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def _board_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that people read, as text."""
    out = pd.DataFrame({"detector": frame.detector, "options": frame.options, "seed": frame.seed.astype(str)})
    for column, title in (DETECTION | COPIES).items():
        percent = column in COPIES
        out[title] = [
            interval(r[column], r[f"{column}_low"], r[f"{column}_high"], scale=100 if percent else 1, digits=1 if percent else 3)
            for _, r in frame.iterrows()
        ]
    out["N_G"] = frame.n_g.astype(str)
    out["copied"] = frame.unique_copies.astype(str)
    out["per 1k fwd"] = ["n/a" if pd.isna(v) else f"{v:.1f}" for v in frame[UNIQUE[1]]]
    out["fwd/ex"] = [f"{v:.0f}" for v in frame.forwards_per_example]
    out["fwd/img"] = [f"{v:.0f}" for v in frame.forwards_per_image]
    out["sees"] = frame.sees
    out["seconds"] = [f"{v:.0f}" for v in frame.seconds]
    out["coverage"] = [
        f"{s}/{n}" + ("" if st == "complete" else " PARTIAL") for s, n, st in zip(frame.scored, frame.of, frame.status, strict=True)
    ]
    return out


def boards(frame: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Each comparable set of rows with its title."""
    for names, part in frame.groupby(list(BOARD), dropna=False, sort=False):
        b = dict(zip(BOARD, names, strict=True))
        model = "CONTROL model" if b["control"] else "model"
        title = (
            f"{b['task']} v{b['task_version']}, {b['profile']} profile, {model} {b['weights']}, "
            f"data {b['data']}, prompts {b['prompts']}, examples {b['examples']}, {b['dtype']}"
        )
        yield title, part


def write(frame: pd.DataFrame, fmt: str, out: Path | None) -> None:
    """Prints the boards, or writes them to ``out``. csv, json and parquet hold numbers, one row a run."""
    if fmt == "parquet":
        if out is None:
            raise UserError("--format parquet needs --out FILE.parquet")
        store.atomic_write(out, lambda temporary: frame.to_parquet(temporary, index=False))
    elif fmt in ("csv", "json"):
        text = frame.to_csv(index=False) if fmt == "csv" else json.dumps(json.loads(frame.to_json(orient="records")), indent=1) + "\n"
        _emit(text, out)
    else:
        parts = []
        for title, part in boards(frame):
            body = _board_frame(part)
            parts.append(f"### {title}\n\n{markdown(body)}\n" if fmt == "md" else table(title, body))
        _emit("\n".join(parts), out)
    if out is not None:
        print(f"membench: {len(frame)} runs written to {out}", file=sys.stderr)


def _emit(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        store.atomic_write(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of strings."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def table(title: str, frame: pd.DataFrame) -> str:
    """A terminal table; as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in frame.columns:
        made.add_column(column, no_wrap=not sys.stdout.isatty())
    for row in frame.to_numpy().tolist():
        made.add_row(*(str(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 240)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def run_table(runs: Sequence[Run]) -> str:
    """What ``membench run`` prints: detection per subset, extraction per band, and where the files are."""
    parts = []
    for run in runs:
        info, m = run.info, run.metrics
        what = (
            f"{info['detector']} on {info['task']} ({info['profile']}{', CONTROL model' if info['control'] else ''}, seed {info['seed']})"
        )
        detection = _detection_rows(m)
        if len(detection):
            parts.append(table(f"{what}: detection, 95 % intervals over groups", detection))
        extraction = _extraction_rows(m)
        if len(extraction):
            parts.append(table(f"{what}: extraction, {len(run.samples)} images, {info['space']['id']}, in %", extraction))
        parts.append(_summary(run))
    return "\n".join(parts)


def _detection_rows(m: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for subset, part in m[m.metric.isin(DETECTION)].groupby("subset", sort=False):
        cells = {DETECTION[r.metric]: interval(r.value, r.low, r.high) for r in part.itertuples()}
        rows.append({"subset": subset, "n": int(part.n.iloc[0]), **{title: cells.get(title, "n/a") for title in DETECTION.values()}})
    return pd.DataFrame(rows)


def _extraction_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a band, in the band and up to its far edge; then the copies (by the task's threshold) of each kind."""
    overall = m[(m.subset == "all") & m.metric.str.match("ams|ums")]
    rows = []
    for band, part in overall[overall.band.notna()].groupby("band", sort=False):
        cells = {r.metric: _percent(r) for r in part.itertuples()}
        edge = part.threshold.dropna().iloc[0]
        rows.append({"images": "all", "region": str(band), **_pick(cells, "")})
        rows.append({"images": "all", "region": f"to the end of {band} ({edge:g})", **_pick(cells, "_cumulative")})
    copies = m[m.metric.str.match("ams_cum|ums_cum|ums_nearest_cum") & m.band.isna()]
    for subset, part in copies.groupby("subset", sort=False):
        cells = {r.metric: _percent(r) for r in part.itertuples()}
        rows.append({"images": str(subset), "region": f"copies ({part.threshold.iloc[0]:g})", **_pick(cells, "_cumulative")})
    return pd.DataFrame(rows)


def _percent(r: Any) -> str:
    return interval(r.value, r.low, r.high, scale=100, digits=2)


def _pick(cells: dict[str, str], suffix: str) -> dict[str, str]:
    return {title: cells[name + suffix] for title, name in (("AMS %", "ams"), ("UMS %", "ums"), ("UMS nearest %", "ums_nearest"))}


def _summary(run: Run) -> str:
    info = run.info
    phases = info["phases"]
    cost = ", ".join(f"{name} {p['forwards']:,} forwards in {p['seconds']:.0f} s" for name, p in phases.items() if p.get("forwards"))
    failed = sum(info["failed"].values())
    lines = [f"{cost}; {info['seconds']:.0f} s in all, peak memory {info['peak_memory_mb']:,} MB", f"files: {run.path}"]
    if info["status"] != "complete":
        why = f"{failed} failed rows" if failed else f"{info['n_examples']} of {info['n_task_examples']} examples"
        lines.insert(0, f"PARTIAL RUN ({why}): not comparable with whole runs")
    return "\n".join(lines) + "\n"
