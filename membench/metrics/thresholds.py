"""AMS and UMS as functions of the threshold: cumulative at every edge of a grid, banded
for every pair of edges.

Equations 6-9 of Chen et al., "SIDE" (arXiv 2410.02467v7), with alpha and beta as
variables. One pass over the stored pairs gives all bands: each pair falls into one
elementary bin between neighbouring edges, and a band is a run of bins. Conventions
(half-open bands, the top of a similarity closed, limits rounded to float32) are those
of ``metrics.extraction``; the numbers are the same.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from membench.metrics.extraction import nearest_matches, ums_intervals
from membench.metrics.intervals import mean_resamples, percentiles
from membench.metrics.regions import in_region
from membench.metrics.separation import bounded
from membench.metrics.unique import rarefied
from membench.types import Space

COLUMNS = ("metric", "form", "alpha", "beta", "value", "low", "high", "n")


def grid_of(space: Space, n: int = 41) -> np.ndarray:
    """Edges to sweep: ``n`` evenly spaced from the nearest end of the space's bands to
    its floor, with every band's ends and the copy threshold among them. float64,
    ascending; nothing beyond the floor, where pairs are not stored.
    """
    ends = [end for band in space.bands for end in (band.low, band.high)]
    near = max(ends) if space.higher_is_closer else min(ends)
    edges = np.unique(
        np.concatenate([np.linspace(near, space.floor, n), ends, [space.copy]]).round(10)
    )
    return edges[edges >= space.floor] if space.higher_is_closer else edges[edges <= space.floor]


def curves(
    matches: pd.DataFrame,
    n_generated: int,
    space: Space,
    edges: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    at: int | None = None,
    bands: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """``ams``, ``ums`` and ``ums_nearest`` of one run: cumulative at each of the edges
    [k], banded for each of their k (k - 1) / 2 pairs.

    Columns COLUMNS. form "cumulative": gamma >= alpha for a similarity (beta NaN),
    gamma <= beta for a distance (alpha NaN); form "banded": [alpha, beta), closed where
    beta is the highest edge of a similarity. groups [n_generated]: adds 95 % intervals,
    to AMS by bootstrap over groups (where no image or every one is hit:
    Clopper-Pearson), to cumulative UMS as ``extraction.ums_intervals``; a banded UMS
    has none. at: adds ``ums_equal_n``, the cumulative UMS that so many of the images
    would have, by exact rarefaction, so that runs of different N_G compare; without
    intervals. bands: False leaves the pairs of edges out. n: the number of images that
    a row speaks of. Raises ValueError for fewer than 2 edges, edges that do not ascend
    or lie beyond the floor, and as ``extraction.nearest_matches``.
    """
    edges = np.asarray(edges, dtype=np.float64)
    if len(edges) < 2 or not (np.diff(edges.astype(np.float32)) > 0).all():
        raise ValueError("a grid of thresholds needs at least 2 edges, ascending")
    if (edges.min() < space.floor) if space.higher_is_closer else (edges.max() > space.floor):
        raise ValueError(
            f"the grid reaches beyond the floor of {space.floor:g} of {space.id}, where pairs are"
            " not stored"
        )
    if at is not None and not 1 <= at <= n_generated:
        raise ValueError(f"at must lie between 1 and {n_generated}")
    near = nearest_matches(matches, n_generated)
    rows = [*_ams(near["similarity"].to_numpy(), space, edges, groups, bands, resamples, seed)]
    for name, part in (("ums", matches), ("ums_nearest", near)):
        rows += _cumulative_ums(name, part, n_generated, space, edges, groups)
        rows += _banded_ums(name, part, n_generated, space, edges) if bands else []
    if at is not None:
        for edge in edges:
            hits = np.unique(
                matches["training"].to_numpy()[_inside(matches, space, edge)], return_counts=True
            )[1]
            expected = float(rarefied(hits, n_generated, [at])[0])
            rows.append(
                (
                    "ums_equal_n",
                    "cumulative",
                    *_ends(space, edge),
                    expected / at,
                    np.nan,
                    np.nan,
                    at,
                )
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _ams(
    best: np.ndarray,
    space: Space,
    edges: np.ndarray,
    groups: np.ndarray | None,
    bands: bool,
    resamples: int,
    seed: int,
) -> list[tuple]:
    n, k = len(best), len(edges)
    below = np.stack([best < np.float32(e) for e in edges], axis=1)
    if space.higher_is_closer:
        below[:, -1] = best <= np.float32(edges[-1])  # the top is closed
    cumulative = np.stack([in_region(best, space, float(e)) for e in edges], axis=1)
    hits = np.concatenate([cumulative, below], axis=1).astype(np.float64)
    drawn = None if groups is None else mean_resamples(hits, groups, resamples=resamples, seed=seed)
    independent = 0 if groups is None else len(np.unique(np.asarray(groups).astype(str)))

    def row(form: str, alpha: float, beta: float, count: int, of: np.ndarray | None) -> tuple:
        low, high = (np.nan, np.nan)
        if of is not None:
            low, high = bounded(percentiles(of, 0.95), independent, 0.95)
        return ("ams", form, alpha, beta, count / n, low, high, n)

    counts = hits.sum(axis=0).astype(int)
    rows = []
    for i, edge in enumerate(edges):
        of = None if drawn is None else drawn[:, i]
        rows.append(row("cumulative", *_ends(space, edge), counts[i], of))
    for i in range(k if bands else 0):
        for j in range(i + 1, k):
            of = None if drawn is None else drawn[:, k + j] - drawn[:, k + i]
            rows.append(row("banded", edges[i], edges[j], counts[k + j] - counts[k + i], of))
    return rows


def _cumulative_ums(
    name: str,
    pairs: pd.DataFrame,
    n_generated: int,
    space: Space,
    edges: np.ndarray,
    groups: np.ndarray | None,
) -> list[tuple]:
    rows = []
    for edge in edges:
        seen = pairs["training"][_inside(pairs, space, edge)].nunique()
        low = high = np.nan
        if groups is not None:
            every, nearest = ums_intervals(pairs, n_generated, space, float(edge), groups)
            low, high = (every if name == "ums" else nearest) or (np.nan, np.nan)
        rows.append(
            (name, "cumulative", *_ends(space, edge), seen / n_generated, low, high, n_generated)
        )
    return rows


def _banded_ums(
    name: str, pairs: pd.DataFrame, n_generated: int, space: Space, edges: np.ndarray
) -> list[tuple]:
    """Every band of the grid: a training image counts for [i, j) if the last of its
    bins before j is not before i.
    """
    limits, values = edges.astype(np.float32), pairs["similarity"].to_numpy()
    bins = np.searchsorted(limits, values, side="right") - 1
    if space.higher_is_closer:
        bins[values == limits[-1]] = len(edges) - 2  # the top is closed
    kept = (bins >= 0) & (bins < len(edges) - 1)
    bins = bins[kept]
    found, column = np.unique(pairs["training"].to_numpy()[kept], return_inverse=True)
    last, rows = np.full(len(found), -1), []
    for j in range(1, len(edges)):
        last[column[bins == j - 1]] = j - 1
        # Of images whose last bin is i or later
        counts = np.bincount(last[last >= 0], minlength=j)[::-1].cumsum()[::-1]
        rows += [
            (
                name,
                "banded",
                edges[i],
                edges[j],
                counts[i] / n_generated,
                np.nan,
                np.nan,
                n_generated,
            )
            for i in range(j)
        ]
    return rows


def _inside(pairs: pd.DataFrame, space: Space, edge: float) -> np.ndarray:
    return in_region(pairs["similarity"].to_numpy(), space, float(edge))


def _ends(space: Space, edge: float) -> tuple[float, float]:
    """(alpha, beta) of a cumulative row."""
    return (edge, np.nan) if space.higher_is_closer else (np.nan, edge)


def threshold(curve: pd.DataFrame) -> pd.Series:
    """The one threshold of each cumulative row."""
    return curve["alpha"].fillna(curve["beta"])
