"""The board over several worlds: trainings are what its intervals are over."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import ttest_1samp

from membench.boards import worlds
from membench.boards.board import board, read
from membench.boards.columns import to_arrow
from membench.boards.mirror import half_of, mirror_rows
from membench.boards.worlds import _behind, collect_worlds, world_of
from membench.cli import leaderboard
from membench.cli.main import main
from membench.errors import UserError
from membench.metrics.trainings import over_trainings
from membench.reports.mirror_tables import worlds_tables
from membench.reports.output import in_markdown, save
from membench.reports.screen import on_screen
from membench.reports.text import briefly
from membench.runs.finished import Run, read_runs


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two detectors that read captions alone, on both halves."""
    folder = tmp_path_factory.mktemp("runs")
    for half in "ab":
        args = ["--set", "sd_webster.examples=mirror", "--set", f"sd_webster.half={half}"]
        run = ["run", "--detector", "caption_length,caption_case", "--task", "sd_webster"]
        assert main([*run, "--quiet", "--runs", str(folder), *args]) == 0
    return list(read_runs([folder]).runs)


def in_world(run: Run, number: int, gain: float = 1.0, models: str = "m") -> Run:
    """The run as if it were of another world: other hashes, another folder of models, and
    scores that tell the model's own captions the better the larger the gain.
    """
    hashes = {
        name: f"{number}{models}{value}"[:64]
        for name, value in run.info["key_parts"]["hashes"].items()
    }
    parts = run.info["key_parts"] | {"hashes": hashes, "examples": f"{number:064d}"}
    passed = [*run.info["task_options_passed"], f"world={number}", f"models={models}{number}"]
    random = np.random.default_rng([number, half_of(run) == "b", len(models)])
    score = gain * run.scores.label + random.normal(size=len(run.scores))
    return replace(
        run,
        info=run.info | {"key_parts": parts, "task_options_passed": passed},
        scores=run.scores.assign(score=score),
    )


def limited(run: Run, number: int, kept: slice = slice(None, None, 3)) -> Run:
    """The run as if --limit had left some of its examples."""
    scores = run.scores.sort_values("id").iloc[kept]
    parts = run.info["key_parts"] | {"examples": f"f{kept.start or 0}{number:062d}"}
    more = {"key_parts": parts, "n_examples": len(scores), "status": "partial"}
    return replace(run, info=run.info | more, scores=scores)


def in_worlds(runs: list[Run], gains: Mapping[int, float], detector: str) -> list[Run]:
    of = [run for run in runs if run.info["detector"] == detector]
    return [in_world(run, number, gain) for number, gain in gains.items() for run in of]


def test_the_interval_is_students_t() -> None:
    random = np.random.default_rng(0)
    for count in (2, 4, 6):
        values = random.normal(size=count)
        wanted = ttest_1samp(values, 0).confidence_interval(0.95)
        assert over_trainings(values) == pytest.approx((wanted.low, wanted.high))
    # The delta method on the logit scale, by hand: sd 0.1, t(3) = 3.182446
    low, high = over_trainings([0.7, 0.7, 0.9, 0.9], logit=True)
    half = 3.182446 * np.sqrt(0.04 / 3) / 2 / (0.8 * 0.2)
    assert (low, high) == pytest.approx((expit(logit(0.8) - half), expit(logit(0.8) + half)))
    for alike in ([1.0, 1.0], [0.8, 0.8, 0.8]):
        assert np.isnan(over_trainings(alike, logit=True)).all()
    assert np.isnan(over_trainings([0.0, 0.0])).all()  # both tell everything apart
    assert np.isnan(over_trainings(np.array([0.9, 0.7, 0.3]) - [0.8, 0.6, 0.2])).all()


@pytest.mark.parametrize("values", [[0.5], [0.5, np.nan], [[0.5, 0.5], [0.5, 0.5]], [0.5, 1.5]])
def test_what_has_no_interval(values: list) -> None:
    with pytest.raises(ValueError, match="value"):
        over_trainings(np.array(values), logit=True)


