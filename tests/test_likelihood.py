"""Log-densities by the probability-flow ODE against densities that are known, and the
memorization divergence against its closed forms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from analytic import pieces

from membench.detectors.likelihood import Likelihood
from membench.errors import UserError
from membench.metrics.divergence import (
    bits_per_dimension,
    memorization_divergence,
    pointwise_divergence,
)
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.likelihood import flow_forwards, flow_times, log_density
from membench.models.trace import Trace, basis
from membench.runs.images import Samples
from membench.runs.shards import Phases
from membench.types import Condition, Example

SIZE, NOTHING = 9, Conditioning(None)
EXACT = Trace((1, 3, 3), exact=True, probes=1)
SAMPLING = {"steps": 2, "guidance": 1.0, "examples": "images"}
KNOWN = [((4,), 0.0), ((SIZE,), 0.0), ((0, 0, 0), 0.5), ((2, 3), 0.5)]


def true_log_p(model: Denoiser, y: torch.Tensor, t: int) -> torch.Tensor:
    """log of the mixture's density at y = x / alpha of timestep t, [n]."""
    alpha, sigma = model.alpha_sigma(t)
    wide, y, logs = (sigma / alpha) ** 2, y.flatten(1).double(), []
    network = model.network
    for d, u, mean in zip(network.dims, network.bases, network.means, strict=True):
        away = y - mean.double()
        along = away @ u.double() @ u.double().T
        logs.append(
            -(along**2).sum(1) / 2 / (1 + wide)
            - ((away - along) ** 2).sum(1) / 2 / wide
            - d / 2 * math.log(1 + wide)
            - (SIZE - d) / 2 * math.log(wide)
            - SIZE / 2 * math.log(2 * math.pi)
        )
    return torch.logsumexp(torch.stack(logs), dim=0) - math.log(len(logs))


def points(model: Denoiser, t: int, each: int = 2) -> torch.Tensor:
    """States of timestep t, a few of each piece."""
    alpha, sigma = model.alpha_sigma(t)
    x0 = torch.cat([model.network.draw(k, each) for k in range(len(model.network.dims))])
    source = torch.Generator().manual_seed(5)
    return alpha * x0 + sigma * torch.randn(x0.shape, generator=source)


@pytest.mark.parametrize(("dims", "apart"), KNOWN)
def test_densities_are_known_ones(dims: tuple[int, ...], apart: float) -> None:
    """A Gaussian on a subspace, one of full dimension, three points, two subspaces."""
    model, first = pieces(*dims, size=SIZE, apart=apart), 9
    x = points(model, first)
    truth = true_log_p(model, x / model.alpha_sigma(first)[0], first)
    errors = []
    for steps in (20, 40):
        times = flow_times(model, first, steps)
        vectors = basis(model.shape, len(x))
        got = log_density(model, x, NOTHING, times, vectors, EXACT)
        off = (got.value - truth).abs()
        assert (off <= 3 * got.error + 0.02).all() and not got.spread.any()
        errors.append(float(off.max()))
    assert errors[1] < 0.07 and errors[1] < errors[0]


def test_half_the_step_has_a_quarter_of_the_error() -> None:
    model = pieces(SIZE, size=SIZE)
    x = points(model, 9)
    truth = true_log_p(model, x / model.alpha_sigma(9)[0], 9)
    off = [
        float(
            (
                log_density(
                    model,
                    x,
                    NOTHING,
                    flow_times(model, 9, steps),
                    basis(model.shape, len(x)),
                    EXACT,
                ).value
                - truth
            )
            .abs()
            .max()
        )
        for steps in (20, 40, 80)
    ]
    assert 3 < off[0] / off[1] < 5 and 3 < off[1] / off[2] < 5


def test_probes_estimate_the_exact_trace_and_are_counted() -> None:
    model, times = pieces(2, 3, size=SIZE, apart=0.5), flow_times(pieces(1, size=SIZE), 9, 10)
    x = points(model, 9)
    exact = log_density(model, x, NOTHING, times, basis(model.shape, len(x)), EXACT)
    before = model.cost.forwards + model.cost.jvps
    names = [str(k) for k in range(len(x))]
    trace = Trace(model.shape, exact=False, probes=200)
    got = log_density(model, x, NOTHING, times, trace.vectors(names, 0), trace)
    assert ((got.value - exact.value).abs() < 4 * got.spread).all() and (got.spread < 0.5).all()
    spent = model.cost.forwards + model.cost.jvps - before
    assert spent == len(x) * flow_forwards(len(times), 200, "jvp")


