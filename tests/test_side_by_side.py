"""Detectors in one command: the numbers that each gets alone, every evaluation once,
and interruptions that leave no trace.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from watch import Watch, counts, forwards, grey_levels, same_tables, shared

from membench import api, registry
from membench.cli.main import main
from membench.models import latent
from membench.models.latent import LatentDenoiser
from membench.models.memo import Memo
from membench.reports.run_tables import run_table
from membench.runs import conclude, shards, sweep
from membench.runs.execute import execute_all
from membench.runs.finished import Run, evaluations
from membench.runs.spec import Spec
from membench.tasks.sd_webster import task

FOUR = {
    "cfg_norm": ["draws=1"],
    "score_norm": ["draws=1"],
    "flipd": ["probes=1"],
    "dcs": ["draws=1"],
}
SHARD = 8  # for 64, and batches of as many: as many shards and batches, of an eighth of the rows
LIMIT = 18  # 3 shards of examples
STEPS = 3  # of the task's own sampling, which has 10
SIDE = [
    "synthetic=12",
    "clusters=3",
    "min_members=1",
    "keep=1",
    "generations=7",
    "lora_steps=2",
    "batch=4",
]


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Ten steps, drawn training images and reports would take most of the time, and
    nothing here looks at them; nor does it at how long a shard is.
    """
    pictures = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", SHARD)
        patch.setattr(task, "training_images_of", lambda half, number: pictures)
        patch.setattr(api, "write_report", lambda *_: None)
        info = task.SdWebster.info
        patch.setattr(
            task.SdWebster,
            "info",
            dataclasses.replace(info, sampling={**info.sampling, "steps": STEPS}),
        )
        yield


@pytest.fixture(scope="module")
def spec(tiny_pipeline_folder: Path) -> Callable[..., Spec]:
    def make(detector: str, options: Sequence[str] = (), limit: int = LIMIT, **changes) -> Spec:
        return Spec(
            detector,
            "sd_webster",
            options=options,
            limit=limit,
            task_options=[f"model={tiny_pipeline_folder}"],
            **({"batch_size": SHARD} | changes),
        )

    return make


PROMPT_LEVEL = (
    "cfg_norm",
    "dsm",
    "score_norm",
    "anisotropy",
    "hessian_difference",
    "bright_ending",
    "transition_step",
)


def test_detectors_of_prompts_cost_little_more_than_the_dearest_of_them(spec, tmp_path) -> None:
    """Passes over the network, a backward counting two; bright_ending takes 404 forwards
    a prompt, and what no other asks for is the trajectory of transition_step, 100 at
    most, eight of anisotropy, and the gradients.
    """
    specs = [spec(name, ["images=0"], 1) for name in PROMPT_LEVEL]
    runs = execute_all(specs, tmp_path, progress=False).runs
    costs = [run.info["phases"]["scores"] for run in runs]
    alone = [cost["forwards"] + 2 * cost["backwards"] for cost in costs]
    assert max(alone) == alone[PROMPT_LEVEL.index("bright_ending")] == 404
    together = sum(alone) - sum(cost["shared"] for cost in costs)
    assert together <= 1.3 * max(alone)
    # All that each asks for of the same states is shared with the first that did
    shared = {name: cost["shared"] for name, cost in zip(PROMPT_LEVEL, costs, strict=True)}
    assert shared["dsm"] == 2 and shared["score_norm"] == 8
    assert shared["anisotropy"] == 8 and shared["transition_step"] == 2
    assert shared["bright_ending"] == 8 + 1


# --------------------------------------------------------------- together as each alone


@pytest.fixture(scope="module")
def together(spec, tmp_path_factory) -> tuple[dict[str, Run], Watch]:
    with Watch() as watch:
        runs = execute_all(
            [spec(*item) for item in FOUR.items()],
            tmp_path_factory.mktemp("together"),
            progress=False,
        ).runs
    return dict(zip(FOUR, runs, strict=True)), watch


