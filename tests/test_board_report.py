"""``membench report``: the page about many runs, its Markdown, its plots and its
gallery.
"""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, L2, make
from frames import names
from test_report import (
    DISTANCE,
    NASTY,
    NEAREST,
    SIMILARITY,
    has_nan,
    make_run,
    redraw,
    without_script,
)

from membench.metrics.extraction import ams, ums
from membench.reports import board_page, board_plots
from membench.reports.board_page import write_board
from membench.reports.board_parts import Board
from membench.reports.examples import compared
from membench.reports.gallery import OFTEN, Gallery, of_runs
from membench.runs.finished import Run
from membench.runs.nearest import frame_of, nearest_table
from membench.storage.images import png_bytes, png_image

STORED = dict(zip(NEAREST.training_id, NEAREST.image, strict=True))
ROWS = pd.DataFrame({"detector": ["a|b", NASTY], "AUROC": ["0.9 [0.8, 1.0]", "n/a"]})


@pytest.fixture(autouse=True)
def few_thresholds(monkeypatch) -> None:
    monkeypatch.setattr(board_plots, "EDGES", 6)


def variant(
    path: Path,
    detector: str,
    seed: int = 0,
    *,
    bright: int = 0,
    changes: dict | None = None,
    **given,
) -> Run:
    """A run of test_report under another name; bright: images of its own, a little
    nearer than the others'.
    """
    run = make_run(path / f"{detector}-{seed}", **{"n": 40, **given})
    parts = run.info["key_parts"] | {"detector": detector, "seed": seed}
    key = f"{detector}-{seed}"
    info = (
        run.info
        | {"detector": detector, "seed": seed, "key": key, "key_parts": parts, "options_passed": []}
        | (changes or {})
    )
    if bright and len(run.samples):
        shades = range(bright, bright + len(run.samples))
        redraw(run, [png_bytes(np.full((8, 8, 3), i % 256, np.uint8)) for i in shades])
    matches = run.matches.assign(similarity=run.matches.similarity - np.float32(bright / 10_000))
    return dataclasses.replace(run, info=info, matches=matches)


def board(of: list[Run], **changes) -> Board:
    return Board(
        **{"title": "a_task v1, mini profile", "slug": "b", "rows": ROWS, "runs": range(len(of))}
        | changes
    )


def write(tmp_path: Path, of: list[Run], *boards: Board, **given) -> tuple[str, str]:
    out = tmp_path / "out"
    given = {"plots": False, "resamples": 20} | given
    path = write_board(of, boards or [board(of)], out, **given)
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8"), (out / "report.md").read_text(encoding="utf-8")


def sure(html: str) -> None:
    """Nothing is fetched, nothing runs but the page's own script, and no text becomes
    markup.
    """
    html = without_script(html)
    for value in re.findall(
        r"<[^>]*?\s(?:src|href|srcset|data|action)\s*=\s*[\"']?([^\"'\s>]*)", html
    ):
        assert value.startswith(("data:image/png;base64,", "#")), value[:60]
    for word in ("<script", "<link", "<iframe", "<object", "@import", "url(", "onerror=x()>"):
        assert word not in html, word
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html and not has_nan(html)


# --------------------------------------------------------------------------------- page


def test_the_page_holds_each_board_in_order(tmp_path) -> None:
    of = [
        variant(tmp_path, "one", n=100),
        variant(tmp_path, "two", bright=9),
        variant(tmp_path, "one", changes={"control": True}),
    ]
    model = board(
        of, runs=[0, 1], notes=["A note & more"], tables=[("Paired", ROWS, "How they are paired.")]
    )
    control = board(of, slug="c", runs=[2], control=True)
    html, text = write(tmp_path, of, model, control)
    sure(html)
    # ROC; AMS, UMS, cost; a histogram a detector
    assert html.count("<svg") == (1 + 3 + 2) + (1 + 3 + 1)
    own = html[html.index('<section id="b">') : html.index('<section id="c">')]
    order = [
        own.index(word)
        for word in (
            ">Gallery<",
            ">Nearest <",
            ">Failures <",
            "0.9 [0.8, 1.0]",
            "A note &amp; more",
            ">ROC<",
            ">AMS ag",
            ">UMS ag",
            ">Unique",
            ">Paired<",
            ">Scores by",
            "The 2 runs",
        )
    ]
    assert order == sorted(order)
    assert (
        'href="#b"' in html and 'href="#c"' in html and "CONTROL" not in own and "CONTROL" in html
    )
    assert (
        own.count('<figure class="pair') == 48
        and html[html.index('<section id="c">') :].count('<figure class="pair') == 12
    )
    assert (
        "3 runs on 2 boards" in html and "How they are paired." in text and text.count("a\\|b") == 3
    )
    assert "![" not in text and names(tmp_path / "out") == {"report.html", "report.md"}


