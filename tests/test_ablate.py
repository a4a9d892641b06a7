"""Sweeps: the grid, what is kept of each point, and the files.

Most runs are of a detector that copies as many images as it is told.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from membench import registry
from membench.cli.main import main
from membench.detector import Detector
from membench.errors import UserError
from membench.reports.drawing import draw, figure
from membench.reports.plots import CROSS, INKS, UNLABELLED, Plot
from membench.reports.sweep import note, plots, spread, summary, title
from membench.runs import sweep
from membench.runs.finished import Run, load
from membench.runs.spec import Spec
from membench.runs.sweep import COLUMNS, grid
from membench.storage.files import DamagedFile
from membench.tasks.sd_webster.task import SPACE
from membench.tasks.sd_webster.world import training_images_of
from membench.types import Access, Request, Sample


@dataclass(frozen=True)
class CopierOptions:
    copies: int = field(
        default=1, metadata={"help": "how many images are training images", "min": 0}
    )
    threshold: float = field(default=0.0, metadata={"help": "is called like a column"})
    mode: Literal["plain", "fancy"] = field(default="plain", metadata={"help": "does nothing"})
    layers: tuple[int, ...] = field(default=(1,), metadata={"help": "does nothing"})
    most: int | None = field(default=None, metadata={"help": "does nothing"})

    def __post_init__(self) -> None:
        if self.mode == "fancy" and self.copies == 7:
            raise ValueError("fancy goes with no 7 copies")


class Copier(Detector):
    """Its first ``copies`` images (with seed 1, one fewer) are training images, the
    rest grey; refuses 9.
    """

    Options = CopierOptions
    version = 1
    access = Access()

    def __init__(self, options, *, seed, sampling):
        super().__init__(options, seed=seed, sampling=sampling)

    def plan(self, conditions):
        if self.options.copies == 9:
            raise UserError("no cluster survives;\ncopy fewer")
        return [Request(c, 0) for c in conditions]

    def extract(self, model, requests):
        model.eps(
            model.noise([(r.condition.id, 0) for r in requests], self.seed),
            981,
            model.condition([r.condition for r in requests]),
        )
        copied = max(0, self.options.copies - self.seed)
        pictures = [*training_images_of()[:copied], *[np.full((64, 64, 3), 255, np.uint8)] * 4]
        return [
            Sample(r.condition, 0, picture, 0.0)
            for r, picture in zip(requests, pictures, strict=False)
        ]

    def score(self, model, conditions, extracted):
        return [float(len(c.prompt)) for c in conditions]


@pytest.fixture(scope="module", autouse=True)
def copier() -> Iterator[None]:
    registry.detectors().add("copier", f"{__name__}:Copier", __file__)
    yield
    registry.detectors.cache_clear()


def command(out: Path, *more: object) -> list[str]:
    words = (
        f"ablate --detector copier --task sd_webster --limit 4 --runs {out}/runs --output"
        f" {out}/made/grid"
    )
    return [*words.split(), *map(str, more)]


GRID = (
    "--sweep",
    "copies=0,4,9",
    "--sweep",
    "threshold=0.5,1",
    "--seeds",
    "0,1",
    "--set",
    "mode=fancy",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    assert main(command(out, *GRID)) == 0
    return out


# ----------------------------------------------------------------------------- the grid


def spec(*options: str) -> Spec:
    return Spec("copier", "sd_webster", options=options)


def test_the_grid_is_the_product_with_typed_values() -> None:
    points = grid(Copier, spec("mode=fancy"), ["copies=0, 2", "threshold=1,2.5"])
    assert [p.values for p in points] == [
        {"copies": c, "threshold": t} for c in (0, 2) for t in (1.0, 2.5)
    ]
    assert points[1].settings == ("copies=0", "threshold=2.5")
    assert all(
        isinstance(p.values["copies"], int) and isinstance(p.values["threshold"], float)
        for p in points
    )


def test_values_that_hold_commas_are_parted_by_semicolons() -> None:
    points = grid(Copier, spec(), ["layers=1;2,3", "most=none,3"])
    assert [p.values["layers"] for p in points] == [(1,), (1,), (2, 3), (2, 3)]
    assert [p.values["most"] for p in points] == [None, 3, None, 3]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--sweep", "copis=1,2"], ["'copis'", "'copies'", "membench show copier"]),
        (["--sweep", "copies=1,2,three"], ["copies", "'three'"]),
        (["--sweep", "copies=1,-2"], ["copies", "from 0", "'-2'"]),
        (["--sweep", "copies=1", "--sweep", "mode=plain,fanci"], ["mode", "'fanci'", "'fancy'"]),
        (["--sweep", "copies=1,7", "--sweep", "mode=plain,fancy"], ["fancy goes with no 7 copies"]),
        (["--sweep", "copies=1,2", "--set", "copies=3"], ["copies", "both swept and set"]),
        (["--sweep", "copies=1,2", "--sweep", "copies=3"], ["copies", "swept twice"]),
        (["--sweep", "threshold=1,2,1.0"], ["threshold=1.0", "twice"]),
        (["--sweep", "copies"], ["'copies'", "option=value,value"]),
        (["--sweep", "copies="], ["'copies='", "option=value,value"]),
        (["--sweep", "copies=1,,2"], ["--sweep copies: '1,,2' has an empty item"]),
        (["--sweep", "copies=1", "--set", "moed=plain"], ["'moed'", "'mode'"]),
        (["--sweep", "copies=1", "--set", "cfg_norm.draws=1"], ["cfg_norm"]),
        (["--sweep", "copies=1", "--seeds", "0,x"], ["--seeds", "'0,x'"]),
        (["--sweep", "copies=1", "--seeds", "1,1"], ["--seeds", "different"]),
        (["--sweep", "copies=1", "--model", "x", "--control"], ["--control", "--model"]),
        (["--sweep", "copies=1", "--detector", "copir"], ["'copir'", "'copier'"]),
        (["--sweep", "copies=1", "--task", "sd_webstr"], ["'sd_webstr'", "'sd_webster'"]),
        (["--sweep", "copies=1", "--profile", "mimi", "--quiet"], ["'mimi'", "'mini'"]),
        (
            ["--sweep", "copies=1,2", "--limit", "0", "--quiet"],
            ["all 2 points were refused", "--limit 0"],
        ),
        (["--sweep", "copies=9", "--quiet"], ["no cluster survives; copy fewer"]),
    ],
    ids=lambda value: " ".join(value)[-50:] if isinstance(value, list) else None,
)
def test_each_mistake_is_one_line_and_nothing_is_written(
    capsys, tmp_path, more: list[str], words: list[str]
) -> None:
    assert main(command(tmp_path, *more)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("membench: ") and err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert not list(tmp_path.rglob("*.parquet")) and not (tmp_path / "made").exists()


# --------------------------------------------------------------------------- whole runs


def test_a_row_a_point_seed_metric_and_band_as_the_runs_have_them(swept) -> None:
    frame = pd.read_parquet(swept / "made" / "grid.parquet")
    assert list(frame.columns) == ["copies", "option_threshold", *COLUMNS]
    assert (
        frame.copies.dtype == "int64"
        and frame.option_threshold.dtype == "float64"
        and frame.control.dtype == bool
    )
    good = frame[frame.status == "partial"]
    found = set(zip(good.copies, good.option_threshold, good.seed, strict=True))
    assert found == set(itertools.product((0, 4), (0.5, 1.0), (0, 1)))
    assert good.run.nunique() == 8 and not good.control.any() and good.error.isna().all()
    for path, rows in good.groupby("run"):
        run = load(Path(path))
        assert (
            run.info["options"]["copies"] == rows.copies.iloc[0]
            and run.info["options"]["threshold"] == rows.option_threshold.iloc[0]
        )
        assert run.info["options"]["mode"] == "fancy" and run.info["seed"] == rows.seed.iloc[0]
        assert set(rows.forwards) == {run.info["phases"]["samples"]["forwards"]} == {4} and set(
            rows.seconds
        ) == {run.info["seconds"]}
        shown = "ams|ums|best_p|unique_per_1000|auroc|average_precision|tpr"
        kept = run.metrics[(run.metrics.subset == "all") & run.metrics.metric.str.match(shown)]
        assert {
            "ams",
            "ums_cumulative",
            "best_p95",
            "unique_per_1000_evaluations",
            "auroc",
            "tpr_at_fpr_0.01",
        } <= set(kept.metric)
        columns = ["metric", "band", "threshold", "value", "low", "high", "n"]
        pd.testing.assert_frame_equal(
            rows[columns].reset_index(drop=True),
            kept[columns].reset_index(drop=True),
            check_dtype=False,
        )
    copies = (
        good[(good.metric == "ams_cumulative") & good.band.isna()]
        .groupby(["copies", "seed"])
        .value.mean()
    )
    assert copies.to_dict() == {(0, 0): 0, (0, 1): 0, (4, 0): 1, (4, 1): 0.75}
    about = frame.attrs
    assert (
        about["detector"] == "copier"
        and about["options"] == ["mode=fancy"]
        and about["n_examples"] == 4
    )
    assert (
        about["swept"] == {"copies": "copies", "threshold": "option_threshold"}
        and "seed" not in about
    )


def test_a_refused_point_is_a_row_and_the_others_go_on(swept) -> None:
    frame = pd.read_parquet(swept / "made" / "grid.parquet")
    refused = frame[frame.status == "refused"]
    assert len(refused) == 4 and set(refused.copies) == {9} == set(frame.copies) - {0, 4}
    assert set(refused.error) == {"detector copier: no cluster survives; copy fewer"}
    assert refused[["metric", "value", "n", "forwards", "seconds", "run"]].isna().all(axis=None)


def test_the_same_command_again_computes_nothing_and_writes_the_same_files(
    swept, monkeypatch, capsys
) -> None:
    before = {path.name: path.read_bytes() for path in (swept / "made").iterdir()}
    assert sorted(before) == ["grid.parquet", "grid.pdf", "grid.png", "grid.svg"]
    monkeypatch.setattr(Copier, "extract", lambda *_: pytest.fail("an image was extracted again"))
    assert main(command(swept, *GRID)) == 0
    assert {path.name: path.read_bytes() for path in (swept / "made").iterdir()} == before
    out, err = capsys.readouterr()
    assert (
        "1 of 12: copies=0 threshold=0.5 seed=0\n" in err
        and "12 of 12: copies=9 threshold=1 seed=1\n" in err
    )
    assert str(swept / "made" / "grid.parquet") in err
    rows = {
        tuple(line.split()[:2]): line
        for line in out.splitlines()
        if re.match(r"\d+ +[\d.]+ ", line)
    }
    assert len(rows) == 6 and "87.5 [75.0, 100.0]" in rows["4", "0.5"]
    assert (
        "refused for 2 of 2 seeds: detector copier: no cluster survives" in rows["9", "1.0"]
        and "n/a" in rows["9", "1.0"]
    )


def test_the_pictures_are_not_blank(swept) -> None:
    with Image.open(swept / "made" / "grid.png") as png:
        pixels = np.asarray(png.convert("RGB")).astype(int)
    assert pixels.std() > 10
    left, right = np.array_split(pixels, 2, axis=1)
    for half in (left, right):  # both series, in their colours
        for name in ("c0", "c1"):
            colour = list(bytes.fromhex(INKS[name][0][1:]))
            assert (np.abs(half - colour).max(axis=2) < 8).sum() > 200
    svg = (swept / "made" / "grid.svg").read_text()
    for words in (
        "AMS (% of the generated images)",
        "per 100 generated images",
        "copies: how many images",
        "copier on sd_webster",
        "refused",
    ):
        assert words in svg
    assert (
        "PARTIAL: 4 of 1608 examples" in svg and "threshold=0.5: copies (normalised-l2 ≤ 1)" in svg
    )


def test_random_sampling_end_to_end_on_both_models(tmp_path, monkeypatch, capsys) -> None:
    """The default name of the files; extraction alone; guidance 1 costs one evaluation
    a step, 3 costs two.
    """
    monkeypatch.chdir(tmp_path)
    words = (
        "ablate --detector random --task sd_webster --sweep guidance=1,3 --set draws=2 --limit 4"
        " --control --extract-only --quiet"
    )
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and out.count("control") == 2
    frame = pd.read_parquet("results/ablations/sd_webster-random-guidance.parquet")
    copies = frame[(frame.metric == "ams_cumulative") & frame.band.isna()].set_index(
        ["guidance", "control"]
    )
    assert copies.forwards.to_dict() == {
        (1.0, False): 80,
        (1.0, True): 80,
        (3.0, False): 160,
        (3.0, True): 160,
    }
    assert copies.value[1.0, False] > 0 and copies.value[3.0, True] == 0
    assert "auroc" not in set(frame.metric) and set(frame.n.dropna()) == {8}
    assert frame.groupby("control").run.nunique().to_dict() == {False: 2, True: 2}


# ------------------------------------------------------- faults and plots, without runs


def fake_run(spec: Spec, value: float) -> Run:
    rows = [("ams", b.name, None, value / 3) for b in SPACE.bands] + [
        ("ums", b.name, None, value / 4) for b in SPACE.bands
    ]
    rows += [("ams_cumulative", None, 1.0, value), ("ums_cumulative", None, 1.0, value / 2)]
    metrics = pd.DataFrame(rows, columns=["metric", "band", "threshold", "value"]).assign(
        low=value / 2, high=value * 1.5, n=10, subset="all"
    )
    space = {
        "id": SPACE.id,
        "higher_is_closer": False,
        "copy": 1.0,
        "bands": [vars(band) for band in SPACE.bands],
    }
    info = {
        "phases": {
            "prepare": {"forwards": 5},
            "samples": {"forwards": 7},
            "scores": {"forwards": 100},
        }
    }
    info |= {
        "seconds": 1.0,
        "status": "complete",
        "space": space,
        "n_examples": 9,
        "n_task_examples": 9,
    }
    empty = pd.DataFrame()
    return Run(Path("a") / json.dumps(spec.options), info, empty, empty, empty, metrics)


def made(
    monkeypatch, *sweeps: str, seeds: tuple[int, ...] = (0,), controls: tuple[bool, ...] = (False,)
) -> pd.DataFrame:
    def execute(spec: Spec, out: Path, *, progress: bool) -> Run:
        if "copies=9" in spec.options:
            raise UserError("too many")
        return fake_run(spec, (0.01 if spec.control else 0.2) + 0.1 * spec.seed)

    monkeypatch.setattr(sweep, "execute", execute)
    monkeypatch.setattr(sweep, "execute_all", lambda *args, **kwargs: [])
    return sweep.sweep(
        spec(), grid(Copier, spec(), sweeps), seeds, controls, Path("x"), progress=False
    )


def test_forwards_are_those_of_preparation_and_images(monkeypatch) -> None:
    assert set(made(monkeypatch, "copies=1,2").forwards) == {12}


@pytest.mark.parametrize(
    "error", [UserError("cannot write in x: disk full"), DamagedFile("scores.parquet is damaged")]
)
def test_a_fault_of_the_disk_ends_the_sweep(monkeypatch, error: UserError) -> None:
    calls = []

    def execute(*args, **kwargs):
        calls.append(args)
        raise error from OSError(28, "disk full")

    monkeypatch.setattr(sweep, "execute", execute)
    monkeypatch.setattr(sweep, "execute_all", lambda *args, **kwargs: [])
    with pytest.raises(UserError, match=str(error)):
        sweep.sweep(
            spec(), grid(Copier, spec(), ["copies=1,2"]), [0], [False], Path("x"), progress=False
        )
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("values", "scale", "labels"),
    [
        ("threshold=0,1,2,5,10", "linear", ["0", "1", "2", "5", "10"]),
        ("threshold=0,1,2,5,20", "symlog", ["0", "1", "2", "5", "20"]),
        ("copies=1,30,400", "log", ["1", "30", "400"]),
        ("threshold=0.001,0.0011,0.0012,1", "log", ["0.001", "", "", "1"]),
        ("copies=5", "linear", ["5"]),
        ("mode=plain,fancy", "linear", ["plain", "fancy"]),
        ("most=none,3", "linear", ["None", "3"]),
        ("layers=1;2,3", "linear", ["(1,)", "(2, 3)"]),
    ],
)
def test_the_axis_fits_the_values(monkeypatch, values: str, scale: str, labels: list[str]) -> None:
    frame = made(monkeypatch, values)
    made_plots = plots(frame, {})
    for axes in figure(made_plots).axes:
        assert axes.get_xscale() == scale
        assert [label.get_text() for label in axes.get_xticklabels()] == labels
        low, high = axes.get_xlim()
        assert low < min(axes.get_xticks()) and max(axes.get_xticks()) < high
        assert axes.get_xlabel() == values.split("=")[0]
    for plot in made_plots:  # the data's own idea of where ticks lie is matplotlib's
        [axes] = figure([plot]).axes
        places = axes.get_xticks()
        drawn = axes.transAxes.inverted().transform(
            axes.transData.transform([(x, 0) for x in places])
        )[:, 0]
        assert plot.x.share(places) == pytest.approx(drawn)
    assert draw(made_plots, "png").startswith(b"\x89PNG")


def lines(plot: Plot) -> dict[int, tuple[list[float], list[float], list[float]]]:
    """Heights of each line with whiskers, and of the whiskers' ends, by style."""
    return {
        line.style: tuple(
            np.asarray(h, dtype=float).round(6).tolist() for h in (line.y, line.low, line.high)
        )
        for line in plot.lines
        if line.whiskers
    }


