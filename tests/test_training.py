"""The training loop: an interrupted training ends with the weights of an uninterrupted
one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from membench.errors import UserError
from membench.models.training import Plan, fit, warmup

TARGET = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def plan(steps: int, **changes) -> Plan:
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 2, bias=False)

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        x = torch.randn(16, 2, generator=gen)
        return ((module(x) - x @ TARGET.T) ** 2).mean()

    settings = {"seed": 1, "ema_decay": 0.9, "checkpoint_seconds": 0.0} | changes
    return Plan("line", {"module": module}, loss, steps, warmup(0.05, 10), **settings)


def weights(p: Plan) -> torch.Tensor:
    return p.modules["module"].weight.detach().clone()


def test_it_learns(tmp_path: Path) -> None:
    p = plan(400)
    report = fit(p, tmp_path, progress=False)
    torch.testing.assert_close(weights(p), TARGET, rtol=0, atol=0.02)
    assert report["steps"] == 400 and [step for step, _ in report["loss_curve"]] == [
        100,
        200,
        300,
        400,
    ]
    assert report["loss_curve"][-1][1] < report["loss_curve"][0][1] / 10


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, decay: float) -> None:
    """In its weights and in its curve, whose points are means of many steps."""
    whole = plan(120, ema_decay=decay)
    report = fit(whole, tmp_path / "whole", progress=False)

    broken = plan(120, ema_decay=decay)
    inner = broken.loss

    def killed(step: int, gen: torch.Generator) -> torch.Tensor:
        if step == 87:
            raise KeyboardInterrupt
        return inner(step, gen)

    broken.loss = killed
    with pytest.raises(KeyboardInterrupt):
        fit(broken, tmp_path / "broken", progress=False)
    resumed = plan(120, ema_decay=decay)
    again = fit(resumed, tmp_path / "broken", progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert again["loss_curve"] == report["loss_curve"] and len(report["loss_curve"]) == 1


@pytest.mark.parametrize("most", [0.9, 0.0])
def test_the_result_is_the_moving_average(tmp_path: Path, most: float) -> None:
    """EMA by hand: decay min(most, (1 + k) / (10 + k)), as diffusers warms it up; of 0 the
    last weights, to the bit. What a snapshot sees is the same.
    """
    p = plan(5)
    seen = [weights(p)]
    optimizer = torch.optim.AdamW(p.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    from membench.seeds import generator

    for step in range(5):
        optimizer.param_groups[0]["lr"] = warmup(0.05, 10)(step)
        optimizer.zero_grad()
        p.loss(step, generator(1, "line", step)).backward()
        torch.nn.utils.clip_grad_norm_(p.parameters(), 1.0)
        optimizer.step()
        seen.append(weights(p))
    average = seen[0]
    for k, w in enumerate(seen[1:]):
        decay = min(most, (1 + k) / (10 + k)) if k else 0.0
        average = decay * average + (1 - decay) * w
    kept: list[torch.Tensor] = []
    again = plan(5, ema_decay=most, keep=lambda step: kept.append(weights(again)), keep_at=(5,))
    fit(again, tmp_path, progress=False)
    torch.testing.assert_close(weights(again), average)
    assert torch.equal(kept[0], weights(again)) and (most or torch.equal(kept[0], seen[-1]))


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(plan(3), tmp_path, progress=False)
    with pytest.raises(UserError, match="another recipe"):
        fit(plan(6, record={"data": "other"}), tmp_path, progress=False)
    for network in (torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(2, 2)):
        with pytest.raises(UserError, match="another recipe"):
            fit(replace(plan(6), modules={"module": network}), tmp_path, progress=False)


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    p = plan(3)
    p.loss = lambda step, gen: torch.tensor(float("nan"), requires_grad=True)
    with pytest.raises(UserError, match="not finite at step 0"):
        fit(p, tmp_path, progress=False)
