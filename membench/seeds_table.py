"""One row a setting: means over the seeds, with intervals over both groups of examples and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student
from tqdm import tqdm

from membench.board_text import captions_lines, shown_detection, unsupported
from membench.comparison import BOARD, with_control
from membench.costs import PER_EXAMPLE
from membench.metrics.levels import two_level_interval, widened
from membench.printing import COPIES, DETECTION, DETERMINISTIC, RARE, interval, marked, number, status_of, supported
from membench.resampling import Drawn, Resampler, same_scores
from membench.runs import Run

RANGES = dict.fromkeys((*DETECTION, *RARE, "ams_cumulative"), (0.0, 1.0)) | {"ums_cumulative": (0.0, math.inf)}
LOGIT = ("auroc", "auroc_complexity_matched", "average_precision")  # whose interval over seeds is made on the logit scale
KEPT = (
    "space_id",
    "model",
    "data_name",
    "resolved",
    "bands",
    "extract_only",
    "budget",
    "sees",
    "of",
    "positives",
    "negatives",
    "pair_settings",
    "captions_auroc",
    "captions_low",
    "captions_high",
    "captions_by",
)
SUBSETS = ("kind", "source")  # of rows that are of a part of the examples each
MEANS = (
    *("seconds", "n_g", "n_ok", "scored", "prepare_forwards", "sample_evaluations", "backwards", "chao1_estimate", "best_p50", "best_p95"),
    *("unique_copies", "copied_at_equal_n", "copied_at_equal_cost", "unique_per_1000_evaluations", "equal_n", "equal_cost"),
)
COSTS = tuple(f"{what}_per_example" for what in PER_EXAMPLE)


def over_seeds(frame: pd.DataFrame, runs: Iterable[Run] | None = None, resampler: Resampler | None = None) -> pd.DataFrame:
    """One row a setting (and kind or source, if the frame is of ``leaderboard.collect_kinds``): rows that differ in their seed together.

    runs: those of the frame. With them, the 95 % intervals of detection and AMS are over groups and seeds (``metrics.levels``), and those
    of UMS the mean of the runs' own, widened by Student's t over seeds. Without, all are Student's t over seeds, mean ± t(n - 1) s /
    sqrt(n), cut at the metric's range, which leaves out which examples there happened to be; where all seeds have one value, and of a
    single seed, the mean of the runs' own intervals. Either covers what the seed changes (noise), not another training of the model.

    Columns: the board's, detector, options, ``settings``, ``seeds`` (how many), ``seed_list``, ``status`` (partial if one is),
    ``deterministic`` (each of several seeds gives the same scores; False without ``runs``); of each
    metric the mean, ``_low``, ``_high`` and ``_seeds``: how many seeds have a value; those of ``comparison.with_control`` between such
    rows; the means of costs; ``commit``, all of them; ``dirty``, if one is.
    """
    known = {str(run.path): run for run in runs or ()}
    resampler = resampler or Resampler()
    rows = []
    part_of = next((name for name in SUBSETS if name in frame), None)
    together = ["settings", *([part_of] if part_of else [])]
    parts = [part for _, part in frame.groupby([*BOARD, *together], sort=False, dropna=False)]
    for part in tqdm(parts, desc="resampling", unit="row", delay=1, leave=False, disable=None):  # None: no bar in a file
        part = part.sort_values("seed")
        first = part.iloc[0]
        row: dict[str, Any] = {name: first[name] for name in (*BOARD, "detector", "options", *together)}
        row |= {name: first[name] for name in KEPT if name in frame}
        row |= {"seeds": part.seed.nunique(), "seed_list": " ".join(map(str, part.seed.unique()))}
        row["status"] = status_of(part.status)
        row["deterministic"] = row["seeds"] > 1 and set(part.run) <= set(known) and same_scores([known[path] for path in part.run])
        subset = f"{part_of}={first[part_of]}" if part_of and first[part_of] != "all" else "all"
        drawn = _drawn([known[path] for path in part.run], subset, part_of is None, resampler) if set(part.run) <= set(known) else {}
        for metric in RANGES:
            if metric in frame:
                row |= _estimate(part, metric, drawn.get(metric))
        banded = [name for name in frame if name.startswith(("ams_in_", "ums_in_"))]
        row |= {name: part[name].astype(float).mean() for name in (*MEANS, *COSTS, *banded) if name in frame}
        if "commit" in frame:
            row |= {"commit": " ".join(sorted(set(part.commit))), "dirty": bool(part.dirty.any())}
        rows.append(row)
    order = [*BOARD, *(["auroc"] if "auroc" in frame else []), "detector", "options", *together[1:]]
    found = pd.DataFrame(rows).sort_values(order, ascending=[name != "auroc" for name in order], ignore_index=True)
    return found if part_of or "ams_cumulative" not in frame else with_control(found)


def _drawn(runs: list[Run], subset: str, copies_too: bool, resampler: Resampler) -> dict[str, list[Drawn]]:
    """By metric, what each run gives under the same resamples; only metrics that every run has."""
    detected = resampler.detection(runs, subset)
    found = {name: [of[name] for of in detected] for name in detected[0] if all(name in of for of in detected)}
    if copies_too:
        copies = [resampler.copies(run, run.space) for run in runs]
        found |= {"ams_cumulative": [c for c in copies if c]} if all(copies) else {}
    return {name: drawn for name, drawn in found.items() if all(d.resampled is not None for d in drawn)}


def _estimate(part: pd.DataFrame, metric: str, drawn: list[Drawn] | None) -> dict[str, float]:
    """Mean, interval and number of seeds of a metric of rows that differ in their seed."""
    values = part[metric].dropna()
    mean, low, high, n = t_interval(values.tolist())
    own_low, own_high = (float(part[f"{metric}_{end}"][values.index].mean(skipna=False)) if n else math.nan for end in ("low", "high"))
    resampled = np.stack([d.resampled for d in drawn if d.resampled is not None]) if drawn else np.empty((0, 0))
    resampled = resampled[:, np.isfinite(resampled).all(axis=0)]
    if drawn and len(drawn) == n and resampled.size:
        low, high = two_level_interval([d.value for d in drawn], resampled, logit=metric in LOGIT)
        if low == high:  # every resample says the same, such as 0: no spread is not certainty
            low, high = own_low, own_high
    elif metric == "ums_cumulative" and n > 1 and not math.isnan(own_low) and low < high:
        low, high = widened(values, *(part[f"{metric}_{end}"][values.index] for end in ("low", "high")))
    elif n == 1 or (n > 1 and low == high):
        low, high = own_low, own_high
    least, most = RANGES[metric]
    low, high = (x if math.isnan(x) else min(max(x, least), most) for x in (low, high))
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high, f"{metric}_seeds": n}


def t_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean, Student's interval of it and the number of values; NaN where there are too few."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan, n
    half = float(student.ppf((1 + level) / 2, n - 1)) * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - half, mean + half, n


# ------------------------------------------------------------------------------------------------ printing


def seeds_tables(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes below it) of a board's rows of :func:`over_seeds`. A metric of no row is left out."""
    control = bool(frame.control.iloc[0])
    out = pd.DataFrame({name: frame[name].astype(str) for name in ("detector", "options", *SUBSETS, "seeds") if name in frame})
    out["detector"] = [marked(name, status) for name, status in zip(frame.detector, frame.status, strict=True)]
    if "deterministic" in frame:
        out["seeds"] = out.seeds.mask(frame.deterministic.astype(bool), DETERMINISTIC)
    for metric, title in shown_detection(frame).items():
        some = metric in frame and frame[metric if not metric.startswith("tpr_at_fpr_") else "auroc"].notna().any()
        if some:  # a TPR that no row's negatives support says what it needs
            out[title] = [supported(_cell(row, metric, 1), metric) if row.auroc == row.auroc else "n/a" for _, row in frame.iterrows()]
    if "control_auroc" in frame and frame.control_auroc.notna().any():
        out["control AUROC"] = [_cell(row, "control_auroc", 1) + _fewer(row) for _, row in frame.iterrows()]
    if "reported_auroc" in frame:
        out["reported AUROC"] = ["none" if pd.isna(value) else f"{value:.3f}" for value in frame.reported_auroc]
    for metric, title in COPIES.items():
        if metric in frame and frame[metric].notna().any():
            out[title] = [_cell(row, metric, 100) for _, row in frame.iterrows()]
    if "excess_ams" in frame and not control and frame.excess_ams.notna().any():
        out["excess AMS %"] = [_cell(row, "excess_ams", 100) for _, row in frame.iterrows()]
        out["excess UMS %"] = [_cell(row, "excess_ums", 100) for _, row in frame.iterrows()]
    if "forwards_per_example" in frame:
        evaluations = frame.forwards_per_example + frame.jvps_per_example
        columns = {"N_G": frame.n_g, "eval/ex": evaluations, "seconds": frame.seconds}
        out = out.assign(**{title: values.map(number) for title, values in columns.items()}, sees=frame.sees, commit=frame.commit)
    out["coverage"] = [_coverage(row) for _, row in frame.iterrows()]
    yield "over seeds", out, list(_notes(frame))


def _cell(row: pd.Series, metric: str, scale: int) -> str:
    text = interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"], scale=scale, digits=1 if scale == 100 else 3)
    n = row.get(f"{metric}_seeds", row.seeds)
    return text if n in (0, row.seeds) else f"{text} ({n} of {row.seeds} seeds)"


def _fewer(row: pd.Series) -> str:
    """Of a control with fewer seeds than the model's row."""
    held = row.get("control_seeds", row.seeds)
    return f" ({held} of {row.seeds} seeds)" if 0 < held < row.seeds else ""


def _coverage(row: Mapping[str, Any]) -> str:
    partial = "" if row["status"] == "complete" else "PARTIAL"
    if "scored" not in row:
        return partial
    done = "extraction only" if row["extract_only"] else f"{row['scored']:.0f}/{row['of']}"
    return f"{done} {partial}".strip()


def _notes(frame: pd.DataFrame) -> Iterable[str]:
    yield "means over seeds; 95 % intervals over groups of near-duplicate examples and over seeds; of a single seed, over groups alone"
    if "negatives" in frame:
        yield from unsupported(frame)
    yield from captions_lines(frame)
