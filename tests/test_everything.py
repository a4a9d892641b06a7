"""Each board of results/ can be made again: by which commands, of which runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scripts import script

from membench.cli.main import complete, parser
from membench.runs.config import read_config

RESULTS = Path(__file__).resolve().parent.parent / "results"
CONFIGS = sorted(file.name for file in RESULTS.glob("*.runs.yaml"))
# Made of published.csv, which papers say and no run
PUBLISHED = {"published"}
# Of configurations whose boards name detectors and options, the boards
OF_CONFIGS = {
    "attacks": "attacks",
    "celeba_worlds": "celeba_worlds",
    "cifar10_pair": "cifar10_pair",
    "cifar10_pair_quality": "cifar10_pair_quality",
    "development_base": "development_base",
    "mirror_development": "mirror_development",
    "quality": "quality",
    "worlds": "worlds",
    "worlds_sd_webster": "worlds_sd_webster",
    "worlds_sd_webster_images": "worlds_sd_webster_base",
}


everything = script("results/everything.py")
BOARDS = everything.read()


def test_each_file_is_written_by_one_board() -> None:
    written = [name for of in BOARDS for name in of.writes]
    there = {
        file.relative_to(RESULTS).with_suffix("").as_posix() for file in RESULTS.rglob("*.parquet")
    }
    runs = {name for name in there if name.split("/")[0] in ("runs", "tuned", "community")}
    assert sorted(written) == sorted(there - PUBLISHED - runs)


def test_each_file_of_a_board_is_some_commands_output() -> None:
    for of in BOARDS:
        words = " ".join(of.commands)
        for name in of.writes:
            # pair.py writes four files into a folder
            assert f"boards}}/{name}" in words or "pair.py" in words or f"/{name}.parquet" in words


def test_each_command_is_one_that_the_command_line_takes() -> None:
    top = parser()
    complete(top)
    seen = 0
    for of in BOARDS:
        for command in of.commands:
            first, *words = of.argv(command)
            if words[:2] == ["-m", "membench"]:
                top.parse_args(words[2:])
                seen += 1
            elif first == sys.executable:
                assert Path(words[0]).is_file()
    assert seen > 30


@pytest.mark.parametrize(
    ("name", "task"),
    [("worlds", "cifar10"), ("celeba_worlds", "celeba"), ("worlds_sd_webster", "sd_webster")],
)
def test_combined_takes_the_weights_that_the_development_world_taught(name, task) -> None:
    taught = pd.read_parquet(RESULTS / "taught.parquet")
    [row] = taught[taught.task == task].itertuples()
    assert (row.world, row.half, row.dirty) == (0, "a", False)
    config = yaml.safe_load((RESULTS / f"{name}.runs.yaml").read_text(encoding="utf-8"))
    [options] = [
        d["combined"] for d in config["detectors"] if isinstance(d, dict) and "combined" in d
    ]
    assert options == {n: getattr(row, n) for n in ("detectors", "settings", "weights")}


def test_each_configuration_is_run_by_a_board() -> None:
    commands = " ".join(command for of in BOARDS for command in of.commands)
    assert all(f"{{here}}/{name}" in commands for name in CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_can_be_read(name: str) -> None:
    assert read_config(RESULTS / name)


@pytest.mark.parametrize("name", OF_CONFIGS)
def test_a_board_has_the_detectors_and_options_of_its_configuration(name: str) -> None:
    specs = [of for group in read_config(RESULTS / f"{name}.runs.yaml") for of in group]
    asked = {
        (
            of.task,
            of.detector,
            frozenset([*of.options, *([f"preset={of.preset}"] if of.preset else [])]),
        )
        for of in specs
    }
    board = pd.read_parquet(RESULTS / f"{OF_CONFIGS[name]}.parquet")
    shown = {(row.task, row.detector, frozenset(row.options.split())) for row in board.itertuples()}
    assert asked == shown


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results whose one board a script writes, which fails if told so."""
    here = tmp_path / "results"
    here.mkdir()
    (here / "write.py").write_text(
        "import sys, pathlib\n"
        "pathlib.Path('boards/b.parquet').write_text(sys.argv[1])\n"
        "sys.exit(sys.argv[1] == 'broken')\n"
    )
    (here / "b.parquet").write_text("old")
    monkeypatch.setattr(everything, "HERE", here)
    (tmp_path / "boards").mkdir()
    return here


