"""Who leads, and how sure that is: sentences that follow from the paired differences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from boards import COPIED, make

from membench.boards.collect import collect
from membench.boards.differences import differences
from membench.boards.identity import BOARD
from membench.boards.leaders import leaders, leaders_lines
from membench.boards.seeds import over_seeds
from membench.cli.main import main
from membench.reports import board_page
from membench.reports.board_tables import differences_table
from membench.runs.finished import read_runs

ROOT = Path(__file__).resolve().parent.parent


def pairs(*found: tuple[str, str, float, float], **more: object) -> pd.DataFrame:
    """Rows (better, worse, difference, Holm p) of one board."""
    frame = pd.DataFrame(found, columns=["a", "b", "difference", "p_holm"])
    frame = frame.assign(metric="auroc", a_options="", b_options="", **dict.fromkeys(BOARD, "x"))
    return frame.assign(control=False, **more)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("p", "q", 0.1, 0.001)], "p leads: significantly better than q (Holm p ≤ 0.001)"),
        (
            [("p", "q", 0.1, 0.0491), ("p", "r", 0.2, 0.001), ("q", "r", 0.1, 0.9)],
            "p leads: significantly better than q and r (Holm p ≤ 0.05)",
        ),
        (
            [("p", "q", 0.1, 0.05), ("p", "r", 0.2, 0.001), ("q", "r", 0.1, 0.01)],
            "p and q lead: no significant difference between them (Holm p ≥ 0.05)",
        ),
        (
            [
                ("p", "q", 0.1, 0.999),
                ("p", "r", 0.2, 0.6789),
                ("q", "r", 0.1, 1.0),
                ("p", "s", 0.5, 0.01),
                ("q", "s", 0.4, 0.01),
                ("r", "s", 0.3, 0.01),
            ],
            "p, q and r lead: no significant difference among them (Holm p ≥ 0.67)",
        ),
        (
            [("p", "q", 0.1, 0.7), ("p", "r", 0.2, 0.8), ("q", "r", 0.1, 1.0)],
            "none of p, q and r leads: no significant difference among them (Holm p ≥ 0.7)",
        ),
        (
            [("p", "q", 0.1, 0.3), ("p", "r", 0.2, 0.2), ("q", "r", 0.1, 0.01)],
            "p has the highest AUROC; not significantly lower are q and r (Holm p ≥ 0.2)",
        ),
        (
            [("p", "q", 0.1, 0.01), ("q", "r", 0.1, 0.01)],
            (
                "p leads: significantly better than q (Holm p ≤ 0.01); not compared with p, for"
                " want of a common seed: r"
            ),
        ),
    ],
)
def test_a_sentence_follows_from_the_pairs(found: list, expected: str) -> None:
    assert leaders(pairs(*found)) == expected
    assert leaders(pairs(*found[::-1])) == expected
    assert list(leaders_lines(pairs(*found))) == [f"x, AUROC: {expected}"]
    assert list(leaders_lines(pairs(*found).assign(control=True))) == []


def test_a_partial_run_is_marked_in_the_sentence_and_in_the_table() -> None:
    rows = pairs(("p", "q", 0.1, 0.001), a_status="partial", b_status="complete")
    assert leaders(rows) == "PARTIAL p leads: significantly better than q (Holm p ≤ 0.001)"
    rows = rows.assign(low=0.0, high=0.2, p=0.001, n=10, seeds=3, deterministic=True)
    shown, _ = differences_table(rows)
    assert (
        shown.better.tolist() == ["PARTIAL p"]
        and shown.worse.tolist() == ["q"]
        and shown.seeds.tolist() == ["deterministic"]
    )


def test_the_differences_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    """Who leads on each model of sd_webster by the stored pairs, found here by another
    way: all whom the one with no loss does not beat significantly.
    """
    path = ROOT / "results" / "differences.parquet"
    table = pd.read_parquet(path)
    table = table[(table.task == "sd_webster") & (table.metric == "auroc") & ~table.control]
    assert (
        main(["leaderboard", "--by", "leaders", "--runs", str(path), "--task", "sd_webster"]) == 0
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    for line, (weights, rows) in zip(lines, table.groupby("weights", sort=False), strict=True):
        [top] = set(rows.a) - set(rows.b)
        beaten = set(rows.b[(rows.a == top) & (rows.p_holm < 0.05)])
        leaders = line.partition("AUROC: ")[2].partition(" lead")[0].replace(" and ", ", ")
        named = {name.split()[0] for name in leaders.split(", ")}  # without its options
        assert named == (set(rows.a) | set(rows.b)) - beaten
        assert line.startswith(f"sd_webster (weights {weights}), AUROC: {top}")
    assert main(["leaderboard", "--by", "leaders", "--runs", str(path), "--task", "x"]) == 2
    assert main(["leaderboard", "--by", "leaders", "--runs", str(path), "--format", "csv"]) == 2


def test_partial_runs_are_marked_in_front_of_the_numbers_and_deterministic_ones_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    for seed in range(2):
        make(root, COPIED, seed=seed)
        make(root, COPIED, detector="side", seed=seed, failed=1)
    make(root, COPIED, control=True, failed=1)
    for view in ([], ["--by", "seeds"], ["--by", "band"], ["--by", "difference"], ["--by", "kind"]):
        assert main(["leaderboard", "--runs", str(root), *view, "--format", "md"]) == 0
        text = capsys.readouterr().out
        lines = [
            line for line in text.splitlines() if "| side |" in line or "PARTIAL side |" in line
        ]
        assert lines and all("PARTIAL side |" in line for line in lines), view
        assert (
            "| PARTIAL random |" in text
            or view == ["--by", "difference"]
            or "PARTIAL random" in text
        )
    assert main(["leaderboard", "--runs", str(root), "--by", "summary", "--format", "md"]) == 0
    header, _, *body = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    by = {
        line.split(" | ")[0].strip("| "): dict(
            zip(header.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=False)
        )
        for line in body
    }
    assert by["side"]["t AUROC"].startswith("PARTIAL ") and not by["random"]["t AUROC"].startswith(
        "PARTIAL"
    )
    assert by["random"]["t control"].startswith("PARTIAL ") and by["random"]["t AUROC"].endswith(
        "(deterministic)"
    )
    assert main(["leaderboard", "--runs", str(root), "--by", "seeds", "--format", "md"]) == 0
    assert "| random |  | deterministic |" in capsys.readouterr().out
    runs = read_runs(root).runs
    settings = over_seeds(collect(runs), runs)
    assert settings.deterministic.tolist() == (settings.seeds > 1).tolist()
    assert differences(collect(runs), runs).deterministic.all()
    monkeypatch.setattr(board_page, "draw", lambda plots, kind, heading: b"")  # not looked at
    assert main(["report", "--runs", str(root), "--output", str(tmp_path / "page")]) == 0
    assert "PARTIAL side" in (tmp_path / "page" / "report.html").read_text()
