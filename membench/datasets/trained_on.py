"""Whether a user's model was trained on the images of a mini profile: only then is
anything known of what it memorized.
"""

from __future__ import annotations

import json
from pathlib import Path


def same_training(folder: Path, shipped: Path) -> bool:
    """Whether the ``training.json`` of a model's folder names the training set that the
    one of a shipped model does.

    ``membench train`` writes it beside the weights. A model without it is taken to be
    trained on something else.
    """
    ours = _data(shipped)
    return ours is not None and _data(folder) == ours


def _data(folder: Path) -> str | None:
    """The content hash of the training set; None where the file is missing or does not
    say.
    """
    try:
        told = json.loads((folder / "training.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    data = told.get("data")
    found = told.get("data_hash") or (data.get("hash") if isinstance(data, dict) else None)
    return found if isinstance(found, str) else None
