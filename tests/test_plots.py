"""Plots as data, in a page and as files: what is drawn lies where the numbers say."""

from __future__ import annotations

import ast
import io
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, corners
from PIL import Image

from membench.reports import plots, run_plots
from membench.reports.drawing import KINDS, draw, inline
from membench.reports.plots import (
    CHANCE,
    CROSS,
    DOT,
    INKS,
    NEGATIVE,
    POSITIVE,
    UNLABELLED,
    Axis,
    Line,
    Plot,
    Row,
    ends,
)

PNG = b"\x89PNG\r\n\x1a\n"


def simple(**changes) -> Plot:
    x = np.array([0.0, 1.0, 2.0])
    lines = [Line(f"line {i}", x, x * i / 10, x * i / 20, x * i / 5, style=i) for i in range(9)]
    given = {
        "lines": [*lines, Line("chance", x, x / 2, style=CHANCE)],
        "marks": [(1.0, "copy")],
    } | changes
    return Plot("A title", "slug", Axis("along", 0, 2), Axis("up", 0, 2), **given)


# --------------------------------------------------------------------------------- axes


def test_shares_of_an_axis() -> None:
    assert Axis("", -1, 3).share(np.array([-1, 0, 3])).tolist() == [0, 0.25, 1]
    log = Axis("", 1e-3, 1, log=True)
    assert log.share(np.array([0, 1e-5, 1e-3, 1e-2, 1])) == pytest.approx([0, 0, 0, 1 / 3, 1])


@pytest.mark.parametrize(
    "axis",
    [Axis("", 0, 20, log=True, linear=1), Axis("", -0.5, 300, log=True, linear=0.1, room=0.06)],
)
def test_shares_of_a_log_axis_with_zero_are_matplotlib_s(axis) -> None:
    from matplotlib.scale import SymmetricalLogTransform

    values = np.array([axis.low, 0, axis.linear / 3, axis.linear, 2 * axis.linear, 11, axis.high])
    at = SymmetricalLogTransform(base=10, linthresh=axis.linear, linscale=0.5).transform(values)
    share = (at - at[0]) / (at[-1] - at[0])
    assert axis.share(values) == pytest.approx((share + axis.room) / (1 + 2 * axis.room))


