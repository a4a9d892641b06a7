"""What ``membench train cifar10 --profile full`` wrote beside a model: which images of
CIFAR-10 it saw, how often, what it was told of them, and its snapshots.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from membench.errors import UserError

from ..shared import rung_folder


@dataclass(frozen=True)
class Trained:
    """rows: of the training set, each once; copies: how often each was shown, at least
    1; labels: what the model was told of an image.
    """

    rows: list[int]
    copies: list[int]
    labels: str


def record_of(folder: Path) -> Path:
    """The training.json of a model's folder; a snapshot's lies one folder up."""
    above = folder.parent / "training.json"
    if re.fullmatch(r"step-\d{5,}", folder.name) and above.is_file():
        return above
    return folder / "training.json"


def read_trained(file: Path, total: int, advice: str) -> Trained:
    """A training.json. total: images of the training set; advice: what else could be
    done.

    Raises :class:`UserError`.
    """
    try:
        data = json.loads(file.read_bytes())["data"]
        rows, copies = [int(r) for r in data["rows"]], [int(n) for n in data["copies"]]
        labels = str(data.get("labels", "class"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file} does not say which images the model was trained on ({error!r}); {advice}"
        ) from None
    if (
        len(rows) != len(copies)
        or not rows
        or min(rows) < 0
        or max(rows) >= total
        or len(set(rows)) < len(rows)
        or min(copies) < 1
    ):
        raise UserError(
            f"{file}: its rows and copies do not fit CIFAR-10's {total} training images; {advice}"
        )
    return Trained(rows, copies, labels)


def snapshot(folder: Path, rung: int) -> Path:
    """The weights that ``rungs`` of the recipe kept; ``rung`` counts from 1, and 0 is the
    model itself.

    Raises :class:`UserError` where there is no such snapshot.
    """
    if not rung:
        return folder
    file = folder / "training.json"
    try:
        recipe = json.loads(file.read_bytes())["recipe"]
        steps = sorted(int(step) for step in recipe.get("rungs", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"rung={rung}: {file} does not say which snapshots {folder} has; leave rung out"
        ) from None
    if not steps:
        raise UserError(
            f"rung={rung}: {folder} has no snapshots; train it with --set rungs=STEP,STEP"
        )
    if rung > len(steps):
        raise UserError(f"rung={rung}: {folder} has rungs 1 to {len(steps)}")
    found = rung_folder(folder, steps[rung - 1])
    if not (found / "model_index.json").is_file():
        raise UserError(f"rung={rung}: {found} is missing; train {folder.name} again")
    return found
