"""How good generated images are, and how much nearer they are to the training images
than to images that the model never saw.

Features in (float [n, d], one row an image), numbers out. Values of different features
do not compare, so :func:`quality_rows` puts their name into a metric's name and refuses
sets of two of them. Distances are Euclidean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from membench.metrics.likelihood_divergence import likelihood_divergence

NEIGHBOURS_OF_PRECISION = 3  # Kynkäänniemi et al. 2019
NEIGHBOURS_OF_DENSITY = 5  # Naeem et al. 2020
LEAST_OF_CELL = 20  # images of a cell of C_T, of each of its three sets
SEPARATOR = "@"  # between a metric's name and its features'


class TooFewImages(ValueError):
    """A metric needs more images than there are."""


@dataclass(frozen=True)
class Described:
    """Images as features. name: of the features, with their weights; values: float [n,
    d].
    """

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class QualityRow:
    """metric: with the features' name behind ``@``. error: the standard error, or None.
    n: generated images; reference: images that they are compared with.
    """

    metric: str
    value: float
    error: float | None
    n: int
    reference: int


def quality_rows(
    generated: Described, training: Described, held_out: Described | None
) -> list[QualityRow]:
    """Every metric that the numbers of images support.

    ``fd`` (``fd_shrunk`` where a set has no more images than features), ``kid``,
    ``precision``, ``recall``, ``density`` and ``coverage`` ``_training`` and
    ``_held_out``; and with held-out images ``fd_excess`` (held-out less training: above 0
    nearer to the training images), ``c_t``, ``fld`` and ``fld_gap``. Training and held-out
    images are as many, the first of each, since a Fréchet distance depends on their
    number. Raises ValueError for features of two kinds and for values that are not
    finite, TooFewImages for fewer than 7 images of a set.
    """
    sets = [s for s in (generated, training, held_out) if s is not None]
    if len(names := {s.name for s in sets}) > 1:
        raise ValueError(
            f"features of {' and '.join(sorted(names))} do not compare: describe all images by one"
        )
    if len(lengths := {s.values.shape[1] for s in sets}) > 1:
        raise ValueError(
            f"features of {' and '.join(map(str, sorted(lengths)))} numbers do not compare: the"
            " images are of several sizes"
        )
    size = min(len(s.values) for s in sets[1:])
    known = [_checked(s.values) for s in (generated, training)]
    x, seen = known[0], known[1][:size]
    unseen = None if held_out is None else _checked(held_out.values)[:size]
    least = max(NEIGHBOURS_OF_PRECISION, NEIGHBOURS_OF_DENSITY) + 2
    if min(len(x), size) < least:
        raise TooFewImages(f"quality needs at least {least} images of each set")
    found: dict[str, tuple[float, float | None]] = {}
    distance = "fd" if min(len(x), size) > x.shape[1] else "fd_shrunk"
    for against, reference in (("training", seen), ("held_out", unseen)):
        if reference is None:
            continue
        own = frechet_distance(x, reference, shrunk=distance == "fd_shrunk")
        found[f"{distance}_{against}"] = own, None
        found[f"kid_{against}"] = kid(x, reference)
        for name, value in (
            precision_recall(reference, x) | density_coverage(reference, x)
        ).items():
            found[f"{name}_{against}"] = value, None
    if unseen is not None:
        excess = found[f"{distance}_held_out"][0] - found[f"{distance}_training"][0]
        found[f"{distance}_excess"] = excess, None
        copying = data_copying(seen, unseen, x)
        found |= {} if copying is None else {"c_t": (copying, None)}
        found |= {
            name: (value, None) for name, value in likelihood_divergence(seen, unseen, x).items()
        }
    return [
        QualityRow(f"{name}{SEPARATOR}{generated.name}", value, error, len(x), size)
        for name, (value, error) in found.items()
    ]


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError("features must be finite, [n, d]")
    return values


def frechet_distance(a: np.ndarray, b: np.ndarray, *, shrunk: bool = False) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two
    sets [n, d] and [m, d] (Heusel et al. 2017): |m_a - m_b|² + tr(A + B - 2 (A B)^1/2),
    >= 0, in squared units of the features.

    shrunk: covariances by Ledoit and Wolf (2004), for sets of no more images than
    features; without it these raise :class:`TooFewImages`, for their covariance has
    directions without any variance. Shrunk or not, it is biased upwards from few images:
    compare at equal numbers.
    """
    if not shrunk and min(len(a), len(b)) <= a.shape[1]:
        raise TooFewImages(
            f"a Fréchet distance of {a.shape[1]} features needs more images than that, and there"
            f" are {min(len(a), len(b))}; take shrunk covariances, or other features"
        )
    mean = float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
    if shrunk:
        return max(0.0, mean + _shrunk_distance(a, b))
    return max(0.0, mean + _bures(*(np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))))


def _bures(first: np.ndarray, second: np.ndarray) -> float:
    """tr(A + B - 2 (A B)^1/2)"""
    root = _root(first)
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    return float(np.trace(first) + np.trace(second) - 2 * cross)


