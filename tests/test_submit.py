"""What a pull request to the community board may hold, and what is written for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from boards import COPIED, make

from membench.boards.board import board
from membench.boards.saved import read_pairs
from membench.cli.main import main
from membench.registry import tasks
from membench.runs.config_writer import config_of
from membench.runs.finished import Run
from membench.storage.hashing import json_hash
from membench.storage.tables import write_table

SOURCE = b'''"""Norm of the prediction (Doe et al., ICLR 2030).

arXiv 2999.01234.
"""

raise SystemExit("it was run")
'''
CODE = hashlib.sha256(SOURCE).hexdigest()


def exchanged(scores: pd.DataFrame) -> pd.DataFrame:
    """What the other model of a pair has seen."""
    return scores.assign(label=1 - scores.label, score=1 - scores.score)


def half(
    root: Path,
    name: str,
    *,
    detector: str = "my_norm",
    task: str = "cifar10",
    parts: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    passed: tuple[str, ...] = (),
    **given: Any,
) -> Run:
    """A run on one half of a mirror pair, by a plug-in."""
    more: dict[str, Any] = {
        "task_version": tasks().load(task).info.version if task in tasks().names() else 1,
        "hashes": dict.fromkeys(("data", "prompts", "weights"), name * 64),
        "plugin_code": {"detector": CODE},
    }
    own = {"task_options_passed": [*([] if name == "a" else [f"half={name}"]), *passed]}
    return make(
        root,
        COPIED,
        detector=detector,
        task=task,
        more_parts=more | (parts or {}),
        extra=own | (extra or {}),
        **{"change": exchanged if name == "b" else lambda scores: scores} | given,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_bytes(SOURCE)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on half a; a test must leave it as it is."""
    return half(tmp_path_factory.mktemp("good"), "a")


def submit(runs: list[Run], out: Path, *words: str) -> int:
    return main(["submit", *(str(run.path) for run in runs), "--output", str(out), *words])


def test_what_is_written(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [half(tmp_path / "runs", name, seed=seed) for name in "ab" for seed in (0, 1)]
    out = tmp_path / "community"
    assert submit(runs, out, "--source", str(source), "--author", "A. <b>Person") == 0
    told = capsys.readouterr()
    assert told.out == f"{out / 'my_norm'}\n"
    assert "git add results/community/my_norm" in told.err and "open a pull request" in told.err
    folder = out / "my_norm"
    files = {"leaderboard.parquet", "scores.parquet", "runs.yaml", "README.md", "my_norm.py"}
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / "my_norm.py").read_bytes() == SOURCE
    assert (folder / "runs.yaml").read_text() == config_of([run.info for run in runs])
    frame = read_pairs(folder / "leaderboard.parquet", "mirror")
    pd.testing.assert_frame_equal(frame, board(runs, "mirror").frame, check_dtype=False)
    assert frame.seeds.tolist() == [2] * len(frame)
    scores = pd.read_parquet(folder / "scores.parquet")
    assert len(scores) == 4 * 8 and scores.score.tolist() == [
        x for run in runs for x in run.scores.score
    ]
    assert str(tmp_path) not in " ".join(scores.run)  # no path of the author's machine
    card = (folder / "README.md").read_text()
    for words in (
        "# my_norm",
        "- Submitted by: A. &lt;b>Person",
        "- Measures: Norm of the prediction",
        "- Paper: Doe et al., ICLR 2030, arXiv 2999.01234",
        "- Sees: outputs",
        f"at commit `{'f' * 40}`",
        "membench run --config runs.yaml --plugin my_norm.py",
        runs[0].info["key"],
    ):
        assert words in card


SHIPPED: dict[str, Any] = {
    "plugin_code": {},
    "options": {"t": 100, "noises": 5, "condition": "auto", "images": 1},
}


def test_a_shipped_detector_needs_no_file(tmp_path: Path) -> None:
    """And runs that are of no mirror pair make a board over seeds."""
    full = SHIPPED | {"profile": "full"}
    runs = [half(tmp_path / "runs", "a", detector="loss", parts=full, seed=seed) for seed in (0, 1)]
    assert submit(runs, tmp_path / "out") == 0
    folder = tmp_path / "out" / "loss"
    frame = pd.read_parquet(folder / "leaderboard.parquet")
    assert frame.seeds.tolist() == [2] and not (folder / "loss.py").exists()
    assert "arXiv 2301.13188" in (folder / "README.md").read_text()