def test_a_partial_run_s_detector_has_its_paper(tmp_path) -> None:
    of = [variant(tmp_path, "cfg_norm", changes={"status": "partial"})]
    html, _ = write(tmp_path, of)
    assert "PARTIAL cfg_norm" in html and "arxiv.org/abs/2407.21720" in html


def test_the_plots_are_files_that_the_markdown_links(tmp_path) -> None:
    of = [variant(tmp_path, "one"), variant(tmp_path, "two", bright=9)]
    _, text = write(tmp_path, of, plots=True, pdf=True)
    linked = set(re.findall(r"\]\(plots/([^)]*)\)", text))
    assert names(tmp_path / "out" / "plots") == linked
    assert linked == {
        f"b-{name}.{kind}"
        for name in ("roc", "scores", "ams", "ums", "cost")
        for kind in ("png", "svg", "pdf")
    }


def test_each_figure_links_its_files_and_the_command_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(board_page, "draw", lambda plots, kind, heading: kind.encode())
    of = [variant(tmp_path, "one"), variant(tmp_path, "two", bright=9)]
    command = "membench report --runs 'my runs' --detector one,two"
    html, text = write(tmp_path, of, plots=True, pdf=True, command=command)
    made = {f"plots/{name}" for name in names(tmp_path / "out" / "plots")}
    assert len(made) == 5 * 3
    own, _, scores = html.partition(">Scores by kind<")
    linked = []
    for figure in re.findall(r'<figure class="chart">.*?</figure>', own, flags=re.S):
        links = re.findall(r'<a href="([^"]*)">(\w+)</a>', figure)
        assert [kind for _, kind in links] == ["PNG", "SVG", "PDF"]
        linked += [path for path, _ in links]
    # The histograms are panels of one file
    linked += re.findall(r'<a href="(plots/[^"]*)">', scores)
    assert len(linked) == len(made) and set(linked) == made
    assert set(re.findall(r"[^!]\[\w+\]\((plots/[^)]*)\)", text)) == made
    assert f"\n    {command}\n" in text
    said = re.sub(r"</?span>", "", unescape(html[: html.index("<details")]))
    assert f"{command} </code>" in said and said.index("All figures again, of the same runs:")
    without, text = write(tmp_path, of, plots=True)
    assert "membench report " not in without + text and "plots/b-roc.svg" in without
    assert "plots/b-roc.pdf" not in without


def told(html: str) -> list[tuple[str, list[str]]]:
    """The folded mistakes of a board: example and pictures of each card."""
    [block] = re.findall(r'<details class="mistakes">.*?</details>', html, flags=re.S)
    cards = re.findall(r'<figure class="card">.*?</figure>', block, flags=re.S)
    return [
        (re.findall(r" (\d{4})</q>", card)[0], re.findall(r'alt="([^"]*)"', card)) for card in cards
    ]