def test_one_seed_is_drawn_with_its_interval_and_the_control_in_grey(monkeypatch) -> None:
    ams, ums = map(lines, plots(made(monkeypatch, "copies=1,2", controls=(False, True)), {}))
    assert ams == {UNLABELLED: ([1, 1], [0.5, 0.5], [1.5, 1.5]), 0: ([20, 20], [10, 10], [30, 30])}
    assert ums[0] == ([10, 10], [10, 10], [30, 30])


def test_bands_are_thin_lines_below_the_copies(monkeypatch) -> None:
    ams, _ = plots(made(monkeypatch, "copies=1,2"), {})
    *bands, copies = ams.lines
    assert [line.name.split(" [")[0] for line in bands] == [
        f"band {band.name}" for band in SPACE.bands
    ]
    assert len({line.style for line in ams.lines}) == len(ams.lines) and all(
        line.width < copies.width for line in bands
    )
    assert all(
        line.y.tolist() == pytest.approx([100 * 0.2 / 3] * 2) and not line.whiskers
        for line in bands
    )


def test_several_seeds_are_drawn_as_their_mean_from_least_to_greatest(monkeypatch) -> None:
    frame = made(monkeypatch, "copies=1,2", "mode=plain,fancy", seeds=(0, 1))
    ams, _ = plots(frame, {"copies": "how many"})
    assert lines(ams) == {style: ([25, 25], [20, 20], [30, 30]) for style in (0, 1)}
    assert ams.x.label == "copies: how many"
    assert len({line.aside for line in ams.lines if line.whiskers}) == 2  # side by side
    assert "mean of seeds 0, 1" in title(frame)
    assert list(summary(frame)["AMS copies %"]) == ["25.0 [20.0, 30.0]"] * 4
    assert note(frame) == ("means of seeds 0, 1; brackets: least and greatest of them, no interval")
    assert note(frame[frame.seed == 1]) == "seed 1; brackets: 95 % intervals over groups"