def test_a_row_is_of_all_trainings(development: list[Run]) -> None:
    ours = in_worlds(development, {1: 1.0, 2: 2.0, 5: 3.0}, "caption_length")
    frame = board([*development, *ours], "worlds").frame
    # The development world is none of them, whatever was run there
    assert set(frame.detector) == {"caption_length"} and set(frame.world_list) == {"1,2,5"}
    assert frame.kind.tolist() == ["all", "MV", "RV", "TV"] and set(frame.trainings) == {6}
    for row in frame.itertuples():
        pairs = [
            [r for r in ours if f"world={n}" in r.info["task_options_passed"]] for n in (1, 2, 5)
        ]
        of_worlds = [mirror_rows(pair).set_index("kind").loc[row.kind] for pair in pairs]
        each = np.array([[of.auroc_a, of.auroc_b] for of in of_worlds]).ravel()
        assert row.mirrored == pytest.approx(each.mean())
        assert (row.lowest, row.highest) == pytest.approx((each.min(), each.max()))
        wanted = over_trainings(each, logit=True)
        assert (row.mirrored_low, row.mirrored_high) == pytest.approx(wanted)
        assert row.n == sum(of.n for of in of_worlds)
    assert frame.behind.isna().all()
    to_arrow(frame, "worlds")


def test_behind_is_paired_by_training(development: list[Run]) -> None:
    best = in_worlds(development, {1: 1.0, 2: 3.0}, "caption_length")
    # A little less of each training: far less apart than the trainings are
    worse = in_worlds(development, {1: 0.9, 2: 2.7}, "caption_case")
    frame = board([*best, *worse], "worlds").frame
    first, second = (
        frame[(frame.detector == d) & (frame.kind == "all")].iloc[0]
        for d in ("caption_length", "caption_case")
    )
    assert np.isnan(first.behind) and second.behind == pytest.approx(
        first.mirrored - second.mirrored
    )
    assert 0 < second.behind_low < second.behind < second.behind_high
    assert second.behind_high - second.behind_low < second.mirrored_high - second.mirrored_low
    # On other worlds there is no training in common
    apart = in_worlds(development, {1: 0.9, 3: 2.7}, "caption_case")
    assert board([*best, *apart], "worlds").frame.behind.isna().all()


def test_fewer_than_two_worlds_are_refused(development: list[Run]) -> None:
    one = in_worlds(development, {1: 1.0}, "caption_length")
    for runs in (development, [*development, *one]):
        with pytest.raises(UserError, match="two worlds beside the development world"):
            board(runs, "worlds")


def test_two_pairs_of_one_world_are_refused(development: list[Run]) -> None:
    twice = [
        in_world(run, number, models=models)
        for models in ("m", "other")
        for number in (1, 2)
        for run in development
    ]
    with pytest.raises(UserError, match=r"world [12] has two pairs of models, as in"):
        board(twice, "worlds")


def test_worlds_of_two_recipes_are_refused(development: list[Run]) -> None:
    def told(run: Run, **recipe: object) -> Run:
        return replace(run, info=run.info | {"provenance": {"recipe": recipe}})

    one, two = (in_worlds(development, {n: float(n)}, "caption_length") for n in (1, 2))
    alike = [told(r, steps=3500, rate=0.001) for r in (*one, *two)]
    silent = [told(r) for r in two]
    for runs in (alike, [*alike[:2], *silent]):
        assert len(board(runs, "worlds").frame) == 4
    third = [told(r, steps=1200) for r in in_worlds(development, {3: 3.0}, "caption_length")]
    of_two = [told(r, steps=3500) for r in two]
    with pytest.raises(UserError, match="one recipe: steps is 3500 and 1200"):
        board([*(told(r) for r in one), *of_two, *third], "worlds")
    with pytest.raises(UserError, match="one recipe: steps is 3500 and 1200; name the runs"):
        board([*alike[:2], *(told(r, steps=1200, rate=0.001) for r in two)], "worlds")
    with pytest.raises(UserError, match="one recipe: flip is not said and True"):
        board([*alike[:2], *(told(r, steps=3500, rate=0.001, flip=True) for r in two)], "worlds")


