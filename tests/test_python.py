"""``import membench`` as a notebook uses it: names, measures, results, own classes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import linecache
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make
from conftest import pixel_unet

import membench
from membench import registry
from membench.cli.main import main
from membench.errors import UserError
from membench.metrics import extraction
from membench.metrics.detection import detection_metrics
from membench.models.given import folder_of
from membench.notebook import Result
from membench.options import as_settings
from membench.similarity.l2 import normalised_l2
from membench.similarity.search import MATCH_COLUMNS, matches_frame
from membench.types import Access, Band, Space


def test_import_is_light_and_dir_shows_what_there_is() -> None:
    code = (
        "import sys, membench; assert 'run' in dir(membench);"
        "assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in membench.__all__:
        assert getattr(membench, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        _ = membench.rnu


# ------------------------------------------------------------------------------ measures


def table(pairs: np.ndarray):
    """The stored form of a dense [n, m] of distances."""
    rows, columns = np.divmod(np.arange(pairs.size), pairs.shape[1])
    return matches_frame(rows, columns, pairs.ravel(), higher_is_closer=False)


def test_every_progress_bar_is_a_notebook_s_in_one() -> None:
    """tqdm itself draws text there, a line for each step of two bars at once."""
    root = Path(__file__).resolve().parent.parent
    for folder in ("membench", "detectors", "tasks"):
        for file in (root / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from tqdm import|import tqdm)", text, re.MULTILINE), file


def test_ams_ums_and_rarefaction_are_those_of_a_run() -> None:
    pairs = np.random.default_rng(0).uniform(0, 2, (30, 12)).astype(np.float32)
    space = Space("d", False, (Band("in", 0.1, 0.6),), copy=0.5, floor=5.0, source="test")
    frame = table(pairs)
    assert set(frame) == set(MATCH_COLUMNS)
    band = space.bands[0]
    assert membench.ams(pairs, 0.1, 0.6, higher_is_closer=False) == pytest.approx(
        extraction.ams(frame, 30, space, band)
    )
    assert membench.ums(pairs, 0.1, 0.6) == pytest.approx(extraction.ums(frame, 30, space, band))
    nearest = np.where(pairs.min(axis=1) <= 0.5, pairs.argmin(axis=1), -1)
    sizes = [1, 7, 30]
    found = membench.rarefaction(nearest, sizes)
    assert found == pytest.approx(extraction.rarefaction(frame, 30, space, sizes))
    assert found[-1] == len(set(nearest) - {-1})  # all of them
    assert membench.ams(np.array([[0.9, 0.1], [0.2, 0.3]]), 0.5) == 0.5
    assert membench.ums(np.array([[0.9, 0.6], [0.2, 0.3]]), 0.5) == 1.0  # two images, both of one
    with pytest.raises(ValueError, match="NaN"):
        membench.ums(np.array([[np.nan]]), 0.5)


def test_normalised_l2_is_that_of_a_run() -> None:
    rng = np.random.default_rng(1)
    training = rng.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    generated = np.concatenate([training[3:4], rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)])
    distance, place = membench.normalised_l2(generated, training, n_neighbours=5)
    assert distance[0] == 0 and place[0] == 3
    # By hand: |x^ - x| over half the mean of the five nearest
    every = np.linalg.norm(
        (generated[:, None].astype(float) - training[None]).reshape(3, 9, -1), axis=2
    )
    near = np.sort(every, axis=1)[:, :5]
    assert distance == pytest.approx(near[:, 0] / (0.5 * near.mean(axis=1)), abs=1e-5)
    stored = normalised_l2(generated, training, n_neighbours=5, floor=0.0)
    assert set(stored.generated) == {0, 1, 2}


def test_detection_is_that_of_a_run() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 200)
    scores = labels + rng.normal(size=400)
    groups = np.arange(400) // 4
    auroc, low, high = membench.auroc_by_group(scores, labels, groups)
    rows = {m.name: m.value for m in detection_metrics(scores, labels, groups)}
    assert auroc == rows["auroc"] and low < auroc < high
    wins = (scores[labels == 1][:, None] > scores[labels == 0][None]).mean()
    assert auroc == pytest.approx(wins)
    assert membench.tpr_at_fpr(scores, labels) == rows["tpr_at_fpr_0.01"]
    assert np.isnan(membench.tpr_at_fpr(scores, labels, 0.001))  # 200 negatives cannot show it
    for fpr in (0.0, -0.1, 5.0, float("nan")):  # a share in percent, say
        with pytest.raises(ValueError, match="not a rate above 0 and at most 1"):
            membench.tpr_at_fpr(scores, labels, fpr)
    # Examples of a group are alike: fewer groups, a wider interval
    many = membench.auroc_by_group(scores, labels)
    assert high - low != many[2] - many[1]


# ------------------------------------------------------------------------------- results


def test_a_result_shows_itself(tmp_path: Path) -> None:
    made = make(tmp_path, COPIED, images=True)
    run = membench.load(made.path)
    assert (
        len(repr(run)) < 250 and "random on t (mini, seed 0)" in repr(run) and "AUROC" in repr(run)
    )
    assert "<table" in run._repr_html_() and set(run.table()) >= {"metric", "value", "low", "high"}
    assert run.table().metric.is_unique  # a curve is no row
    roc = run.plot.roc()._repr_svg_()
    assert roc.startswith("<?xml") and "cannot show" in roc  # what the shaded part is
    assert run.plot.scores().save(tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert run.plot.scores().save(tmp_path / "s.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(ValueError, match=r"saved as \.png, \.svg, \.pdf"):
        run.plot.roc().save(tmp_path / "s.bmp")
    best = run.scores.sort_values("score", ascending=False, kind="stable").iloc[0]
    top = run.top(2)._repr_html_()
    assert top.count("<tr>") == 3 and f"{best.score:.4g}" in top and "data:image/png" in top
    assert "data:image/png" in run.gallery(3)._repr_html_()


@pytest.mark.parametrize("none", [None, float("nan")])
def test_an_image_is_called_by_its_id(tmp_path: Path, none: float | None) -> None:
    made = make(tmp_path, COPIED)
    scores = made.scores.assign(prompt=pd.Series([none] * len(made.scores), dtype=object))
    top = Result.of(dataclasses.replace(made, scores=scores)).top(2)._repr_html_()
    best = scores.sort_values("score", ascending=False, kind="stable").iloc[0]
    assert f"<td>{best.id}</td>" in top and "nan" not in top.lower()


def test_one_run_with_two_sets_of_numbers_is_refused(tmp_path: Path) -> None:
    run = membench.load(make(tmp_path, COPIED).path)
    other = dataclasses.replace(run, scores=run.scores.assign(score=run.scores.score[::-1] + 1.0))
    assert len(membench.leaderboard([run, dataclasses.replace(run)]).frame) == 1
    with pytest.raises(UserError, match=r"are one run .* with different numbers .*score of"):
        membench.leaderboard([run, other])


def test_what_a_file_says_cannot_become_a_tag(tmp_path: Path) -> None:
    made = make(tmp_path, COPIED, change=lambda scores: scores.assign(prompt="<script>x</script>"))
    run = membench.load(made.path)
    assert "<script>" not in run.top(3)._repr_html_() + run._repr_html_()


def test_boards_and_reports_of_runs(tmp_path: Path) -> None:
    runs = [membench.load(make(tmp_path / "r", COPIED, seed=s).path) for s in (0, 1)]
    assert len(membench.leaderboard(runs).frame) == len(membench.leaderboard(tmp_path / "r").frame)
    board = membench.leaderboard([*runs, runs[0].path], by="seeds")
    assert board.frame.seeds.tolist() == [2] and "AUROC" in repr(board)
    assert "<table" in board._repr_html_()
    page = membench.report(runs, tmp_path / "report")
    assert page.name == "report.html" and page.is_file()
    [command] = re.findall(r"\n    (membench report .*)\n", page.with_suffix(".md").read_text())
    text = page.read_text()
    page.unlink()
    assert main(shlex.split(command)[1:]) == 0 and page.read_text() == text
    with pytest.raises(UserError, match="no run was given"):
        membench.leaderboard([])


# --------------------------------------------------------------------------- one's own


@dataclass(frozen=True)
class Options:
    sign: int = 1


class CaptionWords:
    """The number of words."""

    Options = Options
    version = 1
    access = Access(model=False)

    def score(self, model, conditions, extracted):
        return [self.options.sign * len(c.prompt.split()) for c in conditions]


class Nothing:
    """Neither a detector nor a task."""


def test_a_class_of_one_s_own_is_run(tmp_path: Path) -> None:
    try:
        run = membench.run(
            CaptionWords,
            "sd_webster",
            options={"sign": -1},
            limit=20,
            out=tmp_path,
            progress=False,
        )
        assert (run.scores.score == -run.scores.prompt.str.split().str.len()).all()
        assert run.info["detector"] == "caption_words" and run.info["options"] == {"sign": -1}
        assert len(run.info["key_parts"]["plugin_code"]["detector"]) == 64
        assert registry.detectors().of(CaptionWords) == "caption_words"  # once more
    finally:
        registry.detectors.cache_clear()
    with pytest.raises(UserError, match="Nothing lacks version, score"):
        membench.run(Nothing, "sd_webster", out=tmp_path)
    with pytest.raises(UserError, match="Nothing lacks info, load"):
        membench.run("cfg_norm", Nothing, out=tmp_path)
    taken = type("Random", (CaptionWords,), {})
    with pytest.raises(UserError, match="'random' already"):
        registry.detectors().of(taken)


def test_a_class_of_a_file_in_another_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = (
        "# -*- coding: latin-1 -*-\r\nfrom membench.detector import Detector\r\n"
        'class Mesure(Detector):\r\n    """R\xe9p\xe8te."""\r\n    version = 1\r\n'
        "    def score(self, model, conditions, extracted):\r\n        return [1.0]\r\n"
    ).encode("latin-1")
    (tmp_path / "of_mine.py").write_bytes(cell)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = registry.detectors()
        mesure = importlib.import_module("of_mine").Mesure
        entry = found.get(found.of(mesure))
        assert entry.ran == hashlib.sha256(cell).hexdigest()  # as of the file as a plug-in
        gone = type("Gone", (mesure,), {"__module__": "no_longer_there"})
        with pytest.raises(UserError, match="source of Gone cannot be read"):
            found.of(gone)
    finally:
        sys.modules.pop("of_mine", None)
        registry.detectors.cache_clear()


def test_a_class_that_was_typed_into_a_cell_has_the_hash_of_the_cell() -> None:
    """As IPython runs a cell: in a module without a file, its text kept in linecache."""

    def typed(cell: str) -> str:
        name = f"<cell {hash(cell)}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), vars(module))
        found = registry.detectors()
        return found.get(found.of(module.Typed)).ran

    module = types.ModuleType("cells")
    cell = (
        "from dataclasses import dataclass\nfrom membench.detector import Detector\n"
        "@dataclass(frozen=True)\nclass Options:\n    pass\n"
        "class Typed(Detector):\n    Options = Options\n    version = 1\n"
        "    def score(self, model, conditions, extracted):\n        return [1.0] * 3\n"
    )
    sys.modules["cells"] = module
    try:
        assert typed(cell) == typed(cell) == hashlib.sha256(cell.encode()).hexdigest()
        assert typed(cell.replace("1.0", "2.0")) != typed(cell)
        bare = type("Typed", (module.Typed,), {"__module__": "cells"})
        with pytest.raises(UserError, match="source of Typed cannot be read"):
            registry.detectors().of(bare)
    finally:
        del sys.modules["cells"]
        registry.detectors.cache_clear()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seed": -1}, "seed=-1: it must be a whole number from 0"),
        ({"seed": 1.5}, "seed=1.5: it must be a whole number from 0"),
        ({"seed": "0"}, "seed=0: it must be a whole number from 0"),
        ({"seed": 2**62}, "it must be a whole number from 0"),
        ({"seed": True}, "seed=True: it must be a whole number from 0"),
        ({"seed": None}, "seed=None: it must be a whole number from 0"),
        ({"limit": 1.5}, "limit=1.5: it must be a whole number from 1"),
        ({"limit": "4"}, "limit=4: it must be a whole number from 1"),
        ({"budget": 0.5}, "budget=0.5: it must be a whole number from 1"),
        ({"batch_size": -1}, "batch_size=-1: it must be a whole number from 0"),
        ({"control": "no"}, "control='no': it must be True or False"),
        ({"dtype": "float64"}, "unknown dtype 'float64'"),
        ({"options": "steps=5"}, "options 'steps=5' is a text"),
        ({"quality": "pixel"}, "unknown features 'pixel'. Did you mean 'pixels'?"),
    ],
)
def test_what_a_run_cannot_be_asked_for(tmp_path: Path, given: dict, told: str) -> None:
    """Before the work: a run with such a seed would be refused by every board."""
    with pytest.raises(UserError) as error:
        membench.run("caption_length", "sd_webster", **{"limit": 4, **given}, out=tmp_path)
    assert told in str(error.value) and not any(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    asked = {"seed": np.int64(3), "limit": np.int32(4)}
    run = membench.run("caption_length", "sd_webster", **asked, out=tmp_path, progress=False)
    assert run.info["seed"] == 3 and len(run.scores) == 4


def test_a_report_where_there_is_a_file(tmp_path: Path) -> None:
    make(tmp_path / "runs", [0, 1])
    (tmp_path / "page").write_text("mine")
    with pytest.raises(UserError, match="page"):
        membench.report(tmp_path / "runs", tmp_path / "page")
    assert (tmp_path / "page").read_text() == "mine"


def test_options_as_values() -> None:
    given = {"steps": 5, "prompt": False, "layers": (1, 2), "limit": None, "name": "x"}
    assert as_settings(given) == ["steps=5", "prompt=false", "layers=1,2", "limit=none", "name=x"]
    assert as_settings({"prompts": Path("a/b.csv")}) == ["prompts=a/b.csv"]
    with pytest.raises(UserError, match="option steps is of type dict"):
        as_settings({"steps": {}})


def test_a_model_in_memory_becomes_a_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path))
    from diffusers import DDPMPipeline, DDPMScheduler

    unet = pixel_unet()
    given = DDPMPipeline(unet, DDPMScheduler())
    folder = folder_of(given)
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert folder_of(given) == folder and len(list((tmp_path / "given").glob("[!.]*"))) == 1
    with __import__("torch").no_grad():
        next(unet.parameters()).add_(1.0)
    assert folder_of(given) != folder  # other weights
    with pytest.raises(UserError, match="model is of class Nothing, which no task reads"):
        folder_of(Nothing())
