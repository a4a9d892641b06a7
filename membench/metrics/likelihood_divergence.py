"""Feature likelihood divergence: how well a mixture at the generated images explains
images that the model has seen, and images that it has not.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

LEAST_VARIANCE = 1e-3  # of a component of FLD, of features of unit variance
LEAST_FEATURES = 16  # of a gap; with fewer the fit alone takes it below 0 (-12 at 4)


def likelihood_divergence(
    training: np.ndarray, held_out: np.ndarray, generated: np.ndarray
) -> dict[str, float]:
    """Feature likelihood divergence (Jiralerspong et al. 2023), times 100 a feature.

    Features are brought to mean 0 and variance 1 of the held-out images. A mixture of
    isotropic Gaussians stands at the generated images, its variances fitted to the
    training images (:func:`fitted_variances`). ``fld``: its negative log-likelihood of
    the held-out images, less that of a mixture at as many training images (at most one
    half), fitted to the others; lower is better, in quality, diversity and novelty at once.
    ``fld_gap``: that of the training images less that of the held-out ones; far below 0
    where the model copies. Left out where fewer than 16 features vary; where none does,
    both are.

    The authors fit by 50 steps of Adam and with one more component at the mean; here the
    fit is by EM and without it, and no variance falls below 1e-3.
    """
    spread = held_out.std(axis=0)
    kept = spread > 0
    if not kept.any():
        return {}
    seen, unseen, made = (
        (x[:, kept] - held_out[:, kept].mean(axis=0)) / spread[kept]
        for x in (training, held_out, generated)
    )
    variances = fitted_variances(seen, made)
    on_seen, on_unseen = (-log_mixture(x, made, variances).mean() for x in (seen, unseen))
    order = np.random.default_rng(0).permutation(len(seen))
    centres, rest = np.split(seen[order], [min(len(made), len(seen) // 2)])
    base = -log_mixture(unseen, centres, fitted_variances(rest, centres)).mean()
    scale = 100 / seen.shape[1]
    found = {"fld": float(scale * (on_unseen - base))}
    if seen.shape[1] >= LEAST_FEATURES:
        found["fld_gap"] = float(scale * (on_seen - on_unseen))
    return found


def fitted_variances(x: np.ndarray, centres: np.ndarray, rounds: int = 200) -> np.ndarray:
    """The variances [m] >= 1e-3 of isotropic Gaussians of equal weight at ``centres``
    [m, d] under which ``x`` [n, d] is likeliest, by EM.

    Each round gives a component the mean squared distance a feature of x, weighted by
    its responsibility; none is likelier after it than before. A component without any
    keeps its variance.
    """
    squares = cdist(x, centres, "sqeuclidean")
    d = x.shape[1]
    variances = np.maximum(squares.min(axis=0) / d, LEAST_VARIANCE)
    before = -np.inf
    for _ in range(rounds):
        terms = _log_parts(squares, variances, d)
        total = logsumexp(terms, axis=1, keepdims=True)
        share = np.exp(terms - total)
        weight = share.sum(axis=0)
        moved = weight > 1e-12
        variances[moved] = np.maximum(
            (share * squares).sum(axis=0)[moved] / (d * weight[moved]), LEAST_VARIANCE
        )
        if total.mean() - before < 1e-6 * d:
            break
        before = total.mean()
    return variances


def log_mixture(x: np.ndarray, centres: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """log density [n] of the mixture of :func:`fitted_variances`, in nats."""
    return logsumexp(_log_parts(cdist(x, centres, "sqeuclidean"), variances, x.shape[1]), axis=1)


def _log_parts(squares: np.ndarray, variances: np.ndarray, d: int) -> np.ndarray:
    """log of weight times density of each component at each x, [n, m]."""
    return (
        -0.5 * squares / variances
        - 0.5 * d * np.log(2 * np.pi * variances)
        - np.log(len(variances))
    )
