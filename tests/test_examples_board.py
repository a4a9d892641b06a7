"""``leaderboard --by example``: the score of every example under each run, as data."""

from __future__ import annotations

import pandas as pd
import pytest
from boards import COPIED, make

from membench.boards.board import board
from membench.cli.main import main
from membench.errors import UserError
from membench.runs.finished import read_runs


def test_every_score_of_every_run_is_there_once(tmp_path, capsys) -> None:
    root = tmp_path / "runs"
    make(root, COPIED)
    make(root, COPIED, detector="side", seed=1)
    out = tmp_path / "scores.csv"
    command = ["leaderboard", "--by", "example", "--runs", str(root), "--format", "csv"]
    assert main([*command, "--output", str(out)]) == 0
    frame = pd.read_csv(out)
    runs = read_runs(root).runs
    assert len(frame) == sum(len(run.scores) for run in runs) > 0
    for run in runs:
        mine = frame[(frame.detector == run.info["detector"]) & (frame.seed == run.info["seed"])]
        told = mine.set_index("example").score
        expected = run.scores.set_index("id").score
        pd.testing.assert_series_equal(told.sort_index(), expected.sort_index(), check_names=False)
        assert mine.label.tolist() == run.scores.label.tolist()
    capsys.readouterr()
    assert main(command[:-2]) == 2
    assert "--format csv --output" in capsys.readouterr().err


def test_runs_without_scores_are_refused(tmp_path) -> None:
    root = tmp_path / "runs"
    make(root, [0, 1], detector="alone", scored=False)
    with pytest.raises(UserError, match="extracted images alone"):
        board(read_runs(root).runs, "example")
