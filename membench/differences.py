"""Which of two detectors is better, and is it sure? Paired differences on the same examples, corrected for how many are looked at.

Both detectors are resampled alike (``resampling.Resampler``): a group of examples that happens to be easy is easy for both, and
cancels. Only examples that both have scored and seeds that both have run count.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from membench.comparison import BOARD
from membench.metrics.intervals import percentiles
from membench.metrics.levels import holm, p_value, two_level
from membench.printing import DETECTION, interval
from membench.resampling import Resampler
from membench.runs import Run

METRICS = ("auroc", "tpr_at_fpr_0.01", "average_precision")
RESAMPLES = 5000  # the least p is 2 / 5001: Holm's adjustment over 100 pairs can still come out below 0.05
COLUMNS = ("metric", "a", "a_options", "b", "b_options", "difference", "low", "high", "p", "p_holm", "n", "seeds")


def differences(
    frame: pd.DataFrame, runs: Sequence[Run], metrics: Sequence[str] = METRICS, resampler: Resampler | None = None
) -> pd.DataFrame:
    """One row a board, metric and pair of settings: metric of ``a`` less that of ``b``, ``a`` the better one.

    frame: of ``leaderboard.collect``; runs: its runs. Columns: the board's and COLUMNS. ``low``, ``high``: 95 % interval over groups
    and seeds (``metrics.levels``). ``p``: two-sided, from the same distribution; ``p_holm``: Holm's adjustment over all pairs of this
    board and metric. ``n``: examples; ``seeds``: how many both have. A pair without a common seed, or with fewer than 2 groups in a
    class, is left out.
    """
    known, resampler = {str(run.path): run for run in runs}, resampler or Resampler(resamples=RESAMPLES)
    rows: list[dict[str, Any]] = []
    for names, part in frame.groupby(list(BOARD), dropna=False, sort=False):
        board = dict(zip(BOARD, names, strict=True))
        scored = part[part.auroc.notna()].sort_values(["detector", "options", "settings", "seed"])
        settings = [of for _, of in scored.groupby("settings", sort=False)]
        pairs = list(itertools.combinations(settings, 2))
        shown = tqdm(pairs, desc="differences", unit="pair", delay=1, leave=False, disable=None)  # None: no bar in a file
        found = [row for a, b in shown for row in _pair(a, b, known, metrics, resampler)]
        for metric in metrics:
            of_metric = [row for row in found if row["metric"] == metric]
            for row, adjusted in zip(of_metric, holm([row["p"] for row in of_metric]), strict=True):
                rows.append(board | row | {"p_holm": adjusted})
    table = pd.DataFrame(rows, columns=[*BOARD, *COLUMNS])
    return table.sort_values([*BOARD, "metric", "a", "a_options", "b", "b_options"], ignore_index=True)


def _pair(a: pd.DataFrame, b: pd.DataFrame, known: dict[str, Run], metrics: Sequence[str], resampler: Resampler) -> list[dict[str, Any]]:
    """A row a metric that both have."""
    seeds = sorted(set(a.seed) & set(b.seed))
    if not seeds:
        return []
    runs = [known[of[of.seed == seed].run.iloc[0]] for of in (a, b) for seed in seeds]
    found = resampler.detection(runs)
    examples = len(set.intersection(*(set(resampler.examples(run).id) for run in runs)))
    rows = []
    for metric in metrics:
        drawn = [of.get(metric) for of in found]
        if any(d is None or d.resampled is None for d in drawn):
            continue
        values = np.array([d.value for d in drawn if d]).reshape(2, -1)
        resampled = np.stack([d.resampled for d in drawn if d and d.resampled is not None]).reshape(2, len(seeds), -1)
        sign = -1 if values[0].mean() < values[1].mean() else 1
        spread = two_level(sign * (values[0] - values[1]), sign * (resampled[0] - resampled[1]))
        low, high = percentiles(spread, 0.95)
        (first, second) = (a, b) if sign == 1 else (b, a)
        rows.append(
            {"metric": metric, "difference": float(abs(values[0].mean() - values[1].mean())), "low": low, "high": high}
            | {"p": p_value(spread), "n": examples, "seeds": len(seeds)}
            | {f"{name}{end}": of[column].iloc[0] for name, of in (("a", first), ("b", second)) for end, column in _NAMES}
        )
    return rows


_NAMES = (("", "detector"), ("_options", "options"))


def differences_table(table: pd.DataFrame, metric: str = "auroc") -> tuple[pd.DataFrame, list[str]]:
    """Text of one board's rows of a metric, and the notes below."""
    rows = table[table.metric == metric].sort_values("difference", ascending=False)
    out = pd.DataFrame(
        {
            "better": _names(rows, "a"),
            "worse": _names(rows, "b"),
            f"difference in {DETECTION.get(metric, metric)}": [interval(r.difference, r.low, r.high) for r in rows.itertuples()],
            "p": [_p(value) for value in rows.p],
            "p (Holm)": [_p(value) for value in rows.p_holm],
            "sure": ["yes" if value < 0.05 else "no" for value in rows.p_holm],
            "n": [f"{n:,}" for n in rows.n],
            "seeds": rows.seeds.astype(str),
        }
    )
    note = f"paired on the same examples, groups and seeds resampled together; p adjusted by Holm (1979) for {len(rows)} pairs; "
    return out, [note + "sure: adjusted p below 0.05"]


def _names(rows: pd.DataFrame, which: str) -> list[str]:
    return [f"{name} {options}".strip() for name, options in zip(rows[which], rows[f"{which}_options"], strict=True)]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
