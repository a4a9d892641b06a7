"""What the threshold does to AMS and UMS and to the order of detectors: curves by hand,
and the command on a tiny task.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from boards import L2, make
from PIL import Image

from membench.boards import thresholds
from membench.boards.other_tables import THRESHOLDS
from membench.boards.thresholds import SETTING, over_seeds, parse_grid, sweep_thresholds
from membench.cli.main import main
from membench.errors import UserError
from membench.metrics.thresholds import COLUMNS
from membench.registry import Registry
from membench.reports.thresholds import plots_of, sentences, shown, summary
from membench.runs import execute, job
from membench.runs.execute import Outcome
from membench.runs.finished import Run
from membench.types import Band, Space

COSINE = Space(
    "cosine/test",
    True,
    (Band("high", 0.6, 1.0), Band("low", 0.4, 0.6)),
    copy=0.5,
    floor=0.3,
    source="test",
)
GRID = "0.2:1:5"  # 0.2, 0.4, 0.6, 0.8, 1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    runs = {name: make(root, [0] * 10, detector=name) for name in ("side", "random", "scorer")}
    runs["scorer"] = replace(
        runs["scorer"], samples=runs["scorer"].samples[:0], matches=runs["scorer"].matches[:0]
    )
    return runs


def with_distances(
    run: Run,
    distances: list[float],
    *,
    pictures: list[int] | None = None,
    space: Space = L2,
    **info: object,
) -> Run:
    """The run with these nearest distances of its images, each to an image of its own
    unless they are named.
    """
    n = len(distances)
    matches = pd.DataFrame(
        {
            "sample_id": [f"c{i}/0" for i in range(n)],
            "training": pictures or list(range(n)),
            "similarity": distances,
        }
    )
    matches = matches.assign(training_id=[f"t{j}" for j in matches.training], rank=0).astype(
        {"similarity": "float32"}
    )
    parts = run.info["key_parts"] | {
        name: value for name, value in info.items() if name != "status"
    }
    samples = run.samples[run.samples.sample_id.isin(matches.sample_id)]
    return replace(
        run,
        matches=matches,
        samples=samples,
        info=run.info | info | {"key_parts": parts, "space": asdict(space)},
    )


SIDE = [0.3] * 4 + [0.9] * 1 + [1.2] * 5  # AMS 0, .4, .4, .4, .5 at the grid
RANDOM = [0.7] * 8 + [1.2] * 2  # 0, 0, 0, .8, .8


def found(runs: list[Run], grid: str = GRID) -> pd.DataFrame:
    return thresholds.flips(over_seeds(sweep_thresholds(runs, grid, resamples=200)))


# ---------------------------------------------------------------------------- the sweep


def test_a_row_a_run_metric_and_region(base: dict[str, Run]) -> None:
    few = with_distances(base["random"], RANDOM[:5])
    swept = sweep_thresholds([with_distances(base["side"], SIDE), few, base["scorer"]], GRID)
    assert set(swept.detector) == {"side", "random"} and [*swept.columns][-len(COLUMNS) :] == list(
        COLUMNS
    )
    assert list(swept) == [*SETTING, *THRESHOLDS]
    cumulative = swept[(swept.form == "cumulative") & (swept.detector == "side")]
    assert cumulative[cumulative.metric == "ams"].value.tolist() == [0, 0.4, 0.4, 0.4, 0.5]
    assert (
        cumulative[cumulative.metric == "ams"].beta.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
        and cumulative.alpha.isna().all()
    )
    banded = (
        swept[(swept.form == "banded") & (swept.metric == "ams") & (swept.detector == "side")]
        .set_index(["alpha", "beta"])
        .value
    )
    assert (
        banded[0.2, 0.4] == 0.4
        and banded[0.4, 0.8] == 0
        and banded[0.8, 1.0] == pytest.approx(0.1)
        and len(banded) == 10
    )
    # UMS at equal N_G: of any 5 of side's 10 images, 2 lie within 0.4 in the mean;
    # random has 5.
    equal = swept[swept.metric == "ums_equal_n"]
    assert set(equal.n) == {5} and equal[equal.detector == "side"].value.tolist() == pytest.approx(
        [0, 0.4, 0.4, 0.4, 0.5]
    )
    own = (
        swept[(swept.metric == "ums") & (swept.form == "cumulative")].groupby("detector").n.unique()
    )
    assert own["side"].tolist() == [10] and own["random"].tolist() == [5]
    shuffled = [
        replace(run, matches=run.matches.sample(frac=1, random_state=2))
        for run in (few, with_distances(base["side"], SIDE))
    ]
    again = sweep_thresholds(shuffled, GRID)
    keys = ["detector", "metric", "form", "alpha", "beta"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys, ignore_index=True), swept.sort_values(keys, ignore_index=True)
    )


def test_ums_counts_pictures_at_equal_numbers_of_images(base: dict[str, Run]) -> None:
    """By brute force over all subsets of 3 of 6 images, of 2 images."""
    copies = [0, 0, 0, 1, 1, 1]
    runs = [
        with_distances(base["side"], [0.1] * 6, pictures=copies),
        with_distances(base["random"], [0.1] * 3),
    ]
    swept = sweep_thresholds(runs, GRID)
    mean = np.mean([len({copies[i] for i in some}) for some in itertools.combinations(range(6), 3)])
    equal = swept[(swept.metric == "ums_equal_n") & (swept.detector == "side")]
    assert equal.value.tolist() == pytest.approx([mean / 3] * 5)


def test_no_images_is_refused(base: dict[str, Run]) -> None:
    with pytest.raises(UserError, match="none of these runs has images"):
        sweep_thresholds([base["scorer"]])


def test_seeds_are_a_mean_with_a_wider_interval(base: dict[str, Run]) -> None:
    runs = [with_distances(base["side"], SIDE, seed=seed) for seed in range(2)]
    runs.append(with_distances(base["side"], [0.3] * 10, seed=2, status="partial"))
    swept = sweep_thresholds(runs, GRID, resamples=200)
    settings = over_seeds(swept)
    assert (
        set(settings.seeds) == {3}
        and set(settings.status) == {"partial"}
        and "seed" not in settings
    )
    ams = settings[(settings.metric == "ams") & (settings.form == "cumulative")]
    assert ams.value.tolist() == pytest.approx([0, *[(0.4 + 0.4 + 1) / 3] * 3, 2 / 3])
    own = swept[(swept.metric == "ams") & (swept.form == "cumulative") & (swept.beta == 0.4)]
    assert ams.iloc[1].low < own.low.mean() and own.high.mean() < ams.iloc[1].high <= 1
    assert (ams.low >= 0).all() and (ams.high <= 1).all() and (ams.high > ams.low).all()
    alone = over_seeds(sweep_thresholds(runs[:1], GRID, resamples=200))
    one = alone[(alone.metric == "ams") & (alone.form == "cumulative")]
    first = swept[(swept.metric == "ams") & (swept.form == "cumulative") & (swept.seed == 0)]
    assert one[["value", "low", "high"]].to_numpy() == pytest.approx(
        first[["value", "low", "high"]].to_numpy()
    )
    banded = settings[(settings.form == "banded") & (settings.metric == "ums")]
    assert banded.low.isna().all() and banded.high.isna().all()  # no interval is not [0, nan]
    backwards = over_seeds(sweep_thresholds(runs[::-1], GRID, resamples=200))
    pd.testing.assert_frame_equal(backwards, settings)


# ----------------------------------------------------------------------- flips, by hand


def rows(frame: pd.DataFrame, metric: str) -> list[tuple]:
    part = frame[frame.metric == metric]
    return list(part[["a", "b", "leader", "first", "last"]].itertuples(index=False, name=None))


def test_two_curves_that_cross(base: dict[str, Run]) -> None:
    flips = found([with_distances(base["side"], SIDE), with_distances(base["random"], RANDOM)])
    expected = [
        ("side", "random", "", 0.2, 0.2),
        ("side", "random", "side", 0.4, 0.6),
        ("side", "random", "random", 0.8, 1.0),
    ]
    assert rows(flips, "ams") == expected == rows(flips, "ums_equal_n")
    ams, ums = sentences(flips)
    assert ams.startswith(
        "t (mini), AMS: tied at 0.2; side leads random for thresholds in [0.4, 0.6]"
    )
    assert (
        "; the order flips between 0.6 and 0.8; random leads side for thresholds in [0.8, 1]" in ams
    )
    assert ums.startswith("t (mini), UMS: tied at 0.2; side leads") and "95 %" not in ums
    assert flips[flips.metric == "ums_equal_n"].sure.eq("").all()


def test_a_tie_between_two_leads_of_one_is_no_flip(base: dict[str, Run]) -> None:
    """side .1 .1 .2 .2 .3, random 0 .1 .1 .2 .2."""
    runs = [
        with_distances(base["side"], [0.1, 0.5, 0.9] + [1.3] * 7),
        with_distances(base["random"], [0.3, 0.7] + [1.3] * 8),
    ]
    flips = found(runs)
    assert [row[2:] for row in rows(flips, "ams")] == [
        ("side", 0.2, 0.2),
        ("", 0.4, 0.4),
        ("side", 0.6, 0.6),
        ("", 0.8, 0.8),
        ("side", 1.0, 1.0),
    ]
    [ams, _] = sentences(flips)
    assert (
        "flips" not in ams
        and ams.count("side leads random for thresholds at") == 3
        and ams.count("tied at") == 2
    )


def test_curves_that_never_cross_and_where_the_lead_is_sure(base: dict[str, Run]) -> None:
    runs = [
        with_distances(base["side"], [0.1] * 9 + [1.3]),
        with_distances(base["random"], [0.3] * 3 + [0.5] * 6 + [1.3]),
    ]
    [ams, _] = sentences(found(runs))
    assert (
        ams == "t (mini), AMS: side leads random for thresholds in [0.2, 0.4] (95 % interval of the"
        " difference above 0 throughout); tied in [0.6, 1]"
    )
    barely = [
        with_distances(base["side"], [0.1] + [1.3] * 9),
        with_distances(base["random"], [1.3] * 10),
    ]
    [ams, _] = sentences(found(barely))
    assert ams == (  # one image of ten
        "t (mini), AMS: side leads random for thresholds in [0.2, 1]; no lead is sure: the 95 %"
        " interval of the difference nowhere leaves out 0"
    )
    [tied, _] = sentences(
        found([with_distances(base[name], [0.1] * 10) for name in ("side", "random")])
    )
    assert tied == "t (mini), AMS: tied in [0.2, 1]"
    half = [
        with_distances(base["side"], [0.1] + [0.7] * 9),
        with_distances(base["random"], [1.3] * 10),
    ]
    [ams, _] = sentences(found(half))
    assert ams.endswith(
        "side leads random for thresholds in [0.2, 1] (95 % interval of the difference above 0 in"
        " [0.8, 1])"
    )


def test_one_group_makes_nothing_sure(base: dict[str, Run]) -> None:
    """Without an interval there is no sure lead."""
    runs = []
    for name, distances in (("side", [0.1] * 10), ("random", [1.3] * 10)):
        run = with_distances(base[name], distances)
        runs.append(replace(run, scores=run.scores.assign(group="one")))
    flips = found(runs)
    assert set(flips[flips.metric == "ams"].sure) == {""} and flips.leader.tolist() == [
        "side",
        "side",
    ]


def test_each_pair_and_board_on_its_own(base: dict[str, Run]) -> None:
    """Three settings make three pairs; the control, and another similarity, are boards
    of their own. Two called alike are both there.
    """
    # The same name, other settings
    third = with_distances(base["random"], SIDE, detector_version=2)
    runs = [with_distances(base["side"], SIDE), with_distances(base["random"], RANDOM), third]
    hashes = base["side"].info["hashes"] | {"weights": "b" * 64}
    control = [with_distances(run, [1.3] * 10, control=True, hashes=hashes) for run in runs[:2]]
    cosine = [with_distances(run, [0.7] * 10, space=COSINE) for run in runs[:1]]
    swept = sweep_thresholds([*runs, *control, *cosine], "0.4,0.8")
    flips = thresholds.flips(over_seeds(swept))
    mine = flips[~flips.control]
    assert set(zip(mine.a, mine.b, strict=True)) == {
        ("side", "random"),
        ("side", "random (2)"),
        ("random", "random (2)"),
    }
    text = list(sentences(flips))
    assert (
        sum(line.startswith("t (mini, control), AMS: tied in [0.4, 0.8]") for line in text) == 1
        and len(text) == 2 * 3 + 2
    )
    only = over_seeds(swept[swept.space_id == "cosine/test"])
    ams = only[(only.metric == "ams") & (only.form == "cumulative")]
    assert (
        ams.alpha.tolist() == [0.4, 0.8]
        and ams.value.tolist() == [1, 0]
        and not len(thresholds.flips(only))
    )


# ---------------------------------------------------------------------- grids and plots


@pytest.mark.parametrize(
    ("text", "space", "edges"),
    [
        ("0.5:1:3", L2, [0.5, 0.75, 1]),
        ("0, 0.7,1.4", L2, [0, 0.7, 1.4]),
        ("0.3:1:2", COSINE, [0.3, 1]),
    ],
)
def test_grids(text: str, space: Space, edges: list[float]) -> None:
    assert parse_grid(text, space).tolist() == pytest.approx(edges)
    assert {0.7, 1.0, 1.4} <= set(parse_grid("auto", replace(L2, copy=0.7)).tolist())


@pytest.mark.parametrize(
    ("text", "space", "told"),
    [
        ("x", L2, "write auto, LOW:HIGH:N or at least 2 ascending"),
        ("0:1:0", L2, "write auto, LOW:HIGH:N or at least 2 ascending"),
        ("", L2, "write auto"),
        ("0.5", L2, "at least 2"),
        ("0.5:1", L2, "write auto"),
        ("0.5:1:1", L2, "at least 2"),
        ("0.5:1:-3", L2, "write auto"),
        ("0.5:1:x", L2, "write auto"),
        ("1:0.5:3", L2, "ascending"),
        ("0.5,0.5", L2, "ascending"),
        ("0.5,nan", L2, "write auto"),
        ("0:inf:3", L2, "write auto"),
        ("-0.1,0.5", L2, "outside the range of l2, 0 and more"),
        ("0.5,1.5", L2, "pairs beyond 1.4 of l2 are not stored"),
        ("0.5,1.1", COSINE, "outside the range of cosine/test, -1 to 1"),
        ("0.2,0.5", COSINE, "pairs beyond 0.3 of cosine/test are not stored"),
    ],
)
def test_grids_that_make_no_sense(text: str, space: Space, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_grid(text, space)


def test_the_plot_shows_the_curves_with_their_intervals(base: dict[str, Run]) -> None:
    runs = [with_distances(base["side"], SIDE), with_distances(base["random"], RANDOM)]
    settings = over_seeds(sweep_thresholds(runs, "0.2:1.2:6", resamples=200))
    plot = plots_of(settings, "ams")
    assert [line.name for line in plot.lines] == ["side", "random"] and plot.lines[
        0
    ].style != plot.lines[1].style
    assert (
        plot.lines[1].y.tolist() == pytest.approx([0, 0, 0, 80, 80, 100])
        and plot.x.low == 0.2
        and plot.x.high == 1.2
    )
    for line in plot.lines:
        assert line.low is not None and (line.low <= line.y).all() and (line.y <= line.high).all()
        assert line.high.max() <= plot.y.high
    assert (
        plot.marks == [(1.0, "copy")]
        and plot.x.label == "threshold: distance at most (l2)"
        and "over groups" in plot.note
    )
    assert shown(settings) == ["ams", "ums"]  # N_G is equal
    few = over_seeds(sweep_thresholds([runs[0], with_distances(base["random"], RANDOM[:4])], GRID))
    assert shown(few) == ["ams", "ums", "ums_equal_n"]
    equal = plots_of(few, "ums_equal_n")
    assert (
        equal.title.startswith("UMS at 4 images each")
        and equal.note == ""
        and all(line.low is None for line in equal.lines)
    )
    assert plots_of(few, "ums").title.startswith("UMS of 4 to 10 images")
    table = summary(settings, most=3)
    assert table.threshold.tolist() == ["≤ 0.2", "≤ 0.6", "≤ 1.2"] and table[
        "random: AMS %"
    ].str.split(" ").str[0].tolist()[::2] == [
        "0.0",
        "100.0",
    ]


# -------------------------------------------------------------------------- the command


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the tests' own task of images; the registry is that of this test alone."""
    from membench import registry

    known = Registry("task")
    known.add("pixels", "tests.pixel_task:PixelTask", "tests")
    monkeypatch.setattr(registry, "tasks", lambda: known)


