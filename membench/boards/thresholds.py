"""What the threshold does to AMS and UMS, and to the order of detectors: a sweep over
stored matches, without a network evaluation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from membench.boards.collect import about, setting_terms
from membench.boards.identity import BOARD, marked, status_of
from membench.errors import UserError
from membench.metrics.levels import mover, widened
from membench.metrics.thresholds import curves, grid_of, threshold
from membench.runs.finished import Run
from membench.types import Space

SETTING = (*BOARD, "space_id", "detector", "options", "settings")
COMPARED = {"ams": "AMS", "ums_equal_n": "UMS"}


def parse_grid(text: str, space: Space) -> np.ndarray:
    """``auto``, ``LOW:HIGH:N`` (N edges) or edges separated by commas.

    Raises :class:`UserError` for what makes no grid of this space.
    """
    if text == "auto":
        return grid_of(space)
    try:
        if ":" in text:
            low, high, count = text.split(":")
            ends, n = np.array([float(low), float(high)]), int(count)
        else:
            ends, n = np.array([float(word) for word in text.split(",")]), 0
    except ValueError:
        ends, n = np.empty(0), 0
    finite = np.isfinite(ends).all()
    edges = ends
    if ":" in text and len(ends) and finite:  # rounded: 0.6, not 0.6000000000000001
        edges = np.linspace(ends[0], ends[1], max(n, 0)).round(10)
    if len(edges) < 2 or not finite or not (np.diff(edges) > 0).all():
        raise UserError(
            f"--thresholds {text!r}: write auto, LOW:HIGH:N or at least 2 ascending numbers"
            " separated by commas"
        )
    near = -1.0 if space.higher_is_closer else 0.0
    if edges[0] < near or (space.higher_is_closer and edges[-1] > 1):
        raise UserError(
            f"--thresholds {text}: outside the range of {space.id},"
            f" {'-1 to 1' if space.higher_is_closer else '0 and more'}"
        )
    if (edges[0] < space.floor) if space.higher_is_closer else (edges[-1] > space.floor):
        raise UserError(
            f"--thresholds {text}: pairs beyond {space.floor:g} of {space.id} are not stored"
        )
    return edges


def sweep_thresholds(
    runs: Sequence[Run], grid: str = "auto", *, resamples: int = 1000
) -> pd.DataFrame:
    """A row a run, metric and region: columns SETTING, seed, status, two of the space,
    and those of ``thresholds.curves``.

    ``ums_equal_n`` is at the smallest number of images among the board's complete runs,
    since UMS depends on it; a partial run with fewer has none. Raises
    :class:`UserError` where no run has images, or the grid makes no sense.
    """
    parts = []
    with_images = [(run, about(run)) for run in runs if run.n_ok]
    if not with_images:
        raise UserError("none of these runs has images: AMS and UMS need some")
    rows = pd.DataFrame([{n: row[n] for n in (*BOARD, "status")} for _, row in with_images])
    rows["n"] = [run.n_ok for run, _ in with_images]
    terms = np.empty(len(rows), dtype=np.int64)
    for _, part in rows.groupby(list(BOARD), dropna=False):
        terms[part.index] = setting_terms(part).n.min()
    for (run, row), least in zip(with_images, terms, strict=True):
        good, found = run.found()
        table = curves(
            found,
            len(good),
            run.space,
            parse_grid(grid, run.space),
            groups=run.groups(good),
            at=int(least) if least <= len(good) else None,
            resamples=resamples,
        )
        kept = {name: row[name] for name in (*SETTING, "seed", "status")}
        parts.append(
            table.assign(**kept, **_of_space(run.space))[
                [*kept, *_of_space(run.space), *table.columns]
            ]
        )
    return pd.concat(parts, ignore_index=True)


def _of_space(space: Space) -> dict[str, float | bool]:
    return {"higher_is_closer": space.higher_is_closer, "copy": space.copy}


def over_seeds(swept: pd.DataFrame) -> pd.DataFrame:
    """A row a setting, metric and region: mean over seeds, and the runs' own intervals
    widened by the seeds' spread (``levels.widened``).

    Columns as of :func:`sweep_thresholds`, ``seeds`` (how many) in place of ``seed``.
    """
    keys = [*SETTING, "higher_is_closer", "copy", "metric", "form", "alpha", "beta"]
    rows = []
    for names, part in swept.sort_values("seed", kind="stable").groupby(
        keys, dropna=False, sort=False
    ):
        low, high = widened(part.value, part.low, part.high)
        most = 1.0 if part.metric.iloc[0] == "ams" else math.inf
        low, high = (end if math.isnan(end) else min(max(end, 0.0), most) for end in (low, high))
        common = {
            "seeds": len(part),
            "status": status_of(part.status),
            "value": part.value.mean(),
            "low": low,
            "high": high,
            "n": int(part.n.min()),
        }
        rows.append(dict(zip(keys, names, strict=True)) | common)
    return pd.DataFrame(rows)


def flips(settings: pd.DataFrame) -> pd.DataFrame:
    """Who leads at which thresholds: a row a board, metric, pair of settings and run of
    thresholds with one leader ("" for a tie).

    settings: of :func:`over_seeds`. Columns: the board's, metric, a, b (name and
    options), leader, first, last (thresholds), sure: of AMS, at which of them the 95 %
    interval of the difference, of independent runs (MOVER), leaves out 0, as text (""
    for none, and of UMS). Thresholds are those of the grid: between two of them nothing
    is known.
    """
    rows = []
    cumulative = settings[(settings.form == "cumulative") & settings.metric.isin(COMPARED)]
    for names, part in cumulative.groupby([*BOARD, "metric"], dropna=False, sort=False):
        board = dict(zip((*BOARD, "metric"), names, strict=True))
        series = named_settings(part)
        for a, b in itertools.combinations(series, 2):
            rows += [
                board | {"a": a, "b": b} | row
                for row in _leads(a, series[a], b, series[b], board["metric"] == "ams")
            ]
    return pd.DataFrame(
        rows, columns=[*BOARD, "metric", "a", "b", "leader", "first", "last", "sure"]
    )


def _leads(a: str, one: pd.DataFrame, b: str, other: pd.DataFrame, test: bool) -> Iterator[dict]:
    at, difference = threshold(one).to_numpy(), one.value.to_numpy() - other.value.to_numpy()
    sign = np.where(np.abs(difference) < 1e-12, 0, np.sign(difference)).astype(int)
    sure = [
        low > 0 or high < 0  # neither, where an end is not known
        for x, y in zip(one.itertuples(), other.itertuples(), strict=True)
        for low, high in [mover(x.value, (x.low, x.high), y.value, (y.low, y.high))]
    ]
    for which, places in itertools.groupby(range(len(at)), key=lambda i: int(sign[i])):
        run = list(places)
        spans = [
            list(of) for is_sure, of in itertools.groupby(run, key=lambda i: sure[i]) if is_sure
        ]
        text = (
            " and ".join(span_of(at[of[0]], at[of[-1]]) for of in spans) if test and which else ""
        )
        yield {
            "leader": {1: a, -1: b, 0: ""}[which],
            "first": at[run[0]],
            "last": at[run[-1]],
            "sure": text,
        }


def span_of(first: float, last: float) -> str:
    return f"at {first:g}" if first == last else f"in [{first:g}, {last:g}]"


def named_settings(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each setting by its name: detector and options, and a number where
    two are called alike.
    """
    found: dict[str, pd.DataFrame] = {}
    for _, of in part.groupby("settings", sort=False):
        name = base = marked(
            f"{of.detector.iloc[0]} {of.options.iloc[0]}".strip(), status_of(of.status)
        )
        more = (f"{base} ({k})" for k in itertools.count(2))
        while name in found:
            name = next(more)
        found[name] = of
    return found