def test_an_axis_may_have_room_its_own_ticks_and_one_value() -> None:
    assert Axis("", 0, 2, room=0.25).share(np.array([0, 1, 2])) == pytest.approx(
        [1 / 6, 1 / 2, 5 / 6]
    )
    assert Axis("", 3, 3).share(np.array([3])).tolist() == [0.5]
    assert Axis("", 0, 1, at=[(0, "one"), (1, "")]).ticks() == [(0, "one"), (1, "")]


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis("", 1e-3, 1, log=True), ["0.001", "0.01", "0.1", "1"]),
        (Axis("", 300, 4000, log=True), ["500", "1,000", "2,000"]),
        (Axis("", 20, 3e6, log=True), ["100", "1,000", "10,000", "100k", "1M"]),
        (Axis("", 0, 250_000), ["0", "50,000", "100k", "150k", "200k", "250k"]),
        (Axis("", 0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_ticks_are_round_and_on_the_axis(axis, labels) -> None:
    assert [text for _, text in axis.ticks()] == labels
    assert all(axis.low <= x <= axis.high for x, _ in axis.ticks())


def test_styles_can_be_told_apart() -> None:
    seen = {
        (plots.ink(i), plots.dashes(i))
        for i in [CHANCE, POSITIVE, NEGATIVE, UNLABELLED, *range(24)]
    }
    assert len(seen) == 27  # positive is the second of the runs' styles
    assert [(plots.ink(i), plots.DASHES.index(plots.dashes(i))) for i in (0, 7, 23)] == [
        ("c0", 0),
        ("c1", 1),
        ("c5", 3),
    ]
    for values in zip(*INKS.values(), strict=True):
        assert len(set(values)) == len(INKS)


# ---------------------------------------------------------------------------- in a page


def test_a_line_lies_where_its_numbers_say() -> None:
    drawn = Drawn(
        Plot(
            "t",
            "s",
            Axis("", 0, 2),
            Axis("", 0, 4),
            [Line("a", np.array([0.0, 1, 2]), np.array([0.0, 1, 4]))],
        )
    )
    [line] = drawn.inner("stroke", "c0")
    assert line == pytest.approx(np.array([(0, 0), (0.5, 0.25), (1, 1)]), abs=1e-3)
    assert drawn.right - drawn.left > 0.85 * drawn.width and "a" in drawn.words


def test_what_lies_beyond_an_axis_is_drawn_at_its_end() -> None:
    line = Line("a", np.array([0.0, 10, 1e9]), np.array([-5.0, 0.5, 7]))
    [line] = Drawn(Plot("t", "s", Axis("", 1, 100, log=True), Axis("", 0, 1), [line])).inner(
        "stroke", "c0"
    )
    assert line == pytest.approx(np.array([(0, 0), (0.5, 0.5), (1, 1)]), abs=1e-3)


def test_nan_breaks_a_line_and_its_band() -> None:
    y = np.array([0.0, 1, np.nan, 1, 2])
    line = Line("", np.arange(5.0), y, low=np.where(np.arange(5) > 2, np.nan, y), high=y + 1)
    drawn = Drawn(Plot("t", "s", Axis("", 0, 4), Axis("", 0, 4), [line]))
    [path] = drawn.nodes("stroke", "c0")
    assert path.attrib["d"].count("M") == 2 and "nan" not in drawn.text
    assert drawn.shares(path) == pytest.approx(
        np.array([(0, 0), (0.25, 0.25), (0.75, 0.25), (1, 0.5)]), abs=1e-3
    )
    [band] = drawn.inner("fill", "c0")  # two points, low and high
    assert {tuple(at.round(2)) for at in band} == {
        (0, 0),
        (0, 0.25),
        (0.25, 0.25),
        (0.25, 0.5),
    } and band.min() >= 0


def test_steps_keep_their_value_until_the_next() -> None:
    line = Line("", np.array([0.0, 1, 2]), np.array([0.0, 1, 2]), steps=True)
    [path] = Drawn(Plot("t", "s", Axis("", 0, 2), Axis("", 0, 2), [line])).inner("stroke", "c0")
    assert path == pytest.approx(
        np.array([(0, 0), (0.5, 0), (0.5, 0.5), (1, 0.5), (1, 1)]), abs=1e-3
    )


def test_bands_lie_under_all_lines_and_have_no_key() -> None:
    drawn = Drawn(simple())
    order = [
        bool(re.search("fill-opacity:0.13", node.attrib["style"]))
        for node in drawn.root.iter("path")
    ]
    lines = [
        i
        for i, node in enumerate(drawn.root.iter("path"))
        if re.search(r"stroke:var\(--c\d", node.attrib["style"])
    ]
    assert sum(order) == 9 and max(np.flatnonzero(order)) < min(lines)
    assert [word for word in drawn.words if word.startswith(("line", "chance"))] == [
        *(f"line {i}" for i in range(9)),
        "chance",
    ]
    dashed = [
        node for node in drawn.nodes("stroke", "c1") if "stroke-dasharray" in node.attrib["style"]
    ]
    # Styles 1 and 7, each with its key
    assert len(dashed) == 2 and len(list(drawn.nodes("stroke", "c1"))) == 4


def test_lines_without_a_name_have_no_key() -> None:
    x = np.array([0.0, 1.0])
    drawn = Drawn(
        Plot("t", "s", Axis("", 0, 1), Axis("", 0, 1), [Line("", x, x), Line("b", x, x, style=1)])
    )
    assert (
        len(list(drawn.nodes("stroke", "c0"))) == 1 and len(list(drawn.nodes("stroke", "c1"))) == 2
    )


def test_the_word_of_a_mark_stays_in_the_plot() -> None:
    for x in (0.0, 1.0, 1.9, 2.0):
        drawn = Drawn(simple(marks=[(x, "a long word")]))
        [(_, left, _, right, _)] = [box for box in drawn.boxes() if box[0] == "a long word"]
        assert left >= drawn.left and right <= drawn.width
        [at] = [at for at in drawn.inner("stroke", "soft") if np.ptp(at[:, 0]) == 0]
        assert at[:, 0] == pytest.approx([x / 2] * 2, abs=1e-3)


def test_points_have_whiskers_and_stand_aside() -> None:
    x, y = np.array([0.0, 1, 2]), np.array([1.0, 2, 3])
    ends = {"low": np.array([0.5, np.nan, 3]), "high": np.array([2.0, np.nan, 9])}
    spots = Line(
        "spots",
        x,
        y,
        **ends,
        style=2,
        joined=False,
        marker="s",
        hollow=True,
        whiskers=True,
        aside=9,
    )
    drawn = Drawn(Plot("t", "s", Axis("", 0, 2, room=0.25), Axis("", 0, 4), [spots]))
    aside = 9 / (drawn.right - drawn.left)
    at = np.array([1 / 6, 1 / 2, 5 / 6]) + aside
    assert np.concatenate(drawn.inner("fill", "bg")) == pytest.approx(
        np.stack([at, y / 4], 1), abs=1e-3
    )
    # One without an interval has no length
    bars = [bar for bar in drawn.inner("stroke", "c2") if len(bar) > 1]
    # Upright: not joined
    assert np.array(bars)[:, :, 0] == pytest.approx(np.stack([at[[0, 2]]] * 2, 1), abs=1e-3)
    assert np.sort(np.array(bars)[:, :, 1]) == pytest.approx(
        np.array([[0.125, 0.5], [0.75, 1]]), abs=1e-3
    )


def test_crosses_are_no_values() -> None:
    x = np.array([0.0, 1.0])
    cross = Line("refused", x, x, joined=False, marker=CROSS)
    assert "no values" in Drawn(Plot("t", "s", Axis("", 0, 1), Axis("", 0, 1), [cross])).words
    assert (
        "no values"
        not in Drawn(Plot("t", "s", Axis("", 0, 1), Axis("", 0, 1), [cross, Line("", x, x)])).words
    )


def test_rows_are_bars_by_count() -> None:
    rows = [Row("first", np.array([0, 2, 1]), 1), Row("second", np.array([4, 0, 0]), 0)]
    drawn = Drawn(Plot("t", "s", Axis("score", 0, 3), Axis("", 0, 1), rows=rows))
    assert [word for word in drawn.words if word in ("first", "second")] == ["first", "second"]
    [first], [second] = drawn.inner("fill", "c1"), drawn.inner("fill", "neg")
    full = 0.6 / 2  # of the frame, for the fullest bin of a row

    def bins(outline: np.ndarray, base: float) -> list[float]:
        """Height over the base in the middle of each third."""
        return [
            max(y for (a, y), (b, _) in itertools.pairwise(outline) if a < x < b) - base
            for x in (1 / 6, 1 / 2, 5 / 6)
        ]

    assert bins(first, 0.5) == pytest.approx([0, full, full / 2], abs=2e-3)
    assert bins(second, 0) == pytest.approx([full, 0, 0], abs=2e-3)


def test_a_single_example_among_thousands_is_seen() -> None:
    row = Row("r", np.array([100_000, 0, 1]), 0)
    drawn = Drawn(Plot("t", "s", Axis("", 0, 3), Axis("", 0, 1), rows=[row]))
    [outline] = drawn.nodes("fill", "neg")
    heights = drawn.bottom - corners(outline)[:, 1]
    assert ((heights > 0.5) & (heights < 2)).any()


def test_an_svg_in_a_page_needs_nothing_and_escapes_everything() -> None:
    nasty = "<script>alert(1)</script> & \u202e"
    x = np.array([0.0, 1.0])
    marked = Line("points", x, x, x, x + 1, marker="o", whiskers=True)
    plot = Plot(
        nasty,
        "s",
        Axis(nasty, 0, 1),
        Axis("up\nand on", 0, 1),
        [Line(nasty, x, x), marked],
        marks=[(0.5, nasty)],
    )
    text = str(inline(plot))
    root = ElementTree.fromstring(text)
    assert {node.tag for node in root.iter()} == {"svg", "path", "text"}
    for word in ("<script", "\u202e", "href", "url(", "#", " id=", "font-family", "clip-path"):
        assert word not in text, word
    assert text.count("\\u202e") >= 3 and {"up", "and on"} <= {
        node.text for node in root.iter("text")
    }
    assert root.attrib["role"] == "img" and root.attrib["aria-label"].startswith(
        "<script>alert(1)</script> & \\u202e: up and on against"
    )
    assert "width" not in root.attrib and root.attrib["viewBox"].startswith("0 0 360 ")
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(INKS) and inline(plot) == text
    assert inline(simple()) != text and len(inline(simple())) < 20_000


def test_no_text_leaves_a_narrow_page_or_lies_on_another() -> None:
    long = [
        f"{name} preset=paper clusters=100 guidance=7.5 steps=50"
        for name in ("side", "random", "dcs")
    ]
    x = np.array([0.0, 1.0])
    lines = [Line(name, x, x, style=i) for i, name in enumerate([*long, "short", *"abcdef"])]
    categories = Axis("", 0, 4, room=0.125, at=[(float(i), f"shown\n{4**i}x") for i in range(5)])
    histogram = [Row("MV: memorized, 30", np.array([1, 2]), 1)]
    for plot in (
        Plot("t", "s", Axis("target evaluations", 0, 250_000), Axis("score", -4e4, 0), lines),
        Plot("t", "s", categories, Axis("extracted, %", 0, 100), lines[:2]),
        Plot("t", "s", Axis("score", -1e-5, 1e-5), Axis("", 0, 1), rows=histogram * 5),
    ):
        drawn = Drawn(plot)
        boxes = list(drawn.boxes())
        for text, left, top, right, bottom in boxes:
            assert (
                left >= -2 and top >= -2 and right <= drawn.width + 2 and bottom <= drawn.height + 2
            ), text
        for i, (one, l1, t1, r1, b1) in enumerate(boxes):
            for other, l2, t2, r2, b2 in boxes[:i]:
                assert r1 <= l2 or r2 <= l1 or b1 <= t2 + 3 or b2 <= t1 + 3, (one, other)


def test_matplotlib_is_imported_by_functions_alone() -> None:
    """Whatever draws nothing does not wait for it."""
    root = Path(plots.__file__).parent.parent
    for file in root.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [getattr(node, "module", None) or ""]
            )
            assert not any(name.split(".")[0] == "matplotlib" for name in names), file


# ---------------------------------------------------------------------------------- ROC


def scores(label: list[int], score: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"label": label, "score": score})


