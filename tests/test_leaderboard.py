"""The leaderboard on run folders made by hand: comparisons with the control model, and
at equal terms.
"""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make, row
from scipy import stats

from membench.boards.board import of_frame
from membench.boards.collect import affordable, collect
from membench.boards.control import control_command
from membench.metrics.levels import mover
from membench.reports.output import write_boards
from membench.reports.run_tables import run_table
from membench.reports.terminal import table


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    """Two detectors of different size and cost, one with a preparation, a control run
    of one of them, and a scorer.
    """
    tmp_path = tmp_path_factory.mktemp("runs")
    make(tmp_path, COPIED)
    make(tmp_path, [None] * 7 + [5], control=True)
    prepare = {
        "forwards": 15,
        "backwards": 3,
        "surrogate_forwards": 1000,
        "surrogate_backwards": 400,
    }
    make(tmp_path, [4, 5, 6, 7, None], detector="side", prepare=prepare, scored=False)
    make(tmp_path, [], detector="cfg_norm")
    return collect(tmp_path)


# -------------------------------------------------------------------- the control model


def test_mover_is_newcombes_hybrid():
    """Newcombe 1998 (Stat.

    Med. 17:873), method 10, example (a): 56/70 - 48/80, from Wilson's intervals:
    [0.0524, 0.3339].
    """

    def wilson(hits: int, n: int) -> tuple[float, float]:
        found = stats.binomtest(hits, n).proportion_ci(method="wilson")
        return found.low, found.high

    assert mover(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80)) == pytest.approx(
        (0.0524, 0.3339), abs=5e-5
    )


def test_the_excess_over_the_control(frame):
    mine, control = row(frame, "random"), row(frame, "random", control=True)
    assert mine.control_weights == control.weights == "b" * 8
    for score, expected in (("ams", 6 / 8 - 1 / 8), ("ums", 3 / 8 - 1 / 8)):
        column = f"{score}_cumulative"
        assert mine[f"control_{score}"] == control[column] and mine[
            f"excess_{score}"
        ] == pytest.approx(expected)
        low = expected - math.hypot(
            mine[column] - mine[f"{column}_low"], control[f"{column}_high"] - control[column]
        )
        high = expected + math.hypot(
            mine[f"{column}_high"] - mine[column], control[column] - control[f"{column}_low"]
        )
        assert (mine[f"excess_{score}_low"], mine[f"excess_{score}_high"]) == pytest.approx(
            (low, high)
        )
        assert math.isnan(control[f"excess_{score}"]) and math.isnan(
            row(frame, "side")[f"excess_{score}"]
        )


def test_no_excess_of_ums_at_unequal_numbers_of_images(tmp_path):
    make(tmp_path, COPIED)
    make(tmp_path, [None] * 5, control=True)
    mine = row(collect(tmp_path), "random")
    assert mine.excess_ams == 6 / 8 and mine.control_ums == 0 and math.isnan(mine.excess_ums)


@pytest.mark.parametrize("change", [{"seed": 1}, {"options": ("draws=3",)}, {"detector": "other"}])
def test_a_control_run_of_other_settings_is_no_control(tmp_path, change):
    make(tmp_path, COPIED)
    make(tmp_path, COPIED, control=True, **change)
    found = row(collect(tmp_path), "random")
    assert (
        math.isnan(found.excess_ams)
        and found.control_command == "membench run --detector random --task t --control"
    )


def test_the_command_that_makes_the_control_run(frame):
    assert (
        row(frame, "side").control_command
        == "membench run --detector side --task t --extract-only --control"
    )
    assert pd.isna(row(frame, "random").control_command) and pd.isna(
        row(frame, "cfg_norm").control_command
    )
    info = {
        "detector": "side",
        "task": "t",
        "profile": "full",
        "preset": "paper",
        "options_passed": ["k=3"],
        "seed": 2,
        "dtype": "float16",
    }
    info |= {
        "task_options_passed": ["model=m", "prompts=my prompts.csv", "x=1"],
        "n_examples": 5,
        "n_task_examples": 9,
        "budget": 70,
    }
    assert (
        control_command(info)
        == "membench run --detector side --task t --profile full --preset paper --set k=3 --prompts"
        " 'my prompts.csv' --set t.x=1 --seeds 2 --dtype float16 --limit 5 --budget 70 --control"
    )
    info |= {
        "task": "cifar10",
        "preset": None,
        "options_passed": [],
        "seed": 0,
        "dtype": "float32",
        "n_examples": 9,
        "budget": None,
    }
    told = info | {"task_options_passed": ["model=m", "data_root=d", "pool=10"]}
    asked = (
        "membench run --detector side --task cifar10 --profile full --model m --data-root d --set"
        " cifar10.pool=10"
    )
    assert control_command(told) == f"{asked} --set cifar10.control_model=FOLDER --control"
    named = told | {"task_options_passed": [*told["task_options_passed"], "control_model=c"]}
    assert control_command(named) == f"{asked} --set cifar10.control_model=c --control"


