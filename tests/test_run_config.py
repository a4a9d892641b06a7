"""``membench run --config``: what a file means, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from boards import make

from membench.cli.main import main
from membench.errors import UserError
from membench.options import as_settings
from membench.runs.config import read_config
from membench.runs.config_writer import config_of

YAML = """\
tasks:
  - cifar10: {examples: training}
seeds: [0, 2]
halves: [a, b]
limit: 8
detectors:
  - png_size
  - cfg_norm: {steps: 5}
  - cfg_norm:
      steps: 2
"""
TOML = """\
tasks = [{cifar10 = {examples = "training"}}]
seeds = [0, 2]
halves = ["a", "b"]
limit = 8
detectors = ["png_size", {cfg_norm = {steps = 5}}, {cfg_norm = {steps = 2}}]
"""


def file(tmp_path: Path, text: str, name: str = "runs.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_combination_is_run(tmp_path: Path) -> None:
    specs = read_config(file(tmp_path, YAML), device="cpu")
    assert [(s[0].task_options[1], s[0].seed) for s in specs] == [
        ("half=a", 0),
        ("half=a", 2),
        ("half=b", 0),
        ("half=b", 2),
    ]
    assert [(s.detector, list(s.options)) for s in specs[0]] == [
        ("png_size", []),
        ("cfg_norm", ["steps=5"]),
        ("cfg_norm", ["steps=2"]),
    ]
    assert {s.limit for part in specs for s in part} == {8}
    assert read_config(file(tmp_path, TOML, "runs.toml"), device="cpu") == specs


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("seeds:", "seed:", 3, "unknown key 'seed'. Did you mean 'seeds'"),
        ("png_size", "pngsize", 7, "unknown detector 'pngsize'. Did you mean 'png_size'?"),
        ("cifar10", "cifar", 2, "unknown task 'cifar'. Did you mean 'cifar10'?"),
        ("      steps: 2", "      stepss: 2", 10, "'stepss'. Did you mean 'steps'?"),
        ("{steps: 5}", "{steps: many}", 8, "option steps must be int"),
        ("limit: 8", "limit: many", 5, "limit must be a whole number, not 'many'"),
        ("seeds: [0, 2]", "seeds: 0", 3, "seeds must be a list"),
        ("seeds: [0, 2]", "worlds: [a]", 3, "option world must be int"),
        ("halves: [a, b]", "halves: [a", 5, ""),
        ("halves: [a, b]", "halves: [a, b, a]", 4, "halves: one stands twice"),
        ("halves: [a, b]", "halves: a", 4, "such as halves: [a, b]"),
        ("{examples: training}", "{half: a}", 2, "the option half beside halves"),
        ("steps: 2", "steps: 5", 9, "cfg_norm stands twice with the same options"),
        ("limit: 8", "limit: 8\nlimit: 9", 6, "limit stands twice"),
        ("limit: 8", "limit: 010", 5, "'010' is no number in decimal digits"),
        ("limit: 8", "limit: 0x1e", 5, "'0x1e' is no number in decimal digits"),
        ("limit: 8", "limit: 1_0", 5, "'1_0' is no number in decimal digits"),
        ("limit: 8", "limit: 1:30", 5, "'1:30' is no number in decimal digits"),
        ("limit: 8", "limit: !!int x", 5, "'x' is no number in decimal digits"),
        ("limit: 8", "limit: !!int [1]", 5, "expected a scalar node"),
        ("limit: 8", "limit: !!float {a: 1}", 5, "expected a scalar node"),
        ("{steps: 5}", "{steps: {a: 1}}", 8, "option steps is of type dict"),
        ("{steps: 5}", "{steps: 2001-01-01}", 8, "option steps is of type date"),
        ("limit: 8", "limit: !!python/object/apply:os.getcwd []", 5, "could not determine"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, told: str
) -> None:
    path = file(tmp_path, YAML.replace(old, new, 1))
    with pytest.raises(UserError) as raised:
        read_config(path)
    assert f"{path}, line {line}: " in str(raised.value) and told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", "!!set [x]"])
def test_a_value_that_its_tag_does_not_fit(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"a value is not what its tag .* says; leave the tag out"):
        read_config(file(tmp_path, f"detectors: {value}"))


def test_a_list_of_no_runs_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: runs is a list of nothing"):
        read_config(file(tmp_path, "runs: []"))


def test_numbers_are_read_as_they_stand(tmp_path: Path) -> None:
    text = "detectors: [{random: {threshold: %s}}]\ntasks: [cifar10]\nseeds: [%s]"
    for threshold, seed in (("1.5e-1", 0), (".5", 12), ("0.0", 7), ("1", 10)):
        [[spec]] = read_config(file(tmp_path, text % (threshold, seed)), device="cpu")
        assert spec.seed == seed
        assert [float(o.partition("=")[2]) for o in spec.options] == [float(threshold)]


def test_a_config_and_flags_that_say_the_same_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, YAML)
    for words in (["--task", "cifar10"], ["--set", "steps=2"], ["--profile", "mini"]):
        assert main(["run", "--config", str(path), *words]) == 2
        assert str(path) in capsys.readouterr().err
    assert main(["run", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["run", "--task", "cifar10"]) == 2
    assert "--detector is required, or --config" in capsys.readouterr().err


def test_the_runs_of_a_leaderboard_stand_beside_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        make(tmp_path / "runs", [0, 1], seed=seed)
        make(tmp_path / "runs", [0, 1], detector="side", seed=seed, options=("clusters=2",))
    made = tmp_path / "board.parquet"
    words = ["leaderboard", "--runs", str(tmp_path / "runs"), "--format", "parquet"]
    assert main([*words, "--output", str(made)]) == 0
    assert "clusters: 2" in (tmp_path / "board.runs.yaml").read_text()


def test_a_written_config_reads_back(tmp_path: Path) -> None:
    info = {
        "task": "cifar10",
        "detector": "cfg_norm",
        "profile": "mini",
        "control": False,
        "dtype": "float32",
        "budget": None,
        "preset": None,
        "extract_only": False,
        "n_examples": 8,
        "n_task_examples": 760,
        "options_passed": ["steps=5"],
        "task_options_passed": ["half=b", "rung=3"],
        "seed": 0,
    }
    infos = [info, {**info, "seed": 4}, {**info, "detector": "png_size", "options_passed": []}]
    specs = read_config(file(tmp_path, config_of(infos)))
    found = {(s.detector, s.seed, *s.options, *s.task_options, s.limit) for p in specs for s in p}
    assert found == {
        ("cfg_norm", 0, "steps=5", "half=b", "rung=3", 8),
        ("cfg_norm", 4, "steps=5", "half=b", "rung=3", 8),
        ("png_size", 0, "half=b", "rung=3", 8),
    }


def test_options_of_a_foreign_run_json_are_written_as_they_stand(tmp_path: Path) -> None:
    """They may be any text: none is read as YAML."""
    texts = ["2001-13-45", "!!bool x", "!!timestamp x", "9" * 5000, "1:30", "010", "-0", "yes"]
    texts += ["[" * 3000, "none", "0.50", "0.5", "-12", "1e-3", "true", "null", "{a: b}", "# x"]
    info = {"task": "cifar10", "detector": "random", "n_examples": 1, "n_task_examples": 1}
    info |= {"profile": "mini", "control": False, "dtype": "float32"}
    for text in texts:
        made = config_of(
            [{**info, "options_passed": [f"x={text}"], "task_options_passed": [], "seed": 0}]
        )
        [block] = yaml.safe_load(made)["runs"]
        assert as_settings(block["detectors"][0]["random"]) == [f"x={text}"]