@pytest.mark.filterwarnings("error")
def test_one_probe_says_nothing_of_its_spread() -> None:
    model, times = pieces(2, size=SIZE), flow_times(pieces(1, size=SIZE), 9, 2)
    x, trace = points(model, 9), Trace((1, 3, 3), exact=False, probes=1)
    vectors = trace.vectors([str(k) for k in range(len(x))], 0)
    got = log_density(model, x, NOTHING, times, vectors, trace)
    assert got.spread.isnan().all() and got.value.isfinite().all()


def images_of(model: Denoiser, x0: torch.Tensor) -> list[Condition]:
    return [Condition(f"i/{k}", image=image) for k, image in enumerate(model.decode(x0))]


def test_the_score_is_the_density_of_the_image_or_minus_its_divergence() -> None:
    model = pieces(SIZE, size=SIZE)
    x0 = (0.3 * model.network.draw(0, 3)).clamp(-1, 1)
    conditions = images_of(model, x0)
    y = model.encode(np.stack([c.image for c in conditions]))

    def scored(**options: object) -> np.ndarray:
        o = Likelihood.Options(steps=60, tolerance=1.0, images=0, **options)
        return np.array(Likelihood(o, seed=0, sampling=SAMPLING).score(model, conditions, {}))

    plain = scored()
    assert plain == pytest.approx(true_log_p(model, y, 0).numpy(), abs=0.1)
    noise = model.noise([(f"near/{c.id}", k) for c in conditions for k in range(4)], 0)
    near = y.repeat_interleave(4, dim=0) + 0.2 * noise
    log_p = true_log_p(model, near, 0).view(3, 4).numpy()
    assert scored(epsilon=0.2) == pytest.approx(-pointwise_divergence(log_p, 0.2, SIZE), abs=0.1)
    bits = bits_per_dimension(scored(dequantise=True), SIZE)
    assert not np.allclose(bits, bits_per_dimension(plain, SIZE)) and (bits > 5).all()


