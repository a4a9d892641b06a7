"""What the scripts that make tables of results/ count, by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripts import script

from membench.datasets.prompts import example_id
from membench.detectors import adaptive
from membench.similarity.spaces import pixel_space
from membench.storage import host
from membench.tasks.sd_webster.world import unique_images, world

ROOT = Path(__file__).parents[1]


def test_adaptive_looks_at_as_many_noises_as_the_detector(monkeypatch) -> None:
    """And at none that is decided again."""
    rng = np.random.default_rng(0)
    scores = rng.normal(rng.normal(scale=2, size=(200, 1)), 1, size=(200, 8))
    options = adaptive.AdaptiveOptions("cfg_norm", ("images=0",), threshold=0.3, rounds=8)
    sampling = {"examples": "prompts", "profile": "mini", "steps": 50, "guidance": 7.5}
    of = adaptive.Adaptive(options, seed=0, sampling=sampling)
    asked = np.zeros(200, int)

    def scored(part: Any, model: Any, conditions: list[int]) -> list[float]:
        asked[conditions] += 1
        return scores[conditions, of.parts.index(part)].tolist()

    monkeypatch.setattr(adaptive, "scored", scored)
    means = of.score(None, list(range(200)), {})  # type: ignore[arg-type]
    counts = [script("benchmarks/adaptive.py").taken(row, 0.3, options.level) for row in scores]
    assert counts == asked.tolist() and len(set(counts)) > 3
    assert means == pytest.approx([row[:n].mean() for row, n in zip(scores, counts, strict=True)])


def test_a_divergence_is_found_again_where_it_was_measured_alike() -> None:
    """In one folder other noises, and another model, are other rows."""
    measured = script("benchmarks/divergence.py")
    args = SimpleNamespace(noises=2, steps=12, probes=2, images=20)
    loaded = {half: SimpleNamespace(hashes={"weights": half * 9}) for half in "ab"}
    settings = measured.asked(args, loaded)
    row = {"rung": 1, "half": "a", "model": "own", "kind": "x1", "epsilon": 0.1}
    assert measured.kept([row | settings], settings) == {(1, "a", "own", "x1", 0.1)}
    for other in ({"noises": 8}, {"most": 5}, {"weights": "c,d"}):
        assert not measured.kept([row | settings | other], settings)
    assert not measured.kept([row], settings)  # of an older file


def test_a_lead_is_of_the_same_seed_and_its_interval_students() -> None:
    """Copies of 100: 10, 20 and 30 more than plain sampling. t(2) = 4.302653, s = 10."""
    rows = []
    for seed, lead in ((2, 0.3), (0, 0.1), (1, 0.2)):
        for attack, ams in (("random", 0.05 * seed), ("side", 0.05 * seed + lead)):
            row = {"rung": 4, "seed": seed, "attack": attack, "ams": ams}
            rows.append(row | {"copied_at_300": 7.0 * seed, "copied_at_cost": 100 * ams})
    found = script("benchmarks/leads.py").leads(pd.DataFrame(rows))[4]
    half = 4.302653 * 10 / 3**0.5
    for name in ("ams", "copied_at_cost"):
        assert found[name] == pytest.approx((20, 20 - half, 20 + half), rel=1e-6)
    assert found["copied_at_300"] == pytest.approx((0, np.nan, np.nan), nan_ok=True)  # no spread


def test_an_image_at_the_threshold_is_a_copy_of_its_nearest() -> None:
    """Two training images at distances r and 3 r: 4 r / (r + 3 r) = 1."""
    training = np.zeros((2, 8, 8, 3), np.uint8)
    training[0, 0, 0, 0], training[1, 0, 0, 0] = 255, 85
    generated = np.zeros((2, 8, 8, 3), np.uint8)
    generated[1, 4:] = 200  # far from both alike
    assert script("benchmarks/mirror_pairs.py").copies(generated, training).tolist() == [1, -1]


def test_captions_return_an_image_or_their_own(monkeypatch, tmp_path) -> None:
    """Of three captions of half a, one of them of no training image: any image counts that
    is no farther than a copy may be, of any draw.
    """
    half = world("a", 0)
    place = {look: i for i, look in enumerate(unique_images(half))}
    kind = next(e.kind for e in half.entries if e.look in place)
    shown = [e for e in half.entries if e.look in place and e.kind == kind]
    first, second = shown[0], next(e for e in shown if e.look != shown[0].look)
    names = [example_id(first.caption), example_id(second.caption), "unknown"]
    own, other = place[first.look], place[second.look]
    images = pd.DataFrame({"condition": [names[0], names[0], names[1], names[2]]})
    matches = pd.DataFrame(
        [(0, own, 0.9), (0, other, 0.95), (1, other, 0.5), (2, own, 1.0), (3, own, 1.01)],
        columns=["generated", "training", "similarity"],
    )
    scores = pd.DataFrame({"id": [*names, "not drawn"], "kind": kind, "source": "catalogue"})
    run = SimpleNamespace(
        info={
            "detector": "random",
            "task": "sd_webster",
            "task_options_passed": ["half=a"],
            "key_parts": {"hashes": {"weights": "f" * 64}},
        },
        space=pixel_space(16),
        scores=scores,
        found=lambda: (images, matches),
    )
    module, file = script("benchmarks/returned.py"), tmp_path / "returned.parquet"
    monkeypatch.setattr(module, "read_runs", lambda _: SimpleNamespace(runs=[run]))
    monkeypatch.setattr(sys, "argv", ["returned.py", "RUNS", "--output", str(file)])
    module.main()
    found = pd.read_parquet(file).set_index("shown")
    columns = ["n", "returned", "own"]
    assert found.loc[True, columns].tolist() == [2, 2, 1]  # the second at 1.0, by another's image
    assert found.loc[False, columns].tolist() == [1, 0, 0]
    assert found.own_distance[True] == np.inf  # the median of 0.9 and one that is not stored


def test_an_image_that_is_copied_twice_is_one() -> None:
    assert script("benchmarks/clusters.py").distinct(np.array([-1, 4, 4, -1, 7])) == 2


def test_the_gpu_script_measures_the_compiled_network_last(monkeypatch, tmp_path) -> None:
    """What it found before is written by then."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu = script("benchmarks/gpu.py")
    for name in gpu.TINY:  # which --tiny changes
        monkeypatch.setattr(gpu.scale, name, dict(getattr(gpu.scale, name)))
    for name in ("SIDE", "WIDTH"):
        monkeypatch.setattr(gpu.scale, name, getattr(gpu.scale, name))
    file, seen = tmp_path / "gpu.json", []

    def compiled(model: Any) -> None:
        seen.append(json.loads(file.read_text()))

    monkeypatch.setattr(gpu.LatentDenoiser, "compile", compiled)
    monkeypatch.setattr(gpu, "automatic", lambda model: 8)
    monkeypatch.setattr(gpu.scale, "flops", lambda: {"U-Net, one evaluation": 1e6})
    given = ["gpu.py", "--output", str(file), "--device", "cpu", "--dtype", "float32", "--tiny"]
    monkeypatch.setattr(sys, "argv", given)
    gpu.main()
    [plain], whole = seen, json.loads(file.read_text())
    assert plain["cfg_norm"]["evaluations"] == 16 * 4 * 2 and plain["evaluations_per_s"] > 0
    assert plain == {name: whole[name] for name in plain}
    assert {*whole} - {*plain} == {
        f"compile{name}"
        for name in ("_seconds", "d_evaluations_per_s", "d_share_of_matrix_product")
    }


