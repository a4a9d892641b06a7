"""The board of attacks: AMS and UMS belong to the attack that has made the images."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from boards import COPIED, make, row

from membench.boards.board import board, of_frame, read
from membench.boards.collect import collect
from membench.boards.saved import read_board
from membench.boards.seeds import over_seeds
from membench.cli.main import main
from membench.errors import UserError
from membench.reports.attack_tables import attack_names, short_names
from membench.reports.board_tables import run_tables
from membench.reports.output import save

SCORER = {"attack": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`side` copies 3 training images by 6 of 8 images, of which its preparation has cost
    60 evaluations; `random` copies 2 by 3 of 4. A scoring detector has cheaper images.
    """
    root = tmp_path_factory.mktemp("attacks")
    make(root, COPIED, detector="side", price=5, prepare={"forwards": 60})
    make(root, [4, *[None] * 7], detector="side", price=5, prepare={"forwards": 60}, control=True)
    make(root, [0, 0, 1, None], detector="random", price=25)
    make(root, [0, None], detector="cfg_norm", price=1, extra=SCORER)
    return root


def test_a_scoring_detector_has_no_share_of_copies(runs: Path) -> None:
    frame = collect(runs)
    scorer, attack = row(frame, "cfg_norm"), row(frame, "side")
    assert math.isnan(scorer.ams_cumulative) and math.isnan(scorer.ums_cumulative_high)
    assert math.isnan(scorer.best_p50) and math.isnan(scorer.ams_in_high)
    assert scorer.auroc == attack.auroc and pd.isna(scorer.unique_copies)
    assert attack.ams_cumulative == 6 / 8 and attack.unique_copies == 3
    # Nor does it say at which N_G and cost the attacks are compared
    assert attack.equal_n == 4 and attack.equal_cost == 100 and pd.isna(scorer.equal_n)


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_no_number_of_copies_is_none_in_every_form(runs: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"board.{form}"
    save(collect(runs), "run", form, file)
    read_it = {"parquet": read_board, "csv": pd.read_csv, "json": pd.read_json}[form]
    stored = read_it(file)
    if form == "parquet":
        assert pq.read_schema(file).field("unique_copies").type == "int64"
    assert pd.isna(row(stored, "cfg_norm").unique_copies) and row(stored, "side").unique_copies == 3


def test_tables_show_no_number_of_copies_where_there_is_none(runs: Path) -> None:
    frame = collect(runs)
    seeds = over_seeds(frame)
    assert pd.isna(row(seeds, "cfg_norm").unique_copies) and row(seeds, "side").unique_copies == 3
    for part in of_frame(frame, "run").parts:
        for _, body, _ in run_tables(part.frame):
            assert "<NA>" not in body.astype(str).to_numpy()


def test_attacks_are_compared_at_equal_cost_with_what_they_took_to_prepare(runs: Path) -> None:
    from membench.runs.finished import read_runs

    found = board(read_runs(runs).runs, "attack")
    [part] = found.parts
    assert part.frame.detector.tolist() == ["random", "side"]  # equal AMS: by name
    random, side = (r for _, r in part.frame.iterrows())
    assert (side.control_ams, side.excess_ams) == (1 / 8, 5 / 8)
    assert side.excess_ams_low < 5 / 8 < side.excess_ams_high
    assert side.excess_ums == pytest.approx(2 / 8)
    assert math.isnan(random.control_ams)
    # 100 evaluations pay for all 4 of random and, after 60, for 8 of side
    assert side.equal_cost == 100 and side.copied_at_equal_cost == 3
    assert random.copied_at_equal_cost == 2
    # Of 8 images of side 4 at a time: sum_j 1 - C(8 - c_j, 4) / C(8, 4), c = 3, 2, 1
    expected = sum(1 - math.comb(8 - c, 4) / math.comb(8, 4) for c in (3, 2, 1))
    assert side.copied_at_equal_n == pytest.approx(expected) and side.equal_n == 4
    assert side.unique_per_1000_evaluations == 1000 * 3 / 100
    assert (side.ams_in_high, side.ams_to_high, side.ams_to_low) == (0.75, 0.75, 1.0)


def test_the_table_fits_a_terminal_and_its_parquet_gives_the_same(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["leaderboard", "--by", "attack", "--format", "md"]
    assert main([*shown, "--runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "| side | 75.0 [" in text and "cfg_norm" not in text
    file = tmp_path / "attacks.parquet"
    assert main(["leaderboard", "--by", "attack", "--runs", str(runs), "--format", "parquet",
                 "--output", str(file)]) == 0  # fmt: skip
    capsys.readouterr()
    assert main([*shown, "--runs", str(file)]) == 0 and capsys.readouterr().out == text
    assert main(["leaderboard", "--runs", str(runs)]) == 0
    assert "precision@" not in capsys.readouterr().out  # of two images there is none


def test_no_table_of_a_terminal_is_empty(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table whose name another board has, too, would show that one's columns."""
    assert main(["leaderboard", "--runs", str(runs), "--by", "attack"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    heads = [block.splitlines()[1].split() for block in blocks]
    assert len(blocks) == 5 and all(head[:1] == ["attack"] and len(head) > 2 for head in heads)


def test_options_that_all_rows_share_are_told_once() -> None:
    frame = pd.DataFrame(
        {
            "detector": ["side", "random"],
            "status": ["complete", "partial"],
            "options": ["generations=9 synthetic=3", "extraction=unconditional generations=9"],
        }
    )
    names, alike = attack_names(frame)
    assert names == ["side synthetic=3", "PARTIAL random extraction=unconditional"]
    assert alike == "generations=9"
    assert short_names(frame) == ["side", "PARTIAL random"]
    twice = pd.concat([frame, frame.iloc[:1]])
    assert short_names(twice) == ["side 1", "PARTIAL random", "side 2"]


def test_without_an_attack_there_is_no_board(tmp_path: Path) -> None:
    scorer = make(tmp_path, [0, None], detector="cfg_norm", extra=SCORER)
    with pytest.raises(UserError, match="no run is of an attack"):
        board([scorer], "attack")
    control = make(tmp_path, [0, None], control=True)
    with pytest.raises(UserError, match="control models alone"):
        board([control], "attack")
    file = tmp_path / "board.parquet"
    from membench.boards.saved import write

    write(board([scorer], "seeds").frame, "seeds", file)
    with pytest.raises(UserError, match="is not a board of attacks"):
        read(file, "attack")


def test_the_control_of_another_rung_is_no_control(tmp_path) -> None:
    def rung(n: int) -> dict:
        return {"task_options_passed": [f"rung={n}"]}

    make(tmp_path, COPIED, detector="side", extra=rung(4))
    make(tmp_path, [4, *[None] * 7], detector="side", control=True, extra=rung(5))
    assert math.isnan(row(collect(tmp_path), "side").excess_ams)
    make(tmp_path, [None] * 8, detector="side", control=True, seed=1, extra=rung(4))
    make(tmp_path, COPIED, detector="side", seed=1, extra=rung(4))
    frame = collect(tmp_path)
    found = frame[(frame.detector == "side") & ~frame.control & (frame.seed == 1)]
    assert found.excess_ams.item() == 6 / 8