def test_refused_points_are_marked_on_the_axis(monkeypatch) -> None:
    made_plots = plots(made(monkeypatch, "copies=1,9", controls=(False, True)), {})
    for plot in made_plots:
        crosses = [line for line in plot.lines if line.marker == CROSS]
        assert [line.x.tolist() for line in crosses] == [[9], [9]]
        assert [line.y.tolist() for line in crosses] == [[plot.y.low]] * 2 and plot.y.low < 0
    [key] = figure(made_plots).legends
    names = [text.get_text() for text in key.get_texts()]
    assert names.count("refused") == 1 and names.count("copies, control model") == 1


def test_a_detector_without_images_still_has_a_table_and_a_plot(monkeypatch) -> None:
    def execute(spec: Spec, out: Path, *, progress: bool) -> Run:
        run = fake_run(spec, 0.5)
        return Run(run.path, run.info, run.scores, run.samples, run.matches, run.metrics[:0])

    monkeypatch.setattr(sweep, "execute", execute)
    monkeypatch.setattr(sweep, "execute_all", lambda *args, **kwargs: [])
    frame = sweep.sweep(
        spec(), grid(Copier, spec(), ["copies=1,2"]), [0], [False], Path("x"), progress=False
    )
    assert list(frame.status) == ["complete"] * 2 and frame.value.isna().all()
    assert list(summary(frame)["AMS copies %"]) == ["n/a", "n/a"]
    assert math.isnan(spread(frame, False)[0])
    assert "no values" in [text.get_text() for text in figure(plots(frame, {})).axes[0].texts]