def board_of(*told: str):
    commands = tuple(f"python {{here}}/write.py {word}" for word in told)
    return everything.Board("b", "what", 1, commands, ("b",))


def test_a_board_is_replaced_once_it_is_written(small: Path) -> None:
    everything.make(board_of("first", "new"), small.parent)
    assert (small / "b.parquet").read_text() == "new"


def test_a_failed_command_leaves_the_board_as_it_was(small: Path) -> None:
    with pytest.raises(SystemExit, match="b: a command ended with 1"):
        everything.make(board_of("broken", "new"), small.parent)
    assert (small / "b.parquet").read_text() == "old"


def test_several_at_a_time_each_after_those_whose_models_it_needs(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four, two at a time: the second pair reads what the first has written."""
    work = small.parent
    (work / "logs").mkdir()
    (small / "chain.py").write_text(
        "import sys, time, pathlib\n"
        "name, *needed = sys.argv[1:]\n"
        "time.sleep(0.3)\n"
        "text = ''.join(pathlib.Path(f'boards/{n}.parquet').read_text() for n in needed)\n"
        "print('said', name)\n"
        "pathlib.Path(f'boards/{name}.parquet').write_text(text + name)\n"
    )

    def of(name: str, minutes: int, *after: str):
        command = f"python {{here}}/chain.py {' '.join((name, *after))}"
        return everything.Board(name, "what", minutes, (command,), (name,), after)

    boards = [of("d", 1, "c", "a"), of("a", 2), of("b", 3, "a"), of("c", 5)]
    assert [b.board for b in everything.free(boards, [])] == ["c", "a"]
    assert (everything.minutes(boards, 1), everything.minutes(boards, 2)) == (11, 6)
    everything.make_all(boards, work, 2)
    assert {n: (small / f"{n}.parquet").read_text() for n in "abcd"} == {
        "a": "a",
        "b": "ab",
        "c": "c",
        "d": "cad",
    }
    assert "said d" in (work / "logs" / "d.txt").read_text()
    told = capsys.readouterr().out
    assert "said" not in told and [line for line in told.splitlines() if "begun" in line][:2] == [
        "c: begun",
        "a: begun",
    ]


def test_after_one_that_fails_none_is_begun(small: Path, capsys) -> None:
    (small.parent / "logs").mkdir()
    later = everything.Board("later", "what", 9, ("python {here}/write.py x",), ("b",), ("b",))
    for jobs in (1, 2):
        with pytest.raises(SystemExit, match="b: a command ended with 1"):
            everything.make_all([board_of("broken"), later], small.parent, jobs)
    assert "later" not in capsys.readouterr().out
    assert (small / "b.parquet").read_text() == "old"


def test_models_that_a_board_needs_are_of_a_board_before_it() -> None:
    """In the order of the file, too, which one at a time keeps to."""
    seen: set[str] = set()
    for of in BOARDS:
        assert set(of.after) <= seen
        seen.add(of.board)
    assert sum(bool(of.after) for of in BOARDS) >= 3
    assert everything.minutes(BOARDS, 2) >= everything.minutes(BOARDS, 1) / 2


def test_boards_are_chosen_by_name_and_by_what_is_there() -> None:
    names = [of.board for of in everything.chosen(BOARDS, None, None)]
    assert "labels" not in names and "ladder" in names
    assert len(everything.chosen(BOARDS, None, Path("data"))) == len(BOARDS)
    [only] = everything.chosen(BOARDS, "ladder", None)
    assert only.board == "ladder"
    with pytest.raises(ValueError, match=r"--only nowhere: no such board"):
        everything.chosen(BOARDS, "ladder,nowhere", None)
    with pytest.raises(ValueError, match=r"labels: give --data-root"):
        everything.chosen(BOARDS, "labels", None)


def test_what_a_page_shows_is_what_is_run() -> None:
    """Folded, and with the folders' names in place of theirs."""
    for of in BOARDS:
        lines = of.shown().splitlines()
        assert all(len(line) <= 88 or line.count("--") == 1 for line in lines)
        text = " ".join(line.strip().removesuffix("\\").strip() for line in lines[1:-1])
        places = {"here": "REPO/results", "scripts": "REPO/benchmarks", "boards": "boards"}
        assert text == " ".join(c.format(**places, data="data") for c in of.commands)