def ablate(tmp_path: Path, *more: object) -> int:
    words = (
        f"ablate --detector random,png_size --task pixels --limit 6 --runs {tmp_path}/runs --quiet"
    )
    return main([*words.split(), *map(str, more)])


def test_the_command_on_both_models_with_two_seeds(
    pixels: None, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        ablate(tmp_path, "--seeds", "0,1", "--control", "--thresholds", "0.5:1.5:5", "--budget", 12)
        == 0
    )
    out, err = capsys.readouterr()
    save = Path("results/ablations/pixels-random-png_size-thresholds")
    names = sorted(path.name.removeprefix(save.name) for path in save.parent.iterdir())
    assert (
        names
        == ["-control.pdf", "-control.png", "-control.svg", ".parquet", ".pdf", ".png", ".svg"]
        and err.count("\n") == 1
        and str(save) in err
    )
    swept = pd.read_parquet(f"{save}.parquet")
    assert (
        set(swept.seed) == {0, 1}
        and set(swept.control) == {False, True}
        and set(swept.detector) == {"random", "png_size"}
    )
    assert set(swept[swept.metric == "ams"].n) == {4}  # 12 evaluations of 3 steps each
    assert len(swept) == 2 * 2 * 2 * (3 * 5 + 3 * 10 + 5)
    assert (
        out.count("CONTROL model") == 1
        and "pixels (mini, control), UMS: " in out
        and "≤ 0.5" in out
    )
    assert "mean of 2 seeds" in save.with_name(f"{save.name}.svg").read_text()
    with Image.open(f"{save}.png") as png:
        assert np.asarray(png.convert("RGB")).std() > 10
    # Other thresholds of the same runs: no network evaluation.
    monkeypatch.setattr(
        "membench.runs.execute._compute", lambda *_: pytest.fail("a network was evaluated")
    )
    monkeypatch.setattr("membench.reports.plot_files.draw", lambda *_, **__: b"an image")
    assert (
        ablate(
            tmp_path,
            "--seeds",
            "0,1",
            "--thresholds",
            "0.5,1",
            "--budget",
            12,
            "--output",
            tmp_path / "mine.png",
        )
        == 0
    )
    assert sorted(path.name for path in tmp_path.glob("mine*")) == [
        "mine.parquet",
        "mine.pdf",
        "mine.png",
        "mine.svg",
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--thresholds", "many"], "--thresholds 'many': write auto, LOW:HIGH:N or"),
        (["--thresholds", "0.5,1.6"], "pairs beyond 1.5 of normalised-l2/test are not stored"),
        (
            ["--thresholds", "0.5,1", "--sweep", "draws=1,2"],
            "--sweep and --thresholds exclude each other",
        ),
        (
            ["--sweep", "draws=1,2"],
            "--sweep is for the options of one detector, and --detector names 2",
        ),
        (["--seeds", "0,0"], "--seeds '0,0': it must be different whole numbers"),
        (["--seeds", "x"], "--seeds 'x'"),
        (["--preset", "paper"], "detector random has no presets"),
        (["--set", "side.clusters=3"], "'side' is not a name of this run"),
        (["--detector", "side,rndom"], "unknown detector 'rndom'"),
    ],
)
def test_each_mistake_is_one_line_before_any_work(
    pixels: None, tmp_path: Path, capsys, more: list[str], told: str
) -> None:
    assert ablate(tmp_path, *more) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("membench: ") and err.count("\n") == 1 and told in err, err
    assert not list(tmp_path.rglob("*.parquet")) and not (tmp_path / "runs").exists()


