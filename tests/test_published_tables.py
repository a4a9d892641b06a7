"""The tables in the documents are what their Parquet files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("tables", ROOT / "results" / "tables.py")
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


@pytest.mark.parametrize("name", tables.FILES)
def test_the_tables_of_a_document_are_those_of_its_parquet(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert (
        len(tables.BLOCK.findall(text))
        == text.count("<!-- membench ")
        == text.count("<!-- end -->")
        > 0
    )
    assert tables.rewritten(text) == text, "the Parquet changed: python results/tables.py"


def test_a_changed_number_is_seen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = tables.BLOCK.search(text)[0]
    digit = next(i for i, c in enumerate(block) if c.isdigit() and block[i - 1] == ".")
    changed = text.replace(
        block, block[:digit] + str((int(block[digit]) + 1) % 10) + block[digit + 1 :]
    )
    assert changed != text and tables.rewritten(changed) == tables.rewritten(text)
