"""Boards as LaTeX: every character means itself, and every row has its columns."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from membench.boards.board import read
from membench.cli.main import main
from membench.reports import latex, screen
from membench.reports.latex import escaped, in_latex
from membench.reports.screen import Shown

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "results" / "mirror_development.parquet"


def test_every_character_means_itself() -> None:
    odd = "50 % of a_b & c#1 {x} $y$ a^2 ~ \\n < > | ≥ ± …"
    text = escaped(odd)
    assert text.isascii()
    # What is left without the commands holds no character that LaTeX takes for another thing
    bare = re.sub(r"\\[&%$#_{}]|\$[^$]*\$|\\ldots\{\}", "", text)
    assert not set(bare) & set("&%$#_{}~^\\<>|")
    assert [text.count(f"\\{c}") for c in "%_&#"] == [1] * 4 and text.count("\\$") == 2


def test_a_table_has_a_row_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pd.DataFrame(
        {"detector": ["a_b", "c"], "AUROC": ["0.9 [0.8, 1.0]", "n/a"], "N": ["", "≥3"]}
    )
    monkeypatch.setattr(
        latex,
        "shown",
        lambda board, wide: [Shown("runs & more", body, ["95 % of them"], ["--wide"])],
    )
    board = read(BOARD, "mirror")
    text = in_latex(board)
    assert r"\begin{tabular}{lrr}" in text and r"\caption{runs \& more}" in text
    assert r"a\_b & 0.9 [0.8, 1.0] &  \\" in text and r"c & n/a & $\geq$3 \\" in text
    assert r"\footnotesize 95 \% of them\par" in text and "wide" not in text.split("\n% ")[0]


def test_it_holds_the_tables_of_the_terminal() -> None:
    board = read(BOARD, "mirror")
    text = in_latex(board)
    tables = text.split(r"\begin{table}")[1:]
    found = list(screen.shown(board))
    assert len(tables) == len(found) > 3
    for table, of in zip(tables, found, strict=True):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(of.body) and table.count(r"\midrule") == 1
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {of.body.shape[1]}
    assert len(in_latex(board, wide=True)) > len(text)


def test_the_ending_of_a_file_says_its_format(tmp_path: Path, capsys) -> None:
    argv = ["leaderboard", "--by", "mirror", "--runs", str(BOARD)]
    assert main([*argv, "--output", str(tmp_path / "board.tex")]) == 0
    assert (tmp_path / "board.tex").read_text().startswith(r"% \usepackage{booktabs}")
    capsys.readouterr()
    assert main([*argv, "--output", str(tmp_path / "board.xlsx")]) == 2
    assert (
        "no format has the ending .xlsx; add --format table, md, latex" in capsys.readouterr().err
    )
    assert not (tmp_path / "board.xlsx").exists()
