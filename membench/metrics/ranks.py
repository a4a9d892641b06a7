"""Pairs of a positive and a negative that the positive wins, under many weightings of
the rows at once.

A statistic of ranks needs each class sorted once; under weights it is then a cumulated
sum over the negatives, read off where the positives stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CELLS = 1 << 16  # weights worked on at once: they stay in a core's cache


@dataclass(frozen=True)
class Places:
    """Where positives stand among negatives, both from the highest score down.

    positive [p], negative [q]: their rows. above, upto [p]: how many negatives score
    higher than a positive, and how many score no less; without ties one array.
    """

    positive: np.ndarray
    negative: np.ndarray
    above: np.ndarray
    upto: np.ndarray


def places(scores: np.ndarray, labels: np.ndarray) -> Places:
    """Of scores, float [n], and labels [n]; rows of a label other than 1 and 0 are
    left out.
    """
    positive, negative = (_descending(scores, np.flatnonzero(labels == x)) for x in (1, 0))
    above, upto = counts(scores[negative], scores[positive])
    return Places(positive, negative, above, above if np.array_equal(above, upto) else upto)


def counts(descending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of ``descending`` are greater than each value, and how many are no less."""
    first, last = (np.searchsorted(-descending, -values, side) for side in ("left", "right"))
    return first, last


def taken(weights: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights [r, n] of some rows, float64 [r, k], and the weight of the first i of
    them, [r, k + 1], i from 0.

    Whole weights are summed as whole numbers: a sum of reals waits seven times as long for
    the one before it.
    """
    own = np.take(weights, rows, axis=1)
    own = own.astype(np.int64 if own.dtype.kind in "bui" else np.float64)
    found = np.zeros((len(own), own.shape[1] + 1), own.dtype)
    np.cumsum(own, axis=1, out=found[:, 1:])
    return own.astype(np.float64), found.astype(np.float64)


def beaten(negative: np.ndarray, at: Places) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the negatives that score higher than each positive, and of those that
    score no less, [r, p] each; without ties one array. negative: of :func:`taken` the sums, of
    the negatives from the highest score down.
    """
    upto = np.take(negative, at.upto, axis=1)
    return upto if at.above is at.upto else np.take(negative, at.above, axis=1), upto


def wins(own: np.ndarray, total: np.ndarray, above: np.ndarray, upto: np.ndarray) -> np.ndarray:
    """Weight of the pairs that the positive wins, half of a tie: [r].

    own: weights of the positives [r, p]; total: of all pairs [r]; above, upto: of
    :func:`beaten`. Sums of whole numbers, so without rounding.
    """
    lost = np.einsum("rp,rp->r", own, upto)
    return total - (lost + (lost if above is upto else np.einsum("rp,rp->r", own, above))) / 2


def parts(weights: np.ndarray) -> Iterator[np.ndarray]:
    """The weights [r, n], some rows at a time."""
    step = max(1, _CELLS // max(1, weights.shape[1]))
    for start in range(0, len(weights), step):
        yield weights[start : start + step]


def _descending(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-scores[rows], kind="stable")]