def test_a_mini_run_says_how_its_model_was_trained(development: list[Run]) -> None:
    for run in development:
        recipe = run.info["provenance"]["recipe"]
        assert recipe["steps"] > 0 and not {"world", "start", "device"} & set(recipe)


def test_whole_and_limited_runs_are_apart(development: list[Run]) -> None:
    whole = in_worlds(development, {1: 1.0, 2: 3.0}, "caption_length")
    part = [limited(run, world_of(run)) for run in whole]
    frame = board([*whole, *part], "worlds").frame
    every = frame[frame.kind == "all"].set_index("status")
    assert every.n["partial"] < every.n["complete"]
    # Neither is behind the other: they are of two tables
    assert every.behind.isna().all()
    assert {part.fields["examples"] for part in board([*whole, *part], "worlds").parts} == set(
        frame.examples
    )
    others = [limited(run, world_of(run), slice(1, None, 3)) for run in whole]
    with pytest.raises(UserError, match=r"caption_length: world [12] has two sets of examples"):
        board([*part, *others], "worlds")


def test_what_is_of_one_world_is_left_out_and_said(development: list[Run]) -> None:
    ours = in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length")
    made = board([*ours, *in_worlds(development, {2: 1.0}, "caption_case")], "worlds")
    assert set(made.frame.detector) == {"caption_length"}
    line = "left out, of one world alone: caption_case (world 2)"
    assert list(made.notes) == [line] and line in on_screen(made).replace("\n", " ")
    assert board(ours, "worlds").notes == []


def test_a_world_without_a_number_is_refused(development: list[Run]) -> None:
    named = [
        replace(run, info=run.info | {"task_options_passed": [f"half={half_of(run)}", "world=x"]})
        for run in development
    ]
    with pytest.raises(UserError, match="is of world x, which is no number"):
        board(named, "worlds")


@pytest.mark.parametrize("by", ["mirror", "worlds"])
def test_two_versions_of_a_detector_are_two_rows(development: list[Run], by: str) -> None:
    worlds = (1, 2) if by == "worlds" else (1,)
    new, old = (
        in_worlds(development, dict.fromkeys(worlds, gain), "caption_length") for gain in (2.0, 0.5)
    )
    old = [
        replace(r, info=r.info | {"key_parts": r.info["key_parts"] | {"detector_version": 0}})
        for r in old
    ]
    made = board([*new, *old], by)  # type: ignore[arg-type]
    lines = [line for line in in_markdown(made).splitlines() if line.startswith("| caption_")]
    names = [line.split("|")[1].strip() for line in lines]
    # Of both tables the better row first, with its own numbers
    assert set(names[:2]) == {"caption_length", "caption_length (2)"} and names[2:] == names[:2]
    best, worse = (
        made.frame[made.frame.kind == "MV"].mirrored.sort_values(ascending=False)
    ).tolist()
    assert [line.split("|")[2].strip() for line in lines[2:]] == [f"{best:.3f}", f"{worse:.3f}"]


def test_options_and_rungs_are_settings_of_their_own(development: list[Run]) -> None:
    ours = in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length")
    rung = [
        replace(
            r, info=r.info | {"task_options_passed": [*r.info["task_options_passed"], "rung=1"]}
        )
        for r in ours
        if "world=2" in r.info["task_options_passed"]
    ]
    others = [r for r in ours if "world=1" in r.info["task_options_passed"]]
    with pytest.raises(UserError, match="two worlds"):
        board([*others, *rung], "worlds")


def test_text_and_file(development: list[Run], tmp_path: Path) -> None:
    ours = in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length")
    made = board([*ours, *in_worlds(development, {1: 0.5, 2: 0.5}, "caption_case")], "worlds")
    text = in_markdown(made)
    assert "Mean AUROC of 4 trainings, two on each of the worlds 1, 2" in text
    rows = [line for line in text.splitlines() if line.startswith("| caption_")]
    assert rows[0].startswith("| caption_length") and rows[0].split("|")[4].strip() == ""
    assert max(map(len, rows)) <= 90
    file = tmp_path / "worlds.parquet"
    save(made.frame, "worlds", "parquet", file)
    assert in_markdown(read(file, "worlds")) == text
    with pytest.raises(UserError, match="not a board of mirror pairs"):
        read(file, "mirror")