@pytest.mark.parametrize(
    ("detector", "code", "files"),
    [
        ("my_norm", {"detector": "a"}, 1),
        ("my_norm", {"detector": "a", "task": "a"}, 1),  # both in one file
        ("filter", {"held my_norm": "a", "task": "b"}, 2),
        ("cfg_norm", {"detector": "a"}, 0),  # imported by name, as an installed one is
        ("my_norm", "edited", 0),
    ],
)
def test_the_command_of_a_plugin_names_its_file(detector, code, files):
    info = {"detector": detector, "task": "t", "profile": "mini", "options_passed": []}
    info |= {"seed": 0, "dtype": "float32", "n_examples": 9, "n_task_examples": 9}
    info |= {"key_parts": {"plugin_code": code}}
    wanted = f"membench run {'--plugin FILE.py ' * files}--detector {detector} --task t --control"
    assert control_command(info) == wanted


# -------------------------------------------------------------------------- equal terms


def mean_copied(copied: list[int | None], size: int) -> float:
    return float(
        np.mean(
            [len({copied[i] for i in s} - {None}) for s in combinations(range(len(copied)), size)]
        )
    )


def test_copies_at_equal_numbers_of_images_and_at_equal_cost(frame):
    """8 images at 10 forwards; 5 images at 10 and 15 before: the cheapest is the
    second, 65.
    """
    random, side = row(frame, "random"), row(frame, "side")
    assert random.equal_n == side.equal_n == 5 and random.equal_cost == side.equal_cost == 65
    assert random.copied_at_equal_n == pytest.approx(
        mean_copied(COPIED, 5)
    ) and side.copied_at_equal_n == pytest.approx(4)
    assert random.images_at_equal_cost == 6 and random.copied_at_equal_cost == pytest.approx(
        mean_copied(COPIED, 6)
    )
    assert side.images_at_equal_cost == 5 and side.copied_at_equal_cost == pytest.approx(4)
    control, scorer = row(frame, "random", control=True), row(frame, "cfg_norm")
    # A board of its own
    assert (
        control.equal_n == 8
        and control.equal_cost == 80
        and control.copied_at_equal_n == pytest.approx(1)
    )
    assert (
        pd.isna(scorer.equal_n)
        and pd.isna(scorer.images_at_equal_cost)
        and math.isnan(scorer.copied_at_equal_cost)
    )


def test_images_that_the_preparation_pays_for_have_no_price_of_their_own(tmp_path):
    """SIDE's synthetic images among its own, and an attack that prepares them all: what a
    smaller budget would have made of them nobody knows.
    """
    make(tmp_path, COPIED[:3], price=10)
    make(
        tmp_path,
        COPIED[:5],
        detector="side",
        prepare={"forwards": 15},
        more_parts={"options": {"count_synthetic": True}},
    )
    make(tmp_path, COPIED[:5], detector="filter", price=0, prepare={"forwards": 90})
    make(tmp_path, COPIED[:5], detector="plain", prepare={"forwards": 15})
    frame = collect(tmp_path).set_index("detector")
    assert set(frame.equal_cost) == {30}
    assert frame.images_at_equal_cost["plain"] == 1
    for name in ("side", "filter"):
        assert pd.isna(frame.images_at_equal_cost[name])
        assert math.isnan(frame.copied_at_equal_cost[name])
        assert frame.copied_at_equal_n[name] > 0


def test_what_a_budget_pays_for():
    assert (
        affordable(100, 30, 60, 6) == 7
        and affordable(30, 30, 60, 6) == 0
        and affordable(29, 30, 60, 6) == 0
    )
    assert affordable(99, 0, 70, 7) == 9 and affordable(10, 5, 0, 4) == 4