def test_labels_tabulates_a_ums_above_one() -> None:
    values = {"ams": 0.5, "most": 0.5, "once": 0.0}
    rows = [{"labels": "none", "from": "null", "ums": ums} | values for ums in (1.1, 1.3)]
    [row] = script("benchmarks/labels.py").tabulated(pd.DataFrame(rows)).to_dict("records")
    # Student's t with one degree of freedom: 12.706 times a standard error of 0.1
    assert row["UMS %"] == "120.0 [-7.1, 247.1]"


def test_the_memory_of_a_process_is_its_own() -> None:
    """And not this one's, which is larger; a signal is a negative code."""
    of = script("benchmarks/stand_ins.py")
    code = "import os; x = b'x' * (50 << 20); os.kill(os.getpid(), 9)"
    took = of.measured([sys.executable, "-IS", "-c", code])
    assert took.code == -9 and 50 <= took.peak < 80 < host.peak_memory_mb()
    took = of.measured(
        [sys.executable, "-IS", "-c", "import os; raise SystemExit(int(os.environ['N']))"], N=3
    )
    assert took.code == 3 and took.peak < 30


def test_teachers_are_compared_by_the_same_seed() -> None:
    """Differences 6, 9 and 12 points: 9, give or take 4.303 * 3 / sqrt(3)."""
    told = script("benchmarks/teachers.py").ahead([0.18, 0.30, 0.21], [0.12, 0.21, 0.09])
    assert told == "a's teacher makes 9.0 points [1.5, 16.5] more copies"
    rows = {"metric": ["ams", "ams_cumulative", "ams_cumulative", "ams_cumulative"]}
    rows |= {"band": [None, "high", None, None], "subset": ["all", "all", "x64", "all"]}
    metrics = pd.DataFrame(rows | {"value": [0.1, 0.2, 0.3, 0.4]})
    assert script("benchmarks/teachers.py").copied(SimpleNamespace(metrics=metrics)) == 0.4
