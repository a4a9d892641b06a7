"""The scatter of scores over PNG size, as numbers and as it is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn import Drawn, corners

from membench.reports import run_plots
from membench.reports.plots import CHANCE, NEGATIVE, POSITIVE


@pytest.mark.parametrize(
    ("scores", "ticks"),
    [
        ([0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.0, -40000.0], ["-40,000", "-30,000", "-20,000", "-10,000", "0"]),
        ([0.0, -5e-5], ["-5e-05", "-4e-05", "-3e-05", "-2e-05", "-1e-05", "0"]),
        ([0.0, -8000.0], ["-8,000", "-6,000", "-4,000", "-2,000", "0"]),
        ([3.0, 3.0], ["2.6", "2.8", "3", "3.2", "3.4"]),
    ],
)
def test_wide_ticks_find_room_beside_the_label(scores, ticks) -> None:
    frame = pd.DataFrame({"score": scores, "label": -1, "png_bits": 8.0})
    plot = run_plots.size_plot(frame, "a note.")
    assert [text for _, text in plot.y.ticks()] == ticks
    # No bins, which are of the matched AUROC
    assert [line.name for line in plot.lines] == ["unlabelled"]
    drawn = Drawn(plot)
    boxes = [box for box in drawn.boxes() if box[3] <= drawn.left]  # left of the frame
    assert [text for text, *_ in boxes] == [*ticks, "score"]
    [(_, left, _, right, _)] = boxes[-1:]
    assert left >= 0 and all(right <= other for _, other, *_ in boxes[:-1])


def test_a_scatter_of_many_examples_stays_small() -> None:
    n = 50_000
    frame = pd.DataFrame(
        {"score": np.arange(n) / n, "label": np.arange(n) % 2, "png_bits": 8.0 * np.arange(n)}
    )
    plot = run_plots.size_plot(frame, "A note.")
    bins, negative, positive = plot.lines
    assert len(negative.x) + len(positive.x) == run_plots.POINTS and (
        negative.style,
        positive.style,
    ) == (NEGATIVE, POSITIVE)
    assert bins.style == CHANCE and np.isnan(bins.y[2::3]).all()
    assert plot.note == "A note. Drawn: 2,000 of 50,000 examples."
    drawn = Drawn(plot)
    dots = [node for name in ("neg", "c1") for node in drawn.nodes("stroke", name)]
    assert (
        sum(node.attrib["d"].count("h0") for node in dots) == run_plots.POINTS
        and len(drawn.text) < 50_000
    )
    assert all("stroke-linecap:round" in node.attrib["style"] for node in dots)
    spots = np.concatenate([corners(node) for node in dots])
    assert spots.min(axis=0) == pytest.approx([drawn.left, drawn.top], abs=0.2)
    assert spots.max(axis=0) == pytest.approx([drawn.right, drawn.bottom], abs=0.2)