def test_the_leading_detector_has_its_mistakes_shown(tmp_path) -> None:
    """Of "one" and "two", of which the second is the better; "words" is better than both,
    and asks the model nothing.
    """
    one, two, words = (variant(tmp_path, name) for name in ("one", "two", "words"))
    better = two.scores.assign(score=two.scores.score + two.scores.label)
    two = dataclasses.replace(two, scores=better, metrics=raised(two, 0.9))
    words = dataclasses.replace(
        words, info=words.info | {"phases": {}}, metrics=raised(words, 0.99)
    )
    two.path.mkdir(exist_ok=True)
    (two.path / "report.html").write_text("its page")
    html, _ = write(tmp_path, [one, two, words])
    assert "False alarms and misses <small>of two</small>" in html
    by_score = better.sort_values("score")
    alarms = by_score[by_score.label == 0].id[::-1][:5]
    misses = by_score[by_score.label == 1].id[:5]
    pictures = ["generated", "its nearest training image"]
    assert told(html) == [(name, pictures) for name in [*alarms, *misses]]
    [block] = re.findall(r'<details class="mistakes">.*?</details>', html, flags=re.S)
    assert '<a href="../two-0/report.html">' in block and "that ask the model" in block
    assert f"score {better.score[better.id == alarms.iloc[0]].iloc[0]:.4g} · rank" in block
    # Nobody else asks
    html, _ = write(tmp_path, [words])
    assert "<small>of words</small>" in html and "that ask the model" not in html


def raised(run: Run, auroc: float) -> pd.DataFrame:
    m = run.metrics
    whole = (m.metric == "auroc") & (m.subset == "all") & m.band.isna()
    return m.assign(value=m.value.where(~whole, auroc))


def test_boards_without_mistakes_to_show(tmp_path) -> None:
    """The control model has memorized nothing, and unlabelled examples are neither."""
    run = variant(tmp_path, "one", n=20)
    html, _ = write(tmp_path, [run], board([run], control=True))
    assert "False alarms" not in html
    unlabelled = run.scores.assign(label=-1)
    whole = run.metrics[run.metrics.metric != "auroc"]
    html, _ = write(tmp_path, [dataclasses.replace(run, scores=unlabelled, metrics=whole)])
    assert "False alarms" not in html


def test_it_is_the_same_for_the_same_runs_in_any_order(tmp_path) -> None:
    of = [
        variant(tmp_path, name, seed, bright=b)
        for name, seed, b in (("one", 0, 0), ("one", 1, 3), ("two", 0, 9), ("three", 0, 9))
    ]
    first = write(tmp_path, of)
    assert write(tmp_path, of[::-1], board(of, runs=[2, 0, 3, 1])) == first


def test_a_board_without_pictures_says_why(tmp_path) -> None:
    of = [dataclasses.replace(variant(tmp_path, "one"), nearest=NEAREST[:0])]
    html, _ = write(tmp_path, of)
    sure(html)
    alone = html.count('<figure class="pair') + html.count('<figure class="card')
    assert "have stored no training images" in html and html.count("<img") == alone > 20
    assert "Right:" not in html


def test_boards_without_scores_or_images(tmp_path) -> None:
    html, _ = write(tmp_path, [variant(tmp_path, "one", images=False)])
    sure(html)
    assert "has images" in html and "<img" not in html and html.count("<svg") == 2
    html, text = write(tmp_path, [variant(tmp_path, "one", scored=False)])
    sure(html)
    assert "no ROC curves" in html and "no ROC curves" in text and html.count("<svg") == 3
    html, _ = write(tmp_path, [], board([]))
    sure(html)
    assert "<svg" not in html and "0.9 [0.8, 1.0]" in html