def test_dequantised_is_an_image_anywhere_within_its_grey_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A level is 2 / 255 wide, and each value is uniform around the middle of its own. The
    copies of an image have its probes, those of another image others.
    """
    model = pieces(SIZE, size=SIZE)
    seen: list[tuple[torch.Tensor, list[str]]] = []
    conditions = images_of(model, (0.3 * model.network.draw(0, 3)).clamp(-1, 1))
    options = Likelihood.Options(dequantise=True, epsilon=0.2, noises=2, images=0)
    detector = Likelihood(options, seed=0, sampling=SAMPLING)

    def log_p(model: Denoiser, y: torch.Tensor, told: Conditioning, names: list[str]) -> Any:
        seen.append((y, list(names)))
        return torch.zeros(len(y), dtype=torch.float64)

    monkeypatch.setattr(detector, "log_p", log_p)
    detector.score(model, conditions, {})
    [(near, names)] = seen
    assert names == [c.id for c in conditions for _ in range(2)]
    added = 0.2 * model.noise([(f"near/{c.id}", k) for c in conditions for k in range(2)], 0)
    middle = model.encode(np.stack([c.image for c in conditions])).repeat_interleave(2, dim=0)
    normal = model.noise([(f"dequantise/{c.id}", 0) for c in conditions], 0).double()
    within = (2 / 255) * ((1 + torch.erf(normal / 2**0.5)) / 2 - 0.5).repeat_interleave(2, dim=0)
    torch.testing.assert_close((near - added - middle).double(), within, rtol=0, atol=1e-6)
    assert within.abs().max() < 1 / 255 < 1.2 * within.abs().max() and within.min() < 0


def test_images_whose_flow_does_not_converge_have_failed() -> None:
    model = pieces(SIZE, size=SIZE)
    conditions = images_of(model, model.network.draw(0, 2).clamp(-1, 1))
    o = Likelihood.Options(steps=4, tolerance=1e-9, images=0)
    detector = Likelihood(o, seed=0, sampling=SAMPLING)
    assert np.isnan(detector.score(model, conditions, {})).all()
    examples = [Example(c, 1, "x1", c.id, "a") for c in conditions]
    work = Phases(detector, model, None).score(examples, Samples.of([]))  # type: ignore[arg-type]
    for row in work.compute(examples):
        assert row["status"] == "failed" and row["score"] is None
        assert "did not converge within tolerance" in row["error"]


def test_a_time_that_leaves_no_flow_is_refused() -> None:
    model = pieces(SIZE, size=SIZE)
    o = Likelihood.Options(t0=0.999, images=0)
    with pytest.raises(UserError, match="leaves no flow"):
        Likelihood(o, seed=0, sampling=SAMPLING).check(
            model, images_of(model, model.network.draw(0, 1).clamp(-1, 1))
        )


def test_noises_of_no_divergence_are_refused() -> None:
    model = pieces(SIZE, size=SIZE)
    conditions = images_of(model, model.network.draw(0, 1).clamp(-1, 1))
    plain = Likelihood.Options(noises=8)
    with pytest.raises(UserError, match="noises=8: they are of the divergence; set epsilon"):
        Likelihood(plain, seed=0, sampling=SAMPLING).check(model, conditions)
    divergence = Likelihood.Options(noises=8, epsilon=0.1)
    Likelihood(divergence, seed=0, sampling=SAMPLING).check(model, conditions)


# --------------------------------------------------------------------------- divergence


def normal_log_p(y: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """log of a mixture of Gaussians of one width, written out."""
    squares = ((y[..., None, :] - centres) ** 2).sum(axis=-1)
    logs = -squares / (2 * width**2) - y.shape[-1] / 2 * math.log(2 * math.pi * width**2)
    return np.logaddexp.reduce(logs, axis=-1) - math.log(len(centres))


def test_the_pointwise_divergence_of_gaussians_has_its_closed_form() -> None:
    """Against N(0, I): (D epsilon^2 + |x|^2 - D - D log epsilon^2) / 2."""
    rng, epsilon, size = np.random.RandomState(0), 0.5, 4
    x = rng.randn(3, size)
    y = x[:, None] + epsilon * rng.randn(3, 40_000, size)
    got = pointwise_divergence(normal_log_p(y, np.zeros((1, size)), 1.0), epsilon, size)
    squares = (x**2).sum(axis=1)
    expected = (size * epsilon**2 + squares - size - size * math.log(epsilon**2)) / 2
    assert got == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_the_set_divergence_is_zero_of_the_mixture_and_the_pointwise_one_is_not(
    epsilon: float,
) -> None:
    """Of a model that is the very mixture, KL of the set is 0, of each point log N."""
    rng, n, size = np.random.RandomState(1), 6, 3
    points = 3 * np.eye(n, size) + 9 * np.arange(n)[:, None]
    y = points[:, None] + epsilon * rng.randn(n, 500, size)
    log_p = normal_log_p(y, points, epsilon)
    value, error = memorization_divergence(points, y, log_p, epsilon)
    assert value == pytest.approx(0, abs=1e-9) and error == pytest.approx(0, abs=1e-9)
    assert pointwise_divergence(log_p, epsilon, size) == pytest.approx([math.log(n)] * n, abs=0.2)


def test_perfect_memorization_diverges_as_epsilon_falls() -> None:
    """Both grow by D log 2 with each half of an epsilon below the width of the peaks."""
    rng, n, size, width = np.random.RandomState(2), 5, 3, 0.1
    points = 9.0 * np.arange(n)[:, None] + np.zeros(size)
    noise = rng.randn(n, 2000, size)
    found = []
    for epsilon in (0.002, 0.001):
        y = points[:, None] + epsilon * noise
        log_p = normal_log_p(y, points, width)
        each = pointwise_divergence(log_p, epsilon, size)
        found.append((each.sum(), memorization_divergence(points, y, log_p, epsilon)[0]))
    assert found[1][0] - found[0][0] == pytest.approx(n * size * math.log(2), rel=1e-3)
    assert found[1][1] - found[0][1] == pytest.approx(size * math.log(2), rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan])
def test_an_epsilon_of_no_width_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="no width"):
        pointwise_divergence(np.zeros((2, 2)), epsilon, 3)
    with pytest.raises(ValueError, match="no width"):
        memorization_divergence(np.zeros((2, 3)), np.zeros((2, 2, 3)), np.zeros((2, 2)), epsilon)
