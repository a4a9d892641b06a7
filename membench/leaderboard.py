"""``membench leaderboard``: a pure function of the run folders.

Runs that differ in task version, profile, data, examples, weights or control never share a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench import store
from membench.comparison import BOARD, control_command, hash_without, pair_key, with_control, with_equal_terms
from membench.costs import PER_EXAMPLE, evaluations, per_example, spent
from membench.errors import UserError
from membench.metrics.extraction import copy_counts
from membench.printing import COPIES, DETECTION, interval, markdown, number, table
from membench.run_report import run_table
from membench.runner import Run, load
from membench.seeds_table import over_seeds, seeds_text
from membench.types import Band, Space

__all__ = ["BOARD", "boards", "collect", "collect_kinds", "over_seeds", "run_table", "write"]

# Metrics (as in metrics.parquet, band None) on the leaderboard besides those of DETECTION and COPIES.
UNIQUE = ("ums_nearest_cumulative", "unique_per_1000_evaluations")
COSTS = {
    "prepare_forwards": "prep fwd",
    "backwards": "bwd",
    "jvps": "jvp",
    "surrogate_forwards": "surrogate fwd",
    "surrogate_backwards": "surrogate bwd",
}


def collect(root: Path) -> pd.DataFrame:
    """One row a finished run under ``root``. Raises :class:`UserError` where there is none.

    Columns that compare runs are those of ``comparison.with_control`` and ``comparison.with_equal_terms``.
    """
    rows, counts = [], []
    for run in _runs(root):
        rows.append(_row(run))
        counts.append(_copies(run))
    frame = with_equal_terms(with_control(pd.DataFrame(rows)), counts)
    frame["budget"] = frame.budget.astype("Int64")
    alone = ~frame.control & frame.control_weights.isna() & (frame.n_g > 0)
    frame["control_command"] = frame.control_command.where(alone, None)
    return frame.sort_values([*BOARD, "auroc", "detector", "seed"], ascending=[*[True] * len(BOARD), False, True, True], ignore_index=True)


def collect_kinds(root: Path) -> pd.DataFrame:
    """One row a finished run and kind of memorized example ("all" first): the metrics of DETECTION, each kind against all negatives.

    Raises :class:`UserError` where there is no run with scores.
    """
    rows = []
    for run in _runs(root):
        m, whole = run.metrics[run.metrics.metric.isin(DETECTION)], _row(run)
        about = {name: whole[name] for name in (*BOARD, "detector", "options", "settings", "seed", "status")}
        for subset in m.subset[(m.subset == "all") | m.subset.str.startswith("kind=")].unique():
            values = m[m.subset == subset].set_index("metric")
            row = about | {"kind": subset.removeprefix("kind=")}
            for metric in DETECTION:
                row |= {metric: float("nan"), f"{metric}_low": float("nan"), f"{metric}_high": float("nan")}
                if metric in values.index:
                    row |= {metric: values.value[metric], f"{metric}_low": values.low[metric], f"{metric}_high": values.high[metric]}
            rows.append(row)
    if not rows:
        raise UserError(f"no run under {root} has scores of both labels")
    return pd.DataFrame(rows).sort_values([*BOARD, "detector", "options", "kind", "seed"], ignore_index=True)


def _runs(root: Path) -> Iterator[Run]:
    """The finished runs. Raises :class:`UserError` where there is none."""
    folders = [p.parent for p in sorted(root.glob("*/*/*/*/run.json")) if store.is_finished(p.parent)]
    if not folders:
        raise UserError(f"no finished runs under {root}. Make one: membench run --detector cfg_norm --task sd_webster")
    yield from map(load, folders)


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
    scored, good, drawn = int((run.scores.status == "ok").sum()), int((run.samples.status == "ok").sum()), len(run.samples)
    row |= {
        "extract_only": bool(info.get("extract_only", False)),
        "budget": info.get("budget"),
        "scored": scored,
        "of": info["n_task_examples"],
        "n_g": drawn,
        "n_ok": good,  # N_G less the failed images: what AMS and UMS are shares of
        "unique_copies": round(row[UNIQUE[0]] * good) if good else 0,
        **{f"{what}_per_example": per_example(run, what) for what in PER_EXAMPLE},
        "forwards_per_image": spent(run, "forwards", "samples") / drawn if drawn else float("nan"),
        "prepare_forwards": spent(run, "forwards", "prepare"),
        "sample_forwards": spent(run, "forwards", "samples"),
        "sample_evaluations": evaluations(run, "samples"),
        "backwards": spent(run, "backwards"),
        "jvps": spent(run, "jvps"),
        "surrogate_forwards": spent(run, "surrogate_forwards"),
        "surrogate_backwards": spent(run, "surrogate_backwards"),
        "sees": "+".join(name for name, used in info["access"].items() if used) or "outputs",
        # Of all sessions, and of a preparation that another run has paid for in time: what it would take alone.
        "seconds": max(info["seconds"], sum(phase["seconds"] for phase in info["phases"].values())),
        "commit": (info["membench"]["commit"] or "")[:8] + ("+dirty" if info["membench"]["dirty"] else ""),
        "run": str(run.path),
        "pair": pair_key(parts),
        "settings": hash_without(parts, "seed"),
        "control_command": control_command(info),
    }
    return row


def _copies(run: Run) -> np.ndarray:
    """By how many images each copied training image is copied."""
    good = run.samples[run.samples.status == "ok"].sample_id
    if good.empty:
        return np.zeros(0, dtype=int)
    position = pd.Series(range(len(good)), index=good)
    space = run.info["space"]
    frame = run.matches.assign(generated=run.matches.sample_id.map(position))
    return copy_counts(frame, len(good), Space(**{**space, "bands": tuple(Band(**band) for band in space["bands"])}))


def _options(info: dict[str, Any]) -> str:
    """What was asked for beside the defaults."""
    asked = [f"{name}={info[name]}" for name in ("preset", "budget") if info.get(name) is not None]
    return " ".join([*asked, *sorted(info["options_passed"])])


# ------------------------------------------------------------------------------------------------ printing


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


def _detection_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns on scores that people read, as text."""
    out = _names(frame)
    for column, title in DETECTION.items():
        out[title] = _intervals(frame, column)
    for what, title in PER_EXAMPLE.items():
        if what == "forwards" or frame[f"{what}_per_example"].gt(0).any():
            out[title] = frame[f"{what}_per_example"].map(number)
    out["seconds"] = [number(v) for v in frame.seconds]
    out["sees"] = frame.sees
    out["coverage"] = _coverage(frame)
    return out


