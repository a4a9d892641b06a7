"""membench: what a diffusion model has memorized, and which detector tells."""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from membench.api import audit, run
    from membench.runs.finished import Run, load

# In a checkout, detectors/ and tasks/ lie beside this package (they are what people
# come to read); an installed package has them inside. Both are imported as
# membench.detectors and membench.tasks.
_beside = _Path(__file__).resolve().parent.parent
if (
    not (_Path(__file__).resolve().parent / "detectors").is_dir()
    and (_beside / "detectors" / "__init__.py").is_file()
):
    __path__.append(str(_beside))

__version__ = "0.1.0"

__all__ = ["Run", "audit", "load", "run"]


def __getattr__(name: str) -> _Any:
    """``membench.run`` and its kin, imported when asked for, so that ``import
    membench`` stays light.
    """
    if name in __all__:
        from membench import api

        return getattr(api, name)
    raise AttributeError(f"module 'membench' has no attribute {name!r}")