def test_the_mean_roc_by_hand() -> None:
    """Vertical averaging: the first ranks 1 1 0 0, the second 0 1 1 0."""
    one, other = scores([1, 1, 0, 0], [4, 3, 2, 1]), scores([1, 1, 0, 0], [3, 2, 4, 1])
    fpr, tpr = run_plots.mean_roc([one, other])
    assert fpr.tolist() == [0, 0.5, 1] and tpr.tolist() == [0.5, 1, 1]
    assert run_plots.mean_roc([one])[1].tolist() == [1, 1, 1] and run_plots.mean_roc([other])[
        1
    ].tolist() == [0, 1, 1]


def test_the_mean_roc_is_the_mean_of_tpr_by_counting() -> None:
    rng = np.random.default_rng(3)
    parts = [
        scores(rng.permutation([1] * 12 + [0] * n).tolist(), rng.integers(0, 9, 12 + n).tolist())
        for n in (10, 10, 13)
    ]
    fpr, tpr = run_plots.mean_roc(parts)

    def best(part: pd.DataFrame, limit: float) -> float:
        """TPR of "score >= threshold" at the lowest threshold with FPR <= limit."""
        found = 0.0
        score, positive = part.score.to_numpy(), part.label.to_numpy() == 1
        for threshold in set(score):
            if (score[~positive] >= threshold).mean() <= limit:
                found = max(found, (score[positive] >= threshold).mean())
        return found

    assert tpr == pytest.approx([np.mean([best(part, limit) for part in parts]) for limit in fpr])
    assert (np.diff(fpr) > 0).all() and (np.diff(tpr) >= 0).all()


