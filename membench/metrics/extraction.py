"""How many training images come back: AMS and UMS of Chen et al., "SIDE" (AAAI 2026,
arXiv 2410.02467v7), and what surrounds them.

Every function reads a frame of matches (``membench.similarity.search.MATCH_COLUMNS``)
of ``n_generated`` images, in which the nearest training image of each stands, and every
pair up to ``space.floor``. ``gamma`` is the stored similarity or distance; a *region*
of it is a band or a limit (:mod:`membench.metrics.regions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from membench.metrics.detection import unit
from membench.metrics.intervals import share_intervals
from membench.metrics.regions import far_edge, in_region, stored
from membench.metrics.rows import Metric
from membench.metrics.unique import Interval, chao1, chao1_interval, rarefied, unique_interval
from membench.types import Band, Space

PERCENTILES = (50, 75, 90, 95, 99)
CONFIDENT = (10, 50, 100)


def nearest_matches(matches: pd.DataFrame, n_generated: int) -> pd.DataFrame:
    """The rank-0 row of each generated image, in order: ``n_generated`` rows.

    Raises ValueError if there are no images, one has no nearest or several, or a
    similarity is NaN.
    """
    first = matches[matches["rank"] == 0].sort_values("generated", ignore_index=True)
    if n_generated < 1 or not np.array_equal(first["generated"], np.arange(n_generated)):
        raise ValueError(
            f"the matches do not hold exactly one nearest training image for each of {n_generated}"
            " generated images"
        )
    if matches["similarity"].isna().any():
        raise ValueError("a similarity is NaN")
    return first


def ams(matches: pd.DataFrame, n_generated: int, space: Space, region: Band | float) -> float:
    """Average memorization score, in [0, 1]: the share of generated images whose best
    gamma lies in the region.

    SIDE: AMS = (1/N_G) sum_i 1[max_j gamma(x_i, x_j) in region]; min_j for a distance.
    """
    return float(
        in_region(
            nearest_matches(matches, n_generated)["similarity"].to_numpy(), space, region
        ).mean()
    )


def ums(matches: pd.DataFrame, n_generated: int, space: Space, region: Band | float) -> float:
    """Unique memorization score, >= 0: distinct training images with any gamma in the
    region, over N_G.

    SIDE: UMS = (1/N_G) |union_i {j : gamma(x_i, x_j) in region}|. Every j counts, not
    only the nearest, so UMS can exceed AMS, and 1. Depends on N_G: compare at equal N_G
    only. Raises ValueError if the region reaches beyond ``space.floor``, where pairs
    are not stored.
    """
    columns = _columns(matches, n_generated)
    if not stored(space, region):
        raise ValueError(
            f"UMS to {far_edge(space, region):g} needs pairs beyond the floor of {space.floor:g} of"
            f" {space.id}, which are not stored"
        )
    return _ums(columns, space, region)


def ums_nearest(
    matches: pd.DataFrame, n_generated: int, space: Space, region: Band | float
) -> float:
    """UMS in which a generated image stands for its nearest training image only: in [0,
    1], never above AMS.
    """
    return len(_abundance(_columns(matches, n_generated), space, region)) / n_generated


def precision_of_confident(confidence: np.ndarray, is_copy: np.ndarray, k: int) -> float | None:
    """Share of copies among the k most confident images, in [0, 1]; None for fewer than
    k images.

    confidence: float [n], higher = surer; is_copy: bool [n]. Where images tie for the
    last places, the expectation over all orders of the tied. Raises ValueError for a
    confidence that is not finite.
    """
    if not np.isfinite(confidence).all():
        raise ValueError("a confidence is not finite: a failed sample must be left out")
    if len(confidence) < k:
        return None
    last = np.sort(confidence)[-k]
    above = confidence > last
    return unit((is_copy[above].sum() + (k - above.sum()) * is_copy[confidence == last].mean()) / k)


def unique_per_1000(
    matches: pd.DataFrame, n_generated: int, space: Space, evaluations: int
) -> float:
    """Distinct nearest training images within ``space.copy``, per 1,000 network
    evaluations. Raises ValueError for none.
    """
    if evaluations < 1:
        raise ValueError(f"{evaluations} network evaluations")
    return 1000 * len(copy_counts(matches, n_generated, space)) / evaluations


def rarefaction(
    matches: pd.DataFrame, n_generated: int, space: Space, sizes: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Expected number of distinct training images copied by n of the N_G images, for
    each n of sizes: float64.

    Exact over all subsets (:func:`membench.metrics.unique.rarefied`); an image stands
    for its nearest within ``space.copy``. It puts two runs at equal N_G, as SIDE's
    sum_i 1 - (1 - p_i)^N_G asks. Raises ValueError for a size outside 0..N_G.
    """
    return rarefied(copy_counts(matches, n_generated, space), n_generated, sizes)