@pytest.fixture(scope="module")
def alone(spec, tmp_path_factory) -> tuple[dict[str, Run], Watch]:
    out = tmp_path_factory.mktemp("alone")
    with Watch() as watch:
        return {
            name: execute_all([spec(name, options)], out, progress=False).runs[0]
            for name, options in FOUR.items()
        }, watch


@pytest.mark.parametrize("name", FOUR)
def test_together_each_detector_gets_what_it_gets_alone(together, alone, name: str) -> None:
    """Tolerance: 1e-4 relative on scores, one grey level on images; batches of other
    rows, nothing else.
    """
    a, b = together[0][name], alone[0][name]
    assert len(a.scores) == len(a.samples) == LIMIT and a.scores.score.notna().all()
    assert (
        a.scores.id.tolist() == b.scores.id.tolist()
        and a.samples.sample_id.tolist() == b.samples.sample_id.tolist()
    )
    np.testing.assert_allclose(a.scores.score, b.scores.score, rtol=1e-4)
    np.testing.assert_allclose(a.samples.confidence, b.samples.confidence, rtol=1e-4)
    assert grey_levels(a, b) <= 1
    assert a.path.name == b.path.name and a.path != b.path
    assert set(a.info["phases"]) == set(b.info["phases"])


def test_together_each_detector_counts_what_it_takes_alone(together, alone) -> None:
    sampling = 2 * STEPS * LIMIT
    expected = {"cfg_norm": (sampling, 2 * LIMIT), "score_norm": (sampling, 2 * LIMIT)}
    expected |= {"flipd": (sampling, 0), "dcs": (sampling + 2 * LIMIT, 2 * LIMIT)}
    for name, run in together[0].items():
        found = counts(run)
        assert found == counts(alone[0][name])
        assert (found["samples"]["forwards"], found["scores"]["forwards"]) == expected[name]
        assert found["samples"]["decodes"] == LIMIT
        assert found["samples"]["jvps"] == (LIMIT if name == "flipd" else 0)
        assert sum(shared(alone[0][name]).values()) == 0


def test_the_network_is_given_every_distinct_row_once_and_the_shared_ones_add_up(
    together, alone
) -> None:
    runs, watch = together
    apart = alone[1]
    assert (
        len(apart.asked) == apart.evaluated == len(watch.asked) == sum(map(forwards, runs.values()))
    )
    assert watch.evaluated == len(set(watch.asked)) == len(set(apart.asked)) < len(watch.asked)
    assert (
        sum(sum(shared(run).values()) for run in runs.values())
        == len(watch.asked) - watch.evaluated
    )
    sampling, norms = 2 * STEPS * LIMIT, 2 * LIMIT
    # By hand: one trajectory and dcs's own step for all images; of the scores two kinds
    # of first step.
    assert watch.evaluated == sampling + norms + 2 * norms
    assert {name: tuple(shared(run).values()) for name, run in runs.items()} == {
        "cfg_norm": (0, 0),
        "score_norm": (sampling, norms),
        "flipd": (sampling, 0),
        "dcs": (sampling, 0),
    }


def test_the_seconds_of_a_run_hold_those_of_the_evaluations_that_another_made(together) -> None:
    for name, run in together[0].items():
        phase = run.info["phases"]["samples"]
        assert phase["seconds"] >= phase["shared_seconds"] * 0.999 - 0.01
        assert (phase["shared_seconds"] > 0) == (name != "cfg_norm")
        assert run.info["seconds"] >= sum(phase["seconds"] for phase in run.info["phases"].values())


# ------------------------------------------------------------------------ interruptions

# Works of 2 and 3 shards, the second of which batches otherwise where the first
# detector has answered some of its rows.
PAIR = {"cfg_norm": ["draws=1"], "score_norm": ["draws=2", "images=2"]}
PAIR_LIMIT = SHARD + 2


def pair(spec, out: Path) -> list[Run]:
    return execute_all(
        [spec(name, options, PAIR_LIMIT) for name, options in PAIR.items()], out, progress=False
    ).runs


