"""Several detectors on several tasks from one command: what does not suit a task is
left out with a reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from boards import COPIED, make

from membench import registry
from membench.boards.board import board
from membench.cli.main import main
from membench.errors import UserError
from membench.registry import Registry
from membench.reports.grid_table import grid_table
from membench.reports.run_end import run_end
from membench.reports.run_tables import run_table
from membench.runs import grid, plan
from membench.runs.finished import read_runs
from membench.runs.grid import Grid
from membench.runs.spec import Spec


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the tests' own task of images; the registry is that of this test alone."""
    known = Registry("task")
    known.add("pixels", "tests.pixel_task:PixelTask", "tests")
    monkeypatch.setattr(registry, "tasks", lambda: known)


def specs(*names: str, task: str = "pixels", **given: object) -> list[Spec]:
    return [Spec(name, task, limit=6, **given) for name in names]


def test_a_detector_that_does_not_suit_is_left_out_with_its_reason(
    pixels: None, tmp_path: Path
) -> None:
    found = grid.run_grid(
        [specs("cfg_norm", "png_size", "dcs")], tmp_path, skip=True, progress=False
    )
    assert [r.info["detector"] for r in found.runs] == ["png_size"]
    assert [(s.task, s.detector) for s in found.skipped] == [
        ("pixels", "cfg_norm"),
        ("pixels", "dcs"),
    ]
    assert all("no condition" in s.reason for s in found.skipped)
    # No empty folder of a run
    assert not list((tmp_path / "pixels" / "mini" / "cfg_norm").iterdir())
    with pytest.raises(UserError, match="detector cfg_norm: this model has no condition"):
        grid.run_grid([specs("cfg_norm", "png_size")], tmp_path, skip=False, progress=False)


