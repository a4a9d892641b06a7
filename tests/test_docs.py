"""The page on metrics names every metric that a run stores, and every column of a board
that people see.
"""

from __future__ import annotations

import re
from pathlib import Path

from boards import COPIED, make

from membench.boards.board import of_frame
from membench.boards.collect import collect
from membench.boards.seeds import over_seeds
from membench.metrics.names import DETECTION, RARE
from membench.reports.output import write_boards

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"


def test_every_metric_has_its_place_on_the_page(tmp_path):
    run = make(tmp_path, [*COPIED, *range(10, 20)] * 6)
    names = {re.sub(r"_cumulative$", "", name) for name in run.metrics.metric}
    names |= {*DETECTION, *RARE, "extracted_share", "copies_per_image"}
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    # Written as a range
    named |= {f"best_p{q}" for q in (50, 75, 90, 95, 99)} | {
        f"precision_at_{k}" for k in (10, 50, 100)
    }
    assert len(names) > 15 and names <= named, sorted(names - named)


def test_the_sample_row_of_the_page_is_a_board_s(tmp_path, capsys):
    make(tmp_path, COPIED)
    make(tmp_path, COPIED, control=True)
    write_boards(of_frame(over_seeds(collect(tmp_path)), "seeds"), "md", None)
    titles = {
        cell.strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| detector")
        for cell in line.split("|")
    }
    [sample] = re.findall(
        r"^\| detector \| options .*$", PAGE.read_text(encoding="utf-8"), flags=re.M
    )
    assert {cell.strip() for cell in sample.split("|")} - {"…"} <= titles