def copy_counts(matches: pd.DataFrame, n_generated: int, space: Space) -> np.ndarray:
    """For each training image that some generated image copies (nearest, within
    ``space.copy``): by how many. int [copied].
    """
    return _abundance(_columns(matches, n_generated), space, space.copy)


def ums_intervals(
    matches: pd.DataFrame, n_generated: int, space: Space, region: Band | float, groups: np.ndarray
) -> tuple[Interval | None, Interval | None]:
    """95 % intervals of :func:`ums` and :func:`ums_nearest` over groups [n_generated],
    at this N_G: ``unique.unique_interval``.

    The units of sampling are the groups; pass ``np.arange(n_generated)`` for
    independent images. ``ums_nearest`` is cut at 1. None for fewer than 2 groups, and
    for the UMS of a region that is not stored.
    """
    return _ums_intervals(
        _columns(matches, n_generated), space, region, *_members(groups, n_generated)
    )


def extraction_metrics(
    matches: pd.DataFrame,
    n_generated: int,
    space: Space,
    *,
    confidence: np.ndarray | None = None,
    evaluations: int | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Metric]:
    """All extraction metrics of one run. n is ``n_generated``, but for ``rarefaction``,
    where it is the number of images generated.

    confidence [n_generated]: adds ``precision_at_10``, ``_50``, ``_100``. evaluations:
    adds ``unique_per_1000_evaluations``. groups [n_generated]: adds 95 % intervals over
    groups: to AMS by bootstrap, or Clopper-Pearson where no image or every one is hit
    (``intervals.share_intervals``); to UMS by the variance of Colwell et al. 2012
    (:func:`ums_intervals`), not by bootstrap: a resample repeats images, so it holds
    fewer distinct ones than a fresh run would, and the interval would miss its own
    value. UMS of a region beyond ``space.floor`` has the value None.
    ``chao1_estimate``: an estimate, always with its interval over images: how many
    training images more images of the same kind would copy in the end, at least
    (``unique.chao1``); 0 and no interval if none was copied, which tells nothing of
    what would be.

    Names: ``ams``, ``ums``, ``ums_nearest`` a band; the same with ``_cumulative`` to
    the far edge of each band (``band`` set) and to ``space.copy`` (``band`` None);
    ``best_p50`` ... ``best_p99``: percentiles of the best gamma as it is, linearly
    interpolated (of a similarity: higher = more copied; of a distance: lower, and p95
    is near the *least* copied, SIDE's choice).
    """
    columns = _columns(matches, n_generated)
    best = columns.best
    regions: list[tuple[str, str | None, float | None, Band | float]] = [
        ("", band.name, None, band) for band in space.bands
    ]
    edges = [(band.name, far_edge(space, band)) for band in space.bands]
    regions += [("_cumulative", name, edge, edge) for name, edge in [*edges, (None, space.copy)]]

    shares = [in_region(best, space, region) for *_, region in regions]
    ams_found: list[Interval | None] = [None] * len(regions)
    ums_found: list[tuple[Interval | None, Interval | None]] = [(None, None)] * len(regions)
    if groups is not None:
        member, units = _members(groups, n_generated)
        ams_found = share_intervals(
            np.stack(shares, axis=1), groups, resamples=resamples, seed=seed
        )
        ums_found = [
            _ums_intervals(columns, space, region, member, units) for *_, region in regions
        ]

    rows = []
    for (suffix, band, threshold, region), share, interval, (every, nearest) in zip(
        regions, shares, ams_found, ums_found, strict=True
    ):
        unique = _ums(columns, space, region) if stored(space, region) else None
        values = {
            "ams": float(share.mean()),
            "ums": unique,
            "ums_nearest": len(_abundance(columns, space, region)) / n_generated,
        }
        for (name, value), found in zip(values.items(), (interval, every, nearest), strict=True):
            low, high = found or (None, None)
            rows.append(Metric(name + suffix, band, threshold, value, low, high, n_generated))
    for q in PERCENTILES:
        rows.append(
            Metric(
                f"best_p{q}",
                None,
                None,
                float(np.percentile(best.astype(np.float64), q)),
                None,
                None,
                n_generated,
            )
        )
    if confidence is not None:
        copies = in_region(best, space, space.copy)
        if len(confidence) != n_generated:
            raise ValueError(f"{len(confidence)} confidences for {n_generated} generated images")
        for k in CONFIDENT:
            value_at = precision_of_confident(np.asarray(confidence), copies, k)
            rows.append(
                Metric(f"precision_at_{k}", None, space.copy, value_at, None, None, n_generated)
            )
    if evaluations is not None:
        value = unique_per_1000(matches, n_generated, space, evaluations)
        rows.append(
            Metric("unique_per_1000_evaluations", None, space.copy, value, None, None, n_generated)
        )
    counts = _abundance(columns, space, space.copy)
    low, high = chao1_interval(counts, n_generated) or (None, None)
    rows.append(
        Metric(
            "chao1_estimate", None, space.copy, chao1(counts, n_generated), low, high, n_generated
        )
    )
    sizes = np.unique(np.linspace(1, n_generated, 50).round().astype(int))
    for size, expected in zip(sizes, rarefied(counts, n_generated, sizes), strict=True):
        rows.append(Metric("rarefaction", None, space.copy, float(expected), None, None, int(size)))
    return rows


