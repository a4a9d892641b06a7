"""Attacks against the base rate: which run is of which rung, and what the x axis is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import make

from membench.boards.base_rate import with_base
from membench.boards.board import board
from membench.boards.identity import BOARD
from membench.boards.ladder import ladder
from membench.boards.other_tables import CLIMBED
from membench.boards.strength import strength
from membench.cli.main import main
from membench.errors import UserError
from membench.reports import strength as told
from membench.reports.drawing import KINDS
from membench.reports.ladder import base_axis, legend, page_plot, plots, summary, write
from membench.reports.page_boards import page_boards
from membench.runs import ladder as climbing
from membench.runs.finished import Run
from membench.runs.ladder import Rung, values_of
from membench.runs.spec import Spec

PLAIN = ("extraction=unconditional",)


def rung(root: Path, value: str, weights: str, plain: list, side: list) -> Rung:
    """The runs of a rung, whose model and mirror have hashes of their own."""

    def made(copied: list, detector: str, control: bool, options: tuple[str, ...]) -> Run:
        run = make(
            root / value,
            copied,
            detector=detector,
            control=control,
            options=options,
            prepare={"forwards": 40} if detector == "side" else None,
        )
        own = weights.upper() if control else weights
        run.info["key_parts"]["hashes"]["weights"] = own * 64
        run.info["task_options_passed"] = [f"rung={value}"]
        return run

    runs = [
        made(plain, "random", False, PLAIN),
        made([None] * len(plain), "random", True, PLAIN),
        made(side, "side", False, ()),
        made([None] * len(side), "side", True, ()),
    ]
    return Rung(value, runs, ())


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> list[Rung]:
    root = tmp_path_factory.mktemp("rungs")
    low = rung(root, "1", "a", [0, *[None] * 9], [0, 1, *[None] * 8])
    high = rung(root, "2", "b", [0, 0, 1, 1, *[None] * 6], [0] * 9 + [None])
    return [low, high]


def test_the_x_axis_is_what_unconditional_sampling_copies(rungs: list[Rung]) -> None:
    frame = ladder(rungs, "rung")
    assert list(frame)[-5:] == list(CLIMBED)
    own = frame[~frame.control.astype(bool)].set_index(["value", "detector"])
    assert own.base.to_dict() == pytest.approx(
        {("1", d): 0.1 for d in ("random", "side")} | {("2", d): 0.4 for d in ("random", "side")}
    )
    assert own.ams_cumulative["1", "side"] == 0.2 and own.ams_cumulative["2", "side"] == 0.9
    assert own.copied_at_equal_n["2", "side"] == 1 and own.copied_at_equal_n["2", "random"] == 2
    # random's 100 evaluations pay for 6 of side's images, after a preparation of 40
    assert own.equal_cost["1", "side"] == 100
    assert own.copied_at_equal_cost["1", "side"] == pytest.approx(2 * 6 / 10)
    mirror = frame[frame.control.astype(bool)]
    assert set(mirror.base) == {0.1, 0.4} and (mirror.ams_cumulative == 0).all()


def test_the_plots_hold_each_attack_on_model_and_mirror(rungs: list[Rung], tmp_path: Path) -> None:
    frame = ladder(rungs, "rung")
    ams, equal_n, equal_cost = plots(frame)
    lines = {line.name: line for line in ams.lines}
    assert set(lines) == {
        "random extraction=unconditional",
        "random extraction=unconditional, mirror",
        "side",
        "side, mirror",
        "base rate",
    }
    assert lines["side"].x.tolist() == pytest.approx([10.0, 40.0])
    assert lines["side"].y.tolist() == pytest.approx([20.0, 90.0])
    assert lines["side, mirror"].hollow and lines["side, mirror"].y.tolist() == [0.0, 0.0]
    assert {line.name for line in equal_cost.lines} == set(lines) - {"base rate"}
    assert np.isfinite(equal_n.lines[-1].y).all()
    assert summary(frame)["model"].tolist() == ["model", "model", "mirror", "mirror"] * 2
    assert summary(frame)["attack"].tolist() == ["random", "side"] * 4
    assert legend(frame) == ["random: extraction=unconditional", "side: its defaults"]
    write(frame, tmp_path / "figure.png")
    assert {f.suffix for f in tmp_path.glob("figure.*")} == {".parquet", ".png", ".svg", ".pdf"}


def test_partial_stands_at_the_rungs_that_are(rungs: list[Rung]) -> None:
    frame = ladder(rungs, "rung")
    whole = summary(frame).attack
    for name in ("1", "2"):
        partial = frame.value == name
        found = summary(frame.assign(status=np.where(partial, "partial", "complete")))
        wanted = [f"PARTIAL {of}" if is_ else of for of, is_ in zip(whole, partial, strict=True)]
        assert found.attack.tolist() == wanted
    assert legend(frame.assign(status="partial"))[1] == "side: its defaults"


def test_without_unconditional_sampling_there_is_no_base_rate(rungs: list[Rung]) -> None:
    only = [
        Rung(r.value, [run for run in r.runs if run.info["detector"] == "side"], ()) for r in rungs
    ]
    with pytest.raises(UserError, match="add --detector random and --set random"):
        ladder(only, "rung")


def test_an_option_that_changes_no_model_is_no_ladder(rungs: list[Rung]) -> None:
    with pytest.raises(UserError, match="rung=1 and rung=2 are one model"):
        ladder([rungs[0], Rung("2", rungs[0].runs, ())], "rung")


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("rung=", "write cifar10.option=value,value"),
        ("rung=1,1", "names a value twice"),
        ("rung=x", "rung must be int"),
        ("half=b", "both swept and set"),
    ],
)
def test_wrong_sweeps_are_one_line(sweep: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        values_of(Spec("side", "cifar10", task_options=("half=a",)), sweep)


def test_two_options_of_the_task_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "--detector", "random,side", "--task", "cifar10"]
    assert main([*words, "--sweep", "cifar10.rung=1", "--sweep", "cifar10.half=a"]) == 2
    assert "takes one option of the task" in capsys.readouterr().err


def test_a_report_shows_attacks_against_the_base_rate_once_a_task(rungs: list[Rung]) -> None:
    found = board([run for r in rungs for run in r.runs], "seeds")
    [plot] = [plot for b in page_boards(found) for plot in b.first if plot.slug == "attacks"]
    lines = {line.name: line for line in plot.lines}
    assert lines["side"].x.tolist() == pytest.approx([10.0, 40.0])
    assert lines["side"].y.tolist() == pytest.approx([20.0, 90.0])
    assert lines["random extraction=unconditional"].y.tolist() == pytest.approx([10.0, 40.0])
    assert lines["base rate"].x.tolist() == pytest.approx([10.0, 40.0])


def test_an_attack_alone_has_no_base_rate_on_a_report(rungs: list[Rung]) -> None:
    for detector in ("side", "random"):
        alone = [run for run in rungs[0].runs if run.info["detector"] == detector]
        plots = [plot for b in page_boards(board(alone, "seeds")) for plot in b.first]
        assert not any(plot.slug == "attacks" for plot in plots)


def test_the_mirror_is_hollow_on_a_report(rungs: list[Rung]) -> None:
    frame = ladder(rungs, "rung")
    rows = frame[~frame.control.astype(bool)].assign(
        control_ams=0.0, control_ams_low=0.0, control_ams_high=0.3
    )
    plot = page_plot(rows)
    assert plot is not None
    lines = {line.name: line for line in plot.lines}
    assert lines["side, mirror"].hollow and lines["side, mirror"].y.tolist() == [0.0, 0.0]
    assert lines["side, mirror"].high is not None
    assert lines["side, mirror"].high.tolist() == [30.0, 30.0]


def test_the_base_rate_is_that_of_the_most_plain_images() -> None:
    row = dict.fromkeys(BOARD, "x") | {"control": False, "ams_cumulative_low": 0.0}
    plain = row | {"detector": "random", "resolved": '{"extraction": "unconditional"}'}
    frame = pd.DataFrame(
        [
            plain | {"n_ok": 300, "ams_cumulative": 0.2, "ams_cumulative_high": 0.3},
            plain | {"n_ok": 40, "ams_cumulative": 0.1, "ams_cumulative_high": 0.6},
            row | {"detector": "side", "resolved": "{}", "n_ok": 900, "ams_cumulative": 0.9},
        ]
    )
    found = with_base(frame)
    assert found.base.tolist() == [0.2] * 3 and found.base_high.tolist() == [0.3] * 3


# ---------------------------------------------------------------------------- detectors


def scored_rung(root: Path, value: str, weights: str, told: dict[str, int]) -> Rung:
    """Two detectors' runs at a rung, on the model and its mirror. Of each kind, x1 and x64,
    there are two memorized images and two of the other half; ``told``: how many of the four
    pairs of a kind the score puts in the right order.
    """

    def change(scores: pd.DataFrame) -> pd.DataFrame:
        kinds = ["x64", "x64", "x1", "x1"] * 2
        labels = [1] * 4 + [0] * 4
        # Memorized images at 1 and 3; of the others so many lie below
        below = {0: (4.0, 4.0), 1: (2.0, 4.0), 2: (2.0, 2.0), 3: (0.0, 2.0), 4: (0.0, 0.0)}
        others = [*below[told["x64"]], *below[told["x1"]]]
        return scores.assign(
            label=labels,
            kind=kinds,
            score=[1.0, 3.0, 1.0, 3.0, *others],
            group=scores.id,
            source="planted",
        )

    def made(detector: str, control: bool) -> Run:
        run = make(
            root / value,
            [],
            detector=detector,
            control=control,
            change=change,
            extra={"attack": False},
        )
        run.info["key_parts"]["hashes"]["weights"] = (weights.upper() if control else weights) * 64
        return run

    return Rung(
        value, [made(d, control) for d in ("loss", "clid") for control in (False, True)], ()
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> list[Rung]:
    root = tmp_path_factory.mktemp("scored")
    return [
        scored_rung(root, "10", "a", {"x64": 3, "x1": 2}),
        scored_rung(root, "9", "b", {"x64": 4, "x1": 1}),
    ]


def test_detectors_have_an_auroc_of_each_kind_at_each_rung(scored: list[Rung]) -> None:
    frame = strength(scored, "rung", {})
    assert list(frame)[-3:] == list(CLIMBED)[:3]
    own = frame[(frame.detector == "loss") & ~frame.control.astype(bool)]
    assert own[["value", "kind"]].to_numpy().tolist() == [
        [value, kind] for value in ("10", "9") for kind in ("all", "x1", "x64")
    ]
    found = own.set_index(["value", "kind"]).auroc
    assert found["10", "x64"] == 0.75 and found["10", "x1"] == 0.5
    assert found["9", "x64"] == 1.0 and found["9", "x1"] == 0.25
    assert frame.base.isna().all() and len(frame) == 2 * 2 * 2 * 3
    shown = told.summary(frame)
    assert shown.columns.tolist() == ["rung", "detector", "model", "AUROC", "x1", "x64", "seeds"]
    assert shown.x64.tolist() == ["0.750"] * 4 + ["1.000"] * 4
    assert shown.model.tolist() == ["model", "model", "control", "control"] * 2


def test_a_panel_a_detector_over_the_rungs_or_their_base_rates(
    scored: list[Rung], tmp_path: Path
) -> None:
    for bases, at in (({}, [0.0, 1.0]), ({"10": 0.05, "9": 0.4}, [5.0, 40.0])):
        frame = strength(scored, "rung", bases)
        panels = told.plots(frame)
        assert [p.title for p in panels] == ["clid", "loss"]
        lines = {line.name: line for line in panels[1].lines}
        kinds = ["all", "x1", "x64"]
        assert set(lines) == {*kinds, *(f"{k}, control" for k in kinds), "chance"}
        assert lines["x64"].x.tolist() == pytest.approx(at)
        assert lines["x64"].y.tolist() == [0.75, 1.0] and lines["x64, control"].hollow
        told.write(frame, tmp_path / f"{len(bases)}.png")
        assert len(list(tmp_path.glob(f"{len(bases)}.*"))) == 4


def test_a_base_rate_of_none_has_a_place_on_the_axis() -> None:
    """Which is logarithmic beyond the least of the others."""
    none, some = base_axis([0.0, 5.0, 40.0]), base_axis([5.0, 40.0])
    assert (none.low, none.high, none.linear) == (0.0, 40.0, 5.0)
    assert (some.low, some.high, some.linear) == (5.0, 40.0, 0.0)
    assert base_axis([0.0]).high > 0


def ablated(monkeypatch: pytest.MonkeyPatch, rungs: list[Rung], words: list[str]) -> int:
    """``ablate`` over these finished rungs."""
    monkeypatch.setattr(climbing, "climb", lambda *of, **how: rungs)
    return main(["ablate", "--task", "cifar10", "--sweep", "cifar10.rung=1,2", "--quiet", *words])


def test_a_sweep_of_rungs_shows_detectors_too(
    scored: list[Rung],
    rungs: list[Rung],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Alone, and beside attacks, in files of their own."""
    words = ["--detector", "loss,clid", "--output", str(tmp_path / "alone")]
    assert ablated(monkeypatch, scored, words) == 0
    assert "x64" in capsys.readouterr().out
    assert set(pd.read_parquet(tmp_path / "alone.parquet").detector) == {"loss", "clid"}
    words = ["--detector", "random", "--output", str(tmp_path / "both.png")]
    assert ablated(monkeypatch, rungs, words) == 0
    assert "AMS" in (out := capsys.readouterr().out) and "AUROC" in out
    held = pd.read_parquet(tmp_path / "both-auroc.parquet")
    assert held.base.dropna().unique().tolist() == pytest.approx([0.1, 0.4])
    assert {f.name for f in tmp_path.glob("both*")} == {
        f"both{end}.{kind}" for end in ("", "-auroc") for kind in ("parquet", *KINDS)
    }


def test_a_sweep_that_would_show_nothing_is_refused_before_it_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["ablate", "--detector", "loss", "--task", "cifar10", "--sweep", "cifar10.rung=1"]
    assert main([*words, "--extract-only"]) == 2
    assert "nothing is to be scored" in capsys.readouterr().err