# What one of a pair of runs has otherwise, and what is said of it
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "failed": ({"failed": 1}, "is partial: 1 examples or images have failed"),
    "limited": (
        {"extra": {"status": "partial", "n_task_examples": 9}},
        "is partial: 8 of 9 examples; make the run without --limit",
    ),
    "unscored": ({"scored": False}, "scored nothing; make a run without --extract-only"),
    "no commit": (
        {"extra": {"membench": {"commit": None, "dirty": None}}},
        "does not say which commit of membench made it, as of an installed package; install a",
    ),
    "dirty": (
        {"extra": {"membench": {"commit": "e" * 40, "dirty": True}}},
        "was made by eeeeeeee+dirty, which nobody else has; commit or stash",
    ),
    "begun dirty": (
        {"extra": {"earlier": [{"membench": {"commit": "d" * 40, "dirty": True}}]}},
        "was made by dddddddd+dirty",
    ),
    **{
        what: (
            {
                "extra": {
                    "access": dict.fromkeys(("gradients", "images", "labels"), False)
                    | {"training_data": False, "model": True, what: True}
                }
            },
            f"my_norm declares that it sees {words} (Access({what}=True))",
        )
        for what, words in (("training_data", "training data"), ("labels", "labels"))
    },
    "own task": ({"task": "t"}, "is of task t, which does not ship with membench"),
    "own task, dirty": (
        {"task": "t", "extra": {"membench": {"commit": "e" * 40, "dirty": True}}},
        "is of task t, which does not ship with membench",
    ),
    "task of a plug-in": (
        {"parts": {"plugin_code": {"detector": CODE, "task": CODE}}},
        "is of task cifar10, which does not ship with membench",
    ),
    "old task": ({"parts": {"task_version": 1}}, "is of version 1 of cifar10, and this is version"),
    "own model": ({"passed": ("model=mine",)}, "was made with model of its own"),
    "a plug-in inside": (
        {"parts": {"plugin_code": {"detector": CODE, "held mine": CODE}}},
        "holds mine, a detector of your own",
    ),
    "own folder of models": ({"passed": ("models=mine",)}, "was made with models of its own"),
    "unknown option": ({"passed": ("word=1",)}, "is edited: cifar10 has no option word"),
    "no file": (
        {"parts": {"plugin_code": {}}},
        "my_norm does not ship with this membench, and the run names no file",
    ),
    "another file": (
        {"parts": {"plugin_code": {"detector": "0" * 64}}},
        f"is not the file that made RUN: its SHA-256 is {CODE[:12]}…, not 000000000000…",
    ),
    "another seed": ({"seed": 3}, "has no counterpart on the other model of its mirror pair"),
    "other options": (
        {"options": ("steps=2",)},
        "make it and name both: membench run --plugin FILE.py --detector my_norm --task cifar10"
        " --set",
    ),
    "other examples": (
        {
            "change": lambda scores: exchanged(scores.assign(id=[f"x{i}" for i in range(8)])),
            "parts": {"examples": json_hash([f"x{i}" for i in range(8)])},
        },
        "scored other examples, so they are no mirror of each other; leave out --set"
        " cifar10.examples",
    ),
    "one model": (
        {"parts": {"hashes": {"data": "b" * 64, "prompts": "b" * 64, "weights": "a" * 64}}},
        "say that they are of two halves, and are of one model (aaaaaaaa)",
    ),
    "no mirror": (
        {"change": lambda scores: scores},
        "the runs on both halves are no mirror pair",
    ),
    "another detector": ({"detector": "her_norm"}, "runs of 2 detectors (her_norm, my_norm)"),
}


@pytest.mark.parametrize("which", BROKEN)
def test_what_is_refused(
    tmp_path: Path, good: Run, source: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    given, told = BROKEN[which]
    broken = half(tmp_path / "runs", "b", **given)
    refused([good, broken], tmp_path, capsys, told, "--source", str(source))


def refused(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], told: str, *words: str
) -> None:
    """In one line, with nothing written."""
    assert submit(runs, tmp_path / "out", *words) == 2
    out, err = capsys.readouterr()
    assert told.replace("RUN", str(runs[-1].path)) in err, err
    assert err.count("\n") == 1 and out == "" and not (tmp_path / "out").exists()


