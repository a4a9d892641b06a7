"""Who may import whom.

Read from the import statements, those inside functions included.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package or root module, and what it may import of membench besides itself. Bottom to
# top.
MAY = {
    "errors": "",
    "seeds": "",
    "types": "",
    "plain": "",
    "options": "errors",
    "storage": "types errors",
    "metrics": "types errors seeds",
    "similarity": "storage types errors",
    "fetching": "storage errors",
    "models": "fetching storage types errors seeds",
    "features": "models similarity fetching storage errors",
    "detector": "types models storage",
    "task": "types models similarity fetching errors",
    "source_text": "",
    "registry": "detector task options source_text errors",
    "plugins": "registry detector source_text errors",
    "datasets": "models similarity fetching storage types errors",
    "testing": "detector task options models runs storage seeds types errors",
    "runs": (
        "detector task registry plugins options models features similarity metrics storage plain"
        " seeds types errors"
    ),
    "boards": "runs metrics similarity storage options registry plain types errors",
    "auditing": (
        "detector registry options datasets models features similarity metrics runs storage plain"
        " seeds types errors"
    ),
    "reports": "boards runs metrics storage plain types errors",
    "measures": "metrics similarity types errors",
    "notebook": "reports boards runs plain types errors",
    "api": (
        "auditing notebook reports boards runs models registry options storage seeds plain errors"
    ),
    "cli": (
        "api auditing reports boards runs fetching registry plugins options storage plain errors"
    ),
    "detectors": (
        "detector types datasets models features similarity metrics registry options storage"
        " seeds errors"
    ),
    "tasks": "task types datasets models features similarity fetching storage options seeds errors",
}


def modules() -> dict[str, Path]:
    files = [p for top in ("membench", "detectors", "tasks") for p in (ROOT / top).rglob("*.py")]
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in files
    }


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """The modules of this project that a file imports, by their names in ``modules``."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
                for alias in node.names
            }
    found = {
        x.removeprefix("membench.") if x.startswith(("membench.detectors", "membench.tasks")) else x
        for x in found
    }
    return {x for x in found if x in known} - {"membench", name}


def unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "membench" else parts[0]


MODULES = modules()
GRAPH = {
    name: imported(name, file, set(MODULES))
    for name, file in MODULES.items()
    if name not in ("membench", "membench.__main__")
}


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_a_module_imports_only_what_its_package_may(name: str) -> None:
    wrong = {
        x for x in GRAPH[name] if unit(x) != unit(name) and unit(x) not in MAY[unit(name)].split()
    }
    assert not wrong, (
        f"{name} imports {', '.join(sorted(wrong))}; {unit(name)} may import"
        f" {MAY[unit(name)] or 'nothing'}"
    )


def test_no_circle() -> None:
    TopologicalSorter(GRAPH).prepare()  # raises CycleError with the circle
