"""What a run is said to take is what it takes, and nothing is stored for saying it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from membench.cli.main import main
from membench.registry import tasks
from membench.runs import devices
from membench.runs import price as price_module
from membench.runs.devices import device_line, device_of
from membench.runs.execute import execute
from membench.runs.finished import evaluations
from membench.runs.plan import not_shortened
from membench.runs.price import TIMED, prices
from membench.runs.shards import price_line
from membench.runs.spec import Spec
from membench.types import Cost


def test_the_evaluations_are_those_of_the_run(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    """Eight examples are timed of sixteen; the run takes twice what they took."""
    spec = Spec(
        "cfg_norm",
        "sd_webster",
        options=("draws=1", "images=1"),
        task_options=(f"model={tiny_pipeline_folder}",),
        limit=2 * TIMED,
    )
    [price] = prices([spec], tmp_path)
    assert not list(tmp_path.iterdir())
    run = execute(spec, tmp_path, progress=False)
    assert price.evaluations == evaluations(run, "prepare", "samples", "scores") > 0
    assert (price.examples, price.images) == (len(run.scores), len(run.samples))
    assert price.seconds is not None and price.seconds > 0
    [again] = prices([spec], tmp_path)
    assert again.evaluations == 0 and again.note == "finished already"


def test_finished_seeds_cost_nothing_and_the_others_what_they_take(
    tiny_pipeline_folder: Path, tmp_path: Path
) -> None:
    task = (f"model={tiny_pipeline_folder}",)
    spec = Spec("cfg_norm", "sd_webster", options=("draws=1", "images=0"), limit=2)
    spec = replace(spec, task_options=task)
    run = execute(spec, tmp_path, progress=False)
    [price] = prices([spec], tmp_path, [0, 1, 2])
    assert price.seeds == 2 and price.note == ""
    assert price.evaluations == evaluations(run, "prepare", "samples", "scores") > 0
    # A run without its tables is made again
    (run.path / "scores.parquet").unlink()
    [price] = prices([spec], tmp_path, [0, 1])
    assert price.seeds == 2 and price.note == ""


@pytest.mark.parametrize("options", [(), ("extraction=unconditional", "generations=40")])
def test_few_images_are_extracted_of_examples_that_are_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """They are asked for by their conditions, which are no examples: a part all the same."""
    tasks().add("pixels", "pixel_task:PixelTask", "tests")
    asked: list[int] = []
    real = price_module.contract.extract

    def counted(detector: Any, model: Any, requests: Any) -> Any:
        asked.append(len(requests))
        return real(detector, model, requests)

    monkeypatch.setattr(price_module.contract, "extract", counted)
    [price] = prices([Spec("random", "pixels", options=options)], tmp_path)
    assert asked == [TIMED] and price.images is not None and price.images > TIMED


def test_a_dry_run_prints_and_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_pipeline_folder: Path
) -> None:
    words = ["run", "--detector", "caption_case,side", "--task", "sd_webster", "--limit", "9"]
    words += ["--model", str(tiny_pipeline_folder), "--seeds", "0,1", "--dry-run"]
    words += ["--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert re.search(r"caption_case +9 +2 +0 +0 +0\.0", out), out
    # Its preparation must be made first, and is said to be long
    side = re.search(r"side +9 +2 +\? +([\d,]+) \+ \?", out)
    assert side is not None, out
    # The sum holds what is known of it, for both seeds
    least = 2 * int(side[1].replace(",", ""))
    assert f"in all at least {least:,} evaluations; their minutes are not known yet" in out
    assert "membench: device cpu" in err and not (tmp_path / "runs").exists()
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["seeds"] for row in found] == [2, 2] and found[0]["evaluations"] == 0


class Half:
    """A work whose first shard is done."""

    phase = "scores"

    def __init__(self, n: int) -> None:
        self.items = range(n)

    def __len__(self) -> int:
        return -(-len(self.items) // 64)

    def done(self, index: int) -> bool:
        return index == 0


def test_what_is_left_is_in_proportion_to_the_first_shard() -> None:
    line = price_line([Half(200)], 0, Cost(forwards=640), 32.0)
    # 136 of 200 are left, 10 evaluations and half a second each
    assert line == "membench: scores: 1,360 evaluations and 1.1 min are left, timed on the first 64"
    assert price_line([Half(20)], 0, Cost(forwards=640), 32.0) == ""


def test_a_limit_that_shortens_no_preparation_is_told() -> None:
    def job(price):
        every = [SimpleNamespace(condition=i) for i in range(10)]
        return SimpleNamespace(
            examples=every[:2],
            task=SimpleNamespace(examples=every),
            detector=SimpleNamespace(preparation_forwards=lambda model, c: price(len(c))),
            spec=SimpleNamespace(detector="side"),
        )

    assert "side: --limit does not shorten its preparation of 500" in not_shortened(
        job(lambda n: 500), None, 500
    )
    assert not_shortened(job(lambda n: 5 * n), None, 10) == ""  # in proportion
    assert not_shortened(job(lambda n: 0), None, 0) == ""


def test_auto_is_the_first_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(cuda: bool, mps: bool) -> None:
        backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
        fake = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: cuda), backends=backends)
        monkeypatch.setattr(devices, "torch", fake)

    for cuda, mps, device in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        here(cuda, mps)
        assert device_of("auto") == device and device_of("cuda:1") == "cuda:1"
    assert device_line("cpu", "float32") == "device cpu (no cuda or mps here), float32"
