"""Jacobian products against the whole matrix, of a linear network and a small U-Net."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from linear import LinearModel, told

from membench.errors import UserError
from membench.models import denoiser
from membench.models.conditioning import Conditioning
from membench.models.denoiser import OutOfMemory
from membench.models.derivative import jvp, vjp
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import Condition

PROMPTS = told("1", "2", "3")


def noise(model: denoiser.Denoiser, n: int = 3, seed: int = 0) -> torch.Tensor:
    return model.noise([(str(i), 0) for i in range(n)], seed)


@pytest.mark.parametrize("derivative", ["jvp", "difference"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_products_of_a_linear_network_are_those_of_its_matrix(
    prediction: str, derivative: str
) -> None:
    model = LinearModel(prediction)
    x, v, c, t = noise(model), noise(model, seed=1), model.condition(PROMPTS), 700
    v = v * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1)  # of any length
    eps, product = jvp(model, x, t, c, v, derivative=derivative)  # type: ignore[arg-type]
    back = vjp(model, x, t, c, v)[1]
    assert torch.equal(eps, model.eps(x, t, c))
    for i, prompt in enumerate(("1", "2", "3")):
        j, row = model.jacobian(prompt, t), v[i].flatten().double()
        close = {"rtol": 1e-5 if derivative == "jvp" else 1e-3, "atol": float(row.norm()) * 1e-6}
        close["atol"] *= 1 if derivative == "jvp" else 100
        torch.testing.assert_close(product[i].flatten().double(), j @ row, **close)
        torch.testing.assert_close(
            back[i].flatten().double(), j.T @ row, rtol=1e-5, atol=float(row.norm()) * 1e-6
        )


def test_torch_warns_the_user_of_nothing_that_it_does_itself() -> None:
    """When the first product loads its rules."""
    code = (
        "from linear import LinearModel, told; from membench.models.derivative import jvp\n"
        "model = LinearModel(); x = model.noise([('a', 0)], 0)\n"
        "jvp(model, x, 700, model.condition(told('1')), x, derivative='jvp')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr[-500:]


def test_w_may_be_made_of_eps() -> None:
    model = LinearModel("v_prediction")
    x, c = noise(model), model.condition(PROMPTS)
    eps, got = vjp(model, x, 300, c, lambda e: 2 * e)
    want = vjp(model, x, 300, c, 2 * eps)[1]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("derivative", ["jvp", "difference"])
def test_the_prompts_embedding_is_a_variable_too(derivative: str) -> None:
    model = LinearModel("epsilon")
    x, c, t = noise(model), model.condition(PROMPTS), 300
    assert c.embeddings is not None
    v = torch.randn(c.embeddings.shape, generator=torch.Generator().manual_seed(2))
    v[:, 0, 0] = 0  # by which the network tells its prompts apart
    b = model.network.b  # type: ignore[union-attr]
    eps, product = jvp(model, x, t, c, v, of="embedding", derivative=derivative)  # type: ignore[arg-type]
    torch.testing.assert_close(product.flatten(1), v.flatten(1) @ b.T, rtol=1e-4, atol=1e-3)
    w = noise(model, seed=1)
    found, back = vjp(model, x, t, c, w, of="embedding")
    assert torch.equal(found, eps)
    torch.testing.assert_close(back.flatten(1), w.flatten(1) @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of", ["state", "embedding"])
def test_products_of_a_unet_are_those_of_its_jacobian(of: str) -> None:
    """v-prediction, cross-attention; the whole Jacobian by reverse mode, row by row."""
    model = tiny_text_model()
    conditions = [Condition(str(i), f"caption {i}") for i in range(2)]
    x, c, t = noise(model, 2), model.condition(conditions), 500
    variable = x if of == "state" else c.embeddings
    assert variable is not None
    v, w = (
        torch.randn(variable.shape, generator=torch.Generator().manual_seed(1)),
        noise(model, 2, 5),
    )
    product, back = jvp(model, x, t, c, v, of=of)[1], vjp(model, x, t, c, w, of=of)[1]  # type: ignore[arg-type]
    rough = jvp(model, x, t, c, v, of=of, derivative="difference")[1]  # type: ignore[arg-type]
    for i in (0, 1):
        leaf = variable[i : i + 1].clone().requires_grad_(True)
        given = (leaf, c[slice(i, i + 1)]) if of == "state" else (x[i : i + 1], Conditioning(leaf))
        eps = model.raw_eps(given[0], t, given[1]).flatten()
        j = torch.stack([torch.autograd.grad(e, leaf, retain_graph=True)[0].flatten() for e in eps])
        torch.testing.assert_close(product[i].flatten(), j @ v[i].flatten(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back[i].flatten(), j.T @ w[i].flatten(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rough[i].flatten(), j @ v[i].flatten(), rtol=1e-2, atol=2e-3)


def test_a_difference_in_an_embedding_goes_a_hundredth_of_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the embedding's length and that of v."""
    model = tiny_text_model()
    x, c = noise(model, 2), model.condition([Condition(str(i), f"caption {i}") for i in range(2)])
    assert c.embeddings is not None
    at, v = 50 * c.embeddings, 7 * c.embeddings.flip(0)
    asked: list[torch.Tensor | None] = []
    eps = model.eps
    monkeypatch.setattr(
        model, "eps", lambda x, t, c, **how: (asked.append(c.embeddings), eps(x, t, c, **how))[1]
    )
    jvp(model, x, 500, Conditioning(at), v, of="embedding", derivative="difference")
    moved = [found - at for found in asked if found is not None and found is not at]
    for difference in moved:
        length = difference.flatten(1).norm(dim=1) / at.flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.full((2,), 0.01), rtol=1e-3, atol=0)
    assert len(moved) == 2


