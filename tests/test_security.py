"""docs/security.md says nothing that no test holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"
LINES = [
    " ".join(line.split())
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    for line in re.split(r"\n(?=- )|\n\n", section)[1:]
    if line.startswith("- ")
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_line_of_the_page_names_tests_that_are_there(line: str) -> None:
    named = re.search(r"\[(test_\w+: test_[^\]]+)\]$", line)
    assert named, f"no test holds: {line}"
    for part in named[1].split("; "):
        file, _, names = part.partition(": ")
        tree = ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert set(names.split(", ")) <= there, set(names.split(", ")) - there


def test_the_page_is_whole() -> None:
    assert len(LINES) >= 20