def test_long_values_are_cut_in_text_alone(development: list[Run]) -> None:
    long = "weights=" + "loss:1:2:3," * 9
    ours = in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length")
    frame = board([*ours, *in_worlds(development, {1: 1, 2: 1}, "caption_case")], "worlds").frame
    frame.loc[frame.detector == "caption_length", "options"] = f"folds=5 {long}"
    [(_, text, _), *_] = worlds_tables(frame)
    assert set(text.options) == {"", "folds=5 weights=loss:1:2:3,loss…"}
    assert briefly("a=" + 16 * "x") == "a=" + 16 * "x"
    # Two that would be cut to the same words are shown whole
    frame.loc[frame.detector == "caption_case", "options"] = f"folds=5 {long}4"
    frame["detector"] = "caption_length"
    [(_, text, _), *_] = worlds_tables(frame)
    assert set(text.options) == {f"folds=5 {long}", f"folds=5 {long}4"}


def test_the_command(development: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "worlds.parquet"
    ours = in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length")
    save(board(ours, "worlds").frame, "worlds", "parquet", file)
    assert main(["leaderboard", "--by", "worlds", "--runs", str(file)]) == 0
    assert "caption_length" in capsys.readouterr().out
    assert (
        main(["leaderboard", "--by", "worlds", "--runs", str(development[0].path.parents[3])]) == 2
    )
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert "membench train TASK --world N" in line


@pytest.mark.parametrize("format_", ["csv", "json", "parquet"])
def test_what_a_file_leaves_out_is_said(
    development: list[Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    format_: str,
) -> None:
    runs = [
        *in_worlds(development, {1: 1.0, 2: 2.0}, "caption_length"),
        *in_worlds(development, {2: 1.0}, "caption_case"),
    ]
    args = argparse.Namespace(format=format_, output=tmp_path / f"b.{format_}", wide=False)
    leaderboard._show(board(runs, "worlds"), args)
    said = capsys.readouterr().err
    assert said.startswith("membench: left out, of one world alone: caption_case (world 2)\n")


def test_how_far_one_is_behind_is_by_the_same_training() -> None:
    """About 0.1 behind on each of four trainings that differ by more than that."""
    best = np.array([0.9, 0.6, 0.8, 0.7])
    others = [best - [0.09, 0.11, 0.1, 0.1], best[::-1] - 0.1]
    rows = pd.DataFrame({"aurocs": [*others, best]}).assign(mirrored=[0.65, 0.65, 0.75])
    alike, turned, of_best = _behind(rows).to_numpy()
    half = 3.182446 * np.sqrt(2e-4 / 3) / 2  # t(3) times the standard error
    assert alike == pytest.approx([0.1, 0.1 - half, 0.1 + half])
    assert turned == pytest.approx([0.1, *over_trainings(best - best[::-1] + 0.1)])
    assert turned[1] < -0.1 and np.isnan(of_best).all()


def test_seeds_are_those_that_every_world_has(development) -> None:
    runs = in_worlds(development, {1: 1.0, 2: 1.0}, "caption_length")
    again = [replace(r, info=r.info | {"seed": 1}) for r in runs if world_of(r) == 1]
    [row] = collect_worlds([*runs, *again]).query("kind == 'all'").itertuples()
    assert row.seeds == 1


def test_the_tpr_is_the_mean_of_the_worlds(development, monkeypatch) -> None:
    tpr = {1: 0.2, 2: 0.6}

    def rows(runs: list[Run], **how) -> pd.DataFrame:
        return mirror_rows(runs, **how).assign(mirrored_tpr=tpr[world_of(runs[0])])

    monkeypatch.setattr(worlds, "mirror_rows", rows)
    found = collect_worlds(in_worlds(development, {1: 1.0, 2: 1.0}, "caption_length"))
    assert found.mirrored_tpr.tolist() == pytest.approx([0.4] * len(found))
