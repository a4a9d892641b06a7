"""What is charged for an evaluation that failed, and for one that was made already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMScheduler

from membench.models import memo
from membench.models.denoiser import OutOfMemory
from membench.models.pixel import PixelDenoiser
from membench.runs.shards import Work
from membench.types import Cost


def test_what_did_not_fit_is_not_charged() -> None:
    """Eight rows and four do not fit; two do, and are tried first the next time."""
    model = PixelDenoiser(pixel_unet(), DDIMScheduler(), shape=(3, 8, 8))
    tried = []

    def compute(n: int) -> int:
        tried.append(n)
        model.cost.forwards += 5
        if n > 2:
            raise OutOfMemory("too many")
        return n

    assert model.halving("jvp", 8, compute) == 2 and model.cost.forwards == 5
    assert model.halving("jvp", 8, compute) == 2 and model.cost.forwards == 10
    assert tried == [8, 4, 2, 2]


def test_a_shared_row_is_charged_its_part_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows took 8 s."""
    clock = iter([10.0, 18.0])
    monkeypatch.setattr(memo, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    share = memo._Share(torch.device("cpu"), 4)
    share.end()
    assert share.seconds() == 2.0


def test_a_shard_takes_what_its_shared_rows_once_took() -> None:
    """5 s of them, beside what it took itself."""
    cost, written = Cost(), []
    folder = SimpleNamespace(
        shard_done=lambda phase, index: False, write_shard=lambda *of: written.append(of)
    )

    def compute(part: list[int]) -> list[dict]:
        cost.forwards += len(part)
        cost.shared_seconds += 5.0
        return [{"id": i} for i in part]

    phases: Any = SimpleNamespace(model=SimpleNamespace(cost=cost), folder=folder)
    Work(phases, "scores", [1, 2, 3], ["1", "2", "3"], compute).shard(0)
    [(_, _, rows, spent)] = written
    assert len(rows) == spent["forwards"] == 3 and 5.0 <= spent["seconds"] < 6.0