@pytest.mark.parametrize(("slug", "runs"), [("../b", [0]), ("", [0]), ("b", [1]), ("b", [-1])])
def test_what_a_programmer_may_get_wrong(tmp_path, slug, runs) -> None:
    of = [variant(tmp_path, "one")]
    with pytest.raises(ValueError, match=r"slug|positions"):
        write_board(of, [board(of, slug=slug, runs=runs)], tmp_path / "out")
    with pytest.raises(ValueError, match="taken"):
        write_board(of, [board(of), board(of)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_boards_stay_small(tmp_path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (30, 512, 512, 3), dtype=np.uint8)
    run = variant(tmp_path, "one", n=60)
    stored = nearest_table(run, noise)
    assert set(stored.training_id) == set(run.matches.training_id) and len(stored) == 30
    assert all(png_image(png).shape == (192, 192, 3) for png in stored.image)
    redraw(run, [png_bytes(noise[0])] * 60)
    html, _ = write(tmp_path, [dataclasses.replace(run, nearest=stored)])
    # Noise, which PNG cannot shrink; photographs take half
    assert len(html) < 6e6 and "shown at 128 pixels" in html


# ------------------------------------------------------------------- settings and seeds


def test_settings_are_by_name_and_seed(tmp_path) -> None:
    of = [
        variant(tmp_path, "two", 1),
        variant(tmp_path, "one", 2),
        variant(tmp_path, "one", 0),
        variant(tmp_path, "two", 0),
    ]
    found = board_plots.settings_of(of)
    assert {name: [run.info["seed"] for run in finished] for name, finished in found.items()} == {
        "one": [0, 2],
        "two": [0, 1],
    }
    assert list(found) == ["one", "two"]
    newer = variant(
        tmp_path, "one", changes={"key_parts": of[2].info["key_parts"] | {"detector_version": 4}}
    )
    apart = board_plots.settings_of([of[2], newer])
    assert len(apart) == 2 and all(re.fullmatch(r"one \(\w{6}\)", name) for name in apart)
    partial = variant(
        tmp_path,
        "one",
        changes={"status": "partial", "options_passed": ["k=2", "a=1"], "preset": "paper"},
    )
    assert list(board_plots.settings_of([partial])) == ["PARTIAL one preset=paper a=1 k=2"]


def test_the_roc_curve_is_the_mean_over_seeds(tmp_path) -> None:
    of = [variant(tmp_path, "one", 0), variant(tmp_path, "one", 1)]
    flipped = of[1].scores.assign(score=-of[1].scores.score)
    of[1] = dataclasses.replace(of[1], scores=flipped)
    plot = board_plots.roc(board_plots.settings_of(of), {"one": 0})
    both = [board_plots.roc({"one": [run]}, {"one": 0}).lines[0] for run in of]
    line = plot.lines[0]
    at = [line.y[np.searchsorted(line.x, x, side="right") - 1] for x in (0, 0.1, 0.5)]
    each = [
        [one.y[np.searchsorted(one.x, x, side="right") - 1] for x in (0, 0.1, 0.5)] for one in both
    ]
    assert (
        at == pytest.approx(np.mean(each, axis=0))
        and each[0] != each[1]
        and "the mean of their TPR" in plot.note
    )


# ------------------------------------------------------------------------------- curves


def styles(of: dict[str, Run]) -> dict[str, int]:
    return {name: i for i, name in enumerate(of)}


@pytest.mark.parametrize("space", [DISTANCE, SIMILARITY])
def test_thresholds_agree_with_the_metrics(tmp_path, space) -> None:
    run = make_run(tmp_path, 40, space=space)
    of_ams, of_ums = board_plots.threshold_plots(space, {"one": run}, {"one": 3}, resamples=30)
    good, matches = run.found()
    [share], [distinct] = of_ams.lines, of_ums.lines
    assert (
        share.style == 3
        and (np.diff(share.x) > 0).all()
        and of_ams.x.low <= space.copy <= of_ams.x.high
    )
    for edge, value, other in zip(share.x, share.y, distinct.y, strict=True):
        assert value == pytest.approx(100 * ams(matches, len(good), space, float(edge)))
        assert other == pytest.approx(100 * ums(matches, len(good), space, float(edge)))
    inside = (share.x >= of_ams.x.low) & (share.x <= of_ams.x.high)
    assert np.isclose(share.y[~inside], 0).all()  # only where nothing is found yet is left out
    assert (
        (share.low <= share.y + 1e-9).all()
        and (share.y <= share.high + 1e-9).all()
        and (share.high > share.low).all()
    )
    assert of_ams.y.high >= np.nanmax(share.high) and of_ums.y.high >= np.nanmax(distinct.high)


def test_ums_is_compared_at_the_smallest_number_of_images(tmp_path) -> None:
    """Of 8 images 3, 2 and 1 copy images 0, 1 and 2; expected among 5 of them, by
    counting subsets.
    """
    of = {
        "large": make(tmp_path, COPIED, images=True),
        "small": make(tmp_path, [4, 5, 6, 7, None], detector="side"),
    }
    _, plot = board_plots.threshold_plots(L2, of, styles(of), resamples=20)
    large, small = plot.lines
    at = large.x.tolist().index(1.0)
    expected = sum(1 - comb(8 - c, 5) / comb(8, 5) for c in (3, 2, 1)) / 5
    assert large.y[at] == pytest.approx(100 * expected) and small.y[at] == pytest.approx(
        100 * 4 / 5
    )
    assert np.isnan(large.high).all() and not np.isnan(small.high).any() and "N_G = 5" in plot.note


def test_cost_is_preparation_first_then_images(tmp_path) -> None:
    prepare = {"forwards": 15, "jvps": 5, "surrogate_forwards": 1000}
    of = {
        "plain": make(tmp_path, COPIED),
        "side": make(tmp_path, [4, 5, 6, 7, None], detector="side", prepare=prepare),
    }
    plot = board_plots.cost_plot(L2, of, styles(of))
    plain, side = plot.lines
    assert plain.x[0] == 0 and plain.x[-1] == 80 and side.x[0] == 20 and side.x[-1] == 20 + 5 * 10
    n = plain.x.tolist().index(50.0)
    assert plain.y[n] == pytest.approx(sum(1 - comb(8 - c, 5) / comb(8, 5) for c in (3, 2, 1)))
    assert (plain.y[-1], side.y[-1]) == (3, 4) and not plot.x.log and plot.x.high == 80
    of["dear"] = make(tmp_path, COPIED, detector="dear", price=1000)
    log = board_plots.cost_plot(L2, of, styles(of))
    assert log.x.log and log.x.low == 10 and log.x.high == 8000


def test_nothing_copied_is_drawn_and_said(tmp_path) -> None:
    of = {"one": make(tmp_path, [None] * 6)}
    near, _, cost = board_plots.extraction_plots(L2, of, {"one": 0}, resamples=20)
    assert (
        "No image of these runs is a copy." in cost.note
        and cost.y.high == 5
        and near.x.low < L2.copy
    )


def test_runs_of_the_same_images_are_one_line(tmp_path) -> None:
    of = {
        name: variant(tmp_path, name, bright=b)
        for name, b in (("a", 0), ("b", 0), ("c", 0), ("d", 7))
    }
    rounded = of["b"].matches.similarity * np.float32(1 + 1e-6)
    of["b"] = dataclasses.replace(of["b"], matches=of["b"].matches.assign(similarity=rounded))
    phases = of["c"].info["phases"] | {"samples": {"seconds": 1.0, "forwards": 99}}
    of["c"] = dataclasses.replace(of["c"], info=of["c"].info | {"phases": phases})
    near, distinct, cost = board_plots.extraction_plots(DISTANCE, of, styles(of), resamples=20)
    assert [(line.name, line.style) for line in near.lines] == [
        ("a and 2 more", 0),
        ("d", 3),
    ] and "a and 2 more: a, b, c." in distinct.note
    assert [line.name for line in cost.lines] == [
        "a and 1 more",
        "c",
        "d",
    ] and "a and 1 more: a, b." in cost.note


def test_runs_of_two_spaces_share_no_chart(tmp_path) -> None:
    of = [variant(tmp_path, "one"), variant(tmp_path, "two", space=SIMILARITY)]
    html, _ = write(tmp_path, of)
    assert (
        html.count("<h3>AMS against the threshold, ") == 2
        and "cosine/test</h3>" in html
        and html.count(">Gallery<") == 2
    )


# ------------------------------------------------------------------------------ gallery


def shown(found: list[Gallery], title: str) -> list[dict]:
    return next((g.pairs for g in found if g.title == title), [])


def test_the_gallery_is_sorted_and_shows_no_image_twice(tmp_path) -> None:
    """Two detectors drew the same 120 images, a third its own; 61 of each are copies."""
    of = {
        name: frame_of(variant(tmp_path, name, n=120, bright=b))
        for name, b in (("a", 0), ("b", 0), ("c", 5))
    }
    # Rounded otherwise
    of["b"] = of["b"].assign(confidence=-of["b"].confidence, similarity=of["b"].similarity + 1e-6)
    intro, found = of_runs(of, DISTANCE, STORED)
    assert [g.title for g in found] == ["Nearest", "Near misses", "Failures"] and [
        len(g.pairs) for g in found
    ] == [24, 12, 12]
    assert "122 of 240 different images are copies" in intro
    every = [pair["place"] for g in found for pair in g.pairs]
    assert len(set(every)) == 48 and all(
        sorted(s) == s for s in ([p["similarity"] for p in g.pairs] for g in found)
    )
    near = shown(found, "Nearest")
    assert {p["made_by"] for p in near} == {"a and 1 more", "c"} and all(
        p["copied"] and p["confidence"] is None for p in near
    )
    assert not any(
        p["copied"] for title in ("Near misses", "Failures") for p in shown(found, title)
    )
    # The most confident of a and c are their farthest, of b its nearest that are left
    surest = shown(found, "Failures")
    assert {p["made_by"] for p in surest} == {"surest of a", "surest of b", "surest of c"}
    assert sorted(p["confidence"] for p in surest if p["made_by"] == "surest of a") == [
        116,
        117,
        118,
        119,
    ]
    assert sorted(p["confidence"] for p in surest if p["made_by"] == "surest of b") == [
        -70,
        -69,
        -68,
        -67,
    ]
    assert of_runs(dict(reversed(of.items())), DISTANCE, STORED)[1] == found


def test_one_training_picture_does_not_fill_the_gallery(tmp_path) -> None:
    run = variant(tmp_path, "a", n=60)
    many = np.where(np.arange(60) < 40, 7, np.arange(60) % 30)  # the 40 nearest copy image 7
    first = run.matches[run.matches["rank"] == 0].assign(
        training=many, training_id=[f"t/{i}" for i in many]
    )
    frame = frame_of(dataclasses.replace(run, matches=first))
    _, [near, *_] = of_runs({"a": frame}, DISTANCE, STORED)
    assert sum(p["training_id"] == "t/7" for p in near.pairs) == OFTEN == 2
    assert [p["place"] for p in near.pairs[:4]] == [1, 2, 41, 42]


def test_without_confidences_the_gallerys_failures_are_from_the_middle(tmp_path) -> None:
    frame = frame_of(variant(tmp_path, "a", n=120, confident=False))
    _, found = of_runs({"a": frame}, DISTANCE, STORED)
    # The rest is 74 ... 120
    assert [p["place"] for p in shown(found, "Failures")] == list(range(91, 103))
    assert of_runs({}, DISTANCE, {}) == ("", [])


def test_each_example_has_its_score_under_each_detector(tmp_path) -> None:
    one = make(tmp_path, COPIED, detector="one")
    two = make(tmp_path, COPIED, detector="two", change=lambda s: s.assign(score=-s.score))
    table = compared(board_plots.settings_of([one, two]))
    assert [title for title, *_ in table.header][-2:] == ["one", "two"]
    assert len(table.rows) == len(one.scores)
    shown = sorted(tuple(float(cell.sort) for cell in row[-2:]) for row in table.rows)
    assert shown == sorted((s, -s) for s in one.scores.score)
    texts = sorted(row[1].text for row in table.rows)
    assert texts == sorted(one.scores.prompt.fillna(one.scores.id))
    assert compared(board_plots.settings_of([one])) is None


def test_examples_of_a_board_stand_by_their_mean_rank(tmp_path) -> None:
    one = make(tmp_path, COPIED, detector="one")
    far = make(tmp_path, COPIED, detector="two", change=lambda s: s.assign(score=1e9 * s.score))
    rows = compared(board_plots.settings_of([one, far])).rows
    scores = [float(row[-2].sort) for row in rows]
    assert scores == sorted(scores, reverse=True)
    # Scales do not matter: the detector of the large scores alone would decide
    third = make(tmp_path, COPIED, detector="x", change=lambda s: s.assign(score=-s.score))
    fourth = make(tmp_path, COPIED, detector="y", change=lambda s: s.assign(score=-s.score - 9))
    rows = compared(board_plots.settings_of([far, third, fourth])).rows
    scores = [float(row[-3].sort) for row in rows]
    assert scores == sorted(scores)
