"""Whole runs of the mini task, most on a tiny pipeline: resume, batch sizes, failures,
and what the tables hold. Their pages are not written.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_killed import forked
from watch import grey_levels

import membench
from membench import api
from membench.cli.main import main
from membench.errors import UserError
from membench.models.latent import LatentDenoiser
from membench.runs.finished import load
from membench.runs.folder import RunFolder
from membench.runs.stored import read_run
from membench.storage.images import png_image

FAST = ["draws=1", "images=1"]
TABLES = ("scores", "samples", "matches", "metrics")


def quick(out: Path, **changes) -> membench.Run:
    arguments = {"options": FAST, "limit": 12, "out": out, "progress": False} | changes
    return membench.run("cfg_norm", "sd_webster", **arguments)


@pytest.fixture(scope="module", autouse=True)
def no_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "write_pages", lambda runs: None)
        yield


@pytest.fixture(scope="module")
def tiny(tiny_pipeline_folder) -> dict[str, list[str]]:
    return {"task_options": [f"model={tiny_pipeline_folder}"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny) -> membench.Run:
    return quick(tmp_path_factory.mktemp("runs"), **tiny)


def test_the_tables_of_a_run(finished) -> None:
    run = finished
    assert (
        len(run.scores) == 12
        and set(run.scores.status) == {"ok"}
        and run.scores.score.notna().all()
    )
    assert len(run.samples) == 12
    images = run.images(run.samples.sample_id)
    assert run.scores.png_bits.tolist() == [8 * len(images[f"{id_}/0"]) for id_ in run.scores.id]
    assert {"auroc_complexity_matched", "spearman_png_bits"} <= set(run.metrics.metric)
    # The nearest of each image is always there
    assert set(run.matches.sample_id) == set(run.samples.sample_id)
    assert (run.matches[run.matches["rank"] == 0].groupby("sample_id").size() == 1).all()
    assert (run.matches[run.matches["rank"] > 0].similarity <= run.info["space"]["floor"]).all()
    assert png_image(images[run.samples.sample_id[0]]).shape == (64, 64, 3)
    info = json.loads((run.path / "run.json").read_text())
    assert info["status"] == "partial"  # --limit
    assert info["phases"]["scores"]["forwards"] == 12 * 2
    assert info["phases"]["samples"]["decodes"] == 12
    assert {"weights", "data", "prompts"} <= set(info["hashes"])
    assert info["versions"]["torch"] and info["seed"] == 0 and info["options"]["draws"] == 1


def test_the_same_command_again_computes_nothing(finished, tiny, monkeypatch) -> None:
    monkeypatch.setattr(
        LatentDenoiser, "_forward", lambda *_: pytest.fail("the network was called")
    )
    again = quick(finished.path.parents[3], **tiny)
    assert again.path == finished.path
    pd.testing.assert_frame_equal(again.scores, finished.scores)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> membench.Run:
    return quick(tmp_path_factory.mktemp("short"), limit=2)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"options": ["draws=2", "images=1"]}, {"limit": 3}, {"control": True}]
)
def test_what_changes_the_output_changes_the_folder(short, change) -> None:
    assert quick(short.path.parents[3], **{"limit": 2} | change).path != short.path


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batch_size_changes_neither_the_folder_nor_the_ranking(
    finished, tiny, tmp_path, batch_size: int
) -> None:
    """Tolerance: 1e-4 relative on scores, one grey level on images; sums of floats in
    another order, nothing else.
    """
    other = quick(tmp_path, batch_size=batch_size, **tiny)
    assert other.path.name == finished.path.name
    np.testing.assert_allclose(other.scores.score, finished.scores.score, rtol=1e-4)
    assert list(other.scores.sort_values("score").id) == list(
        finished.scores.sort_values("score").id
    )
    assert grey_levels(other, finished) <= 1


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A child made by a fork has none of its parent's threads, and waits for them for
    ever if it is to use them; and sums of floats depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_run_continues_and_ends_with_the_same_numbers(
    tmp_path, tiny_pipeline_folder, one_thread
) -> None:
    """SIGKILL after the first finished shard of 2 + 2; then every column of every table
    is compared, exactly.
    """

    def deadly() -> int:
        """The command line, which dies as its second shard of images, written, is about
        to get its name.
        """
        replace = os.replace

        def until(source, target) -> None:
            if os.path.basename(target) == "samples-00001.parquet":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = until  # in a child
        return main([*words.split(), str(tmp_path / "killed")])

    words = (
        f"run --detector cfg_norm --task sd_webster --limit 66 --quiet --set {FAST[0]} --set"
        f" {FAST[1]} --model {tiny_pipeline_folder} --runs"
    )
    changes = {"limit": 66, "task_options": [f"model={tiny_pipeline_folder}"]}
    assert forked(deadly) == -signal.SIGKILL
    whole = quick(tmp_path / "whole", **changes)
    [folder] = tmp_path.glob("killed/*/*/*/*")
    assert [shard.name for shard in folder.glob("shards/*.parquet")] == ["samples-00000.parquet"]
    assert not (folder / "scores.parquet").exists()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert quick(tmp_path / "killed", **changes).path == folder
    info, killed = read_run(folder)
    _, tables = read_run(whole.path)
    assert folder.name == whole.path.name and not (folder / "shards").exists()
    for name in TABLES:
        pd.testing.assert_frame_equal(killed[name], tables[name], check_exact=True)
    assert load(folder).images(killed["samples"].sample_id) == whole.images(
        tables["samples"].sample_id
    )
    assert info["phases"]["scores"]["forwards"] == whole.info["phases"]["scores"]["forwards"] == 132
    assert (
        info["phases"]["samples"]["forwards"] == whole.info["phases"]["samples"]["forwards"] == 1320
    )


def test_nan_from_the_network_is_a_failed_row_and_the_board_says_so(
    tmp_path, tiny, monkeypatch, capsys
) -> None:
    forward, calls = LatentDenoiser._forward, []

    def broken(self, x, t, condition):
        out = forward(self, x, t, condition)
        if len(x) > 1:  # a loaded model is proved row by row
            calls.append(len(x))
        if len(calls) == 1 and len(x) > 1:
            out[1] = float("nan")  # the conditional half of the first image's first step
        return out

    monkeypatch.setattr(LatentDenoiser, "_forward", broken)
    run = quick(tmp_path, **tiny)
    assert sorted(run.samples.status.map(lambda s: s.split(":")[0])) == ["failed"] + ["ok"] * 11
    assert run.info["failed"] == {"scores": 0, "samples": 1} and run.info["status"] == "partial"
    assert len(set(run.matches.sample_id)) == 11
    assert "1 images failed" in capsys.readouterr().err

    calls.clear()
    only_scores = quick(tmp_path, options=["draws=1", "images=0"], **tiny)
    bad = only_scores.scores[only_scores.scores.status == "failed"]
    assert len(bad) == 1 and bad.score.isna().all() and "NaN" in bad.error.iloc[0]
    assert main(["leaderboard", "--runs", str(tmp_path), "--format", "md"]) == 0
    assert f"11/{run.info['n_task_examples']:,} PARTIAL" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path, tiny_pipeline_folder, monkeypatch, capsys
) -> None:
    import errno

    replace, written = os.replace, []

    def full(source, target):
        if len(written) >= 3:  # run.json and two shards fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(target)
        replace(source, target)

    command = [
        "run",
        "--detector",
        "cfg_norm",
        "--task",
        "sd_webster",
        "--limit",
        "70",
        "--quiet",
        "--set",
        "draws=1",
    ]
    command += ["--set", "images=1", "--runs", str(tmp_path), "--model", str(tiny_pipeline_folder)]
    monkeypatch.setattr(os, "replace", full)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "No space left" in error and error.count("\n") == 1
    [folder] = tmp_path.glob("*/*/*/*")
    kept = sorted(p.name for p in folder.glob("shards/*.parquet"))
    assert len(kept) == 2 and not list(folder.rglob("*.partial"))
    monkeypatch.setattr(os, "replace", replace)
    assert main(command) == 0
    assert (folder / "metrics.parquet").exists()


def test_an_unlabelled_prompts_file_is_extracted_from_and_scored(
    tmp_path, tiny_pipeline_folder
) -> None:
    prompts = tmp_path / "mine.txt"
    prompts.write_text(
        "Orvella Basto teal striped area rug, 5x8\nOrvella Basto red plain tote bag, Large\n"
    )
    told = [f"prompts={prompts}", f"model={tiny_pipeline_folder}"]
    run = quick(tmp_path / "runs", limit=None, task_options=told)
    assert len(run.scores) == 2 and len(run.samples) == 2
    assert set(run.metrics.metric) & {"ams", "ums"} and "auroc" not in set(run.metrics.metric)


def test_a_second_process_is_turned_away(tmp_path, finished) -> None:
    parts = json.loads((finished.path / "run.json").read_text())["key_parts"]
    key = finished.path.name
    with (
        RunFolder.open(tmp_path, "sd_webster", "mini", "cfg_norm", key, parts),
        pytest.raises(UserError, match="another process"),
    ):
        RunFolder.open(tmp_path, "sd_webster", "mini", "cfg_norm", key, parts)


def test_a_detector_that_scores_by_its_images_pays_for_them(tmp_path, tiny) -> None:
    """random: 3 draws of 10 guided steps are 60 evaluations an example, though its
    scoring phase asks the network nothing.
    """
    from membench.boards.collect import collect

    few = {"limit": 4, "out": tmp_path, **tiny}
    membench.run("random", "sd_webster", options=["draws=3"], progress=False, **few)
    quick(**few)
    board = collect(tmp_path).set_index("detector")
    assert board.forwards_per_example.to_dict() == {"random": 60, "cfg_norm": 2}
    assert board.forwards_per_image.to_dict() == {"random": 20, "cfg_norm": 20}
