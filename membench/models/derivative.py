"""Products with the Jacobian J of eps(x, t, c) in x or in the prompt's embedding,
without J.

    jvp              J v, a vector a row
    vjp              J' w
    quadratic_forms  v' J v of many vectors a row, for traces

J v is had by forward-mode differentiation, or where a network's kernels have no forward
rule by the central difference

    (eps(x + h v) - eps(x - h v)) / (2 h),  h = 0.01 sigma_t, in float32.

Forward mode needs PyTorch's own ("math") attention: its fused kernels have no forward
rule (pytorch issue 98164). Reverse mode, and so J' w, takes any.

jvp and vjp bring each row of v or w to a mean square of 1 and scale the product back,
so that neither h nor half precision depends on its length. What overflows in half
precision all the same makes its own row infinite or NaN: a failed example.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.types import Condition

Derivative = Literal["auto", "jvp", "difference"]
Probe = Literal["rademacher", "gaussian"]
Vectors = Callable[[slice, slice], "torch.Tensor"]  # (probes, rows) -> [k, n, *shape]
STEP = 0.01  # of the central difference, in units of sigma_t: the scale on which eps bends


def choose(model: Denoiser, derivative: Derivative) -> Literal["jvp", "difference"]:
    """How to differentiate this network.

    Raises :class:`UserError` where the way that is asked for is not open to it.
    """
    if derivative == "jvp" and not has_forward_mode(model):
        raise UserError(
            f"a layer of this model has no forward-mode rule in PyTorch {torch.__version__}, so"
            " derivative=jvp cannot be; choose difference"
        )
    chosen: Literal["jvp", "difference"] = (
        "jvp" if derivative != "difference" and has_forward_mode(model) else "difference"
    )
    if chosen == "difference" and model.dtype != torch.float32:
        raise UserError(
            "a central difference of this model needs --dtype float32: rounding would drown it"
        )
    return chosen


def has_forward_mode(model: Denoiser) -> bool:
    """Whether every kernel of the network has a forward-mode rule in this PyTorch.

    Tried once a model, on two rows and two tangents. How a missing or broken rule shows
    depends on the kernel and on the release: NotImplementedError, RuntimeError, errors
    of type and shape. So a network that can be evaluated and not differentiated has no
    rule.
    """
    if model.forward_mode is None:
        x = torch.zeros(2, *model.shape, device=model.device)
        condition = model.condition(
            [Condition("any", class_label=None if model.has_null else 0)] * 2
        )
        try:
            _jvp(_function(model, x, 0, condition, "state"), x, torch.stack([x, x]))
        except UserError:  # out of memory
            raise
        except Exception:
            with torch.no_grad():
                # Raises again what has nothing to do with the derivative
                model.raw_eps(x, 0, condition)
            model.forward_mode = False
        else:
            model.forward_mode = True
    return model.forward_mode


def quadratic_forms(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    vectors: Vectors,
    count: int,
    how: Literal["jvp", "difference"],
) -> tuple[torch.Tensor, torch.Tensor]:
    """eps(x, t, c) [n, *shape] and v_k' J v_k [count, n] in double precision, J = d eps
    / d x of each row.

    Costs ``count`` JVPs a row (eps comes with them), or 2 ``count`` + 1 forwards where
    ``how`` is difference. A derivative holds the attention's whole matrix, for each
    tangent: where a batch does not fit, half of it is tried.
    """
    return model.halving(
        "derivatives",
        model.batch_size,
        lambda most: _forms(model, x, t, condition, vectors, count, how, most),
    )


def forms_price(count: int, how: str) -> int:
    """Evaluations a row of :func:`quadratic_forms`; a JVP counts as one."""
    return count if how == "jvp" else 2 * count + 1


Variable = Literal["state", "embedding"]  # what eps is differentiated in


def jvp(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    v: torch.Tensor,
    *,
    of: Variable = "state",
    derivative: Derivative = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """eps(x, t, c) and J v, both [n, *shape]; v like x or like the condition's
    embeddings.

    Costs a JVP a row, or 3 forwards where the derivative is a difference. Of a batch
    that does not fit, half is tried.
    """
    how, at = choose(model, derivative), _variable(x, condition, of)
    unit, length = _unit(v.to(at))
    eps, products = torch.empty_like(x, dtype=torch.float32), torch.empty(x.shape, device=x.device)

    def compute(most: int) -> None:
        for rows in _rows(len(x), most):
            evaluate = _function(model, x[rows], t, condition[rows], of)
            eps[rows], found = _jvp(evaluate, at[rows], unit[None, rows])
            products[rows] = found[0]
            model.cost.jvps += len(x[rows])

    if how == "jvp":
        model.halving("derivatives", model.batch_size, compute)
    else:
        sigma = torch.full((len(x),), model.alpha_sigma(t)[1], device=x.device)
        h = STEP * (sigma if of == "state" else _mean_square(at).sqrt())

        def end(sign: int) -> torch.Tensor:
            moved = at + sign * _like(h, at) * unit
            if of == "state":
                return model.eps(moved, t, condition, remember=False)
            return model.eps(x, t, replace(condition, embeddings=moved), remember=False)

        eps = model.eps(x, t, condition)
        products = (end(1) - end(-1)) / _like(2 * h, x)
    return eps, products * _like(length, x)


def vjp(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    w: torch.Tensor | Callable[[torch.Tensor], torch.Tensor],
    *,
    of: Variable = "state",
) -> tuple[torch.Tensor, torch.Tensor]:
    """eps(x, t, c) [n, *shape] and J' w, like x or like the condition's embeddings.

    w: [n, *shape], or what makes it of eps, row by row. Costs a forward and a backward
    a row. Of a batch that does not fit, half is tried.
    """
    at = _variable(x, condition, of)
    eps, products = torch.empty_like(x, dtype=torch.float32), torch.empty_like(at)

    def compute(most: int) -> None:
        for rows in _rows(len(x), most):
            leaf = at[rows].detach().requires_grad_(True)
            with torch.enable_grad(), model.refusals():
                found = _function(model, x[rows], t, condition[rows], of)(leaf)
                eps[rows] = found.detach()
                unit, length = _unit(w(eps[rows]) if callable(w) else w[rows].to(found))
                products[rows] = torch.autograd.grad(found, leaf, unit)[0] * _like(length, leaf)
            model.cost.forwards += len(leaf)
            model.cost.backwards += len(leaf)

    model.halving("gradients", model.batch_size, compute)
    return eps, products


def _variable(x: torch.Tensor, condition: Conditioning, of: Variable) -> torch.Tensor:
    """What eps is differentiated in, in float32."""
    if of == "state":
        return x.float()
    if condition.embeddings is None or not condition.embeddings.is_floating_point():
        raise UserError("this model takes no text, so no prompt's embedding can be varied")
    return condition.embeddings.float()


def _function(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning, of: Variable
) -> Callable[[torch.Tensor], torch.Tensor]:
    """eps as a function of that alone."""
    if of == "state":
        return lambda y: model.raw_eps(y, t, condition)
    return lambda y: model.raw_eps(x, t, replace(condition, embeddings=y.to(model.dtype)))


def _rows(n: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, n)) for start in range(0, n, most)]


def _mean_square(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).pow(2).mean(dim=1)


def _like(row: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A number a row [n], to multiply x [n, ...] with."""
    return row.view(-1, *[1] * (x.ndim - 1))


