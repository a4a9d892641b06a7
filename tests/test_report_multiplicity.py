"""The plot of the extracted share against multiplicity: both series, one, or none; and
the report that is written again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, corners, draw_once
from pixel_task import PixelTask
from test_report import DISTANCE, NEAREST, has_nan, make_run, sure

from membench import api
from membench.errors import UserError
from membench.metrics.table import run_metrics
from membench.registry import tasks
from membench.reports import run_page
from membench.reports.multiplicity import (
    Series,
    extracted,
    kind_label,
    multiplicity,
    share_plot,
    siblings,
)
from membench.reports.plots import NEGATIVE, POSITIVE, Line, Plot
from membench.reports.run_page import write_report
from membench.reports.text import interval
from membench.runs.finished import Run, load
from membench.runs.folder import RunFolder
from membench.runs.images import Samples
from membench.storage.hashing import content_key
from membench.storage.tables import SCHEMAS, read_table

# Of the 30 images of test_report
KINDS = tuple(np.repeat(["x16", "near", "x1", "x64", "x4"], 6).tolist())
TITLE = "Extracted share by multiplicity"


@pytest.fixture(scope="module", autouse=True)
def plots_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_once(patch)
        yield


def finished(
    root: Path,
    *,
    control: bool = False,
    kinds: tuple[str, ...] = KINDS,
    copied: int = 12,
    weights: str = "",
    n: int = 40,
    **changes,
) -> Run:
    """A stored run of n images of which the first ``copied`` copy one training image
    each: 0, 1, 2 ...
    """
    plain = make_run(root, n)
    # Rank 0 is the second half
    near = np.where(np.arange(2 * n) % n < copied, 0.5, 1.2).astype(np.float32)
    matches = plain.matches.assign(
        similarity=np.where(plain.matches["rank"] == 0, near, np.float32(1.4))
    )
    good = plain.samples[plain.samples.status == "ok"]
    metrics = run_metrics(
        plain.scores, good, matches, DISTANCE, evaluations=10, training_kinds=kinds, resamples=10
    )
    hashes = plain.info["hashes"] | {"weights": weights or ("c" if control else "w") * 64}
    info = plain.info | {"control": control, "hashes": hashes, "preset": None} | changes
    parts = plain.info["key_parts"] | {
        "control": control,
        "hashes": hashes,
        "seed": info["seed"],
        "options": info["options"],
    }
    info = {name: value for name, value in info.items() if name not in ("key", "key_parts")}
    # Columns that a test of the report has no need of are null.
    scores = plain.scores.reindex(columns=SCHEMAS["scores"].names)
    samples = read_table(root / "samples.parquet", "samples")
    with RunFolder.open(root, "a_task", "mini", "a_detector", content_key(parts), parts) as folder:
        folder.finish(
            {
                "scores": scores,
                "matches": matches,
                "metrics": metrics,
                "nearest": NEAREST,
            },
            Samples.of([samples]),
            info,
        )
        return load(folder.path)


def html_of(run: Run) -> str:
    return run_page.write_report(run).read_text(encoding="utf-8")


def markers(plot: Plot) -> list[Line]:
    return [line for line in plot.lines if line.name]


def test_both_series(tmp_path) -> None:
    model, control = finished(tmp_path), finished(tmp_path, control=True, copied=2)
    for run in (model, control):
        [plot], [table] = multiplicity(run, "distance ≤ 1")
        assert [text for _, text in plot.x.ticks()] == [
            "shown\n1x",
            "shown\n4x",
            "shown\n16x",
            "shown\n64x",
            "near-\nduplicates",
        ]
        assert [text for _, text in plot.y.ticks()] == ["0", "20", "40", "60", "80", "100"]
        model_line, control_line = markers(plot)
        assert (model_line.name, control_line.name) == ("model, 40 images", "control, 40 images")
        assert (model_line.style, model_line.marker, model_line.hollow) == (POSITIVE, "o", False)
        assert (control_line.style, control_line.marker, control_line.hollow) == (
            NEGATIVE,
            "s",
            True,
        )
        # The first 12 images are all of x16 and near; 10 more images copy nothing.
        assert model_line.y == pytest.approx(
            [0, 0, 100, 0, 100]
        ) and control_line.y == pytest.approx([0, 0, 200 / 6, 0, 0])
        assert (
            model_line.x.tolist()
            == control_line.x.tolist()
            == [0, 1, 2, 3, 4]
            == [x for x, _ in plot.x.ticks()]
        )
        drawn = Drawn(plot)
        m, c = (
            np.concatenate([at for at in drawn.inner("fill", name) if len(at) == 1])
            for name in ("c1", "bg")
        )
        m, c = m[-5:], c[-5:]  # after the whiskers' ends
        assert m[:, 1] == pytest.approx(model_line.y / 100, abs=1e-3) and c[:, 1] == pytest.approx(
            control_line.y / 100, abs=1e-3
        )
        middle = plot.x.share(np.arange(5))
        # Beside each other, not on each other
        assert (m[:, 0] < middle - 0.01).all() and (middle + 0.01 < c[:, 0]).all()
        assert plot.note.endswith("an image that copies one often copies the others.")
        assert plot.absent == plot.command == ""
        assert table.header[2:] == ["model %", "control %", "copies, model", "copies, control"]
        row = model.metrics[
            (model.metrics.metric == "extracted_share") & (model.metrics.subset == "kind=x16")
        ].iloc[0]
        assert table.rows[2][:3] == [
            "shown 16x",
            "6",
            interval(1, row.low, row.high, scale=100, digits=1),
        ]
        assert table.rows[2][3].startswith("33.3 [") and table.rows[2][4:] == ["1.000", "0.333"]
        html = html_of(run)
        sure(html)
        assert (
            html.count(f"<h3>{TITLE}</h3>") == 1 and "copies, control" in html and not has_nan(html)
        )
        assert (
            re.search(r">shown</text><text [^>]*>64x</text>", html)
            and "model, 40 images</text>" in html
        )
        assert (
            html.index(f"<h3>{TITLE}</h3>")
            < html.index("<h3>Extracted share in numbers</h3>")
            < html.index("<h2>Gallery")
        )


def test_intervals_stand_where_their_numbers_are_and_lines_join_multiplicities_alone(
    tmp_path,
) -> None:
    run = finished(tmp_path, copied=9)  # all 6 of x16, 3 of 6 of near
    [plot], _ = multiplicity(run, "")
    trend, spots = plot.lines
    shares = extracted(run.metrics)
    assert (
        spots.low == pytest.approx(100 * shares.low)
        and spots.high == pytest.approx(100 * shares.high)
        and spots.whiskers
    )
    assert spots.y == pytest.approx([0, 0, 100, 0, 50]) and not spots.joined
    # Not near
    assert (
        trend.x.tolist() == [0, 1, 2, 3]
        and trend.y.tolist() == spots.y[:4].tolist()
        and not trend.name
    )
    drawn = Drawn(plot)
    paths = drawn.inner("stroke", "c1")
    bars = [at for at in paths if len(at) == 2]
    for bar, row in zip(bars, shares.itertuples(), strict=True):
        assert sorted(bar[:, 1]) == pytest.approx([row.low, row.high], abs=1e-3)
    [joined] = [at for at in paths if len(at) > 2]
    expected = np.stack([plot.x.share(trend.x), trend.y / 100], 1)
    assert joined == pytest.approx(expected, abs=1e-3) and spots.aside == 0
    numbers = np.concatenate([corners(node) for node in drawn.root.iter("path")])
    assert numbers.min() >= 0 and numbers[:, 0].max() <= drawn.width


def test_one_series_says_what_adds_the_other(tmp_path) -> None:
    run = finished(tmp_path)
    [plot], [table] = multiplicity(run, "")
    command = "membench run --detector a_detector --task a_task --set steps=5 --seeds 7"
    assert [line.name for line in markers(plot)] == ["model, 40 images"] and table.header[2:] == [
        "model %",
        "copies, model",
    ]
    assert plot.command == f"{command} --control" and plot.absent.startswith(
        "Without the control model: no finished run"
    )
    [shown] = re.findall(r"<code>(.*?)</code>", html_of(run))
    assert re.sub("<[^>]*>", "", shown).strip() == f"{command} --control"
    control = finished(tmp_path / "other", control=True)
    [plot], _ = multiplicity(control, "")
    assert [line.name for line in markers(plot)] == ["control, 40 images"]
    assert plot.command == command and "Without the model:" in plot.absent


def test_only_the_same_settings_on_the_other_model_are_a_sibling(tmp_path) -> None:
    run = finished(tmp_path)
    for changes in (
        {"seed": 8},
        {"options": {"steps": 6, "threshold": 0.1}},
        {"control": False, "weights": "z" * 64},
    ):
        finished(tmp_path, **({"control": True} | changes))
    assert siblings(run.path, run.info) == []
    control = finished(tmp_path, control=True)
    assert siblings(run.path, run.info) == [control.path] and run.path in siblings(
        control.path, control.info
    )
    running = control.path / "run.json"
    text = running.read_text()
    running.write_text(text.replace('"status": "complete"', '"status": "running"'))
    assert siblings(run.path, run.info) == []
    running.write_text("{")
    assert siblings(run.path, run.info) == []
    running.write_text(text)
    second = finished(tmp_path, control=True, weights="d" * 64)
    assert siblings(run.path, run.info) == sorted([control.path, second.path])
    [plot], _ = multiplicity(run, "")
    assert "2 runs of these settings on different ones" in plot.absent and not plot.command
    assert [line.name for line in markers(plot)] == ["model, 40 images"]


def test_a_sibling_without_shares_or_damaged_is_told(tmp_path) -> None:
    run, control = finished(tmp_path), finished(tmp_path, control=True, kinds=())
    [plot], _ = multiplicity(run, "")
    assert (
        f"its run {control.path.name} has no such numbers" in plot.absent
        and plot.command.endswith(" --control")
    )
    assert len(markers(plot)) == 1
    (control.path / "metrics.parquet").write_bytes(b"PAR1")
    [plot], _ = multiplicity(run, "")
    assert "cannot be read" in plot.absent


def test_absent_with_one_kind_without_images_or_beyond_the_floor(tmp_path) -> None:
    one = finished(tmp_path, kinds=("x1",) * 30)
    assert multiplicity(one, "") == ([], []) and TITLE not in html_of(one)
    old = make_run(tmp_path / "old", 30)
    assert multiplicity(old, "") == ([], []) and TITLE not in html_of(
        dataclasses.replace(old, path=one.path)
    )
    none = finished(tmp_path / "none")
    gone = none.metrics.assign(
        value=none.metrics.value.where(none.metrics.metric != "extracted_share")
    )
    assert multiplicity(dataclasses.replace(none, metrics=gone), "") == ([], [])
    assert extracted(none.metrics[:0]).empty


def test_many_kinds_find_room() -> None:
    kinds = [f"x{2**i}" for i in range(20)] + ["near"]
    shares = pd.DataFrame(
        {"kind": kinds, "n": 3, "value": 0.5, "low": 0.2, "high": 0.8, "copies": 1.0}
    )
    plot = share_plot([Series(False, shares, 9), Series(True, shares, 9)])
    labels = [text for _, text in plot.x.ticks() if text]
    assert (
        len(plot.x.ticks()) == 21
        and labels == ["1x", "8x", "64x", "512x", "4096x", "32768x", "262144x"]
        and plot.x.label == "times shown in training"
    )
    assert [kind_label(k) for k in ("near", "x4", "a long kind's name")] == [
        "near-duplicates",
        "shown 4x",
        "a long kind's name",
    ]
    assert [
        text
        for _, text in share_plot(
            [Series(False, shares.replace("x1", "a long kind's name")[:1], 9)]
        ).x.ticks()
    ] == ["a long kin"]


# --------------------------------------------------------------------------- whole runs


class Planted(PixelTask):
    """The five training images are of three kinds."""

    info = dataclasses.replace(PixelTask.info, name="planted_pixels")

    def load(self, profile: str, **settings):
        control = settings["control"]
        loaded = super().load(profile, **settings)
        hashes = dict(loaded.hashes) | {"weights": "c" if control else "w"}
        training = dataclasses.replace(loaded.training, kinds=("x1", "x1", "x4", "near", "near"))
        return dataclasses.replace(loaded, info=self.info, training=training, hashes=hashes)


def planted_run(out: Path, control: bool) -> Run:
    tasks().add("planted_pixels", "test_report_multiplicity:Planted", "tests")
    return api.run(
        "flipd",
        "planted_pixels",
        options=["probes=1"],
        limit=4,
        control=control,
        out=out,
        progress=False,
    )


def test_the_second_run_writes_the_report_of_the_first_again(tmp_path, capsys, monkeypatch) -> None:
    first = planted_run(tmp_path, control=False)
    page = first.path / "report.html"
    shares = first.metrics[first.metrics.metric == "extracted_share"]
    assert shares.subset.tolist() == ["kind=x1", "kind=x4", "kind=near"] and shares.n.tolist() == [
        2,
        1,
        2,
    ]
    assert "control, 4 images" not in page.read_text() and "<code>" in page.read_text()
    second = planted_run(tmp_path, control=True)
    for run in (first, second):
        html = (run.path / "report.html").read_text()
        assert "model, 4 images" in html and "control, 4 images" in html and "<code>" not in html
    page.unlink()  # whoever deleted a report does not get it back by another run
    (second.path / "report.html").unlink()
    planted_run(tmp_path, control=True)
    assert (second.path / "report.html").is_file() and not page.exists()
    planted_run(tmp_path, control=False)
    (second.path / "report.html").unlink()
    before = page.read_text()

    write = write_report

    def refused(run: Run) -> Path:
        if run.path == first.path:
            raise UserError("cannot write")
        return write(run)

    monkeypatch.setattr(api, "write_report", refused)
    capsys.readouterr()
    assert planted_run(tmp_path, control=True).path == second.path
    assert "report.html still lacks this run's series: cannot write" in capsys.readouterr().err
    assert (second.path / "report.html").is_file() and page.read_text() == before
