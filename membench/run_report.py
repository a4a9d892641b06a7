"""What ``membench run`` prints of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from membench.printing import DETECTION, interval, table
from membench.runner import Run


def run_table(runs: Sequence[Run]) -> str:
    """Detection per subset, extraction per band and in percentiles, what it cost, and where the files are."""
    parts = []
    for run in runs:
        info, m = run.info, run.metrics
        what = (
            f"{info['detector']} on {info['task']} ({info['profile']}{', CONTROL model' if info['control'] else ''}, seed {info['seed']})"
        )
        detection = detection_rows(m)
        if len(detection):
            parts.append(table(f"{what}: detection, 95 % intervals over groups", detection))
        extraction = extraction_rows(m)
        if len(extraction):
            title = f"{what}: extraction, {len(run.samples)} images, {info['space']['id']}, in %, 95 % intervals over groups"
            parts.append(table(title, extraction))
        percentiles = _percentile_rows(m)
        if len(percentiles):
            nearer = "higher = nearer" if info["space"]["higher_is_closer"] else "lower = nearer"
            parts.append(table(f"{what}: percentiles of each image's best similarity, {info['space']['id']} ({nearer})", percentiles))
        parts.append(_summary(run))
    return "\n".join(parts)


def detection_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a subset, as text."""
    rows = []
    for subset, part in m[m.metric.isin(DETECTION)].groupby("subset", sort=False):
        cells = {DETECTION[r.metric]: interval(r.value, r.low, r.high) for r in part.itertuples()}
        rows.append({"subset": subset, "n": int(part.n.iloc[0]), **{title: cells.get(title, "n/a") for title in DETECTION.values()}})
    return pd.DataFrame(rows)


def extraction_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a band, in the band and up to its far edge; then the copies (by the task's threshold) of each kind. As text."""
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


def _percentile_rows(m: pd.DataFrame) -> pd.DataFrame:
    found = m[(m.subset == "all") & m.metric.str.match("best_p")]
    return pd.DataFrame([{r.metric.removeprefix("best_"): f"{r.value:.3f}" for r in found.itertuples()}] if len(found) else [])


def _percent(r: Any) -> str:
    return interval(r.value, r.low, r.high, scale=100, digits=2)


def _pick(cells: dict[str, str], suffix: str) -> dict[str, str]:
    return {title: cells[name + suffix] for title, name in (("AMS %", "ams"), ("UMS %", "ums"), ("UMS nearest %", "ums_nearest"))}


def _summary(run: Run) -> str:
    info = run.info
    failed = sum(info["failed"].values())
    spent = [text for name, phase in info["phases"].items() if (text := _cost(name, phase))]
    lines = [
        ", ".join([*spent, f"{info['seconds']:.0f} s in all"]) + f", peak memory {info['peak_memory_mb']:,} MB",
        f"files: {run.path}",
        f"report: {run.path / 'report.html'}",
    ]
    if info["status"] != "complete":
        why = f"{failed} failed rows" if failed else f"{info['n_examples']} of {info['n_task_examples']} examples"
        lines.insert(0, f"PARTIAL RUN ({why}): not comparable with whole runs")
    if info.get("extract_only"):
        lines.insert(0, "extraction only: no example was scored")
    return "\n".join(lines) + "\n"


def _cost(name: str, phase: Mapping[str, Any]) -> str:
    """``prepare 100 forwards and 20 backwards + 3,000 surrogate forwards ... in 2 s``; empty for a phase without evaluations."""
    parts = []
    for network in ("", "surrogate_"):
        counts = [(phase.get(network + kind, 0), network.replace("_", " ") + kind) for kind in ("forwards", "backwards")]
        text = " and ".join(f"{count:,} {what}" for count, what in counts if count)
        parts += [text] if text else []
    return f"{name} {' + '.join(parts)} in {phase['seconds']:.0f} s" if parts else ""
