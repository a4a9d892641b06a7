"""The page of one run: it needs nothing but itself, shows what is there and says what
is not.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from html import escape, unescape
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, corners, draw_once
from frames import names, rows, samples, scores, tables

from membench.errors import UserError
from membench.metrics.complexity import bin_edges
from membench.metrics.table import run_metrics
from membench.reports import plots, run_page
from membench.reports.drawing import inline
from membench.reports.examples import wrong
from membench.reports.page import Section
from membench.reports.run_about import about
from membench.reports.run_page import detection, headline, write_report
from membench.runs import nearest
from membench.runs.finished import Run
from membench.storage.hashing import json_hash
from membench.storage.images import png_bytes, png_image
from membench.storage.tables import SCHEMAS, read_table, write_table
from membench.types import Band, Space

DISTANCE = Space(
    "l2/test",
    False,
    (Band("high", 0.0, 0.7), Band("mid", 0.7, 1.0)),
    copy=1.0,
    floor=1.5,
    source="a paper",
)
SIMILARITY = Space(
    "cosine/test",
    True,
    (Band("mid", 0.4, 0.6), Band("high", 0.6, 1.0)),
    copy=0.5,
    floor=0.3,
    source="a paper",
)
NASTY = (
    "<script src='http://x.example/a.js'>alert(1)</script> & \"a mug\" <img"
    " src=http://x.example/b.png onerror=x()>"
)
TRAINING = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
NEAREST = pd.DataFrame(
    {
        "training_id": [f"t/{i}" for i in range(30)],
        "image": [png_bytes(image) for image in TRAINING],
    }
)


def make_run(
    path: Path,
    n: int = 120,
    *,
    space: Space = DISTANCE,
    images: bool = True,
    scored: bool = True,
    confident: bool = True,
    **changes,
) -> Run:
    """n examples, half of them memorized, an image each; image i lies at distance (or
    similarity) 0.4 + i / 100.
    """
    rng = np.random.default_rng(1)
    ids = [f"{i:04d}" for i in range(n)]
    prompts = [f"{NASTY} {i}" for i in ids]
    label = np.arange(n) % 2
    common = {
        "label": label,
        "kind": np.where(label == 1, "MV", "N"),
        "group": ids,
        "source": np.where(label == 1, "a", "b"),
    }
    scores = pd.DataFrame(
        {
            "id": ids,
            "score": rng.normal(label, 1.0),
            **common,
            "prompt": prompts,
            "status": "ok",
            "error": None,
        }
    )
    scores = scores.assign(png_bits=8.0 * rng.integers(400, 900, n))
    scores = scores if scored else scores[:0]
    picture = [png_bytes(np.full((8, 8, 3), i % 256, np.uint8)) for i in range(n)]
    samples = pd.DataFrame(
        {"sample_id": [f"{i}/0" for i in ids], "condition": ids, "draw": 0, "prompt": prompts}
    )
    samples = samples.assign(
        confidence=np.arange(n, dtype=float) if confident else 0.0, status="ok", image=picture
    )
    samples = samples if images else samples[:0]
    first = pd.DataFrame(
        {
            "sample_id": samples.sample_id,
            "training": np.arange(len(samples), dtype=np.int32) % len(TRAINING),
        }
    )
    near = (0.4 + np.arange(len(samples)) / 100).astype(np.float32)
    first = first.assign(training_id=[f"t/{i}" for i in first.training], similarity=near, rank=0)
    # Must not be shown
    second = first.assign(similarity=np.float32(1.45 if space is DISTANCE else 0.31), rank=1)
    second = second.assign(training=(second.training + 1) % len(TRAINING))
    second = second.assign(training_id=[f"t/{i}" for i in second.training])
    matches = pd.concat([second, first], ignore_index=True)[
        ["sample_id", "training_id", "training", "similarity", "rank"]
    ]
    metrics = run_metrics(scores, samples, matches, space, evaluations=1000, resamples=20)
    if images:
        stored = samples.reindex(columns=SCHEMAS["samples"].names)
        write_table(path / "samples.parquet", stored, "samples")
    return Run(
        path,
        make_info(n, len(samples), space) | changes,
        scores,
        samples.drop(columns="image"),
        matches,
        metrics,
        NEAREST,
    )


def redraw(run: Run, pngs: list[bytes]) -> None:
    """Stores other images of a run of ``make_run``."""
    file = run.path / "samples.parquet"
    write_table(file, read_table(file, "samples").assign(image=pngs), "samples")


def make_info(n: int, n_images: int, space: Space) -> dict:
    hashes = {"data": "d" * 64, "prompts": "p" * 64, "weights": "w" * 64}
    same = {
        "task": "a_task",
        "task_version": 1,
        "profile": "mini",
        "control": False,
        "dtype": "float32",
        "hashes": hashes,
    }
    same |= {
        "detector": "a_detector",
        "seed": 7,
        "options": {"steps": 5, "threshold": 0.1},
        "space": dataclasses.asdict(space),
    }
    return same | {
        "status": "complete",
        "key": "0123456789abcdef",
        "key_parts": (
            same
            | {
                "examples": json_hash([f"{i:04d}" for i in range(n)]),
                "sampling": {"steps": 10},
                "detector_version": 3,
            }
        ),
        "options_passed": ["steps=5"],
        "task_options_passed": [],
        "access": {
            "gradients": True,
            "images": False,
            "training_data": False,
            "labels": False,
            "model": True,
        },
        "n_examples": n,
        "n_task_examples": n,
        "n_images": n_images,
        "failed": {"scores": 0, "samples": 0},
        "truncated_prompts": 0,
        "membench": {"commit": "c" * 40, "dirty": True},
        "versions": {"torch": "2.0"},
        "device": "cpu",
        "batch_size": 64,
        "phases": {
            "scores": {"seconds": 2.5, "forwards": 12345},
            "samples": {"seconds": 1.0, "forwards": 10},
            "matches": {"seconds": 0.1},
        },
        "seconds": 12.3,
        "peak_memory_mb": 100,
        "earlier": [],
    }


@pytest.fixture(scope="module", autouse=True)
def plots_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_once(patch)
        yield


def page(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def gallery(run: Run) -> Section:
    return run_page.gallery(run, nearest.frame_of(run), nearest.stored_nearest(run))


def has_nan(html: str) -> bool:
    return bool(re.search(r"\b(nan|None|NaT)\b", re.sub(r"base64,[^\"]*", "", html)))


def without_script(html: str) -> str:
    """The page without its script, which is the shipped file, and has the hash that the
    page names.
    """
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script == (files("membench.reports") / "templates" / "table.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in unescape(html)
    return html.replace(f"<script>{script}</script>", "")


def sure(html: str) -> None:
    """Nothing is fetched, nothing runs but the page's own script, which is named by its
    hash, and no prompt becomes markup.
    """
    html = without_script(html)
    for value in re.findall(
        r"<[^>]*?\s(?:src|href|srcset|data|action)\s*=\s*[\"']?([^\"'\s>]*)", html
    ):
        assert value.startswith("data:image/png;base64,"), value[:60]
    for word in ("<script", "<link", "<iframe", "<object", "@import", "url(", "onerror=x()>"):
        assert word not in html, word
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_the_page_holds_everything_it_needs(tmp_path) -> None:
    html = page(make_run(tmp_path))
    sure(html)
    assert "a_detector on a_task" in html and "seed 7" in html
    for word in (
        "w" * 64,
        "c" * 40 + ", with uncommitted changes",
        "torch 2.0",
        "12,345",
        "outputs, gradients",
        "l2/test",
    ):
        assert word in html, word
    assert "PARTIAL" not in html and "CONTROL" not in html and not has_nan(html)
    assert re.search(r"<th[^>]*>steps</th><td>5</td><td>5</td>", html) and re.search(
        r"<th[^>]*>threshold</th><td>0.1</td><td>default</td>", html
    )
    assert html.count("<svg") == 4  # ROC, scores, size, rarefaction


def test_prompts_are_escaped(tmp_path) -> None:
    html = page(make_run(tmp_path))
    assert NASTY not in html and "alert(1)</script>" not in html
    assert html.count(escape(NASTY).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) == (
        48 + 16 + 120  # the gallery, false alarms and misses, the table of examples
    )


def shown(html: str) -> list[int]:
    return [int(place) for place in re.findall(r"<b>#(\d+)</b>", html)]


def test_the_gallery_shows_the_nearest_then_near_misses_then_failures(tmp_path) -> None:
    run = make_run(tmp_path)  # 61 copies (0.40 ... 1.00); the most confident are the farthest
    html = page(run)
    assert shown(html) == [*range(1, 25), *range(62, 74), *range(120, 108, -1)]
    assert html.count('class="pair copied"') == 24 + 4 and html.count('class="pair"') == 24
    assert html.index(">Nearest <") < html.index(">Near misses <") < html.index(">Failures <")
    first = gallery(run).galleries[0].pairs[0]
    assert np.array_equal(
        png_image(base64.b64decode(first["generated"])), png_image(run.images(["0000/0"])["0000/0"])
    )
    assert np.array_equal(png_image(base64.b64decode(first["training"])), TRAINING[0])
    assert first["similarity"] == pytest.approx(0.4) and first["kind"] == "N"


def test_without_confidences_failures_are_from_the_middle(tmp_path) -> None:
    html = page(make_run(tmp_path, confident=False))
    assert shown(html)[36:] == list(range(91, 103))  # the rest is 74 ... 120
    assert "the same confidence" in html


def test_a_similarity_is_sorted_the_other_way(tmp_path) -> None:
    run = make_run(tmp_path, n=40, space=SIMILARITY)  # 0.40 ... 0.79, copies from 0.50
    pairs = gallery(run).galleries[0].pairs
    assert [p["similarity"] for p in pairs] == pytest.approx([0.79 - i / 100 for i in range(24)])
    assert [p["place"] for p in gallery(run).galleries[1].pairs] == list(range(31, 41))
    assert "similarity ≥ 0.5" in page(run) and len(gallery(run).galleries) == 2


def test_a_control_run_shows_its_nearest_though_none_is_a_copy(tmp_path) -> None:
    run = make_run(tmp_path, n=60, control=True)
    far = dataclasses.replace(
        run, matches=run.matches.assign(similarity=run.matches.similarity + 1)
    )
    html = page(far)
    assert (
        "CONTROL" in html
        and 'class="pair copied"' not in html
        and "0 of 60 images are copies" in html
    )
    assert shown(html)[:36] == list(range(1, 37)) and len(set(shown(html))) == 48


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n_task_examples": 999}, "PARTIAL RUN (120 of 999 examples)"),
        ({"failed": {"scores": 2, "samples": 0}}, "PARTIAL RUN (2 failed scores)"),
    ],
)
def test_a_partial_run_says_so_first(tmp_path, changes, why) -> None:
    html = page(make_run(tmp_path, status="partial", **changes))
    assert "<title>PARTIAL: " in html and why in html
    assert (
        html.index(why)
        < html.index(">Detection<")
        < html.index(">Extraction<")
        < html.index(">Gallery<")
        < html.index(">How it was made<")
    )


def test_a_run_without_images(tmp_path) -> None:
    run = make_run(tmp_path, images=False)
    html = write_report(run).read_text()
    sure(html)
    assert (
        "its detector extracted none" in html
        and "no images to show" in html
        and "<img" not in html
        and html.count("<svg") == 3
    )


def test_a_run_without_scores(tmp_path) -> None:
    html = page(make_run(tmp_path, scored=False))
    sure(html)
    assert (
        "This run has no scores." in html
        and len(shown(html)) == 48
        and html.count("<svg") == 1
        and "kind unknown" in html
    )
    run = make_run(tmp_path, n=30, scored=False, extract_only=True, budget=1234, preset="paper")
    run = dataclasses.replace(run, samples=run.samples.assign(prompt=None))
    html = page(run)
    for words in (
        "Extraction only: no example was scored.",
        "preset paper, budget 1,234",
        "unconditional",
    ):
        assert words in html, words


def test_failed_rows_are_left_out(tmp_path) -> None:
    run = make_run(tmp_path, n=30)
    bad = dataclasses.replace(
        run,
        scores=run.scores.assign(status="failed", score=np.nan),
        samples=run.samples.assign(status=["failed: NaN", *["ok"] * 29]),
        metrics=run.metrics[~run.metrics.metric.isin(["auroc", "average_precision"])],
    )
    html = page(bad)
    assert (
        "All 30 scores failed." in html
        and "29 of 29 images are copies" in html
        and shown(html) == list(range(1, 25))
    )
    none = dataclasses.replace(
        run, samples=run.samples.assign(status="failed: NaN"), metrics=run.metrics[:0]
    )
    assert "All 30 images failed." in page(none)


def test_one_class_or_no_labels_give_histograms_and_no_curve(tmp_path) -> None:
    run = make_run(tmp_path, images=False)
    lone = dataclasses.replace(
        run,
        scores=run.scores.assign(label=-1, kind="unlabelled", score=2.0),
        metrics=run.metrics[:0],
    )
    html = page(lone)
    assert (
        "0 are memorized and 0 are not" in html
        and html.count("<svg") == 1
        and "unlabelled, 120" in html
    )


def test_what_has_no_interval_or_no_value_is_na(tmp_path) -> None:
    run = make_run(tmp_path)
    changed = run.metrics.copy()
    changed.loc[changed.metric.isin(["auroc", "ams"]), ["low", "high"]] = np.nan
    changed.loc[changed.metric == "average_precision", ["value", "low", "high"]] = np.nan
    changed.loc[changed.metric == "best_p50", "value"] = np.nan
    run = dataclasses.replace(run, metrics=changed)
    table, extraction = detection(run).tables[0], run_page.extraction(run).tables
    auroc, ap = (table.header.index(name) for name in ("AUROC", "AP"))
    assert all(row[auroc].endswith(" [n/a]") and row[ap] == "n/a" for row in table.rows)
    assert extraction[0].rows[0][2].endswith(" [n/a]") and extraction[1].rows[0][1] == "n/a"
    assert not has_nan(page(run))


def test_costs_and_preparation_show_what_is_there(tmp_path) -> None:
    phases = {
        "metrics": {"seconds": 1.0},
        "odd": {"seconds": 3.0},
        "prepare": {"seconds": 2.0, "surrogate_forwards": 54321},
    }
    run = make_run(
        tmp_path,
        images=False,
        phases=phases | {"scores": {"forwards": 9}},
        prepared={"<b>": [0.25, 0.123456], "kept": {"a": 3}},
    )
    options, costs, prepared, _ = about(run.info).tables
    assert [row[0] for row in costs.rows] == ["prepare", "scores", "metrics", "odd"]
    assert costs.header == ("phase", "seconds", "forwards", "surrogate forwards") and costs.rows[
        0
    ] == ["prepare", "2", "", "54,321"]
    assert (
        prepared.rows == [("<b>", "0.25, 0.1235"), ("kept", "a 3")]
        and "<b></th>" not in page(run)
        and options.rows
    )
    assert not [t for t in about(make_run(tmp_path, n=4).info).tables if t.title == "Preparation"]


def test_curves(tmp_path) -> None:
    run = make_run(tmp_path, n=40)
    roc, _, _ = detection(run).plots
    assert [line.name for line in roc.lines] == ["all", "chance"]  # one kind alone is all of them
    drawn = Drawn(roc)
    numbers = np.concatenate([corners(node) for node in drawn.root.iter("path")])
    assert numbers.min() >= 0 and (numbers.max(axis=0) <= [drawn.width, drawn.height]).all()
    [curve] = run_page.extraction(run).plots
    ticks = [(x, text) for x, text in curve.x.ticks()]
    assert (
        ticks[0] == (0, "0") and ticks[-1] == (40, "40") and (curve.x.low, curve.x.high) == (0, 40)
    )
    assert plots.round_values(-0.25, 0.9) == [-0.2, 0, 0.2, 0.4, 0.6, 0.8] and plots.round_values(
        0, 3216
    ) == [0, 1000, 2000, 3000]


def test_the_rarefaction_is_drawn_as_stored(tmp_path) -> None:
    run = make_run(tmp_path, n=40)
    [plot] = run_page.extraction(run).plots
    stored = run.metrics[
        (run.metrics.metric == "rarefaction") & (run.metrics.subset == "all")
    ].sort_values("n")
    [line] = plot.lines
    assert (
        line.x.tolist() == stored.n.tolist()
        and line.y.tolist() == stored.value.tolist()
        and plot.y.high >= stored.value.max()
    )
    [path] = Drawn(plot).inner("stroke", "c0")
    assert path[-1] == pytest.approx([1, stored.value.max() / plot.y.high], abs=1e-3)


def test_the_score_over_png_size(tmp_path) -> None:
    run = make_run(tmp_path, n=40)
    *_, plot = detection(run).plots
    assert [(line.name, line.style, line.marker) for line in plot.lines] == [
        ("bins of AUROC matched", plots.CHANCE, ""),
        ("not memorized", plots.NEGATIVE, plots.DOT),
        ("memorized", plots.POSITIVE, plots.DOT),
    ]
    low, high = run.scores.png_bits.min(), run.scores.png_bits.max()
    assert (plot.x.low, plot.x.high) == (low / 1000, high / 1000)
    assert (plot.y.low, plot.y.high) == (run.scores.score.min(), run.scores.score.max())
    drawn = Drawn(plot)
    spots = np.concatenate(
        [drawn.shares(node) for name in ("neg", "c1") for node in drawn.nodes("stroke", name)]
    )
    assert len(spots) == 40
    assert spots.min(axis=0) == pytest.approx([0, 0], abs=1e-3) and spots.max(
        axis=0
    ) == pytest.approx([1, 1], abs=1e-3)
    largest = run.scores.loc[run.scores.score.idxmax()]
    expected = (largest.png_bits - low) / (high - low)
    assert max(spots, key=lambda spot: spot[1])[0] == pytest.approx(expected, abs=1e-3)
    [bins] = [at for at in drawn.inner("stroke", "soft") if len(at) > 2]
    edges = np.unique(bin_edges(run.scores.png_bits.to_numpy()))
    assert bins[::2, 0] == pytest.approx((edges - low) / (high - low), abs=1e-3) and np.ptp(
        bins[:2, 1]
    ) == pytest.approx(1, abs=1e-3)
    rho = run.metrics[run.metrics.metric == "spearman_png_bits"].iloc[0]
    text = f"{rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]"
    assert plot.note == f"Spearman of score with PNG size: {text}." and (
        "Spearman, PNG size",
        text,
    ) in headline(run)
    table = detection(run).tables[0]
    assert list(table.header[2:4]) == ["AUROC", "AUROC matched"] and (
        "AUROC matched",
        table.rows[0][3],
    ) in headline(run)


def test_a_run_without_sizes_shows_none(tmp_path) -> None:
    """One of an older membench, or of images that belong to no example."""
    run = make_run(tmp_path, n=40)
    metrics = run.metrics[
        ~run.metrics.metric.isin(["auroc_complexity_matched", "spearman_png_bits"])
    ]
    run = dataclasses.replace(run, scores=run.scores.assign(png_bits=np.nan), metrics=metrics)
    html = page(run)
    assert html.count("<svg") == 3 and "Spearman" not in html and not has_nan(html)
    assert {row[3] for row in detection(run).tables[0].rows} == {"n/a"}


def test_it_is_written_whole_or_not_at_all_and_changes_nothing_else(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("membench.reports.page.inline", inline)  # each page draws its own
    run = make_run(tmp_path, n=30)
    before = rows(run.samples)
    path = write_report(run)
    text = path.read_text()
    assert (
        path == tmp_path / "report.html"
        and names(tmp_path) == {"report.html", "samples.parquet"}
        and rows(run.samples) == before
    )

    from membench.storage import files

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(UserError, match="No space left"):
            write_report(dataclasses.replace(run, info=run.info | {"seed": 8}))
    assert names(tmp_path) == {"report.html", "samples.parquet"} and path.read_text() == text
    assert page(run) == text  # the same page for the same run


def test_large_pictures_are_shown_smaller(tmp_path) -> None:
    run, noise = make_run(tmp_path, n=60), np.random.default_rng(2)
    large = noise.integers(0, 256, (30, 512, 512, 3), dtype=np.uint8)
    redraw(run, [png_bytes(large[0])] * 60)
    path = write_report(dataclasses.replace(run, nearest=nearest.nearest_table(run, large)))
    assert path.stat().st_size < 15e6  # noise, which PNG cannot shrink; photographs take half
    assert "shown at 192 pixels" in path.read_text()


def test_false_alarms_and_misses_are_the_worst_first(tmp_path: Path) -> None:
    """Of ten memorized examples one has failed, and four of nine are found."""
    ids = [f"e{i:02d}" for i in range(20)]
    frame = scores(*ids).assign(label=np.tile([0, 1], 10))
    frame.loc[frame.id == "e19", ["status", "score"]] = "failed", np.nan
    metrics = pd.DataFrame(
        {"metric": ["tpr_at_fpr_0.01"], "subset": "all", "band": None, "value": 4 / 9}
    )
    run = Run(tmp_path, {}, frame, samples(), tables("e00")["matches"], metrics)
    none = pd.DataFrame({"condition": [], "folder": [], "sample_id": []})
    (alarms, first, found), (misses, note, missed) = wrong(run, none, {})
    assert (alarms, misses) == ("False alarms", "Misses")
    assert [card.text for card in found] == [f"e{i:02d}" for i in range(18, 2, -2)]
    assert [card.text for card in missed] == [f"e{i:02d}" for i in range(1, 17, 2)]
    assert found[0].about.startswith("not memorized · ")
    assert missed[0].about.startswith("memorized · ")
    assert found[0].about.endswith("score 18 · rank 1 of 19")
    assert first == "Not memorized, yet with the highest scores."
    assert note.endswith("At 1 % false alarms 5 of 9 are missed.")