def test_the_roc_plot_shades_what_the_fewest_negatives_cannot_show() -> None:
    many = scores([1, 0] * 4000, list(np.arange(8000.0)))
    few = scores([1, 0] * 10, list(np.arange(20.0)))
    plot = run_plots.roc_plot({"a": [many], "b": [few]}, {"a": 7, "b": 1})
    assert plot.shade == 0.1 and plot.x.low == 1e-3 and "1/10" in plot.note
    assert [(line.name, line.style) for line in plot.lines] == [
        ("a", 7),
        ("b", 1),
        ("chance", CHANCE),
    ]
    assert run_plots.roc_plot({"a": [many]}).x.low == 1e-4  # 4,000 negatives show more than 1/1,000
    with pytest.raises(ValueError, match="both labels"):
        run_plots.roc_plot({"a": [scores([1, 1], [0, 1])]})
    with pytest.raises(ValueError, match="no scores"):
        run_plots.roc_plot({})


def test_histograms_count_every_score() -> None:
    frame = pd.DataFrame(
        {
            "label": [1] * 30 + [0] * 20,
            "kind": ["MV"] * 30 + ["N"] * 20,
            "score": np.linspace(-1, 1, 50),
        }
    )
    plot = run_plots.histogram_plot(frame)
    assert [(row.name, row.label, row.counts.sum()) for row in plot.rows] == [
        ("MV: memorized, 30", 1, 30),
        ("N: not memorized, 20", 0, 20),
    ]
    assert (plot.x.low, plot.x.high) == (-1, 1)


