"""Constraints for pip: each dependency at the ``>=`` bound of pyproject.toml.

    python .ci/lowest.py [EXTRA ...] > lowest.txt && pip install -c lowest.txt -e '.[EXTRA]'

A dependency without a lower bound is an error: what was never run is not promised.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def lowest(pyproject: Path, extras: list[str]) -> list[str]:
    """``name==version`` of each dependency, and of the extras', whose marker holds
    here.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    listed = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    found: dict[str, str] = {}
    for requirement in map(Requirement, listed):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        if len(bounds) != 1:
            raise SystemExit(f"{pyproject}: {requirement} needs exactly one lower bound (>=)")
        if found.setdefault(requirement.name, bounds[0]) != bounds[0]:
            raise SystemExit(
                f"{pyproject}: {requirement.name} has two lower bounds, {found[requirement.name]}"
                f" and {bounds[0]}"
            )
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    print(
        "\n".join(lowest(Path(__file__).resolve().parent.parent / "pyproject.toml", sys.argv[1:]))
    )
