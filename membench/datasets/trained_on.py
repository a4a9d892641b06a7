"""What the ``training.json`` beside a model says: whether it was trained on the images
of a mini profile, for only then is anything known of what it memorized, and what it was
told of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from membench.storage.hashing import json_hash


def same_training(folder: Path, shipped: Path) -> bool:
    """Whether the ``training.json`` of a model's folder names the training set that the
    one of a shipped model does.

    ``membench train`` writes it beside the weights. A model without it is taken to be
    trained on something else.
    """
    ours = _data(shipped)
    return ours is not None and _data(folder) == ours


def names_training(folder: Path) -> bool:
    """Whether a ``training.json`` beside a model names its training set: ``membench train``
    has made it then.
    """
    return _data(folder) is not None


def was_told_classes(file: Path) -> bool:
    """Whether the labels that a model was trained with were the classes of its images,
    as they are taken to be where its training.json, or nothing, does not say.
    """
    return _labels(file) == "class"


def hash_with_labels(images: str, file: Path) -> str:
    """The hash of a training set: that of its images, and of which labels a training.json
    names where they are not their classes, which are not known of such a set.
    """
    labels = _labels(file)
    return images if labels == "class" else json_hash([images, labels])


def _labels(file: Path) -> str:
    return str(_told(file)[1].get("labels", "class"))


def _data(folder: Path) -> str | None:
    """The content hash of the training set; None where the file is missing or does not
    say.
    """
    told, data = _told(folder / "training.json")
    found = told.get("data_hash") or data.get("hash")
    return found if isinstance(found, str) else None


def _told(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A training.json and its "data"; empty where there is none."""
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}, {}
    if not isinstance(told, dict):
        return {}, {}
    data = told.get("data")
    return told, data if isinstance(data, dict) else {}
