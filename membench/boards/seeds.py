"""One row a setting: means over the seeds, with intervals over both groups of examples
and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student
from tqdm.auto import tqdm

from membench.boards.columns import IN_BAND
from membench.boards.control import with_control
from membench.boards.identity import BOARD, status_of
from membench.boards.quality import COLUMN
from membench.boards.resampling import Drawn, Resampler, same_scores
from membench.metrics.levels import two_level_interval, widened
from membench.metrics.names import METRICS, NUMBERS
from membench.runs.finished import PER_EXAMPLE, Run

# Metrics with an interval over seeds.
ESTIMATED = {
    m.name: m
    for m in METRICS
    if m.board in ("detection", "extraction") and m.column in ("always", "supported")
}

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
    "unlabelled",
    "pair_settings",
    "captions_auroc",
    "captions_low",
    "captions_high",
    "captions_by",
)

SUBSETS = ("kind", "source")  # of rows that are of a part of the examples each

MEANS = (
    *("seconds", "n_g", "n_ok", "scored", "prepare_forwards", "sample_evaluations", "backwards"),
    *("surrogate_forwards", "surrogate_backwards"),
    *NUMBERS,
    *("unique_copies", "copied_at_equal_n", "copied_at_equal_cost", "equal_n", "equal_cost"),
)

COSTS = tuple(f"{what}_per_example" for what in PER_EXAMPLE)


def over_seeds(
    frame: pd.DataFrame, runs: Iterable[Run] | None = None, resampler: Resampler | None = None
) -> pd.DataFrame:
    """One row a setting (and kind or source, if the frame is of
    ``leaderboard.collect_kinds``): rows that differ in their seed together.

    runs: those of the frame. With them, the 95 % intervals of detection and AMS are
    over groups and seeds (``metrics.levels``), and those of UMS the mean of the runs'
    own, widened by Student's t over seeds. Without, all are Student's t over seeds,
    mean ± t(n - 1) s / sqrt(n), cut at the metric's range, which leaves out which
    examples there happened to be; where all seeds have one value, and of a single seed,
    the mean of the runs' own intervals. Either covers what the seed changes (noise),
    not another training of the model.

    Columns: the board's, detector, options, ``settings``, ``seeds`` (how many),
    ``seed_list``, ``status`` (partial if one is), ``deterministic`` (each of several
    seeds gives the same scores; False without ``runs``); of each metric the mean,
    ``_low``, ``_high`` and ``_seeds``: how many seeds have a value; those of
    ``control.with_control`` between such rows; the means of costs; ``commit``, all of
    them; ``dirty``, if one is.
    """
    known = {str(run.path): run for run in runs or ()}
    resampler = resampler or Resampler()
    rows = []
    part_of = next((name for name in SUBSETS if name in frame), None)
    together = ["settings", *([part_of] if part_of else [])]
    parts = [part for _, part in frame.groupby([*BOARD, *together], sort=False, dropna=False)]
    # None: no bar in a file
    for part in tqdm(parts, desc="resampling", unit="row", delay=1, leave=False, disable=None):
        part = part.sort_values("seed")
        first = part.iloc[0]
        row: dict[str, Any] = {
            name: first[name] for name in (*BOARD, "detector", "options", *together)
        }
        row |= {name: first[name] for name in KEPT if name in frame}
        row |= {"seeds": part.seed.nunique(), "seed_list": " ".join(map(str, part.seed.unique()))}
        row["status"] = status_of(part.status)
        row["deterministic"] = (
            row["seeds"] > 1
            and set(part.run) <= set(known)
            and same_scores([known[path] for path in part.run])
        )
        subset = f"{part_of}={first[part_of]}" if part_of and first[part_of] != "all" else "all"
        drawn = (
            _drawn([known[path] for path in part.run], subset, part_of is None, resampler)
            if set(part.run) <= set(known)
            else {}
        )
        for metric in ESTIMATED:
            if metric in frame:
                row |= _estimate(part, metric, drawn.get(metric))
        banded = [name for name in frame if IN_BAND.fullmatch(name) or COLUMN.fullmatch(name)]
        row |= {
            name: part[name].astype(float).mean()
            for name in (*MEANS, *COSTS, *banded)
            if name in frame
        }
        if "equal_cost_capped" in frame:
            row["equal_cost_capped"] = bool(part.equal_cost_capped.any())
        if "commit" in frame:
            row |= {"commit": " ".join(sorted(set(part.commit))), "dirty": bool(part.dirty.any())}
        rows.append(row)
    order = [*BOARD, *(["auroc"] if "auroc" in frame else []), "detector", "options", *together[1:]]
    found = pd.DataFrame(rows).sort_values(
        order, ascending=[name != "auroc" for name in order], ignore_index=True
    )
    return found if part_of or "ams_cumulative" not in frame else with_control(found)


def _drawn(
    runs: list[Run], subset: str, copies_too: bool, resampler: Resampler
) -> dict[str, list[Drawn]]:
    """By metric, what each run gives under the same resamples; only metrics that every
    run has.
    """
    detected = resampler.detection(runs, subset)
    found = {
        name: [of[name] for of in detected]
        for name in detected[0]
        if all(name in of for of in detected)
    }
    if copies_too:
        copies = [resampler.copies(run, run.space) for run in runs]
        found |= {"ams_cumulative": [c for c in copies if c]} if all(copies) else {}
    return {
        name: drawn for name, drawn in found.items() if all(d.resampled is not None for d in drawn)
    }


def _estimate(part: pd.DataFrame, metric: str, drawn: list[Drawn] | None) -> dict[str, float]:
    """Mean, interval and number of seeds of a metric of rows that differ in their seed."""
    values = part[metric].dropna()
    mean, low, high, n = t_interval(values.tolist())
    own_low, own_high = (
        float(part[f"{metric}_{end}"][values.index].mean(skipna=False)) if n else math.nan
        for end in ("low", "high")
    )
    resampled = (
        np.stack([d.resampled for d in drawn if d.resampled is not None])
        if drawn
        else np.empty((0, 0))
    )
    resampled = resampled[:, np.isfinite(resampled).all(axis=0)]
    if drawn and len(drawn) == n and resampled.size:
        low, high = two_level_interval(
            [d.value for d in drawn], resampled, logit=ESTIMATED[metric].scale == "logit"
        )
        if low == high:  # every resample says the same, such as 0: no spread is not certainty
            low, high = own_low, own_high
    elif metric == "ums_cumulative" and n > 1 and not math.isnan(own_low) and low < high:
        low, high = widened(
            values, *(part[f"{metric}_{end}"][values.index] for end in ("low", "high"))
        )
    elif n == 1 or (n > 1 and low == high):
        low, high = own_low, own_high
    least, most = ESTIMATED[metric].low, ESTIMATED[metric].high
    low, high = (x if math.isnan(x) else min(max(x, least), most) for x in (low, high))
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high, f"{metric}_seeds": n}


def t_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean, Student's interval of it and the number of values; NaN where there are too
    few.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan, n
    half = float(student.ppf((1 + level) / 2, n - 1)) * math.sqrt(
        math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n
    )
    return mean, mean - half, mean + half, n
