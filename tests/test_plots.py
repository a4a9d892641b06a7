"""Plots as data, in pixels and as files: what is drawn lies where the numbers say."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from membench.reports import charts, plots
from membench.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart
from membench.reports.plots import CHANCE, Axis, Line, Plot, Row

PNG = b"\x89PNG\r\n\x1a\n"


def simple(**changes) -> Plot:
    x = np.array([0.0, 1.0, 2.0])
    lines = [Line(f"line {i}", x, x * i / 10, x * i / 20, x * i / 5, style=i) for i in range(9)]
    given = {"lines": [*lines, Line("chance", x, x / 2, style=CHANCE)], "marks": [(1.0, "copy")]} | changes
    return Plot("A title", "slug", Axis("along", 0, 2), Axis("up", 0, 2), **given)


def corners(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


# -------------------------------------------------------------------------------------------------- axes


def test_shares_of_an_axis() -> None:
    assert Axis("", -1, 3).share(np.array([-1, 0, 3])).tolist() == [0, 0.25, 1]
    log = Axis("", 1e-3, 1, log=True)
    assert log.share(np.array([0, 1e-5, 1e-3, 1e-2, 1])) == pytest.approx([0, 0, 0, 1 / 3, 1])


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
    seen = {(plots.colour(i), plots.dashes(i)) for i in [CHANCE, *range(24)]}
    assert len(seen) == 25 and len({charts.css_class(i) for i in [CHANCE, *range(24)]}) == 25
    assert charts.css_class(0) == "c0" and charts.css_class(7) == "c1 d1" and charts.css_class(23) == "c5 d3"


# ------------------------------------------------------------------------------------------------ pixels


def test_a_line_lies_where_its_numbers_say() -> None:
    made = chart(Plot("t", "s", Axis("", 0, 2), Axis("", 0, 4), [Line("a", np.array([0.0, 1, 2]), np.array([0.0, 1, 4]))]))
    [(name, path, css)] = made.lines
    base = HEIGHT - BOTTOM
    assert (name, css) == ("a", "c0")
    assert corners(path) == [(LEFT, base), ((LEFT + RIGHT) / 2, base - (base - TOP) / 4), (RIGHT, TOP)]


def test_what_lies_beyond_an_axis_is_drawn_at_its_end() -> None:
    made = chart(
        Plot("t", "s", Axis("", 1, 100, log=True), Axis("", 0, 1), [Line("a", np.array([0.0, 10, 1e9]), np.array([-5.0, 0.5, 7]))])
    )
    assert corners(made.lines[0][1]) == [(LEFT, HEIGHT - BOTTOM), ((LEFT + RIGHT) / 2, (HEIGHT - BOTTOM + TOP) / 2), (RIGHT, TOP)]


def test_nan_breaks_a_line_and_its_band() -> None:
    y = np.array([0.0, 1, np.nan, 1, 2])
    line = Line("a", np.arange(5.0), y, low=np.where(np.arange(5) > 2, np.nan, y), high=y + 1)
    (_, band, css), (_, path, _) = chart(Plot("t", "s", Axis("", 0, 4), Axis("", 0, 4), [line])).lines
    assert path.count("M") == 2 and "nan" not in path + band
    assert css == "band c0" and band.count("M") == band.count("Z") == 1 and len(corners(band)) == 4  # two points, low and high


def test_bands_lie_under_all_lines_and_have_no_key() -> None:
    names = [name for name, *_ in chart(simple()).lines]
    assert names == [""] * 9 + [""] + [f"line {i}" for i in range(9)] + ["chance"]  # bands, the mark, the lines


def test_the_word_of_a_mark_stays_in_the_plot() -> None:
    for x in (0.0, 1.0, 1.9, 2.0):
        [(left, _, word)] = chart(simple(marks=[(x, "a long word")])).labels
        assert left >= LEFT and left + 5.6 * len(word) <= WIDTH


def test_rows_are_bars_by_count() -> None:
    rows = [Row("first", np.array([0, 2, 1]), 1), Row("second", np.array([4, 0, 0]), 0)]
    made = chart(Plot("t", "s", Axis("score", 0, 3), Axis("", 0, 1), rows=rows))
    assert [text for *_, text in made.labels] == ["first", "second"] and made.height == TOP + 2 * charts.ROW + BOTTOM
    (x, _, _, tall, css), (_, _, _, half, _), (_, _, _, full, other) = made.bars
    assert x == pytest.approx(LEFT + (RIGHT - LEFT) / 3, abs=0.1) and (css, other) == ("label1", "label0")
    assert tall == full == charts.ROW - 20 and half == tall / 2


# --------------------------------------------------------------------------------------------------- ROC


def scores(label: list[int], score: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"label": label, "score": score})


def test_the_mean_roc_by_hand() -> None:
    """Vertical averaging: the first ranks 1 1 0 0, the second 0 1 1 0."""
    one, other = scores([1, 1, 0, 0], [4, 3, 2, 1]), scores([1, 1, 0, 0], [3, 2, 4, 1])
    fpr, tpr = charts.mean_roc([one, other])
    assert fpr.tolist() == [0, 0.5, 1] and tpr.tolist() == [0.5, 1, 1]
    assert charts.mean_roc([one])[1].tolist() == [1, 1, 1] and charts.mean_roc([other])[1].tolist() == [0, 1, 1]


def test_the_mean_roc_is_the_mean_of_tpr_by_counting() -> None:
    rng = np.random.default_rng(3)
    parts = [scores(rng.permutation([1] * 12 + [0] * n).tolist(), rng.integers(0, 9, 12 + n).tolist()) for n in (10, 10, 13)]
    fpr, tpr = charts.mean_roc(parts)

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
    plot = charts.roc_plot({"a": [many], "b": [few]}, {"a": 7, "b": 1})
    assert plot.shade == 0.1 and plot.x.low == 1e-3 and "1/10" in plot.note
    assert [(line.name, line.style) for line in plot.lines] == [("a", 7), ("b", 1), ("chance", CHANCE)]
    assert charts.roc_plot({"a": [many]}).x.low == 1e-4  # 4,000 negatives show more than 1/1,000
    with pytest.raises(ValueError, match="both labels"):
        charts.roc_plot({"a": [scores([1, 1], [0, 1])]})
    with pytest.raises(ValueError, match="no scores"):
        charts.roc_plot({})


def test_histograms_count_every_score() -> None:
    frame = pd.DataFrame({"label": [1] * 30 + [0] * 20, "kind": ["MV"] * 30 + ["N"] * 20, "score": np.linspace(-1, 1, 50)})
    plot = charts.histogram_plot(frame)
    assert [(row.name, row.label, row.counts.sum()) for row in plot.rows] == [("MV: memorized, 30", 1, 30), ("N: not memorized, 20", 0, 20)]
    assert (plot.x.low, plot.x.high) == (-1, 1)


# ------------------------------------------------------------------------------------------------- files


def test_files_are_what_they_say_and_the_same_each_time() -> None:
    png, svg = (plots.draw([simple()], kind, heading="A board") for kind in ("png", "svg"))
    assert (png, svg) == tuple(plots.draw([simple()], kind, heading="A board") for kind in ("png", "svg"))
    assert png.startswith(PNG) and Image.open(io.BytesIO(png)).size[0] > 800
    ElementTree.fromstring(svg)
    for words in ("A board", "A title", "along", "up", "copy", "line 8", "chance"):
        assert f">{words}<".encode() in svg, words


def test_a_file_draws_lines_bands_and_breaks_in_their_colours() -> None:
    x = np.array([0.0, 1, 2, 3])
    line = Line("a", x, np.array([0, 1, np.nan, 2]), low=x / 2, high=x, style=7)
    svg = plots.draw([Plot("t", "s", Axis("", 0, 3), Axis("", 0, 3), [line])], "svg").decode()
    drawn = [style for style in re.findall(r'style="([^"]*)"', svg) if plots.COLOURS[1] in style]
    assert any("stroke-dasharray" in style for style in drawn) and any("fill-opacity: 0.13" in style for style in drawn)


def test_several_plots_are_panels_of_one_file() -> None:
    rows = [Row("MV: memorized, 3", np.array([0, 2, 1]), 1), Row("N: not memorized, 4", np.array([4, 0, 0]), 0)]
    panels = [Plot(f"detector {i}", "scores", Axis("score", 0, 3), Axis("", 0, 1), rows=rows) for i in range(4)]
    svg = plots.draw(panels, "svg").decode()
    assert all(f">detector {i}<" in svg for i in range(4)) and svg.count(">MV: memorized, 3<") == 4