@dataclass(frozen=True)
class _Columns:
    """What every region is cut from, checked and sorted once: the pairs [p], and the
    nearest of each image [n], in order.
    """

    generated: np.ndarray  # int [p]
    training: np.ndarray  # int [p]
    similarity: np.ndarray  # float32 [p]
    best: np.ndarray  # float32 [n]
    nearest: np.ndarray  # int [n]: a training image


def _columns(matches: pd.DataFrame, n_generated: int) -> _Columns:
    near = nearest_matches(matches, n_generated)
    generated, training, similarity = (
        matches[name].to_numpy() for name in ("generated", "training", "similarity")
    )
    return _Columns(
        generated, training, similarity, near["similarity"].to_numpy(), near["training"].to_numpy()
    )


def _ums(columns: _Columns, space: Space, region: Band | float) -> float:
    return len(pd.unique(columns.training[in_region(columns.similarity, space, region)])) / len(
        columns.best
    )


def _abundance(columns: _Columns, space: Space, region: Band | float) -> np.ndarray:
    """For each training image that is the nearest of some generated image within the
    region: of how many.
    """
    return np.unique(columns.nearest[in_region(columns.best, space, region)], return_counts=True)[1]


def _members(groups: np.ndarray, n_generated: int) -> tuple[np.ndarray, int]:
    """The number of each image's group, int [n], and how many groups there are."""
    names, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(member) != n_generated:
        raise ValueError(f"{len(member)} groups for {n_generated} generated images")
    return member, len(names)


def _ums_intervals(
    columns: _Columns, space: Space, region: Band | float, member: np.ndarray, units: int
) -> tuple[Interval | None, Interval | None]:
    n = len(columns.best)
    hit = in_region(columns.similarity, space, region) if stored(space, region) else None
    close = in_region(columns.best, space, region)
    every = (
        None
        if hit is None
        else unique_interval(member[columns.generated[hit]], columns.training[hit], units, n)
    )
    nearest = unique_interval(member[close], columns.nearest[close], units, n)
    return every, nearest and (nearest[0], min(1.0, nearest[1]))