def pair(root: Path, **given: Any) -> list[Run]:
    return [half(root / "runs", name, **given) for name in "ab"]


def test_the_file_of_a_plug_in(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked for, and must stand alone."""
    refused(pair(tmp_path), tmp_path, capsys, "give its file: --source FILE.py")
    (tmp_path / "helper.py").write_bytes(b"")
    for text, told in (
        (b"import numpy, helper", "imports helper from its own folder"),
        (b"from .steps import step", "imports .steps from its own folder"),
        (b"from os import sep; import (", "is no Python"),
    ):
        source.write_bytes(text)
        code = {"plugin_code": {"detector": hashlib.sha256(text).hexdigest()}}
        runs = pair(tmp_path, parts=code)
        refused(runs, tmp_path, capsys, told, "--source", str(source))
    shipped = pair(tmp_path, detector="loss", parts=SHIPPED)
    told = "loss ships with membench; leave --source"
    refused(shipped, tmp_path, capsys, told, "--source", str(source))
    told = "loss is a detector of membench, and this run is of another of that name"
    refused(pair(tmp_path, detector="loss"), tmp_path, capsys, told)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"detector_version": 9}, "is of version 9 of loss, and this is version 1"),
        (
            {"options": SHIPPED["options"] | {"t": 50}},
            "is edited: the options that it says were passed are not those that it ran with",
        ),
    ],
)
def test_a_shipped_detector_is_at_its_version_and_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: dict[str, Any], told: str
) -> None:
    refused(pair(tmp_path, detector="loss", parts=SHIPPED | parts), tmp_path, capsys, told)


def test_folders_that_are_no_finished_run(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = pair(tmp_path)
    words = ("--source", str(source))
    refused([*runs, runs[0]], tmp_path, capsys, "are one run (key", *words)
    lone = replace(runs[0], path=tmp_path / "runs" / "none")
    refused([lone], tmp_path, capsys, "RUN is not a folder; name run folders", *words)
    path = runs[1].path / "run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"status": "running"}))
    refused(runs, tmp_path, capsys, "RUN has not ended; the command that began it", *words)
    path.write_text(json.dumps(info | {"seed": 7}))
    refused(runs, tmp_path, capsys, "says another seed than its key_parts", *words)
    path.write_text(json.dumps(info))
    wrong = runs[1].scores.assign(score=0.0)
    write_table(runs[1].path / "scores.parquet", wrong, "scores", {"run": info["key"]})
    refused(runs, tmp_path, capsys, "its metrics are not those of its tables", *words)


def test_of_two_models_of_one_half_one_is_named(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = {"data": "b" * 64, "prompts": "b" * 64, "weights": "c" * 64}
    other = half(tmp_path / "runs", "b", parts={"hashes": hashes})
    told = "RUN are of one half, seed and setting, and of different models or data"
    refused([*pair(tmp_path), other], tmp_path, capsys, told, "--source", str(source))


def test_a_name_leads_nowhere_else(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = pair(tmp_path, detector="../up")
    told = "detector '../up' cannot name a folder"
    refused(runs, tmp_path, capsys, told, "--source", str(source))


def test_nothing_is_replaced(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "my_norm").mkdir(parents=True)
    assert submit(pair(tmp_path), tmp_path / "out", "--source", str(source)) == 2
    assert "my_norm is there already; to submit again, remove it" in capsys.readouterr().err
    assert list((tmp_path / "out" / "my_norm").iterdir()) == []


def test_runs_of_two_boards_are_apart(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = half(tmp_path / "runs", "a", parts={"profile": "full"})
    told = "RUN is not: they are of different boards; submit them apart"
    refused([*pair(tmp_path), full], tmp_path, capsys, told, "--source", str(source))
    full = half(tmp_path / "runs", "b", parts={"profile": "maxi"})
    told = "cifar10 has no profile maxi; choose from mini, full"
    refused([full], tmp_path, capsys, told, "--source", str(source))