def test_a_detector_that_costs_too_much_is_left_out(
    pixels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Normal_bundle: 4 * 192 forwards an image and the 3 of drawing it
    monkeypatch.setattr(plan, "EXPENSIVE", 100)
    found = grid.run_grid([specs("normal_bundle", "png_size")], tmp_path, skip=True, progress=False)
    assert [s.detector for s in found.skipped] == [
        "normal_bundle"
    ] and "771 evaluations an image" in found.skipped[0].reason
    assert [r.info["detector"] for r in found.runs] == ["png_size"]


def test_a_preparation_that_refuses_does_not_end_the_grid(pixels: None, tmp_path: Path) -> None:
    settings = (
        "synthetic=8",
        "clusters=2",
        "min_members=1",
        "features=pixels",
        "cohesion=1",
        "generations=2",
    )
    impossible = Spec("side", "pixels", limit=6, options=settings)
    both = [[impossible, *specs("png_size")]]
    found = grid.run_grid(both, tmp_path, skip=True, progress=False)
    assert [r.info["detector"] for r in found.runs] == ["png_size"]
    assert [s.detector for s in found.skipped] == [
        "side"
    ] and "no cluster reaches cohesion 1" in found.skipped[0].reason
    with pytest.raises(UserError, match="detector side: no cluster reaches cohesion 1"):
        grid.run_grid(both, tmp_path, skip=False, progress=False)


def test_a_wrong_option_of_the_last_task_is_told_before_the_first_runs(tmp_path: Path) -> None:
    wrong = Spec("png_size", "celeba", task_options=("typo=1",))
    with pytest.raises(UserError, match="typo"):
        grid.run_grid([[Spec("png_size", "cifar10")], [wrong]], tmp_path, skip=True, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_left_out(
    pixels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = specs("png_size")
    first = grid.run_grid([named], tmp_path, skip=False, progress=False)
    monkeypatch.setattr(plan, "EXPENSIVE", 0)
    again = grid.run_grid([named], tmp_path, skip=True, progress=False)
    assert not again.skipped and again.runs[0].path == first.runs[0].path


def test_one_table_of_all_tasks_has_no_empty_cell(pixels: None, tmp_path: Path) -> None:
    tasks = [specs("png_size", "cfg_norm"), specs("png_size", "cfg_norm", task="pixels", seed=1)]
    tasks[1] = [Spec("png_size", "pixels", limit=7)]
    text = grid_table(grid.run_grid(tasks, tmp_path, skip=True, progress=False))
    assert (
        "left out" in text
        and re.search(r"png_size 7 examples +1\.000 \[.* n/a: 3 negatives", text)
        and "2 runs on 1 task in" in text
    )
    rows = re.findall(r"^(?:png_size [67] examples|cfg_norm)  .*", text, re.M)
    assert len(rows) == 6 and len({len(re.split(r"  +", row.strip())) for row in rows[:3]}) == 1


def test_runs_of_one_detector_are_told_apart(pixels: None, tmp_path: Path) -> None:
    """As a file of runs may name one twice, with other options."""
    own = [Spec("png_size", "pixels", limit=6, options=given) for given in ((), ("images=0",))]
    found = grid.run_grid([own], tmp_path, skip=False, progress=False)
    for text in (grid_table(found), run_table(found.runs)):
        detection = text.partition("extraction")[0]
        assert re.search("^ *png_size  ", detection.replace("PARTIAL ", ""), re.M), text
        assert "png_size images=0" in detection, text


def test_runs_on_model_and_control_are_told_apart(tmp_path: Path) -> None:
    """As two blocks of a file of runs may ask for them; one of more examples, too."""
    runs = [make(tmp_path, COPIED), make(tmp_path, COPIED, control=True)]
    runs.append(make(tmp_path, [*COPIED, None, None]))
    for text in (grid_table(Grid(runs, [], 0.0)), run_table(runs)):
        title, *rows = text.partition("extraction")[0].splitlines()
        assert "CONTROL" not in title
        for name in ("random 8 examples", "random CONTROL", "random 10 examples"):
            assert [row for row in rows if re.match(f" *{name}  ", row)], text
    assert "mini, CONTROL model, seed 0" in run_table(runs[1:2])
    text = run_end(runs[:2], tmp_path, None)
    assert "CONTROL" not in text and re.search("^random +control ", text, re.M)
    assert re.search("^random +model ", text, re.M)


def test_several_seeds_are_one_row_a_setting(
    pixels: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [
        "run",
        "--detector",
        "png_size",
        "--task",
        "pixels",
        "--limit",
        "6",
        "--runs",
        str(tmp_path),
    ]
    assert main([*words, "--seeds", "2,0"]) == 0
    out, err = capsys.readouterr()
    # It looks at the image alone
    assert "seeds deterministic" in out and err.count("written to") == 2
    assert list(board(read_runs(tmp_path).runs, by="seeds").frame.seeds) == [2]
    assert main(["reference", *words[1:]]) == 0  # three seeds, two of which are there
    assert "seeds deterministic" in capsys.readouterr().out
    assert list(board(read_runs(tmp_path).runs, by="seeds").frame.seeds) == [3]
    assert len(list(tmp_path.glob("pixels/mini/png_size/*"))) == 3


def test_the_reference_leaderboard_is_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Spec] = []

    def run_grid(
        specs: list[list[Spec]], out: Path, *, skip: bool, executor: object, **given: object
    ) -> Grid:
        assert skip and executor is None
        asked.extend(spec for of_task in specs for spec in of_task)
        return Grid([], [], 0.0)

    monkeypatch.setattr(grid, "run_grid", run_grid)
    assert main(["reference"]) == 0
    every = {
        (d, t, s)
        for d in registry.detectors().names()
        for t in registry.tasks().names()
        for s in range(3)
    }
    assert {(spec.detector, spec.task, spec.seed) for spec in asked} == every and {
        spec.preset for spec in asked
    } == {None}
    asked.clear()
    # For those that have it
    assert main(["run", "--preset", "paper", "--detector", "all", "--task", "sd_webster"]) == 0
    assert {spec.detector: spec.preset for spec in asked} | {"side": "paper", "random": None} == {
        s.detector: s.preset for s in asked
    }


def test_what_is_left_out_is_told_once_for_all_seeds(
    pixels: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from membench import registry

    monkeypatch.setattr(registry.detectors(), "names", lambda: ["cfg_norm"])
    for seeds in (["--seeds", "0,1"], ["--seeds", "1"]):
        assert (
            main(
                [
                    "run",
                    "--detector",
                    "all",
                    "--task",
                    "pixels",
                    "--limit",
                    "6",
                    "--runs",
                    str(tmp_path),
                    "--quiet",
                    *seeds,
                ]
            )
            == 0
        )
        out, err = capsys.readouterr()
        assert (out + err).count("left out: cfg_norm on pixels: this model has no condition") == 1


def test_a_dry_run_leaves_out_what_the_run_leaves_out(
    pixels: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["run", "--detector", "all", "--task", "pixels", "--limit", "6", "--dry-run"]
    words += ["--runs", str(tmp_path), "--device", "cpu"]
    reason = "left out: cfg_norm on pixels: this model has no condition"
    monkeypatch.setattr(registry.detectors(), "names", lambda: ["cfg_norm", "png_size"])
    assert main([*words, "--seeds", "0,1"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"png_size +6 +2 ", out) and "cfg_norm" not in out and err.count(reason) == 1
    monkeypatch.setattr(registry.detectors(), "names", lambda: ["cfg_norm"])
    for more, told in ((), ""), (("--format", "json"), "[]\n"):
        assert main([*words, *more]) == 0
        out, err = capsys.readouterr()
        assert out == told and reason in err
    # By name it is refused, as the run is
    words[2] = "cfg_norm"
    assert main(words) == 2
    assert "detector cfg_norm: this model has no condition" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_line_names_several_tasks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words, told in (
        (["--detector", "png_size", "--task", "cifar10,sd_webstr"], "unknown task 'sd_webstr'"),
        (["--detector", "png_size", "--task", ","], "--task ',' has an empty item"),
        (["--detector", ",", "--task", "cifar10"], "--detector ',' has an empty item"),
        (["--detector", "png_size", "--task", "all", "--model", "m"], "--model is for one task"),
        (
            ["--detector", "png_size", "--task", "cifar10,celeba", "--data-root", "d"],
            "--data-root is for one task",
        ),
    ):
        assert main(["run", *words, "--runs", str(tmp_path), "--quiet"]) == 2
        assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
