"""Which training images come back, against how often the model saw each: the share
extracted at each multiplicity.

A *kind* of training image says how often it was shown: ``x1``, ``x64``; or what else
sets it apart, such as ``near``, the variants of near-duplicates. An image is extracted
if at least one image of the run is a copy of it: any pair within ``space.copy`` counts,
not the nearest alone, as for UMS. So each variant of near-duplicates is an image of
its own, and an image that copies one is often a copy of its siblings too: their share
is not that of images shown once, and their interval, which takes images as
independent, is too narrow. Shares depend on the number of images of the run: compare at
equal numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from membench.metrics.detection import unit
from membench.metrics.regions import in_region, stored
from membench.metrics.rows import Metric
from membench.metrics.unique import Interval
from membench.types import Space

SHARE, COPIES = "extracted_share", "copies_per_image"


def multiplicity_table(
    matches: pd.DataFrame, space: Space, kinds: Sequence[str], *, level: float = 0.95
) -> list[Metric]:
    """``extracted_share`` and ``copies_per_image``, subset ``kind=`` each kind of
    training image, in natural order.

    matches: columns sample_id, training, similarity; all pairs of the run's images up
    to ``space.floor``; may be empty, which gives zeros. kinds [n training]: of each
    unique training image; with fewer than two different ones, no Metric. n: images
    of the kind. ``extracted_share``, in [0, 1]: of those, the share that some image
    copies, with Wilson's interval (1927). ``copies_per_image``, >= 0: the mean number
    of images that copy an image of the kind. ``threshold``: ``space.copy``. None where
    the space keeps no pairs as far as that. Raises ValueError for a training image
    without a kind, or a similarity of NaN.
    """
    names = sorted(set(kinds), key=natural)
    if len(names) < 2:
        return []
    if len(matches) and not 0 <= matches["training"].min() <= matches["training"].max() < len(
        kinds
    ):
        raise ValueError(
            f"the matches name training images beyond the {len(kinds)} that have a kind"
        )
    if matches["similarity"].isna().any():
        raise ValueError("a similarity is NaN")
    copies = matches[in_region(matches["similarity"].to_numpy(), space, space.copy)]
    pairs = copies[["sample_id", "training"]].drop_duplicates()
    # Images that copy each image
    times = np.bincount(pairs["training"].to_numpy(dtype=np.int64), minlength=len(kinds))
    kind, rows = np.asarray(kinds, dtype=object), []
    for name in names:
        of = times[kind == name]
        n, hits, subset = len(of), int((of > 0).sum()), f"kind={name}"
        if not stored(space, space.copy):
            rows += [
                Metric(metric, None, space.copy, None, None, None, n, subset)
                for metric in (SHARE, COPIES)
            ]
            continue
        rows.append(Metric(SHARE, None, space.copy, hits / n, *wilson(hits, n, level), n, subset))
        rows.append(Metric(COPIES, None, space.copy, float(of.mean()), None, None, n, subset))
    return rows


def natural(kind: str) -> tuple[float, str]:
    """Sorts kinds: by multiplicity (``x4`` before ``x16``), then the others by name."""
    times = multiplicity_of(kind)
    return (float("inf") if times is None else times, kind)


def multiplicity_of(kind: str) -> int | None:
    """64 of ``x64``; None for a kind that is not a multiplicity."""
    found = re.fullmatch(r"x([0-9]+)", kind)
    return int(found[1]) if found else None


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval (1927) of a share of n >= 1: not empty where none or all are
    hit. Raises ValueError for hits beyond n.
    """
    found = binomtest(hits, n).proportion_ci(level, method="wilson")
    return unit(found.low), unit(found.high)
