"""SIDE's memorization divergence (Chen et al. 2024, arXiv 2410.02467), from
log-densities of the model at noised training images.

    of a set    KL((1/N) sum_i N(x_i, epsilon^2 I) || p)
    pointwise   KL(N(x_i, epsilon^2 I) || p)

Both are estimated by samples x_i + epsilon n, in nats. Where the points lie far apart
the first is the mean of the second less log N. As epsilon falls below the width of the
peaks that p has, both grow by D log(1 / epsilon), however well p knows the points.
"""

from __future__ import annotations

import math

import numpy as np


def pointwise_divergence(log_p: np.ndarray, epsilon: float, size: int) -> np.ndarray:
    """KL(N(x_i, epsilon^2 I) || p) of each point, [n], in nats.

    log_p: at ``draws`` noised copies of each point, [n, draws]; size: D. Raises
    ValueError for an epsilon that is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}, and a Gaussian of no width has no divergence")
    entropy = size / 2 * math.log(2 * math.pi * math.e * epsilon**2)
    return -entropy - np.asarray(log_p, dtype=np.float64).mean(axis=1)


def memorization_divergence(
    points: np.ndarray, noised: np.ndarray, log_p: np.ndarray, epsilon: float
) -> tuple[float, float]:
    """KL of the mixture around all points against p, and its standard error over the
    points, in nats.

    points: [n, D], what the mixture is made of; noised: [n, draws, D], samples of each
    of its Gaussians; log_p: [n, draws] at them. Raises ValueError for an epsilon that
    is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}, and a Gaussian of no width has no divergence")
    points, noised = (np.asarray(a, dtype=np.float64) for a in (points, noised))
    n, draws, size = noised.shape
    flat = noised.reshape(-1, size)
    squares = (flat**2).sum(axis=1)[:, None] - 2 * flat @ points.T + (points**2).sum(axis=1)[None]
    exponents = -np.maximum(squares, 0) / (2 * epsilon**2)
    log_mixture = np.logaddexp.reduce(exponents, axis=1) - math.log(n)
    log_mixture -= size / 2 * math.log(2 * math.pi * epsilon**2)
    each = (log_mixture.reshape(n, draws) - np.asarray(log_p, dtype=np.float64)).mean(axis=1)
    error = each.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return float(each.mean()), float(error)


def bits_per_dimension(log_p: np.ndarray, size: int, levels: int = 256) -> np.ndarray:
    """-log2 p a dimension, of densities on [-1, 1] counted in grey levels.

    Of dequantised images it bounds the code length of the discrete ones from above; of
    images as they are it is a density, and has no lower bound.
    """
    return -np.asarray(log_p) / (size * math.log(2)) + math.log2((levels - 1) / 2)
