"""Means over trainings: what a number is where other images are drawn and other models
trained on them.

The models of a mirror pair are two trainings on the two halves of one world, asked
about the same examples. What their content makes of an AUROC moves the two in opposite
directions, so that trainings, taken as independent, differ by more than their mean
does: the interval is Student's t over all of them, and if anything too wide. Coverage
of 95 % intervals (``benchmarks/coverage.py --trainings``; 60 images a half, AUROC 0.76
and 0.98): 95 to 98 % with two, three and five worlds; 99 % and more for scores that
mostly follow content. What the choice of examples does is part of the spread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.special import logit as log_odds
from scipy.stats import t as student

from membench.metrics.unique import Interval


def over_trainings(
    values: Sequence[float] | np.ndarray, *, logit: bool = False, level: float = 0.95
) -> Interval:
    """Interval of the mean over T trainings of which each has a value [T]: Student's t
    with T - 1 degrees of freedom.

    logit: on the scale log(m / (1 - m)) of values in [0, 1], the standard error by the
    delta method, as for AUROC in ``metrics.levels``. NaN where all values are equal, as
    of two detectors that both tell everything apart: a spread of 0 says nothing. Raises
    ValueError for fewer than two values, or one that is not finite or, with ``logit``,
    outside [0, 1].
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(f"{len(found)} values: at least two, all finite")
    if logit and (found.min() < 0 or found.max() > 1):
        raise ValueError("a value lies outside [0, 1]")
    if np.ptp(found) < 1e-12:  # differences of floats are equal but for their last bits
        return np.nan, np.nan
    mean = float(found.mean())
    half = float(student.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1))
    half /= np.sqrt(len(found))
    if not logit:
        return mean - half, mean + half
    middle, half = log_odds(mean), half / (mean * (1 - mean))
    return float(expit(middle - half)), float(expit(middle + half))
