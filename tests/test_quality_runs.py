"""``run --quality`` and ``leaderboard --by attack --quality``: which images are
compared, where figures are kept, and what is refused.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make
from pixel_task import PixelTask

from membench import registry
from membench.boards.board import board, read
from membench.boards.saved import write
from membench.cli.main import main
from membench.errors import UserError
from membench.features.loading import load_features
from membench.metrics.quality import frechet_distance, kid
from membench.models.internals import bottleneck
from membench.runs.execute import execute_all
from membench.runs.finished import Run, load
from membench.runs.quality import Asked, measure
from membench.runs.quality_file import FILE, read_quality
from membench.runs.spec import Spec
from membench.storage.images import png_image
from membench.storage.pixels import Rows
from membench.storage.tables import write_table
from membench.task import LoadedTask
from membench.types import Training

PIXELS = "pixels-area32"


def noise(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


class Known(PixelTask):
    """With 9 training images, and as many held-out ones as are asked for."""

    info = replace(PixelTask.info, name="known")

    def load(self, profile: str, **given: Any) -> LoadedTask:
        images = noise(1, 9)
        return replace(
            super().load(profile, **given),
            training=Training(lambda: images, [str(i) for i in range(9)], [1] * 9),
            held_out=lambda n: noise(2, n),
        )


class Unknown(Known):
    info = replace(PixelTask.info, name="unknown")

    def load(self, profile: str, **given: Any) -> LoadedTask:
        return replace(super().load(profile, **given), training=Training.none())


def spec(task: type = Known, n: int = 12) -> Spec:
    name = registry.tasks().of(task)
    return Spec(
        "random",
        name,
        options=("extraction=unconditional", f"generations={n}"),
        extract_only=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Finished without figures, then asked for them by the same spec."""
    out = tmp_path_factory.mktemp("quality")
    [first] = execute_all([spec()], out, progress=False).runs
    assert not (first.path / FILE).exists() and read_quality(first).empty
    before = {p.name: p.read_bytes() for p in first.path.iterdir() if p.is_file()}
    [run] = execute_all([spec()], out, progress=False, quality=["pixels"]).runs
    after = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
    assert after.pop(FILE) and after == before
    return run


def value(run: Run, metric: str) -> float:
    frame = read_quality(run).set_index("metric")
    return float(frame.value[metric])


def test_figures_are_of_the_stored_images_against_training_and_held_out_ones(run: Run) -> None:
    images = np.stack([png_image(x) for x in run.images(run.samples.sample_id).values()])
    made, seen, unseen = (load_features("pixels")(x) for x in (images, noise(1, 9), noise(2, 9)))
    shrunk = frechet_distance(made.astype(float), unseen.astype(float), shrunk=True)
    assert value(run, f"fd_shrunk_held_out@{PIXELS}") == pytest.approx(shrunk)
    frame = read_quality(run).set_index("metric")
    row = frame.loc[f"kid_training@{PIXELS}"]
    assert (row.value, row.error) == pytest.approx(kid(made.astype(float), seen.astype(float)))
    assert (row.n, row.reference) == (12, 9)
    assert not (np.isclose(seen[0], unseen[0])).all()


def test_other_features_are_added_and_the_first_stay(run: Run) -> None:
    before = read_quality(run)
    execute_all([spec()], run.path.parents[3], progress=False, quality=["pixels", "bottleneck"])
    after = read_quality(run)
    assert after.iloc[: len(before)].equals(before) and len(after) == 2 * len(before)
    name = "bottleneck-w"
    assert {m.partition("@")[2] for m in after.metric[len(before) :]} == {name}
    # Noised to a tenth of the schedule, the same noise for the same place
    model = Known().load("mini").model()
    x0 = model.encode(noise(1, 9))
    z = model.noise([(f"quality/{i}", 0) for i in range(9)], 0)
    import torch

    t = model.steps // 10
    seen = bottleneck(model, model.noised(x0, z, torch.full((9,), t)), t).numpy().astype(float)
    images = np.stack([png_image(x) for x in run.images(run.samples.sample_id).values()])
    x0, z = model.encode(images), model.noise([(f"quality/{i}", 0) for i in range(12)], 0)
    made = bottleneck(model, model.noised(x0, z, torch.full((12,), t)), t).numpy().astype(float)
    assert value(run, f"kid_training@{name}") == pytest.approx(kid(made, seen)[0], rel=1e-4)


