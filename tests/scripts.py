"""Scripts of ``benchmarks/`` and ``results/``, as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from conftest import ROOT


def script(file: str) -> ModuleType:
    """The module of ``benchmarks/NAME.py`` or ``results/NAME.py``."""
    place = ROOT / file
    spec = importlib.util.spec_from_file_location(f"{place.stem}_script", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and inspect look their module up
    sys.path.insert(0, str(place.parent))  # as for a script that is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(place.parent))
    return module