def _unit(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row of a mean square of 1, and what it was divided by [n]; a row of zeros
    stays.
    """
    length = _mean_square(v).sqrt()
    length = torch.where(length == 0, 1.0, length)
    return v / _like(length, v), length


def _forms(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    vectors: Vectors,
    count: int,
    how: Literal["jvp", "difference"],
    most: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """most: rows times tangents at once."""
    forms = torch.empty(count, len(x), dtype=torch.float64)
    eps = torch.empty(x.shape, device=x.device)
    tangents = min(count, most)
    for start in range(0, len(x), rows_at_once := max(1, most // tangents)):
        rows = slice(start, min(start + rows_at_once, len(x)))
        for first in range(0, count, tangents):
            probes = slice(first, min(first + tangents, count))
            v = vectors(probes, rows).to(x)
            if how == "jvp":
                evaluate = _function(model, x[rows], t, condition[rows], "state")
                eps[rows], products = _jvp(evaluate, x[rows], v)
                model.cost.jvps += products.shape[0] * products.shape[1]
            else:
                products = _difference(model, x[rows], t, condition[rows], v)
            # On the host: Metal has no double precision
            forms[probes, rows] = (v.cpu().double() * products.cpu().double()).flatten(2).sum(dim=2)
    return (model.eps(x, t, condition) if how == "difference" else eps), forms


def _jvp(
    evaluate: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """eps [n, *shape] and J v [k, n, *shape].

    The network is evaluated once for all k tangents.
    """

    def product(tangent: torch.Tensor) -> Any:
        return torch.func.jvp(evaluate, (at,), (tangent,))

    from torch.nn.attention import SDPBackend, sdpa_kernel

    _load_rules()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        eps, products = torch.func.vmap(product)(v)
    return eps[0], products  # eps does not depend on the tangent


@functools.cache
def _load_rules() -> None:
    """Torch loads its rules with the first product, and warns of what it uses itself for
    it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script")
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def _difference(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning, v: torch.Tensor
) -> torch.Tensor:
    h = STEP * model.alpha_sigma(t)[1]
    k, n = v.shape[:2]
    told = condition.tile(k)
    ends = [
        model.eps((x + sign * h * v).flatten(0, 1), t, told, remember=False) for sign in (1, -1)
    ]
    return ((ends[0] - ends[1]) / (2 * h)).view(k, n, *x.shape[1:])
