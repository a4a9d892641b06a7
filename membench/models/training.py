"""A training loop that can be interrupted: stateless batches, EMA, checkpoints, a loss
curve.

The batch of step *i* is a function of (seed, *i*) alone, so that a resumed run sees the
batches that an uninterrupted one would have seen. Checkpoints hold tensors and numbers
only and are read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.seeds import generator
from membench.storage.files import take_lock
from membench.storage.sealed import read_sealed, write_sealed
from membench.types import Tracker

TOLD = 10  # steps between two losses of a tracker


@dataclass
class Plan:
    """What to train. ``loss(step, generator)`` returns a scalar tensor for one batch."""

    name: str
    modules: dict[str, torch.nn.Module]
    loss: Callable[[int, torch.Generator], torch.Tensor]
    steps: int
    learning_rate: Callable[[int], float]
    seed: int = 0
    weight_decay: float = 0.0
    ema_decay: float = 0.999  # 0: none
    betas: tuple[float, float] = (0.9, 0.99)
    checkpoint_seconds: float = 120.0
    record: dict[str, Any] = field(default_factory=dict)
    # Called with the EMA weights in place, every ``watch_every`` steps
    watch: Callable[[int], None] | None = None
    watch_every: int = 0
    keep: Callable[[int], None] | None = None  # the same, after each of the steps ``keep_at``
    keep_at: tuple[int, ...] = ()

    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for m in self.modules.values() for p in m.parameters() if p.requires_grad]

    def buffers(self) -> list[torch.Tensor]:
        """Running statistics of batch normalisation, which a resumed training needs
        too.
        """
        return [b for m in self.modules.values() for b in m.buffers()]


def warmup(rate: float, steps: int = 200) -> Callable[[int], float]:
    """Linear warm-up to a constant learning rate (with EMA as the decay, training can
    go on later).
    """
    return lambda step: rate * min(1.0, (step + 1) / steps)


def _save(state: dict[str, Any], path: Path) -> None:
    # Torch.save tells a full disk as a RuntimeError without words; writing bytes does
    # not
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_sealed(path, buffer.getbuffer())


class _NoAverage:
    """In the place of an EMAModel whose decay is 0: that one would copy the weights after
    each step, to say what they are.
    """

    def __init__(self) -> None:
        self.shadow_params: list[torch.nn.Parameter] = []
        self.optimization_step = 0

    def leave(self, params: list[torch.nn.Parameter]) -> None:
        """Leaves the weights as they are."""

    step = store = copy_to = restore = leave


def _with_ema(
    see: Callable[[int], None],
    plan: Plan,
    ema: EMAModel | _NoAverage,
    params: list[torch.nn.Parameter],
    step: int,
) -> None:
    ema.store(params)
    ema.copy_to(params)
    for module in plan.modules.values():
        module.eval()
    try:
        see(step)
    finally:
        ema.restore(params)
        for module in plan.modules.values():
            module.train()


@contextmanager
def alone(name: str, folder: Path) -> Iterator[None]:
    """No other process trains the plan of that name in ``folder`` meanwhile, nor saves
    what it trained. Raises :class:`UserError` where one does.
    """
    busy = f"another process trains {name} in {folder}; wait until it ends, or end it"
    lock = take_lock(folder / f".{name}.lock", busy)
    try:
        yield
    finally:
        lock.release()


def fit(
    plan: Plan, folder: Path, *, progress: bool = True, tracker: Tracker | None = None
) -> dict[str, Any]:
    """Trains ``plan`` up to ``plan.steps``, from the checkpoint in ``folder`` if there
    is one.

    Leaves the EMA weights in ``plan.modules`` and returns a record (steps, seconds,
    loss curve). The caller holds a lock (:func:`alone`, or that of a prepared stage)
    until its result is saved. tracker: is told the running mean of the loss every
    ``TOLD`` steps. Raises :class:`UserError` if the checkpoint belongs to another plan
    or is damaged.
    """
    path = folder / f"{plan.name}.checkpoint"
    params = plan.parameters()
    optimizer = torch.optim.AdamW(params, lr=1.0, weight_decay=plan.weight_decay, betas=plan.betas)
    ema = EMAModel(params, decay=plan.ema_decay) if plan.ema_decay else _NoAverage()
    start, seconds, curve = 0, 0.0, []
    running: float | None = None  # mean of the loss, most of the last 50 steps
    identity = json.dumps(
        {"name": plan.name, "seed": plan.seed, **plan.record}, sort_keys=True, default=str
    )
    if path.exists():
        state = torch.load(io.BytesIO(read_sealed(path)), weights_only=True, map_location="cpu")
        shapes = [saved.shape for saved in state["params"]]
        # Or of another network: an older membench's under the same numbers
        if state["identity"] != identity or shapes != [p.shape for p in params]:
            raise UserError(
                f"{path} is a checkpoint of another recipe; move it away, or train into another"
                " folder (--output)"
            )
        for p, saved in zip(params, state["params"], strict=True):
            p.data.copy_(saved)
        for buffer, saved in zip(plan.buffers(), state.get("buffers", plan.buffers()), strict=True):
            buffer.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        for shadow, saved in zip(ema.shadow_params, state["ema"], strict=True):
            shadow.data.copy_(saved)
        start, seconds, curve = state["step"], state["seconds"], state["curve"]
        running = state.get("running")
        ema.optimization_step = start

    def checkpoint(step: int) -> None:
        state = {
            "identity": identity,
            "params": [p.data for p in params],
            "optimizer": optimizer.state_dict(),
            "buffers": plan.buffers(),
            "ema": list(ema.shadow_params),
            "step": step,
            "seconds": seconds + time.monotonic() - began,
            "curve": curve,
            "running": running,
        }
        _save(state, path)

    for module in plan.modules.values():
        module.train()
    began = saved_at = time.monotonic()
    bar = tqdm(
        range(start, plan.steps),
        initial=start,
        total=plan.steps,
        desc=plan.name,
        disable=not progress,
        mininterval=5,
    )
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(step)
        loss = plan.loss(step, generator(plan.seed, plan.name, step))
        if not torch.isfinite(loss):
            checkpoint_note = f"; {path} holds an earlier step" if path.exists() else ""
            raise UserError(
                f"training {plan.name}: the loss is not finite at step {step}{checkpoint_note}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        ema.step(params)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if tracker is not None and (step + 1) % TOLD == 0:
            tracker.scalar(f"{plan.name}/loss", running, step + 1)
        if (step + 1) % 100 == 0:
            curve.append([step + 1, round(running, 5)])
            bar.set_postfix(loss=f"{running:.4f}")
        if plan.watch is not None and plan.watch_every and (step + 1) % plan.watch_every == 0:
            _with_ema(plan.watch, plan, ema, params, step + 1)
        if plan.keep is not None and step + 1 in plan.keep_at:
            _with_ema(plan.keep, plan, ema, params, step + 1)
        if time.monotonic() - saved_at > plan.checkpoint_seconds:
            checkpoint(step + 1)
            saved_at = time.monotonic()
    seconds_total = seconds + time.monotonic() - began
    if start < plan.steps:
        checkpoint(plan.steps)
    ema.copy_to(params)
    for module in plan.modules.values():
        module.eval()
    return {
        "steps": max(plan.steps, start),
        "seconds": round(seconds_total, 1),
        "loss_curve": curve,
    }