def _shrunk_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The same of (1 - s) S + s tr(S) / d I with Ledoit and Wolf's s.

    In the directions in which no image of either set varies both are multiples of I, so
    that only those of at most n + m others are decomposed: of 64 x 64 pixels d is 12,288.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    features, deviations = a.shape[1], [x - x.mean(axis=0) for x in (a, b)]
    basis = np.linalg.qr(np.vstack(deviations).T)[0]
    inside, levels = [], []
    for x, own in zip((a, b), deviations, strict=True):
        share = float(ledoit_wolf_shrinkage(x))
        level = share * float((own**2).sum()) / (len(x) * features)
        varied = own @ basis
        covariance = (1 - share) * varied.T @ varied / len(x)
        inside.append(covariance + level * np.eye(basis.shape[1]))
        levels.append(level)
    outside = (features - basis.shape[1]) * (np.sqrt(levels[0]) - np.sqrt(levels[1])) ** 2
    return _bures(*inside) + float(outside)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def kid(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kernel distance (Bińkowski et al. 2018) of [n, d] and [m, d], and its standard
    error: the unbiased squared MMD of k(x, y) = (x·y / d + 1)³, which may be below 0.

    Over all pairs, not over random blocks; the error is the jackknife's, which leaves out
    one image of either set at a time. Raises :class:`TooFewImages` for fewer than 3.
    """
    n, m = len(a), len(b)
    if min(n, m) < 3:
        raise TooFewImages("KID needs at least 3 images of each set")
    across = _kernel(a, b)
    own, total, without = [], across.sum(), []
    for x, size in ((a, n), (b, m)):
        inside = _kernel(x, x)
        np.fill_diagonal(inside, 0.0)
        rows = inside.sum(axis=1)
        own.append(rows.sum() / (size * (size - 1)))
        without.append((rows.sum() - 2 * rows) / ((size - 1) * (size - 2)))
    value = own[0] + own[1] - 2 * total / (n * m)
    left = (
        without[0] + own[1] - 2 * (total - across.sum(axis=1)) / ((n - 1) * m),
        own[0] + without[1] - 2 * (total - across.sum(axis=0)) / (n * (m - 1)),
    )
    variance = sum((len(v) - 1) / len(v) * ((v - v.mean()) ** 2).sum() for v in left)
    return float(value), float(variance**0.5)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS_OF_PRECISION
) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019), each in [0, 1].

    precision: share of generated images within the distance of a real image to its k-th
    nearest real one, of at least one real image; recall: the same with the sets
    exchanged. The distance itself counts, as in the authors' program; prdc leaves it
    out. Raises :class:`TooFewImages` for k images or fewer.
    """
    between = cdist(real, generated)
    return {
        "precision": float((between <= _radii(real, k)[:, None]).any(axis=0).mean()),
        "recall": float((between <= _radii(generated, k)).any(axis=1).mean()),
    }


def density_coverage(
    real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS_OF_DENSITY
) -> dict[str, float]:
    """Density and coverage (Naeem et al. 2020).

    With balls around real images up to the k-th nearest other, without their surface, as
    in the authors' program (prdc): of all real images once each the density is 1.
    density: balls that hold a generated image, mean over these, over k; >= 0, about 1
    where both sets are of one distribution. coverage: share of the balls that hold any,
    in [0, 1].
    """
    inside = cdist(real, generated) < _radii(real, k)[:, None]
    return {
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float(inside.any(axis=1).mean()),
    }


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """[n]: distance of each to its k-th nearest other."""
    if len(x) <= k:
        raise TooFewImages(f"the {k} nearest others need more than {k} images, not {len(x)}")
    return np.partition(cdist(x, x), k, axis=1)[:, k]


def data_copying(
    training: np.ndarray, held_out: np.ndarray, generated: np.ndarray, *, most_cells: int = 5
) -> float | None:
    """C_T of Meehan, Chaudhuri and Dasgupta (2020): far below 0 where a model copies, far
    above where it underfits, about standard normal (less, over several cells) where it
    does neither.

    In each cell (k-means of the training images), z of the Mann-Whitney U of the
    distances to the nearest training image, generated against held-out: (U - nm/2) /
    (nm (n + m + 1) / 12)^1/2, as in the paper (the authors' program adds 1/2 to U); then
    their mean, weighted by the cells' held-out images.
    A cell counts with at least 20 images of each set, and there are as many cells as
    keep 4 times that of training and held-out images on average, at most ``most_cells``.
    None where no cell counts. It does not see copies that are balanced by images that
    are far away.
    """
    from sklearn.cluster import KMeans

    cells = max(1, min(most_cells, min(len(training), len(held_out)) // (4 * LEAST_OF_CELL)))
    fitted = KMeans(cells, n_init=4, random_state=0).fit(training)
    of = [fitted.predict(x) for x in (training, held_out, generated)]
    scores, weights = [], []
    for cell in range(cells):
        seen, unseen, made = (
            x[where == cell] for x, where in zip((training, held_out, generated), of, strict=True)
        )
        n, m = len(made), len(unseen)
        if min(len(seen), n, m) < LEAST_OF_CELL:
            continue
        own, others = (cdist(x, seen).min(axis=1) for x in (made, unseen))
        u = float(mannwhitneyu(own, others).statistic)
        scores.append((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)
        weights.append(m)
    return float(np.average(scores, weights=weights)) if scores else None