@pytest.fixture(scope="module")
def uninterrupted(spec, tmp_path_factory) -> list[Run]:
    return pair(spec, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize(
    ("name", "method", "kept"),
    [
        ("cfg_norm", "extract", {"cfg_norm": ["samples-0"], "score_norm": ["samples-0"]}),
        (
            "score_norm",
            "extract",
            {"cfg_norm": ["samples-0", "samples-1"], "score_norm": ["samples-0"]},
        ),
        (
            "cfg_norm",
            "score",
            {
                "cfg_norm": ["samples-0", "samples-1", "scores-0"],
                "score_norm": ["samples-0-1-2", "scores-0"],
            },
        ),
        (
            "score_norm",
            "score",
            {
                "cfg_norm": ["samples-0", "samples-1", "scores-0", "scores-1"],
                "score_norm": ["samples-0-1-2", "scores-0"],
            },
        ),
    ],
)
def test_an_interrupted_command_ends_with_the_same_bits(
    spec, uninterrupted, tmp_path, monkeypatch, name: str, method: str, kept: dict[str, list[str]]
) -> None:
    """Stopped between two shards (before the first detector's second) or between two
    detectors (before the other's).
    """
    detector, calls = registry.detectors().load(name), []
    act = getattr(detector, method)

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return act(*args)

    with monkeypatch.context() as patch:
        patch.setattr(detector, method, stopped)
        with pytest.raises(KeyboardInterrupt):
            pair(spec, tmp_path)
    found = {
        d: sorted(s.stem.replace("0000", "") for s in tmp_path.glob(f"*/*/{d}/*/shards/*.parquet"))
        for d in PAIR
    }
    assert found == {d: [s for text in texts for s in spread(text)] for d, texts in kept.items()}
    assert not list(tmp_path.rglob("scores.parquet"))
    for again, whole in zip(pair(spec, tmp_path), uninterrupted, strict=True):
        same_tables(again, whole)
        assert again.path.name == whole.path.name
        assert counts(again) == counts(whole) and shared(again) == shared(whole)
        assert not (again.path / "shards").exists()


def spread(text: str) -> list[str]:
    """``samples-0-1-2`` to three names."""
    phase, *numbers = text.split("-")
    return [f"{phase}-{number}" for number in numbers]


def test_a_lost_shard_of_one_detector_is_made_again_in_company(
    spec, uninterrupted, tmp_path, monkeypatch
) -> None:
    """All shards are there when the metrics begin; then one of them is gone."""
    with monkeypatch.context() as patch:
        patch.setattr(
            conclude, "run_metrics", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            pair(spec, tmp_path)
    [lost] = tmp_path.glob("*/*/score_norm/*/shards/samples-00001.parquet")
    lost.unlink()
    with Watch() as watch:
        runs = pair(spec, tmp_path)
    # cfg_norm's second shard of images holds 2, score_norm's is full
    asked = 2 * STEPS * (2 + SHARD)
    assert len(watch.asked) == asked and watch.evaluated == len(set(watch.asked)) < asked
    for again, whole in zip(runs, uninterrupted, strict=True):
        same_tables(again, whole)
        assert counts(again) == counts(whole) and shared(again) == shared(whole)


def test_a_finished_detector_is_not_run_again_for_another(spec, uninterrupted, monkeypatch) -> None:
    out = uninterrupted[0].path.parents[3]
    monkeypatch.setattr(
        LatentDenoiser, "_forward", lambda *_: pytest.fail("the network was called")
    )
    for again, whole in zip(pair(spec, out), uninterrupted, strict=True):
        same_tables(again, whole)


# ------------------------------------------------------------------- who runs with whom


def test_detectors_that_prepare_run_alone(spec, tmp_path) -> None:
    """Two surrogates of other ranks on one network: neither sees the other, nor does
    who comes after them.
    """
    sides = [spec("side", [*SIDE, f"lora_rank={rank}"], 6) for rank in (2, 4)]
    others = [spec("cfg_norm", ["draws=1"], 6), spec("score_norm", ["draws=1"], 6)]
    cfg_norm, *found, score_norm = execute_all(
        [others[0], *sides, others[1]], tmp_path / "all", progress=False
    ).runs
    for side, one in zip(found, sides, strict=True):
        assert shared(side) == {"prepare": 0, "samples": 0, "scores": 0}
        [alone] = execute_all([one], tmp_path / "alone" / one.options[-1], progress=False).runs
        same_tables(side, alone)
        assert counts(side) == counts(alone)
    assert sum(shared(cfg_norm).values()) == 0 and sum(shared(score_norm).values()) == forwards(
        score_norm
    )
    for run, other in zip(
        (cfg_norm, score_norm),
        execute_all(others, tmp_path / "two", progress=False).runs,
        strict=True,
    ):
        same_tables(run, other)
        assert counts(run) == counts(other) and shared(run) == shared(other)


def test_a_detector_alone_has_no_memo(spec, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Memo, "rows", lambda *_, **__: pytest.fail("the memo was asked"))
    execute_all([spec("cfg_norm", ["draws=1", "images=0"], 3)], tmp_path, progress=False)


def test_the_same_run_given_twice_is_one(spec, tmp_path) -> None:
    with Watch() as watch:
        runs = execute_all(
            [
                spec("cfg_norm", options, 3)
                for options in (["draws=1"], ["draws=2"], ["draws=1", "steps=1"])
            ],
            tmp_path,
            progress=False,
        ).runs
    assert runs[0].path == runs[2].path != runs[1].path  # steps=1 is the default
    assert len(list(tmp_path.glob("*/*/*/*/run.json"))) == 2
    assert len(watch.asked) == forwards(runs[0]) + forwards(runs[1])
    assert [sum(shared(run).values()) for run in runs[:2]] == [0, 3 * 2 * STEPS + 3 * 2]
    assert run_table(runs) == run_table(runs[:2])


def test_points_of_a_sweep_share_evaluations(spec, tmp_path) -> None:
    one = spec("cfg_norm", ["draws=1"], 6)
    points = sweep.grid(registry.detectors().load("cfg_norm"), one, ["steps=1,2"])
    frame = sweep.sweep(one, points, [0], [False], tmp_path, progress=False)
    found = {}
    for path in frame.run.unique():
        info = json.loads((Path(path) / "run.json").read_text())
        found[info["options"]["steps"]] = {
            k: (info["phases"][k]["forwards"], info["phases"][k]["shared"])
            for k in ("samples", "scores")
        }
    images = 6 * 2 * STEPS
    assert found == {
        1: {"samples": (images, 0), "scores": (12, 0)},
        2: {"samples": (images, images), "scores": (24, 12)},
    }
    assert set(frame.forwards) == {images}  # what a point costs, whoever has paid


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("detectors", "setting", "words"),
    [
        (
            "cfg_norm,flipd",
            "flipd.t0=0.0001",
            "detector flipd: time 0.0001 is outside the model's schedule: choose 0.001",
        ),
        (
            "cfg_norm,flipd",
            "flipd.images=0",
            "detector flipd: an example that is a prompt .*images must be at least 1",
        ),
        (
            "side,normal_bundle",
            "normal_bundle.t0=0.0001",
            "detector normal_bundle: time 0.0001 is outside the model's schedule",
        ),
        ("side,png_size", "png_size.images=0", "detector png_size: .*images must be at least 1"),
        (
            "cfg_norm,score_norm",
            "score_norm.t=0",
            "detector score_norm: time 0 is outside the model's schedule",
        ),
    ],
)
def test_what_does_not_suit_is_refused_before_anything_is_made(
    tiny_pipeline_folder, tmp_path, monkeypatch, capsys, detectors: str, setting: str, words: str
) -> None:
    # On loading: it asks the network, of nothing that is run
    monkeypatch.setattr(latent, "prove_text", lambda *_: None)
    monkeypatch.setattr(
        LatentDenoiser, "_forward", lambda *_: pytest.fail("the network was called")
    )
    command = (
        f"run --detector {detectors} --task sd_webster --limit 3 --quiet --set {setting}".split()
    )
    assert main([*command, "--model", str(tiny_pipeline_folder), "--runs", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.match(f"membench: {words}", err), err
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {".lock"}


def test_a_budget_that_one_of_them_cannot_keep_is_refused_with_its_name(
    tiny_pipeline_folder, tmp_path, monkeypatch, capsys
) -> None:
    # On loading: it asks the network, of nothing that is run
    monkeypatch.setattr(latent, "prove_text", lambda *_: None)
    monkeypatch.setattr(
        LatentDenoiser, "_forward", lambda *_: pytest.fail("the network was called")
    )
    command = [
        "run",
        "--detector",
        "cfg_norm,dcs",
        "--task",
        "sd_webster",
        "--limit",
        "3",
        "--quiet",
        "--budget",
        str(2 * STEPS + 1),
    ]
    assert main([*command, "--model", str(tiny_pipeline_folder), "--runs", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == "membench: detector dcs: --budget 7 pays for no image; one takes 8 target evaluations\n"
    )
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {".lock"}


def test_exact_traces_and_normal_bundles_suit_256_dimensions(spec, tmp_path) -> None:
    size = 256
    detectors = (("flipd", ["trace=exact"]), ("normal_bundle", []))
    specs = [spec(*detector, limit=1, batch_size=64) for detector in detectors]
    flipd, bundle = execute_all(specs, tmp_path, progress=False).runs
    assert counts(flipd)["samples"]["jvps"] == size and forwards(flipd) == 2 * STEPS
    assert forwards(bundle) == 2 * STEPS + 4 * size and shared(bundle)["samples"] == 2 * STEPS
    assert np.isfinite(flipd.scores.score).all()
    assert (
        bundle.scores.score.between(-(size - 1), -1).all() and (bundle.scores.score % 1 == 0).all()
    )


# --------------------------------------------------------------------------- the tables


def test_the_table_of_several_runs_has_a_row_a_detector_and_says_what_was_shared(together) -> None:
    runs = together[0]
    text = run_table(list(runs.values()))
    detection, extraction = text.split("PARTIAL RUN")[0].split("extraction,")
    for part in (detection, extraction):
        first = re.findall(r"^\W*(?:PARTIAL )?(\w+)\s", part, flags=re.M)
        assert sorted(word for word in first if word in runs) == sorted(runs)
    asked, common = (
        sum(map(evaluations, runs.values())),
        sum(sum(shared(run).values()) for run in runs.values()),
    )
    assert (
        f"the 4 runs need {asked:,} network evaluations; {common:,} ({100 * common / asked:.0f} %)"
        " were shared" in text
    )
    assert sum(map(forwards, runs.values())) - common == together[1].evaluated
    images = 2 * STEPS * LIMIT
    assert (
        f"flipd: samples {images} forwards ({images} shared) and {LIMIT} jvps and {LIMIT} decodes"
        f" and {LIMIT} encodes in" in text
    )
    assert text.count("PARTIAL RUN") == text.count("report: ") == 4
    assert "shared" not in run_table([runs["cfg_norm"]])


def test_the_command_line_prints_that_table(tiny_pipeline_folder, tmp_path, capsys) -> None:
    command = [
        "run",
        "--detector",
        "cfg_norm,dcs,cfg_norm",
        "--task",
        "sd_webster",
        "--limit",
        "3",
        "--verbose",
        "--set",
        "draws=1",
    ]
    assert main([*command, "--model", str(tiny_pipeline_folder), "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    asked, common = 3 * (2 * 2 * STEPS + 2 * 3), 3 * 2 * STEPS
    assert (
        f"the 2 runs need {asked} network evaluations; {common} ({100 * common / asked:.0f} %) were"
        " shared" in out
    )
