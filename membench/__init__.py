"""membench: what a diffusion model has memorized, and which detector tells."""

from __future__ import annotations

from pathlib import Path as _Path

# In a checkout, detectors/ and tasks/ lie beside this package (they are what people come to read);
# an installed package has them inside. Both are imported as membench.detectors and membench.tasks.
_beside = _Path(__file__).resolve().parent.parent
if not (_Path(__file__).resolve().parent / "detectors").is_dir() and (_beside / "detectors" / "__init__.py").is_file():
    __path__.append(str(_beside))

__version__ = "0.1.0"
