"""The constraints of .ci/run's second environment are the lower bounds of
pyproject.toml.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from conftest import ROOT

LOWEST = ROOT / ".ci" / "lowest.py"
pytestmark = pytest.mark.skipif(not LOWEST.exists(), reason="an installed package has no .ci")


def lowest(folder: Path, dependencies: str, extra: str = "[]") -> list[str]:
    (folder / "pyproject.toml").write_text(
        f"[project]\ndependencies = {dependencies}\noptional-dependencies = {{ x = {extra} }}\n"
    )
    return runpy.run_path(str(LOWEST))["lowest"](folder / "pyproject.toml", ["x"])


def test_lower_bounds_become_constraints(tmp_path: Path) -> None:
    found = lowest(
        tmp_path, """["b>=2.0,!=2.1", "a[c]>=1"]""", """["b>=2.0", "d>=3; python_version < '3'"]"""
    )
    assert found == ["a==1", "b==2.0"]


@pytest.mark.parametrize("wrong", ["['a']", "['a<2']", "['a==1']", "['a>=1', 'a>=2']"])
def test_a_dependency_without_one_lower_bound_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="lower bound"):
        lowest(tmp_path, wrong)


def test_every_dependency_of_ours_has_one() -> None:
    found = runpy.run_path(str(LOWEST))["lowest"](ROOT / "pyproject.toml", ["ray"])
    assert {"torch", "torchvision", "transformers", "diffusers", "peft", "ray"} <= {
        line.split("==")[0] for line in found
    }
