"""What a Mac's GPU lacks, which ``--device auto`` chooses there: double precision. It is of
the host alone.
"""

from __future__ import annotations

import pytest
import torch
from linear import LinearModel

from membench.detectors.flipd import Flipd
from membench.detectors.likelihood import Likelihood
from membench.detectors.normal_bundle import NormalBundle
from membench.types import Condition

SAMPLING = {"steps": 4, "guidance": 1.0}
NAMES = ["a", "b"]


def without_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Metal refuses it: of every tensor that was not taken to the host."""
    cpu, double = torch.Tensor.cpu, torch.Tensor.double

    def taken(x: torch.Tensor) -> torch.Tensor:
        found = cpu(x).view_as(x)
        found.on_host = True
        return found

    def refused(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float64 and not hasattr(x, "on_host"):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return double(x)

    monkeypatch.setattr(torch.Tensor, "cpu", taken)
    monkeypatch.setattr(torch.Tensor, "double", refused)


@pytest.mark.parametrize("derivative", ["jvp", "difference"])
def test_no_double_precision_on_the_device(
    monkeypatch: pytest.MonkeyPatch, derivative: str
) -> None:
    model = LinearModel()
    x, told = model.noise([(name, 0) for name in NAMES], 0), model.condition([Condition("c")] * 2)
    options = Flipd.Options(t0=0.3, derivative=derivative)
    flipd = Flipd(options, seed=0, sampling=SAMPLING)
    bundle = NormalBundle(NormalBundle.Options(t0=0.3), seed=0, sampling=SAMPLING)
    options = Likelihood.Options(steps=4, tolerance=1e9, derivative=derivative)
    likelihood = Likelihood(options, seed=0, sampling=SAMPLING)

    def found() -> list[list[float]]:
        return [
            flipd.lid(model, x, told, NAMES).tolist(),
            bundle.lid(model, x, told, NAMES),
            likelihood.log_p(model, x, told, NAMES).tolist(),
            likelihood._uniform(model, NAMES).flatten().tolist(),
        ]

    wanted = found()
    without_doubles(monkeypatch)
    assert found() == wanted