# -------------------------------------------------------------------------------- files


def test_files_are_what_they_say_and_the_same_each_time() -> None:
    png, svg, pdf = made = [draw([simple()], kind, heading="A board") for kind in KINDS]
    assert made == [draw([simple()], kind, heading="A board") for kind in KINDS]
    # Publishers refuse Type 3 fonts, and a page of text is about 6.5 inches (468) wide
    assert pdf.startswith(b"%PDF-") and b"/Type3" not in pdf and b"/CIDFontType2" in pdf
    assert float(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", pdf)[0]) < 468
    assert png.startswith(PNG) and Image.open(io.BytesIO(png)).size[0] > 800
    ElementTree.fromstring(svg)
    for words in ("A board", "A title", "along", "up", "copy", "line 8", "chance"):
        assert f">{words}<".encode() in svg, words


def test_a_file_draws_lines_bands_and_breaks_in_their_colours() -> None:
    x = np.array([0.0, 1, 2, 3])
    line = Line("a", x, np.array([0, 1, np.nan, 2]), low=x / 2, high=x, style=7)
    svg = draw([Plot("t", "s", Axis("", 0, 3), Axis("", 0, 3), [line])], "svg").decode()
    drawn = [style for style in re.findall(r'style="([^"]*)"', svg) if INKS["c1"][0] in style]
    assert any("stroke-dasharray" in style for style in drawn) and any(
        "fill-opacity: 0.13" in style for style in drawn
    )


def test_dots_are_seen_in_an_image() -> None:
    x = np.linspace(0, 1, 5)
    axes = Axis("", 0, 1, room=0.1), Axis("", 0, 1, room=0.1)
    made = [
        Image.open(
            io.BytesIO(
                draw(
                    [
                        Plot(
                            "t",
                            "s",
                            *axes,
                            [Line("", x, y, style=NEGATIVE, joined=False, marker=DOT)],
                        )
                    ],
                    "png",
                )
            )
        )
        for y in (x, np.full(5, np.nan))
    ]
    blue = [
        (np.asarray(image.convert("RGB")).astype(int) @ [-1, 0, 1] > 60).sum() for image in made
    ]
    assert blue[0] > 5 * 50 and blue[1] == 0


def test_several_plots_are_panels_of_one_file() -> None:
    rows = [
        Row("MV: memorized, 3", np.array([0, 2, 1]), 1),
        Row("N: not memorized, 4", np.array([4, 0, 0]), 0),
    ]
    panels = [
        Plot(f"detector {i}", "scores", Axis("score", 0, 3), Axis("", 0, 1), rows=rows)
        for i in range(4)
    ]
    svg = draw(panels, "svg").decode()
    assert all(f">detector {i}<" in svg for i in range(4)) and svg.count(">MV: memorized, 3<") == 4


@pytest.mark.parametrize(
    "values", [[1.0, 1.0 + 2e-16], [-1e308, 1e308], [1e300, 1e300], [0.0, 5e-324], [2.0, 3.0]]
)
def test_a_scale_can_be_divided_whatever_the_scores(values: list[float]) -> None:
    """Scores that differ by rounding alone, and the largest that a float can be."""
    low, high = ends(np.array(values))
    edges = np.histogram_bin_edges(np.array([]), bins=48, range=(low, high))
    assert np.isfinite(edges).all() and (np.diff(edges) > 0).all()
    assert low <= np.clip(min(values), -1e300, 1e300) and high >= min(max(values), 1e300)
