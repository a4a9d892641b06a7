"""membench: what a diffusion model has memorized, and which detector tells."""

from __future__ import annotations

import sys as _sys
from importlib import import_module as _import_module
from importlib.machinery import ModuleSpec as _ModuleSpec
from importlib.util import spec_from_file_location as _spec_from_file_location
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from membench.api import audit, leaderboard, load, report, run
    from membench.measures import (
        ams,
        auroc_by_group,
        normalised_l2,
        rarefaction,
        tpr_at_fpr,
        ums,
    )
    from membench.notebook import Result
    from membench.runs.finished import Run


# In a checkout, detectors/ and tasks/ lie beside this package (they are what people come
# to read); an installed package has them inside. Both are imported as membench.detectors
# and membench.tasks.
_here = _Path(__file__).resolve().parent
_beside = {f"{__name__}.{n}": _here.parent / n / "__init__.py" for n in ("detectors", "tasks")}


class _Beside:
    """Finds these two alone: with the checkout in ``__path__`` there would be a
    membench.membench, and one in that.
    """

    @staticmethod
    def find_spec(name: str, path: _Any = None, target: _Any = None) -> _ModuleSpec | None:
        if (file := _beside.get(name)) is None:
            return None
        found = [str(file.parent)]
        return _spec_from_file_location(name, file, submodule_search_locations=found)


if not (_here / "detectors").is_dir() and all(file.is_file() for file in _beside.values()):
    # First: the finder of another checkout that is installed would give its own
    _sys.meta_path.insert(0, _Beside)

__version__ = "0.2.0"

# Where each public name is defined; imported when it is asked for
_PLACES = {
    "run": "api",
    "load": "api",
    "leaderboard": "api",
    "report": "api",
    "audit": "api",
    "Result": "notebook",
    "Run": "runs.finished",
    "ams": "measures",
    "auroc_by_group": "measures",
    "normalised_l2": "measures",
    "rarefaction": "measures",
    "tpr_at_fpr": "measures",
    "ums": "measures",
}

__all__ = [
    "Result",
    "Run",
    "ams",
    "audit",
    "auroc_by_group",
    "leaderboard",
    "load",
    "normalised_l2",
    "rarefaction",
    "report",
    "run",
    "tpr_at_fpr",
    "ums",
]


def __getattr__(name: str) -> _Any:
    """``membench.run`` and its kin, imported when asked for, so that ``import
    membench`` stays light.
    """
    if name in _PLACES:
        return getattr(_import_module(f"membench.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'membench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
