"""docs/design/modules.md: every module with the first words of its docstring.

``python tests/modules_page.py`` writes it, tests/test_docs.py holds it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "design" / "modules.md"
HEAD = """# Modules

Every module in its own first words, a table a package; [where things
are](layout.md) says what is not obvious. Made by `python tests/modules_page.py`.
"""


def page() -> str:
    """The page, from the source as it is."""
    parts = [HEAD]
    for top in ("membench", "detectors", "tasks"):
        folders = sorted({file.parent for file in (ROOT / top).rglob("*.py")})
        for folder in folders:
            files = [f for f in sorted(folder.glob("*.py")) if not f.stem.startswith("__")]
            if files:
                rows = [f"| `{f.stem}` | {first_words(f)} |" for f in files]
                name = folder.relative_to(ROOT).as_posix()
                parts.append("\n".join([f"## {name}\n", "| module | what it is |", "|---|---|"]))
                parts[-1] += "\n" + "\n".join(rows) + "\n"
    return "\n".join(parts)


def first_words(file: Path) -> str:
    """The first paragraph of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    words = " ".join(text.partition("\n\n")[0].split()).removesuffix(".").replace("|", "\\|")
    return re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"`\1`", words).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
