"""Which of two detectors is better, and is the difference significant?

Paired, on the same examples, corrected for how many are looked at.

Both detectors are resampled alike (``resampling.Resampler``): a group of examples that
happens to be easy is easy for both, and cancels. Only examples that both have scored
and seeds that both have run count.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from membench.boards.identity import BOARD, marked, status_of
from membench.boards.resampling import Resampler, same_scores
from membench.metrics.intervals import percentiles
from membench.metrics.levels import difference_p, holm, two_level
from membench.metrics.names import PAIRED
from membench.metrics.separation import difference_bound, separated_p
from membench.runs.finished import Run

# However many pairs Holm's adjustment is over: below 2 / (1 + r) p comes from the tail's
# shape (levels.difference_p). 20,000 take four times as long, and of two such draws p
# near Holm's limit differs by a factor of 1.3, where of 5,000 it does by 1.6.
RESAMPLES = 5000
LEVEL = 0.05

COLUMNS = (
    "metric",
    "a",
    "a_options",
    "b",
    "b_options",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "n",
    "seeds",
    "a_status",
    "b_status",
    "deterministic",
)


def differences(
    frame: pd.DataFrame,
    runs: Sequence[Run],
    metrics: Sequence[str] = PAIRED,
    resampler: Resampler | None = None,
) -> pd.DataFrame:
    """One row a board, metric and pair of settings: metric of ``a`` less that of ``b``,
    ``a`` the better one.

    frame: of ``leaderboard.collect``; runs: its runs. Columns: the board's and COLUMNS.
    ``low``, ``high``: 95 % interval over groups and seeds (``metrics.levels``). ``p``:
    two-sided, from the same distribution (``levels.difference_p``); ``p_holm``: Holm's
    adjustment over all pairs of this board and metric. ``n``: examples; ``seeds``: how
    many both have; ``a_status``, ``b_status``: partial if a run of it is;
    ``deterministic``: of several seeds each gives both the same scores. A pair without
    a common seed, or with fewer than 2 groups in a class, is left out.
    """
    known = {str(run.path): run for run in runs}
    resampler = resampler or Resampler(resamples=RESAMPLES, metrics=metrics)
    alike = functools.cache(_alike)
    rows: list[dict[str, Any]] = []
    for names, part in frame.groupby(list(BOARD), dropna=False, sort=False):
        board = dict(zip(BOARD, names, strict=True))
        scored = part[part.auroc.notna()].sort_values(["detector", "options", "settings", "seed"])
        settings = _told_apart(
            [_Setting.of(of, known) for _, of in scored.groupby("settings", sort=False)]
        )
        pairs = list(itertools.combinations(settings, 2))
        # None: no bar in a file
        shown = tqdm(pairs, desc="differences", unit="pair", delay=1, leave=False, disable=None)
        found = [row for a, b in shown for row in _pair(a, b, metrics, resampler, alike)]
        for metric in metrics:
            of_metric = [row for row in found if row["metric"] == metric]
            for row, adjusted in zip(of_metric, holm([row["p"] for row in of_metric]), strict=True):
                rows.append(board | row | {"p_holm": adjusted})
    table = pd.DataFrame(rows, columns=[*BOARD, *COLUMNS])
    return table.sort_values(
        [*BOARD, "metric", "a", "a_options", "b", "b_options"], ignore_index=True
    )


@dataclass(frozen=True, eq=False)
class _Setting:
    """A detector with its options. runs: one a seed."""

    detector: str
    options: str
    status: str
    runs: Mapping[int, Run]

    @staticmethod
    def of(rows: pd.DataFrame, known: Mapping[str, Run]) -> _Setting:
        """rows: of ``leaderboard.collect``; the first of a seed counts."""
        paths = list(zip(rows.seed.tolist(), rows.run.tolist(), strict=True))
        runs = {seed: known[path] for seed, path in reversed(paths)}
        first = rows.iloc[0]
        return _Setting(first.detector, first.options, status_of(rows.status), runs)

    def shown(self, name: str) -> dict[str, str]:
        """The columns of ``a`` or ``b``."""
        parts = {"": self.detector, "_options": self.options, "_status": self.status}
        return {f"{name}{end}": value for end, value in parts.items()}


def _told_apart(settings: Sequence[_Setting]) -> list[_Setting]:
    """Settings of one detector and options, as of two versions of it, with a number behind
    the options of all but the first.
    """
    found, seen = [], Counter[tuple[str, str]]()
    for of in settings:
        seen[of.detector, of.options] += 1
        count = seen[of.detector, of.options]
        found.append(replace(of, options=f"{of.options} ({count})".strip()) if count > 1 else of)
    return found


def _pair(
    a: _Setting,
    b: _Setting,
    metrics: Sequence[str],
    resampler: Resampler,
    alike: Callable[[_Setting, tuple[int, ...]], bool],
) -> list[dict[str, Any]]:
    """A row a metric that both have."""
    seeds = tuple(sorted(a.runs.keys() & b.runs.keys()))
    if not seeds:
        return []
    runs = [of.runs[seed] for of in (a, b) for seed in seeds]
    found = resampler.detection(runs)
    common = [of.frame for of in resampler.common(runs)]
    labels, groups = (common[0][name].to_numpy() for name in ("label", "group"))
    own, others = common[: len(seeds)], common[len(seeds) :]
    same = all(np.array_equal(x.score, y.score) for x, y in zip(own, others, strict=True))
    facts = {"n": len(labels), "seeds": len(seeds)}
    facts |= {"deterministic": len(seeds) > 1 and all(alike(of, seeds) for of in (a, b))}
    rows = []
    for metric in metrics:
        drawn = [of.get(metric) for of in found]
        if any(d is None or d.resampled is None for d in drawn):
            continue
        values = np.array([d.value for d in drawn if d]).reshape(2, -1)
        resampled = np.stack([d.resampled for d in drawn if d and d.resampled is not None]).reshape(
            2, len(seeds), -1
        )
        sign = -1 if values[0].mean() < values[1].mean() else 1
        between = sign * (values[0] - values[1]), sign * (resampled[0] - resampled[1])
        distribution = two_level(*between)
        low, high = percentiles(distribution, 0.95)
        better, other = (a, b) if sign == 1 else (b, a)
        p = difference_p(*between, distribution)
        if not same:  # one and the same score differs in no sample
            first, second = (float(of.mean()) for of in values[::sign])
            of_groups = labels, groups.astype(str)
            low, high = difference_bound((low, high), first, second, *of_groups, 0.95, metric)
            p = max(p, separated_p(first, second, *of_groups, metric))
        rows.append(
            {
                "metric": metric,
                "difference": float(abs(values[0].mean() - values[1].mean())),
                "low": low,
                "high": high,
                "p": p,
            }
            | facts
            | better.shown("a")
            | other.shown("b")
        )
    return rows


def _alike(of: _Setting, seeds: tuple[int, ...]) -> bool:
    """Whether the runs of these seeds give the same scores."""
    return same_scores([of.runs[seed] for seed in seeds])


def named(rows: pd.DataFrame, which: str) -> list[str]:
    """Detector and options of "a" or "b" in each row, PARTIAL in front where its runs
    are.
    """
    status = rows.get(f"{which}_status", pd.Series("complete", rows.index))
    named = zip(rows[which], rows[f"{which}_options"], status, strict=True)
    return [marked(f"{name} {options}".strip(), of) for name, options, of in named]
