"""Metrics of image quality against closed forms, slow definitions and known cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from membench.metrics.likelihood_divergence import (
    fitted_variances,
    likelihood_divergence,
    log_mixture,
)
from membench.metrics.quality import (
    Described,
    TooFewImages,
    data_copying,
    density_coverage,
    frechet_distance,
    kid,
    precision_recall,
    quality_rows,
)

RNG = np.random.default_rng(0)


def normal(n: int, d: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * RNG.standard_normal((n, d))


def exactly(x: np.ndarray, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """x moved to this mean, and to the covariance root @ root.T, to rounding."""
    x = x - x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return white @ root.T + mean


# -------------------------------------------------------------------- Fréchet distance


def test_frechet_distance_of_gaussians_with_a_closed_form() -> None:
    """Covariances that commute: |a - b|² + sum of (sd - sd')² over common axes."""
    turn, _ = np.linalg.qr(RNG.standard_normal((3, 3)))
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    a = exactly(normal(40, 3), np.zeros(3), turn * first)
    b = exactly(normal(50, 3), np.array([1.0, -2.0, 0.0]), turn * second)
    assert frechet_distance(a, b) == pytest.approx(5 + ((first - second) ** 2).sum())
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_others_by_scipys_root() -> None:
    a, b = normal(60, 4) @ RNG.standard_normal((4, 4)), normal(70, 4, 1.0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    assert frechet_distance(a, b) == pytest.approx(wanted)
    assert frechet_distance(b, a) == pytest.approx(wanted)


def test_few_images_are_refused_or_shrunk() -> None:
    a, b = normal(10, 10), normal(200, 10)
    with pytest.raises(TooFewImages, match=r"10 features needs more images than that.* are 10"):
        frechet_distance(a, b)
    # Both are of one distribution, so the truth is 0
    shrunk = frechet_distance(a, b, shrunk=True)
    assert 0 < shrunk < frechet_distance(normal(11, 10), b)
    one = normal(300, 1), normal(300, 1)
    assert frechet_distance(*one) == pytest.approx(
        (one[0].mean() - one[1].mean()) ** 2 + (one[0].std(ddof=1) - one[1].std(ddof=1)) ** 2
    )


@pytest.mark.parametrize(("n", "m", "features"), [(9, 14, 60), (30, 20, 40), (20, 20, 20)])
def test_of_shrunk_covariances_it_is_that_of_whole_matrices(n: int, m: int, features: int) -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(n, features)), random.normal(0.3, 2, size=(m, features))
    a[-1] = a[0]  # an image twice
    first, second = (ledoit_wolf(x)[0] for x in (a, b))
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    assert frechet_distance(a, b, shrunk=True) == pytest.approx(wanted)
    assert frechet_distance(a, a, shrunk=True) == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------- kernel


def slow_mmd(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    own = [
        sum(k(x, y) for (i, x), (j, y) in itertools.product(enumerate(s), repeat=2) if i != j)
        / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    return sum(own) - 2 * sum(k(x, y) for x in a for y in b) / (len(a) * len(b))


def test_kid_is_the_double_loop_and_its_error_the_jackknife() -> None:
    a, b = normal(7, 3), normal(5, 3, 0.4)
    value, error = kid(a, b)
    assert value == pytest.approx(slow_mmd(a, b))
    left = [
        [slow_mmd(np.delete(a, i, 0), b) for i in range(7)],
        [slow_mmd(a, np.delete(b, i, 0)) for i in range(5)],
    ]
    variance = sum((len(v) - 1) / len(v) * ((np.array(v) - np.mean(v)) ** 2).sum() for v in left)
    assert error == pytest.approx(math.sqrt(variance))


def test_kid_is_unbiased_and_its_error_is_its_spread() -> None:
    """Of 1-d normals with means 0 and m: E (xy + 1)³ = 1 + 3 xx' ... in moments."""
    found = [kid(normal(40, 1), normal(40, 1, 0.5)) for _ in range(300)]
    values, errors = np.array(found).T

    def expected(p: float, q: float) -> float:  # sum over C(3, k) E x^k E y^k
        moments = [(1.0, m, m**2 + 1, m**3 + 3 * m) for m in (p, q)]
        return sum(math.comb(3, k) * moments[0][k] * moments[1][k] for k in range(4))

    truth = expected(0, 0) + expected(0.5, 0.5) - 2 * expected(0, 0.5)
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 300**0.5)
    assert errors.mean() == pytest.approx(values.std(), rel=0.3)
    with pytest.raises(TooFewImages):
        kid(normal(2, 3), normal(9, 3))


# ------------------------------------------------------ precision, recall and the others


def slow_prdc(real: np.ndarray, made: np.ndarray, k: int, of_density: int) -> dict[str, float]:
    def radius(x: np.ndarray, i: int, nth: int) -> float:
        return sorted(math.dist(x[i], y) for j, y in enumerate(x) if j != i)[nth - 1]

    def inside(point: np.ndarray, x: np.ndarray, i: int, nth: int) -> bool:
        return math.dist(point, x[i]) <= radius(x, i, nth)

    def within(point: np.ndarray, x: np.ndarray, i: int, nth: int) -> bool:
        return math.dist(point, x[i]) < radius(x, i, nth)

    precision = [any(inside(y, real, i, k) for i in range(len(real))) for y in made]
    recall = [any(inside(x, made, j, k) for j in range(len(made))) for x in real]
    held = [[within(y, real, i, of_density) for y in made] for i in range(len(real))]
    return {
        "precision": sum(precision) / len(made),
        "recall": sum(recall) / len(real),
        "density": sum(map(sum, held)) / of_density / len(made),
        "coverage": sum(map(any, held)) / len(real),
    }


def test_precision_recall_density_and_coverage_by_brute_force() -> None:
    real, made = normal(17, 2), normal(12, 2, 0.8, 1.4)
    found = precision_recall(real, made) | density_coverage(real, made)
    assert found == pytest.approx(slow_prdc(real, made, 3, 5))
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1 and found["coverage"] < 1


def test_identical_and_disjoint_sets() -> None:
    real = normal(30, 4)
    same = precision_recall(real, real) | density_coverage(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    # Each ball holds its centre and the 4 nearest others, and not the fifth on its surface
    assert same["density"] == pytest.approx(1)
    apart = precision_recall(real, real + 100) | density_coverage(real, real + 100)
    assert set(apart.values()) == {0}
    # One image again and again is precise and covers little
    stuck = np.repeat(real[:1], 30, axis=0)
    found = precision_recall(real, stuck) | density_coverage(real, stuck)
    assert found["precision"] == 1 and found["recall"] == 1 / 30 and found["coverage"] < 0.5
    with pytest.raises(TooFewImages, match="3 nearest others"):
        precision_recall(real[:3], real)


# ----------------------------------------------------------------------------- copying


def test_data_copying_is_the_z_of_a_count_of_pairs() -> None:
    training, held_out, made = normal(60, 2), normal(50, 2), normal(70, 2, 0.0, 0.8)

    def near(x: np.ndarray) -> list[float]:
        return [min(math.dist(p, q) for q in training) for p in x]

    n, m = len(made), len(held_out)
    pairs = sum(a > b for a in near(made) for b in near(held_out))
    z = (pairs - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    assert data_copying(training, held_out, made, most_cells=1) == pytest.approx(z)


def test_data_copying_tells_a_copier_from_a_fresh_sample_and_an_underfitted_model() -> None:
    training, held_out = normal(400, 3), normal(400, 3)
    copies = training[:300] + normal(300, 3, 0.0, 0.01)
    fresh, far = normal(300, 3), normal(300, 3, 0.0, 3.0)
    found = [data_copying(training, held_out, made) for made in (copies, fresh, far)]
    assert found[0] < -5 and abs(found[1]) < 3 and found[2] > 3
    assert data_copying(training[:10], held_out, fresh) is None


def test_variances_are_the_likeliest() -> None:
    """Of one component the mean squared distance a feature; of two far apart, each of
    its own; and of a mixture no other variances are likelier.
    """
    x, centre = normal(50, 4, 1.0), np.zeros((1, 4))
    assert fitted_variances(x, centre) == pytest.approx([(x**2).sum() / 50 / 4])
    both = np.concatenate([x, x * 2 + 1000])
    two = fitted_variances(both, np.array([[0.0] * 4, [1000.0] * 4]))
    assert two == pytest.approx([(x**2).mean(), 4 * (x**2).mean()])
    centres = normal(6, 4)
    best = fitted_variances(x, centres, rounds=3000)
    most = log_mixture(x, centres, best).mean()
    for factor in np.exp(0.2 * RNG.standard_normal((50, 6))):
        assert log_mixture(x, centres, np.maximum(best * factor, 1e-3)).mean() < most + 1e-4


def test_log_density_of_a_mixture_by_scipy() -> None:
    x, centres, variances = normal(5, 3), normal(4, 3), np.array([0.5, 1.0, 2.0, 0.1])
    wanted = np.log(
        np.mean(
            [multivariate_normal(c, v).pdf(x) for c, v in zip(centres, variances, strict=True)],
            axis=0,
        )
    )
    assert log_mixture(x, centres, variances) == pytest.approx(wanted)


def test_likelihood_divergence_ranks_models_and_its_gap_shows_copies() -> None:
    training, held_out = normal(300, 16), normal(300, 16)
    copies = training[:250] + normal(250, 16, 0.0, 0.01)
    fresh, poor = normal(250, 16), normal(250, 16, 2.0)
    found = [likelihood_divergence(training, held_out, made) for made in (copies, fresh, poor)]
    assert abs(found[1]["fld"]) < 5 and found[2]["fld"] > found[1]["fld"] + 5
    assert found[0]["fld"] > found[1]["fld"] + 5  # novelty counts, too
    assert found[0]["fld_gap"] < -50 < -15 < found[1]["fld_gap"] < 1
    # Nor does it cost a model that fewer images of it were generated than half were seen
    few = [
        likelihood_divergence(normal(400, 64), normal(300, 64), normal(30, 64)) for _ in range(10)
    ]
    # 3.5 where the mixture at training images is at half of them; a single one varies by 1.3
    assert abs(np.mean([of["fld"] for of in few])) < 1.7
    # The unit of a feature changes nothing
    scale = np.array([1.0, 10.0, 0.1, 5.0, 1.0, 2.0, 3.0, 100.0] * 2)
    again = likelihood_divergence(training * scale, held_out * scale, fresh * scale)
    assert again == pytest.approx(found[1])


def test_a_gap_is_of_copies_and_not_of_the_fit() -> None:
    """As docs/metrics.md has it: of few features there is none, though the fit alone
    would take it far below 0; of 16, one image in ten that is a copy shows.
    """
    found = {}
    for d in (15, 16):
        training, held_out, made = (normal(100, d) for _ in range(3))
        found[d] = likelihood_divergence(training, held_out, made)
        # Features that do not vary do not count
        still = [np.hstack([x, np.ones((100, 9))]) for x in (training, held_out, made)]
        assert likelihood_divergence(*still) == pytest.approx(found[d])
    assert {*found[15]} == {"fld"} and -7 < found[16]["fld_gap"] < 3
    copied = np.concatenate([made[10:], training[:10] + normal(10, 16, 0.0, 0.01)])
    assert likelihood_divergence(training, held_out, copied)["fld_gap"] < -8


# ------------------------------------------------------------------------ all of a model


def test_rows_carry_the_features_and_refuse_two_of_them() -> None:
    made, seen, unseen = normal(90, 16), normal(80, 16), normal(120, 16)
    rows = {
        r.metric: r for r in quality_rows(*(Described("pixels", x) for x in (made, seen, unseen)))
    }
    assert rows["fd_training@pixels"].value == frechet_distance(made, seen)
    # As many held-out images as training images
    held_out = rows["fd_held_out@pixels"]
    assert held_out.value == frechet_distance(made, unseen[:80])
    assert (held_out.n, held_out.reference) == (90, 80)
    assert rows["fd_excess@pixels"].value == pytest.approx(
        held_out.value - rows["fd_training@pixels"].value
    )
    value, error = kid(made, unseen[:80])
    assert (rows["kid_held_out@pixels"].value, rows["kid_held_out@pixels"].error) == (value, error)
    assert rows["recall_training@pixels"].value == precision_recall(seen, made)["recall"]
    assert rows["precision_training@pixels"].value == precision_recall(seen, made)["precision"]
    assert {"c_t@pixels", "fld@pixels", "fld_gap@pixels"} < set(rows)
    with pytest.raises(ValueError, match="clip and pixels do not compare"):
        quality_rows(Described("pixels", made), Described("clip", seen), None)


def test_what_the_images_cannot_support_is_named_or_left_out() -> None:
    wide = [Described("f", normal(n, 30)) for n in (40, 25, 25)]
    names = {r.metric for r in quality_rows(*wide)}
    assert "fd_shrunk_training@f" in names and "fd_training@f" not in names
    alone = {r.metric for r in quality_rows(wide[0], wide[1], None)}
    assert not [name for name in alone if "held_out" in name or name.startswith(("c_t", "fld"))]
    still = Described("f", np.ones((25, 30)))  # held-out images that are all alike
    assert not any("fld" in r.metric for r in quality_rows(*wide[:2], still))
    with pytest.raises(TooFewImages, match="at least 7 images"):
        quality_rows(Described("f", normal(6, 30)), wide[1], None)
    with pytest.raises(ValueError, match="finite"):
        quality_rows(Described("f", np.full((9, 30), np.nan)), wide[1], None)


def test_cells_weigh_as_many_held_out_images_as_they_have() -> None:
    """Two cells far apart: copies in the one, none in the other."""
    rng = np.random.default_rng(0)

    def two(first: int, second: int) -> list[np.ndarray]:
        return [rng.normal(at, 1, size=(n, 3)) for at, n in ((0, first), (100, second))]

    seen, unseen, made = two(100, 100), two(120, 40), two(40, 120)
    made[0] = seen[0][:40] + 0.01
    scores = []
    for known, other, own in zip(seen, unseen, made, strict=True):
        near = [cdist(x, known).min(axis=1) for x in (own, other)]
        n, m = len(own), len(other)
        u = (near[0][:, None] > near[1]).sum()
        scores.append((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)
    wanted = (120 * scores[0] + 40 * scores[1]) / 160
    assert data_copying(*(np.concatenate(x) for x in (seen, unseen, made))) == pytest.approx(wanted)
    assert abs(scores[0] - scores[1]) > 3