def test_a_dear_preparation_pays_for_no_image_at_the_cheapest_cost(tmp_path, capsys):
    make(tmp_path, [0, 1, 2, 3, 4])
    make(tmp_path, COPIED, detector="side", prepare={"forwards": 60})
    frame = collect(tmp_path)
    short, dear = row(frame, "random"), row(frame, "side")
    assert not short.equal_cost_capped and short.images_at_equal_cost == 5
    assert dear.equal_n == 5 and dear.images_at_equal_cost == 0 and dear.copied_at_equal_cost == 0
    write_boards(of_frame(frame, "run"), "md", None)
    text = capsys.readouterr().out
    assert "copied @N_G=5" in text and "copied @50 eval" in text


def test_failed_images_leave_a_lower_bound(tmp_path, capsys):
    """The run that lost two of its images sets no terms: the cost pays for more than are
    there, and it has no number at the other's N_G.
    """
    make(tmp_path, [0, 1, 2, 3, 4], failed=2)
    make(tmp_path, COPIED, detector="side", prepare={"forwards": 60})
    frame = collect(tmp_path)
    short, whole = row(frame, "random"), row(frame, "side")
    assert (
        short.equal_cost_capped
        and short.images_at_equal_cost == 3
        and short.copied_at_equal_cost == pytest.approx(3)
    )
    assert whole.equal_n == 8 and whole.images_at_equal_cost == 8
    assert math.isnan(short.copied_at_equal_n)
    write_boards(of_frame(frame, "run"), "md", None)
    text = capsys.readouterr().out
    assert "copied @N_G=8" in text and "copied @140 eval" in text and ">=3.0" in text


def test_jvps_of_a_preparation_count_as_evaluations(tmp_path):
    """As of a filter whose scorer takes them: 40 forwards and 60 JVPs for 5 images."""
    make(tmp_path, [0, 1, 2, 3, 4], price=0, prepare={"forwards": 40, "jvps": 60})
    make(tmp_path, [4, 5, 6, 7, None], detector="side", price=16)
    frame = collect(tmp_path)
    chosen, side = row(frame, "random"), row(frame, "side")
    assert (chosen.prepare_forwards, chosen.prepare_evaluations) == (40, 100)
    assert chosen.equal_cost == side.equal_cost == 80
    assert math.isnan(chosen.copied_at_equal_cost) and side.copied_at_equal_cost == 4


def test_json_and_csv_hold_the_same_numbers(frame, tmp_path):
    """To the last digit: a score of 1e-12 is none of 0."""
    told = frame.assign(auroc=[1e-12, 1 / 3, np.inf, np.nan], auroc_low=np.float32(0.1))
    for fmt in ("csv", "json"):
        write_boards(of_frame(told, "run"), fmt, tmp_path / f"board.{fmt}")
    rows = json.loads((tmp_path / "board.json").read_text())
    assert [of["auroc"] for of in rows] == [1e-12, 1 / 3, None, None]
    text = pd.read_csv(tmp_path / "board.csv", dtype=str)
    assert text.auroc.tolist()[:2] == [repr(of["auroc"]) for of in rows[:2]]
    assert [of["n_g"] for of in rows] == told.n_g.tolist() and rows[0]["control"] in (True, False)


def test_costs(frame):
    side = row(frame, "side")
    found = {
        name: side[name]
        for name in (
            "prepare_forwards",
            "sample_forwards",
            "backwards",
            "surrogate_forwards",
            "surrogate_backwards",
        )
    }
    assert list(found.values()) == [15, 50, 3, 1000, 400]
    assert side.forwards_per_image == 10 and side.unique_per_1000_evaluations == pytest.approx(
        1000 * 4 / 65
    )
    assert math.isnan(side.forwards_per_example) and math.isnan(
        row(frame, "cfg_norm").forwards_per_image
    )
    assert row(frame, "random").surrogate_forwards == 0  # an older run, which did not count them


@pytest.mark.parametrize(("images", "forwards"), [(True, 15 + 80 + 16), (False, 16)])
def test_a_detector_that_scores_by_its_images_pays_for_all_that_the_run_spent(
    tmp_path, images, forwards
):
    make(tmp_path, COPIED, images=images, prepare={"forwards": 15})
    assert collect(tmp_path).forwards_per_example.iloc[0] == forwards / 8


