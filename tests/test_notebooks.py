"""The notebooks run from their first cell to the last, and find what they say."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
# Cells that are made smaller here, and what must hold at the end
SMALLER = {
    "own_detector": ("LIMIT = 128", "LIMIT = 24"),
    "audit": ('"budget": "1100"', '"budget": "600"'),
}
HOLDS = {
    "own_detector": """
found = whole.set_index("detector").mirrored
assert found["pull"] > 0.8 and abs(found["caption_length"] - 0.5) < 1e-9, found
assert set(run.scores.label) == {0, 1}
""",
    "audit": """
kinds = [row["file"][:2] for row in told["returned"]]
assert len(kinds) >= 5 and set(kinds) == {"MV"}, kinds
assert sheet.size == (840, 66) and Path("audit/report.html").is_file()
""",
}


def test_every_notebook_is_run() -> None:
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(SMALLER) == set(HOLDS)


def test_the_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another in one kernel, each in a folder of its own and without the names
    of the one before: a kernel of each would import torch anew.
    """
    for folder in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # else it leaves some at home
        monkeypatch.setenv(folder, str(tmp_path / folder))
    books = []
    for name, (whole, smaller) in SMALLER.items():
        (tmp_path / name).mkdir()
        book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        [cell] = [c for c in book.cells if whole in c.source]
        cell.source = cell.source.replace(whole, smaller)
        book.cells.insert(0, new_code_cell("%reset_selective -f ^[^_]"))
        book.cells.insert(1, new_code_cell(f"%cd -q {tmp_path / name}"))
        book.cells.append(new_code_cell(HOLDS[name]))
        books.append(book)
    first, *others = books
    first.cells += [cell for book in others for cell in book.cells]
    NotebookClient(first, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.parametrize("name", SMALLER)
def test_a_notebook_is_kept_as_it_ran(name: str) -> None:
    """Run from the first cell to the last, without an error or a path of one machine."""
    path = FOLDER / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = [c for c in book.cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert all(o.output_type != "error" for c in cells for o in c.outputs)
    assert sum(bool(c.outputs) for c in cells) >= 3
    text = path.read_text(encoding="utf-8")
    assert "/tmp" not in text and "/home" not in text and str(Path.home()) not in text
