"""A model of the user's in the mini profile: what is known of it, and what a run says
where nothing is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import save_tiny_pipeline

from membench.boards.collect import collect
from membench.cli.main import main
from membench.datasets.trained_on import same_training
from membench.errors import UserError
from membench.runs.check import NOT_COMPARED
from membench.runs.finished import load
from membench.tasks.cifar10 import task as cifar10
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.pixels.mirror_task import mirror_setting
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.world import DATA, catalogue_examples, world

CAPTIONS = [
    "Orvella Basto teal striped area rug, 5x8",
    "Orvella Basto red plain tote bag, Large",
    "a mug",
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "mine", "epsilon")


def loaded(model: Path | str, **options: str):
    return SdWebster(SdWebsterOptions(model=str(model), **options)).load("mini")


def test_a_model_that_was_not_trained_on_the_catalogue(foreign: Path, tmp_path: Path) -> None:
    task = loaded(foreign)
    assert len(task.training.images()) == len(task.training.ids) == len(task.training.copies) == 0
    assert task.info.space.id == "none" and task.hashes["data"] == "none"
    assert [e.condition for e in task.examples] == [
        e.condition for e in catalogue_examples(world("a"))
    ]
    assert {(e.memorized, e.kind) for e in task.examples} == {(-1, "unlabelled")}
    [note] = task.provenance["notes"]
    for words in (
        str(foreign),
        "compared with nothing",
        "are unlabelled",
        "--prompts",
        "--profile full",
        "ground_truth",
    ):
        assert words in note
    (tmp_path / "mine.csv").write_text("prompt,label\na,1\nb,0\n")
    task = loaded(foreign, prompts=str(tmp_path / "mine.csv"))
    # Its owner knows its labels
    assert [e.memorized for e in task.examples] == [1, 0] and task.training.ids == []


def test_a_model_that_was(tiny_pipeline_folder: Path, foreign: Path, tmp_path: Path) -> None:
    """By its training.json, which ``membench train`` writes; of the other half, or of
    another size, it is not.
    """
    ours = SdWebster(SdWebsterOptions(examples="half")).load("mini")
    task = loaded(tiny_pipeline_folder)
    assert (
        task.provenance == ours.provenance
        and set(ours.provenance) == {"recipe"}
        and task.info == ours.info
        and task.training.ids == ours.training.ids != []
    )
    assert task.examples == ours.examples and task.hashes == ours.hashes | {
        "weights": task.hashes["weights"]
    }
    assert loaded(DATA / "b").training.ids == [] and loaded(DATA / "b", half="b").training.ids != []
    copy = shutil.copytree(tiny_pipeline_folder, tmp_path / "large")
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 16}))
    [note] = loaded(copy).provenance["notes"]
    assert "generates images of 128x128, not the catalogue's 64x64" in note


@pytest.mark.parametrize(
    "told",
    ["", "[]", "{}", '{"data": 3}', '{"data_hash": null}', '{"data_hash": "x"}', "[" * 100_000],
)
def test_a_training_json_that_names_no_training_set(tmp_path: Path, told: str) -> None:
    (tmp_path / "training.json").write_text(told)
    assert not same_training(tmp_path, DATA / "a") and not same_training(
        tmp_path, tmp_path / "none"
    )


def test_run_compares_nothing_and_says_so(foreign: Path, tmp_path: Path, capsys) -> None:
    """No AMS of images against images that are not the model's, no AUROC of captions
    without labels; scores and images are kept.
    """
    (tmp_path / "mine.txt").write_text("\n".join(CAPTIONS))
    command = [
        "run",
        "--task",
        "sd_webster",
        "--detector",
        "cfg_norm",
        "--set",
        "draws=1",
        "--set",
        "images=1",
    ]
    command += [
        "--model",
        str(foreign),
        "--prompts",
        str(tmp_path / "mine.txt"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "compared with nothing" in err and "mine.txt: 3 of 3 prompts are unlabelled" in err
    assert "0 memorized, 0 not, 3 unlabelled" in out and "copies" not in out
    assert "next: membench leaderboard --by example --detector " in out
    [folder] = (tmp_path / "runs").glob("*/*/*/*")
    run = load(folder)
    assert (
        run.scores.score.notna().all()
        and set(run.scores.label) == {-1}
        and set(run.samples.status) == {NOT_COMPARED}
    )
    assert (
        not set(run.metrics.metric) & {"auroc", "ams", "ums", "ams_cumulative"}
        and run.matches.empty
    )
    assert run.info["provenance"]["notes"] and run.info["status"] == "complete"
    assert "3 are unlabelled" in (folder / "report.html").read_text()
    [row] = collect(tmp_path / "runs").itertuples()
    assert (row.positives, row.negatives, row.unlabelled) == (0, 0, 3)
    for by in ("run", "seeds"):
        assert main(["leaderboard", "--runs", str(tmp_path / "runs"), "--by", by]) == 0
        shown = capsys.readouterr().out
        assert (
            "3/3, 3 unlabelled" in shown
            and "unlabelled: nothing says whether the example is memorized" in shown
        )


def test_a_pixel_model_that_was_not_trained_on_the_scenes_is_refused(tmp_path: Path) -> None:
    shipped, last = cifar10.DATA / "a", f"step-{cifar10.RUNGS[-1]:05d}"
    copy = shutil.copytree(shipped / last, tmp_path / "mine")
    shutil.copy(shipped / "training.json", copy)
    options = Cifar10Options(model=str(copy), examples="generated")
    setting = mirror_setting(
        Cifar10.info, cifar10.WORLD, cifar10.DATA, cifar10.RUNGS, options, control=False
    )
    assert setting.folder == setting.asked == copy
    (copy / "training.json").unlink()
    with pytest.raises(UserError) as caught:
        Cifar10(options).load("mini")
    for words in (
        str(copy),
        "was not trained on the mini profile's images",
        "--profile full --data-root",
    ):
        assert words in str(caught.value)
    with pytest.raises(UserError, match="was not trained on"):
        Cifar10(replace(options, model=str(cifar10.DATA / "b"))).load("mini")
