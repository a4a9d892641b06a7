"""Small tables of each schema, for the tests of what is stored."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pandas as pd

from membench.storage.images import png_bytes


def scores(*ids: str) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "id": ids,
            "score": [float(i) for i in range(len(ids))],
            "label": 1,
            "kind": "MV",
            "group": "g",
            "source": "s",
        }
    )
    return frame.assign(
        prompt=None, status="ok", error=None, png_bits=800.0, similarity=0.5, nearest="t"
    )


def samples(*ids: str) -> pd.DataFrame:
    image = png_bytes(np.full((4, 4, 3), 7, np.uint8))
    frame = pd.DataFrame(
        {
            "sample_id": ids,
            "condition": [i.split("/")[0] for i in ids],
            "draw": [int(i.split("/")[1]) for i in ids],
        }
    )
    return frame.assign(
        prompt="a mug",
        confidence=0.5,
        status="ok",
        image=image,
        truth_similarity=0.75,
        truth_label=1,
    )


def tables(*ids: str) -> dict[str, pd.DataFrame]:
    matches = pd.DataFrame(
        {
            "sample_id": [f"{ids[0]}/0"],
            "training_id": "t",
            "training": 3,
            "similarity": 0.25,
            "rank": 1,
        }
    )
    metrics = pd.DataFrame(
        {
            "metric": ["auroc"],
            "band": None,
            "threshold": np.nan,
            "subset": "all",
            "value": 0.9,
            "low": 0.8,
            "high": 1.0,
            "n": 2,
        }
    )
    return {
        "scores": scores(*ids),
        "samples": samples(*(f"{i}/0" for i in ids)),
        "matches": matches,
        "metrics": metrics,
    }


def rows(frame: pd.DataFrame) -> list[dict]:
    """The values, with one word for None and NaN, which Parquet does not tell apart."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def open_path(descriptor: int) -> Path:
    """The path of an open file."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return Path(
            os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).split(b"\0")[0])
        )
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