def _extraction_text(frame: pd.DataFrame, control: bool) -> pd.DataFrame:
    """The columns on extracted images that people read, as text. A column of costs that are all 0 is left out."""
    out = _names(frame)
    for column, title in COPIES.items():
        out[title] = _intervals(frame, column, percent=True)
    if not control:
        values = zip(frame.control_ams, frame.control_ums, strict=True)
        out["control AMS/UMS %"] = ["n/a" if pd.isna(a) else f"{100 * a:.1f} / {100 * u:.1f}" for a, u in values]
        out["excess AMS %"] = _intervals(frame, "excess_ams", percent=True)
        out["excess UMS %"] = _intervals(frame, "excess_ums", percent=True)
    out["N_G"] = frame.n_g.map(number)
    out["copied"] = frame.unique_copies.astype(str)
    out[f"copied @N_G={frame.equal_n.iloc[0]:,}"] = [number(v, 1) for v in frame.copied_at_equal_n]
    values = zip(frame.copied_at_equal_cost, frame.equal_cost_capped, strict=True)
    out[f"copied @{frame.equal_cost.iloc[0]:,} fwd"] = [(">=" if capped else "") + number(v, 1) for v, capped in values]
    out["per 1k fwd"] = [number(v, 1) for v in frame[UNIQUE[1]]]
    out["fwd/img"] = [number(v) for v in frame.forwards_per_image]
    for column, title in COSTS.items():
        if frame[column].any():
            out[title] = frame[column].map(number)
    out["seconds"] = frame.seconds.map(number)
    out["coverage"] = _coverage(frame)
    return out


def _names(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"detector": frame.detector, "options": frame.options, "seed": frame.seed.astype(str)})


def _intervals(frame: pd.DataFrame, column: str, percent: bool = False) -> list[str]:
    scale, digits = (100, 1) if percent else (1, 3)
    return [interval(r[column], r[f"{column}_low"], r[f"{column}_high"], scale=scale, digits=digits) for _, r in frame.iterrows()]


def _coverage(frame: pd.DataFrame) -> list[str]:
    return [
        ("extraction only" if r.extract_only else f"{r.scored}/{r.of}") + ("" if r.status == "complete" else " PARTIAL")
        for r in frame.itertuples()
    ]


def _tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes below it) of a board's rows: detection, then extraction; none for what no run did."""
    scored, extracted = part[~part.extract_only], part[part.n_ok > 0]
    control = bool(part.control.iloc[0])
    if len(scored):
        yield "detection", _detection_text(scored), []
    if len(extracted):
        yield "extraction", _extraction_text(extracted, control), [] if control else list(_notes(extracted))


def _notes(frame: pd.DataFrame) -> Iterator[str]:
    for command in sorted(set(frame.control_command.dropna())):
        yield f"control and excess are n/a: no run of these settings on one control model. Make it: {command}"
    if (frame.excess_ams.notna() & frame.excess_ums.isna()).any():
        yield "excess UMS is n/a where the control run has another number of images, on which UMS depends"
    if frame.equal_cost_capped.any():
        yield ">=: the cost would pay for more images than the run has"


def write(frame: pd.DataFrame, fmt: str, out: Path | None, seeds: bool = False) -> None:
    """Prints the boards, or writes them to ``out``. csv, json and parquet hold numbers, one row a run.

    seeds: one row a setting in place of one a run, with means over seeds (``seeds_table.over_seeds``).
    """
    if seeds:
        frame = over_seeds(frame)
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
            found = [("over seeds", *seeds_text(part, bool(part.control.iloc[0])))] if seeds else _tables(part)
            parts += [f"### {title}\n"] if fmt == "md" else []
            for what, body, notes in found:
                shown = f"{what.capitalize()}:\n\n{markdown(body)}\n" if fmt == "md" else table(f"{title}: {what}", body)
                between = "\n" if fmt == "md" else ""
                parts.append(shown + "".join(f"{between}{note}\n" for note in notes))
        _emit("\n".join(parts), out)
    if out is not None:
        print(f"membench: {len(frame)} {'settings' if seeds else 'runs'} written to {out}", file=sys.stderr)


def _emit(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        store.atomic_write(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
