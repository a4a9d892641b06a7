"""The leaderboard in one small table: its order, its cells, and what it refuses."""

from __future__ import annotations

import pandas as pd
import pytest
from boards import COPIED, make

from membench.boards import collect
from membench.boards.identity import BOARD
from membench.boards.seeds import over_seeds
from membench.errors import UserError
from membench.reports.seeds_tables import summary_tables


def rows(*settings: tuple, **common: object) -> pd.DataFrame:
    """(task, detector, options, AUROC, control AUROC, AMS), as ``over_seeds`` has them."""
    columns = ["task", "detector", "options", "auroc", "control_auroc", "ams_cumulative"]
    frame = pd.DataFrame(settings, columns=columns).astype(dict.fromkeys(columns[3:], float))
    for name in columns[3:]:
        frame = frame.assign(
            **{f"{name}_low": frame[name] - 0.1, f"{name}_high": frame[name] + 0.1}
        )
    fixed = {"control": False, "status": "complete", "seeds": 3, "control_seeds": 3}
    return frame.assign(**(dict.fromkeys(set(BOARD) - {"task"}, "x") | fixed | common))


NAN = float("nan")
FRAME = rows(
    ("faces", "weak", "", 0.55, 0.5, 0.2),
    ("prompts", "weak", "", 0.60, NAN, NAN),
    ("faces", "strong", "", 0.90, NAN, 0.3),
    ("prompts", "strong", "", 0.80, NAN, 0.4),
    ("prompts", "single", "k=2", 0.95, NAN, 0.5),  # left out of faces: 0.5 there, so below strong
    ("faces", "silent", "", NAN, NAN, 0.25),  # scores nothing: 0.5
)


def shown(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    [(what, text, notes)] = summary_tables(frame)
    assert what == "summary"
    return text, notes


def test_rows_are_in_the_order_of_their_mean_auroc() -> None:
    for frame in (FRAME, FRAME[::-1].reset_index(drop=True)):
        text, notes = shown(frame)
        assert list(zip(text.detector, text.options, strict=True)) == [
            ("strong", ""),
            ("single", "k=2"),
            ("weak", ""),
            ("silent", ""),
        ]
        assert notes[0].startswith("mean of 3 seeds; 95 % intervals over groups and seeds")


def test_a_cell_without_a_number_says_why() -> None:
    text = shown(FRAME)[0].set_index("detector")
    assert list(text.columns) == [
        "options",
        "faces AUROC",
        "faces control",
        "prompts AUROC",
        "faces AMS %",
        "prompts AMS %",
    ]
    assert text.loc["strong"].tolist() == [
        "",
        "0.900 [0.800, 1.000]",
        "not run",
        "0.800 [0.700, 0.900]",
        "30.0",
        "40.0",
    ]
    assert text.loc["single"].tolist() == [
        "k=2",
        "left out",
        "left out",
        "0.950 [0.850, 1.050]",
        "left out",
        "50.0",
    ]
    fewer = shown(FRAME.assign(control_seeds=1))[0].set_index("detector")
    assert (
        fewer.loc["weak", "faces control"] == "0.500 (1 seed)"
        and fewer.loc["weak", "faces AUROC"] == text.loc["weak", "faces AUROC"]
    )
    assert (
        text.loc["weak", "faces control"] == "0.500" and text.loc["weak", "prompts AMS %"] == "n/a"
    )
    assert (
        text.loc["silent", "faces AUROC"] == "n/a" and text.loc["silent", "faces AMS %"] == "25.0"
    )


def test_seeds_and_control_rows() -> None:
    assert shown(rows(("t", "a", "", 0.5, 0.5, 0.5), seeds=1))[1][0].startswith("mean of 1 seed;")
    mixed = pd.concat(
        [rows(("t", "a", "", 0.5, 0.5, 0.5), seeds=1), rows(("t", "b", "", 0.5, 0.5, 0.5), seeds=3)]
    )
    assert shown(mixed)[1][0].startswith("mean of 1 to 3 seeds;")
    control = rows(("faces", "strong", "", 0.1, NAN, 0.0), control=True, weights="other")
    pd.testing.assert_frame_equal(
        shown(pd.concat([FRAME, control], ignore_index=True))[0], shown(FRAME)[0]
    )


def test_what_a_small_table_cannot_keep_apart() -> None:
    other = rows(("faces", "strong", "", 0.9, NAN, 0.3), data="other")
    with pytest.raises(UserError, match="one board a task, and faces has several"):
        shown(pd.concat([FRAME, other], ignore_index=True))
    with pytest.raises(UserError, match="faces has two settings of strong"):
        shown(pd.concat([FRAME, FRAME[2:3]], ignore_index=True))
    with pytest.raises(UserError, match="runs on control models alone"):
        shown(FRAME.assign(control=True))
    with pytest.raises(UserError, match="written without --by seeds"):
        shown(FRAME.drop(columns="seeds"))


def test_of_run_folders(tmp_path) -> None:
    runs = [make(tmp_path, COPIED, seed=seed) for seed in range(2)] + [
        make(tmp_path, [None] * 8, control=True)
    ]
    runs.append(make(tmp_path, [], detector="cfg_norm", options=("draws=2",)))
    settings = over_seeds(collect.collect(runs), runs)
    text = shown(settings)[0].set_index("detector")
    assert text.loc["random", "t AMS %"] == "75.0" and text.loc["cfg_norm", "t AMS %"] == "n/a"
    row = settings[(settings.detector == "random") & ~settings.control].iloc[0]
    # Both seeds give the same scores
    cell = f"{row.auroc:.3f} [{row.auroc_low:.3f}, {row.auroc_high:.3f}] (deterministic)"
    assert text.loc["random", "t AUROC"] == cell
