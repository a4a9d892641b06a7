"""One row a setting: means over the seeds, with intervals over both groups of examples
and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
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
    "pair_settings",
    "captions_auroc",
    "captions_low",
    "captions_high",
    "captions_by",
)

SUBSETS = ("kind", "source")  # of rows that are of a part of the examples each

MEANS = (
    *("positives", "negatives", "unlabelled"),
    *("seconds", "n_g", "n_ok", "scored", "prepare_forwards", "prepare_evaluations"),
    *("forwards_per_image", "sample_forwards", "sample_evaluations", "backwards", "jvps"),
    *("surrogate_forwards", "surrogate_backwards"),
    *NUMBERS,
    *("unique_copies", "equal_n", "copied_at_equal_n"),
    *("equal_cost", "images_at_equal_cost", "copied_at_equal_cost"),
)

COSTS = tuple(f"{what}_per_example" for what in PER_EXAMPLE)


def over_seeds(
    frame: pd.DataFrame, runs: Iterable[Run] | None = None, resampler: Resampler | None = None
) -> pd.DataFrame:
    """One row a setting (and kind or source, if the frame is of
    ``leaderboard.collect_kinds``): rows that differ in their seed together.

    runs: those of the frame. With them, the 95 % intervals of detection and AMS are
    over groups and seeds (``metrics.levels``). Without them, and of UMS and whatever has
    no resamples, they are the mean of the runs' own intervals, which are over groups,
    widened by Student's t over seeds (``levels.widened``): wider than need be. Of a
    single seed its own; none where a run has none. Either is cut at the metric's range,
    and covers what the seed changes (noise), not another training of the model.

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
    part = part[part[metric].notna()]
    values = part[metric]
    mean, n = (math.fsum(values) / len(values) if len(values) else math.nan), len(values)
    lows, highs = (part[f"{metric}_{end}"] for end in ("low", "high"))
    low, high = math.nan, math.nan
    if n == 1:
        low, high = float(lows.iloc[0]), float(highs.iloc[0])
    elif n:
        low, high = widened(values, lows, highs)
    resampled = (
        np.stack([d.resampled for d in drawn if d.resampled is not None])
        if drawn
        else np.empty((0, 0))
    )
    resampled = resampled[:, np.isfinite(resampled).all(axis=0)]
    if drawn and len(drawn) == n and resampled.size:
        found = two_level_interval(
            [d.value for d in drawn], resampled, logit=ESTIMATED[metric].scale == "logit"
        )
        # Where every resample says the same, such as 0, no spread is not certainty
        low, high = found if found[0] < found[1] else (low, high)
    least, most = ESTIMATED[metric].low, ESTIMATED[metric].high
    low, high = (x if math.isnan(x) else min(max(x, least), most) for x in (low, high))
    return {metric: mean, f"{metric}_low": low, f"{metric}_high": high, f"{metric}_seeds": n}
