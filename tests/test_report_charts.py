"""The charts of the report, as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from membench.reports import charts


@pytest.mark.parametrize(
    ("scores", "y_label", "ticks"),
    [
        ([0.0, 1.0], "score", ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.0, -40000.0], "score / 1e4", ["-4", "-3", "-2", "-1", "0"]),
        ([0.0, -5e-5], "score / 1e-5", ["-5", "-4", "-3", "-2", "-1", "0"]),
        ([0.0, -8000.0], "", ["-8000", "-6000", "-4000", "-2000", "0"]),
        ([3.0, 3.0], "score", ["2.6", "2.8", "3", "3.2", "3.4"]),
    ],
)
def test_wide_ticks_make_room(scores, y_label, ticks) -> None:
    frame = pd.DataFrame({"score": scores, "label": -1, "png_bits": 8.0})
    chart = charts.size_chart(frame, "a note.")
    assert chart.y_label == y_label and [text for _, text in chart.yticks] == ticks
    assert [name for name, *_ in chart.lines] == ["unlabelled"]  # no bins, which are of the matched AUROC


def test_a_scatter_of_many_examples_stays_small() -> None:
    n = 50_000
    frame = pd.DataFrame({"score": np.arange(n) / n, "label": np.arange(n) % 2, "png_bits": 8.0 * np.arange(n)})
    chart = charts.size_chart(frame, "A note.")
    paths = "".join(path for _, path, _ in chart.lines)
    assert paths.count("h0") == charts.POINTS and len(paths) < 40_000
    assert chart.note == "A note. Drawn: 2,000 of 50,000 examples."
