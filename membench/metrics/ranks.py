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


def cumulated(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weight of the first k of ``rows``, float64 [r, len(rows) + 1], k from 0."""
    found = np.zeros((len(weights), len(rows) + 1))
    np.cumsum(np.take(weights, rows, axis=1), axis=1, dtype=np.float64, out=found[:, 1:])
    return found


def wins(own: np.ndarray, negative: np.ndarray, at: Places) -> np.ndarray:
    """Weight of the pairs that the positive wins, half of a tie: [r].

    own: weights of the positives [r, p]; negative: :func:`cumulated` of the negatives.
    """
    beaten = negative[:, at.above]
    beaten += beaten if at.above is at.upto else negative[:, at.upto]
    np.subtract(2 * negative[:, -1:], beaten, out=beaten)
    return np.einsum("rp,rp->r", own, beaten) / 2


def parts(weights: np.ndarray) -> Iterator[np.ndarray]:
    """The weights [r, n], some rows at a time."""
    step = max(1, _CELLS // max(1, weights.shape[1]))
    for start in range(0, len(weights), step):
        yield weights[start : start + step]


def _descending(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-scores[rows], kind="stable")]