def test_detectors_without_images_are_named(
    base: dict[str, Run], tmp_path: Path, monkeypatch, capsys
) -> None:
    runs = [
        with_distances(base["side"], SIDE),
        with_distances(base["random"], RANDOM),
        base["scorer"],
    ]
    monkeypatch.setattr(execute, "execute_all", lambda *args, **kwargs: Outcome(runs, []))
    monkeypatch.setattr(
        job, "open_task", lambda spec: SimpleNamespace(info=SimpleNamespace(space=L2))
    )
    monkeypatch.setattr("membench.reports.plot_files.draw", lambda *_, **__: b"an image")
    words = (
        f"ablate --detector side,random,cfg_norm --task sd_webster --thresholds {GRID} --output"
        f" {tmp_path}/made --quiet"
    )
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    assert (
        "membench: left out: scorer has no images\n" in err
        and "random leads side for thresholds in [0.8, 1]" in out
    )


def test_a_partial_run_does_not_set_the_terms(base: dict[str, Run]) -> None:
    """Its few images do not bring the others' UMS down to their number; it has none."""
    few = with_distances(base["random"], RANDOM[:5], status="partial")
    swept = sweep_thresholds([with_distances(base["side"], SIDE), few], GRID)
    equal = swept[swept.metric == "ums_equal_n"]
    assert set(equal.n) == {len(SIDE)} and set(equal.detector) == {"side"}