def test_what_cannot_be_compared_is_refused_or_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(task: type = Known, n: int = 12, *names: str) -> list[Run]:
        return execute_all([spec(task, n)], tmp_path, progress=False, quality=list(names)).runs

    with pytest.raises(UserError, match="none are known of this model"):
        ask(Unknown, 12, "pixels")
    with pytest.raises(UserError, match="clip needs"):
        ask(Known, 12, "clip")
    with pytest.raises(UserError, match="bottleneck is of the task's own model"):
        ask(Known, 12, "bottleneck:x")
    assert not list(tmp_path.iterdir())  # before any work
    with pytest.raises(UserError, match="at least 7 images of each set; extract more images"):
        ask(Known, 6, "pixels")
    [few] = ask(Known, 6)
    assert len(few.samples) == 6  # nothing is lost
    ask(PixelTask, 12)  # without a word where it is not asked for
    capsys.readouterr()
    with pytest.raises(UserError, match="at least 7"):  # 5 training images
        ask(PixelTask, 12, "pixels")
    assert "no held-out images are known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("pixel", ["unknown features 'pixel'", "pixels"]),
        ("pixels,pixels", ["name each features once"]),
    ],
)
def test_names_are_checked_first(
    asked: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--detector", "random", "--task", "cifar10", "--runs", str(tmp_path)]
    assert main([*command, "--quality", asked]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in words), err


# ------------------------------------------------------------------------------ by hand


def put(run: Run, key: str | None = None, **values: float) -> None:
    """Writes figures of the features ``f``."""
    rows = [
        (f"{name}@f", number, 0.5 if "kid" in name else None) for name, number in values.items()
    ]
    frame = pd.DataFrame(rows, columns=["metric", "value", "error"])
    frame = frame.assign(n=len(run.samples), reference=6)
    write_table(run.path / FILE, frame, "quality", {"run": key or run.info["key"]})


def test_the_board_has_means_over_seeds_and_its_file_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make(tmp_path, COPIED, detector="side", seed=seed) for seed in range(2)]
    runs.append(make(tmp_path, [0, None], detector="random"))
    for run, distance in zip(runs, (1.0, 3.0, 7.0), strict=True):
        put(run, fd_training=distance, fd_held_out=9.0, kid_held_out=0.25, c_t=-distance)
    frame = board(runs, "attack", quality=True).frame.set_index("detector")
    assert frame["fd_training@f"].to_dict() == {"side": 2.0, "random": 7.0}
    assert frame["kid_held_out_error@f"].to_dict() == {"side": 0.5, "random": 0.5}
    assert "fd_training@f" not in board(runs, "attack").frame
    mirror = make(tmp_path, COPIED, detector="side", control=True)
    put(mirror, fd_training=5.0, c_t=-0.5)
    frame = board([*runs, mirror], "attack", quality=True).frame.set_index("detector")
    assert frame["control_fd_training@f"].dropna().to_dict() == {"side": 5.0}
    assert frame["fd_training@f"].to_dict() == {"side": 2.0, "random": 7.0}
    runs.append(mirror)
    shown = ["leaderboard", "--by", "attack", "--format", "md", "--quality", "--runs"]
    assert main([*shown, str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "| side | training | 2.00 | n/a ± n/a |" in text
    assert "| side | held-out | 9.00 | 0.2500 ± 0.5000 |" in text
    assert "| n/a / n/a | -2.0 / -0.5 |" in text and "| n/a / n/a | -7.0 / n/a |" in text
    file = tmp_path / "attacks.parquet"
    write(board(runs, "attack", quality=True).frame, "attack", file)
    assert "fd_training@f" in read(file, "attack").frame
    assert main([*shown, str(file)]) == 0 and capsys.readouterr().out == text


def test_shrunk_distances_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(make(tmp_path, COPIED, detector="side"), fd_shrunk_training=4.0)
    put(make(tmp_path, [0, None], detector="random"), fd_training=5.0)
    assert main(["leaderboard", "--by", "attack", "--quality", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "4.00*" in out and "5.00 " in out and "*: of shrunk covariances" in out


def test_a_board_without_figures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = make(tmp_path, COPIED), tmp_path / "attacks.parquet"
    asked = ["leaderboard", "--quality", "--runs", str(tmp_path)]
    assert main([*asked, "--by", "attack"]) == 2
    assert "the same commands with --quality pixels" in capsys.readouterr().err
    assert main([*asked, "--by", "seeds"]) == 2
    assert "add --by attack" in capsys.readouterr().err
    write(board([run], "attack").frame, "attack", file)
    assert main(["leaderboard", "--by", "attack", "--quality", "--runs", str(file)]) == 2
    assert f"{file} holds no figures of quality" in capsys.readouterr().err


def test_a_file_of_another_run_or_an_edited_one_is_refused(tmp_path: Path) -> None:
    run = load(make(tmp_path, COPIED).path)
    put(run, key="0" * 16, fd_training=1.0)
    with pytest.raises(UserError, match="a table of another run"):
        read_quality(run)
    for change, word in (
        ({"fd_training": -1.0}, "fd_training out of its range"),
        ({"precision_training": 1.5}, "precision_training out of its range"),
        ({"auroc": 0.5}, "no metric of quality"),
        ({"c_t": float("inf")}, "c_t out of its range"),
    ):
        put(run, **change)
        with pytest.raises(UserError, match=word):
            read_quality(run)
    (run.path / FILE).unlink()
    os.symlink(tmp_path / "elsewhere", run.path / FILE)
    with pytest.raises(UserError, match="is a link"):
        read_quality(run)


def test_training_images_are_a_sample_where_fewer_are_held_out(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / run.path.name
    shutil.copytree(run.path, copy)
    ramp = np.repeat(np.arange(30, dtype=np.uint8), 8 * 8 * 3).reshape(30, 8, 8, 3)
    task = replace(
        Known().load("mini"),
        training=Training(lambda: ramp, [str(i) for i in range(30)], [1] * 30),
        held_out=lambda n: noise(2, n)[:10],
    )
    seen: list[np.ndarray] = []

    def extract(images: Rows) -> np.ndarray:
        seen.append(images[:])
        return seen[-1].reshape(len(images), -1)[:, :5].astype(float)

    measure(load(copy), task, [Asked("f", extract)])
    _, training, unseen = seen
    assert len(training) == len(unseen) == 10
    assert training.max() >= 15  # not the first of them
