"""Means over seeds: the spread between whole runs, which an interval over groups within one run does not show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from scipy.stats import t as student

from membench.comparison import BOARD
from membench.printing import DETECTION, interval

# Metric: title, range beyond which an interval is cut (UMS can exceed 1), in per cent on the table or not.
METRICS: dict[str, tuple[str, float, float, bool]] = {
    **{metric: (title, 0.0, 1.0, False) for metric, title in DETECTION.items()},
    "ams_cumulative": ("AMS copies %", 0.0, 1.0, True),
    "ums_cumulative": ("UMS copies %", 0.0, math.inf, True),
    "excess_ams": ("excess AMS %", -1.0, 1.0, True),
    "excess_ums": ("excess UMS %", -math.inf, math.inf, True),
}


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a setting (and kind, if the frame is of ``leaderboard.collect_kinds``): rows that differ in their seed only together.

    Columns: the board's, detector, options, ``settings``, ``seeds`` (how many), ``seed_list``, ``status`` (partial if one is) and,
    of each of METRICS that the frame has, the mean, ``_low`` and ``_high``, and ``_seeds``: how many seeds have a value. The 95 %
    interval is Student's t over seeds, mean ± t(n - 1) s / sqrt(n): of one seed there is none. ``cut`` names the metrics whose
    interval went beyond their range and was cut there. Where all seeds have one value it is the mean of their own intervals. It covers
    what the seed changes (noise), not another training of the model.
    """
    rows = []
    metrics = {metric: about for metric, about in METRICS.items() if metric in frame}
    together = ["settings", *(["kind"] if "kind" in frame else [])]
    for _, part in frame.groupby(together, sort=False):
        part = part.sort_values("seed")
        first = part.iloc[0]
        row: dict[str, Any] = {name: first[name] for name in (*BOARD, "detector", "options", *together)}
        row |= {"seeds": part.seed.nunique(), "seed_list": " ".join(map(str, part.seed.unique()))}
        row["status"] = "complete" if (part.status == "complete").all() else "partial"
        cut = []
        for metric, (_, least, most, _) in metrics.items():
            mean, low, high, n = t_interval(part[metric].dropna().tolist())
            if n > 1 and low == high:  # every seed says the same, such as 0: no spread is not certainty
                low, high = _mean_ends(part[part[metric].notna()], metric)
            if low < least or high > most:
                cut.append(metric)
            low, high = (x if math.isnan(x) else min(max(x, least), most) for x in (low, high))
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high, f"{metric}_seeds": n}
        rows.append(row | {"cut": " ".join(cut)})
    return pd.DataFrame(rows)


def t_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean, Student's interval of it and the number of values; NaN where there are too few."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan, n
    half = float(student.ppf((1 + level) / 2, n - 1)) * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - half, mean + half, n


def _mean_ends(part: pd.DataFrame, metric: str) -> tuple[float, float]:
    """The mean of the runs' own intervals; NaN where one has none."""
    return float(part[f"{metric}_low"].mean(skipna=False)), float(part[f"{metric}_high"].mean(skipna=False))


def seeds_text(frame: pd.DataFrame, control: bool) -> tuple[pd.DataFrame, list[str]]:
    """The columns that people read of rows of :func:`over_seeds`, as text, and the notes below them. A metric of no row is left out."""
    out = pd.DataFrame({name: frame[name].astype(str) for name in ("detector", "options", "kind", "seeds") if name in frame})
    for metric, (title, *_, percent) in METRICS.items():
        if metric in frame and frame[metric].notna().any() and not (control and metric.startswith("excess")):
            out[title] = [_cell(row, metric, percent) for _, row in frame.iterrows()]
    out["coverage"] = ["" if status == "complete" else "PARTIAL" for status in frame.status]
    return out, list(_notes(frame))


def _cell(row: pd.Series, metric: str, percent: bool) -> str:
    text = interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"], scale=100 if percent else 1, digits=1 if percent else 3) + (
        "*" if metric in row.cut.split() else ""
    )
    n = row[f"{metric}_seeds"]
    if n == 0:
        return text
    return f"{text} [n/a]" if n == 1 and row.seeds == 1 else text if n == row.seeds else f"{text} ({n} of {row.seeds} seeds)"


def _notes(frame: pd.DataFrame) -> Iterable[str]:
    yield "means over seeds, 95 % t-intervals over seeds; one seed has none ([n/a]); where all seeds agree, the mean of their own intervals"
    if (frame.cut != "").any():
        yield "*: the t-interval went beyond the metric's range and was cut there"