# ----------------------------------------------------------------------------- printing


@pytest.mark.parametrize("seeds", [False, True])
@pytest.mark.parametrize("fmt", ["table", "md", "csv", "json", "parquet"])
def test_every_format(frame, tmp_path, fmt, seeds):
    out = tmp_path / f"board.{fmt}"
    write_boards(of_frame(frame, "seeds" if seeds else "run"), fmt, out)
    if fmt == "parquet":
        found = pd.read_parquet(out)
    elif fmt == "csv":
        found = pd.read_csv(out)
    elif fmt == "json":
        found = pd.DataFrame(json.loads(out.read_text()))
    else:
        text = out.read_text()
        # As on a terminal: detectors with scores
        words = ("random", "cfg_norm", "CONTROL model", *(["side"] if fmt == "md" else []))
        assert all(word in text for word in words)
        return
    assert len(found) == 4 and set(found.detector) == {"random", "side", "cfg_norm"}


def test_the_board_that_people_read(frame, capsys):
    write_boards(of_frame(frame, "run"), "md", None)
    model, control = capsys.readouterr().out.split("CONTROL model")
    for words in (
        "control AMS/UMS %",
        "excess AMS % | excess UMS %",
        "surrogate bwd",
        "| extraction only |",
    ):
        assert words in model and words not in control
    assert (
        "| copied @N_G=5 | copied @65 eval |" in model
        and "| copied @N_G=8 | copied @80 eval |" in control
    )
    assert (
        "--detector side --task t --extract-only --control" in model
        and "control and excess" not in control
    )
    detection = model.split("Extraction:")[0]
    assert "cfg_norm" in detection and "| side |" not in detection  # nothing was scored
    assert "| 12.5 / 12.5 |" in model


def test_brackets_are_no_markup(frame):
    write_boards(of_frame(frame, "seeds"), "table", None)
    assert "[n/a]" in table("a [b]", pd.DataFrame({"x [y]": ["0.1 [n/a]"]}))


def test_the_summary_of_runs(tmp_path):
    prepare = {
        "forwards": 1500,
        "backwards": 3,
        "surrogate_forwards": 1000,
        "surrogate_backwards": 400,
    }
    whole = make(tmp_path, COPIED, prepare=prepare)
    text = run_table([whole])
    assert (
        "detection" in text
        and "AUROC matched" in text
        and "lower = nearer" in text
        and "p99" in text
    )
    assert "\nSpearman of score with PNG size: " in text
    best = np.percentile([0.5] * 6 + [1.2] * 2, [50, 75, 90])
    assert f"{best[0]:.3f}" in text and f"{best[1]:.3f}" in text and f"{best[2]:.3f}" in text
    assert (
        "prepare 1,500 forwards and 3 backwards + 1,000 surrogate forwards and 400 surrogate"
        " backwards in 2 s" in text
    )
    only = run_table([make(tmp_path, COPIED, detector="side", scored=False)])
    assert (
        "AUROC" not in only and "extraction only" in only and "samples 80 forwards in 2 s" in only
    )
    nothing = run_table([make(tmp_path, [], detector="none", scored=False)])
    assert "files:" in nothing and "extraction," not in nothing
    assert row(collect(tmp_path), "none").n_g == 0


def test_a_partial_run_does_not_set_the_terms_of_whole_ones(tmp_path):
    """Of 8 images 4 failed; whole runs of 8 and 6 are compared at 6."""
    make(tmp_path, COPIED)
    make(tmp_path, [0, 1, 2, None, None, None], detector="side", price=20)
    make(tmp_path, [0, 1, 2, 3, 4, 5, 6, 7], detector="other", price=1, failed=4)
    frame = collect(tmp_path)
    assert set(frame.equal_n) == {6} and set(frame.equal_cost) == {80}
    assert row(frame, "side").copied_at_equal_n == 3
    assert math.isnan(row(frame, "other").copied_at_equal_n)
    make(tmp_path / "alone", [0, 1, 2, 3, 4, 5, 6, 7], detector="other", price=1, failed=4)
    alone = collect(tmp_path / "alone")
    assert alone.equal_n.tolist() == [4] and alone.copied_at_equal_n.tolist() == [4.0]
