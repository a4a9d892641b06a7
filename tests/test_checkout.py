"""In a checkout detectors/ and tasks/ lie beside the package and are imported from it."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

import membench
import membench.detectors
import membench.tasks

ROOT = Path(__file__).resolve().parent.parent


def test_a_walk_through_the_package_ends() -> None:
    """A tool that documents or imports every module does that."""
    names = [m.name for m in islice(pkgutil.walk_packages(membench.__path__, "membench."), 5000)]
    assert len(names) == len(set(names)) < 1000 and "membench.runs.execute" in names
    assert not [name for name in names if name.startswith("membench.membench")]


@pytest.mark.parametrize("name", ["membench", "tests", "results", "docs", "conftest"])
def test_nothing_else_of_the_checkout_is_in_the_package(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"membench.{name}")


def test_they_are_those_beside_the_package() -> None:
    for module in (membench.detectors, membench.tasks):
        assert Path(str(module.__file__)).parent.parent == ROOT
        assert [Path(path).parent for path in module.__path__] == [ROOT]


def test_they_are_not_those_of_another_checkout_that_is_installed(tmp_path: Path) -> None:
    for folder in ("membench", "detectors", "tasks"):
        (tmp_path / folder).mkdir()
        shutil.copy(ROOT / folder / "__init__.py", tmp_path / folder)
    other = str(ROOT / "detectors" / "__init__.py")
    code = (
        "import sys\n"
        "from importlib.util import spec_from_file_location as spec\n"
        "class Installed:\n"
        "    find_spec = staticmethod(lambda name, path=None, target=None: spec(name,"
        f" {other!r}) if name == 'membench.detectors' else None)\n"
        "sys.meta_path.insert(0, Installed)\n"
        "import membench.detectors, membench.tasks\n"
        "print(membench.detectors.__file__, membench.tasks.__file__, sep='\\n')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert [Path(f).resolve() for f in found] == [
        (tmp_path / folder / "__init__.py").resolve() for folder in ("detectors", "tasks")
    ]