def test_what_they_cost() -> None:
    model = LinearModel()
    x, c = noise(model), model.condition(PROMPTS)
    jvp(model, x, 500, c, x)
    assert (model.cost.forwards, model.cost.jvps, model.cost.backwards) == (0, 3, 0)
    vjp(model, x, 500, c, x)
    assert (model.cost.forwards, model.cost.jvps, model.cost.backwards) == (3, 3, 3)
    jvp(model, x, 500, c, x, derivative="difference")
    assert (model.cost.forwards, model.cost.jvps, model.cost.backwards) == (3 + 9, 3, 3)


def test_a_batch_that_does_not_fit_is_halved_and_counted_once() -> None:
    model = LinearModel(batch_size=8)
    x, c = noise(model), model.condition(PROMPTS)
    whole = jvp(model, x, 500, c, x)[1], vjp(model, x, 500, c, x)[1]
    raw, sizes = model.raw_eps, []

    def small(y: torch.Tensor, t: int, told: Conditioning) -> torch.Tensor:
        sizes.append(len(y))
        if len(y) > 1:
            raise OutOfMemory("out of memory")
        return raw(y, t, told)

    model.raw_eps = small  # type: ignore[method-assign]
    before = (model.cost.jvps, model.cost.backwards)
    halves = jvp(model, x, 500, c, x)[1], vjp(model, x, 500, c, x)[1]
    assert sizes == [3, 3, 2, 1, 1, 1] * 2
    assert (model.cost.jvps - before[0], model.cost.backwards - before[1]) == (3, 3)
    for got, want in zip(halves, whole, strict=True):
        torch.testing.assert_close(got, want)


def test_what_overflows_in_half_precision_is_a_row_of_its_own() -> None:
    """A w that float16 cannot hold is scaled; a Jacobian that it cannot ruins its row."""
    model = LinearModel()
    model.network.half()
    model.dtype = torch.float16
    x, c = noise(model), model.condition(PROMPTS)
    large = vjp(model, x, 500, c, 1e8 * x)[1]
    plain = vjp(model, x, 500, c, x)[1]
    assert bool(large.isfinite().all())
    torch.testing.assert_close(large / 1e8, plain, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        model.network.a[2] *= 1e4  # type: ignore[union-attr, index]
    for found in (vjp(model, x, 500, c, x)[1], jvp(model, x, 500, c, x)[1]):
        finite = found.flatten(1).isfinite().all(dim=1).tolist()
        assert finite[0] and finite[2]


def test_a_row_of_zeros_has_a_product_of_zeros() -> None:
    model = LinearModel()
    x, c = noise(model), model.condition(PROMPTS)
    v = x.clone()
    v[1] = 0
    for found in (jvp(model, x, 500, c, v)[1], vjp(model, x, 500, c, v)[1]):
        assert not found[1].any() and bool(found.isfinite().all()) and found[0].any()


def test_an_embedding_is_only_had_from_text() -> None:
    for classes in (0, 3):
        model = tiny_pixel_model(classes)
        x = noise(model, 1)
        c = model.condition([Condition("a", class_label=0 if classes else None)])
        for product in (jvp, vjp):
            with pytest.raises(UserError, match="takes no text"):
                product(model, x, 5, c, x, of="embedding")
    assert math.isfinite(float(vjp(model, x, 5, c, x)[1].sum()))
