"""Where a number comes from: membench's own commit (not the current folder's),
versions, device.
"""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
from pathlib import Path

# Of a checkout what changes no number: boards and pages, which a long run writes while
# it goes on (results/everything.py)
OUTPUT = ("results", "docs", "README.md")
LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
)


@functools.cache
def commit() -> dict[str, object]:
    """Commit and dirty flag of the checkout that membench runs from (whether anything
    but boards and pages is changed or new there); None for an installed wheel.
    """
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*args: str) -> str | None:
        try:
            return subprocess.run(
                # Without a lock, which a killed process would leave to the user's git
                ["git", "--no-optional-locks", "-C", str(root), *args],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        # No git, or no commit yet: unknown is the honest answer
        except (OSError, subprocess.CalledProcessError):
            return None

    status = git("status", "--porcelain", "--", ".", *(f":(exclude){name}" for name in OUTPUT))
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    """Versions of the libraries that can change a number."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
