"""How many different training images come back: estimates from which unit of sampling hit which image.

A *unit* is what is drawn independently: a generated image, or a group of them (images of one condition are not
independent). The data are incidences: unit u has hit training image j at least once. Q1 and Q2 count the images that
exactly one and exactly two units have hit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, ndtri

Interval = tuple[float, float]


def chao2(hits: np.ndarray, units: int) -> float:
    """Lower bound on how many training images can be hit at all (Chao 1987; notation of Colwell et al. 2012, eq. 15).

    hits: by how many of the units each hit image was hit. S_obs + (n-1)/n Q1² / (2 Q2), and with Q2 = 0 the
    bias-corrected S_obs + (n-1)/n Q1 (Q1 - 1) / 2.
    """
    once, twice = float((hits == 1).sum()), float((hits == 2).sum())
    more = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    return len(hits) + (units - 1) / units * more if units else float(len(hits))


def zero_limit(units: int, level: float = 0.95) -> float:
    """Upper limit of a share of which 0 of ``units`` were seen: 1 - 0.025^(1/n) at 95 % (Clopper & Pearson 1934, two-sided)."""
    return 1 - float(((1 - level) / 2) ** (1 / units))


def unique_interval(unit: np.ndarray, image: np.ndarray, units: int, generated: int, level: float = 0.95) -> Interval | None:
    """Interval of the expected number of distinct images hit, over ``generated``, in a run of this size; None for fewer than 2 units.

    unit, image: int [p], one entry a hit (repeats count once). Normal, with the unconditional variance of Colwell et al.
    2012 (J. Plant Ecology 5:3, eq. 5 and 17 at full size), S_obs (1 - S_obs / S_est), S_est = :func:`chao2`; the lower end is
    cut at 0. Alone, that variance fails in two cases (95 % intervals by simulation covered 8 to 86 % and 49 to 85 %):

    - Few images, or all of them hit often: Chao2 finds none missing, S_est = S_obs, and the variance is 0. It is therefore
      at least sum_j q_j (1 - q_j), q_j = 1 - (1 - h_j / n)^n, of the images seen; and the upper end is at least the value
      + :func:`zero_limit`, since n units cannot exclude a share of unseen images below it. With nothing hit the
      interval is [0, zero_limit(units)], as for AMS; it bounds UMS where units are of like size and a generated image adds at
      most one training image.
    - Units that hit several images: these come and go together, while the formula takes images as independent. The variance
      is multiplied by sum_u d_u² / sum_u d_u, d_u the images hit by unit u alone (Kish's design effect; 1 where no d_u > 1).

    With both, coverage was 90 to 100 %. Too wide (97 % and more): where images are equally likely, since the formula leaves out
    that a hit of one image excludes hits of others; and where few are expected, or all are hit often.
    """
    if units < 2:
        return None
    if not len(unit):
        return 0.0, zero_limit(units, level)
    found, column = np.unique(np.asarray(image), return_inverse=True)
    row, column = np.unique(np.stack([np.asarray(unit), column]), axis=1)
    hits = np.bincount(column)
    alone = np.bincount(row[hits[column] == 1], minlength=units).astype(float)
    seen = len(found)
    together = max(1.0, (alone**2).sum() / max(alone.sum(), 1.0))
    missed = (1 - hits / units) ** units
    variance = max(seen * (1 - seen / chao2(hits, units)) * together, float((missed * (1 - missed)).sum()))
    half = float(ndtri((1 + level) / 2)) * variance**0.5 / generated
    value = seen / generated
    return max(0.0, value - half), value + max(half, zero_limit(units, level))


def rarefied(counts: np.ndarray, n_generated: int, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Expected number of distinct training images among n of the N_G images, for each n of sizes: float64.

    counts: how many of the images stand for each training image. Exact over all subsets of size n (Hurlbert 1971):
    sum_j 1 - C(N_G - c_j, n) / C(N_G, n). Raises ValueError for a size outside 0..N_G.
    """
    n = np.asarray(sizes)[:, None]
    if n.size and not (n.min() >= 0 and n.max() <= n_generated):
        raise ValueError(f"sizes must lie between 0 and {n_generated}")
    values, how_many = np.unique(counts, return_counts=True)
    left = n_generated - values
    rest = np.maximum(left - n, 0)
    log_missed = gammaln(left + 1) - gammaln(rest + 1) + gammaln(n_generated - n + 1) - gammaln(n_generated + 1)
    return (np.where(left >= n, -np.expm1(np.minimum(log_missed, 0)), 1.0) * how_many).sum(axis=1)
