"""What audits have computed: scores and images by the model and the way they were made,
so that a stopped audit goes on, and a larger one begins where a smaller one ended.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from membench.storage.cache import cache_root
from membench.storage.hashing import content_key, json_hash
from membench.storage.images import png_bytes
from membench.storage.tables import read_table, write_table
from membench.types import Condition, Request, Sample


def folder_of(kind: str, parts: Mapping[str, Any]) -> Path:
    """Where results of these parts lie. parts: all that changes them."""
    return cache_root() / "audits" / f"{kind}-{content_key(parts)}"


class Scores:
    """Scores by the id of a condition; NaN for one that failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, float] = {}
        for file in sorted(folder.glob("[!.]*.parquet")):
            frame = read_table(file, "audit_scores")
            self.found.update(zip(frame.id, frame.score.astype(float), strict=True))

    def add(self, conditions: Sequence[Condition], scores: Sequence[float]) -> None:
        """Stores a block."""
        ids = [c.id for c in conditions]
        finite = [s if math.isfinite(s) else None for s in scores]
        frame = pd.DataFrame({"id": ids, "score": finite})
        write_table(self.folder / f"{json_hash(ids)[:16]}.parquet", frame, "audit_scores")
        self.found.update(zip(ids, map(float, scores), strict=True))


class Images:
    """Generated images by (id of the condition, draw)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[tuple[str, int], bytes | None] = {}
        for file in sorted(folder.glob("[!.]*.parquet")):
            self._take(read_table(file, "audit_images"))

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Those that are not stored."""
        return [r for r in requests if (r.condition.id, r.draw) not in self.found]

    def add(self, samples: Sequence[Sample]) -> None:
        """Stores a block; a failed sample has no image."""
        frame = pd.DataFrame(
            {
                "condition": [s.condition.id for s in samples],
                "draw": [s.draw for s in samples],
                "image": [
                    png_bytes(s.image) if math.isfinite(s.confidence) else None for s in samples
                ],
            }
        )
        name = hashlib.sha256(repr(list(zip(frame.condition, frame.draw, strict=True))).encode())
        write_table(self.folder / f"{name.hexdigest()[:16]}.parquet", frame, "audit_images")
        self._take(frame)

    def _take(self, frame: pd.DataFrame) -> None:
        keys = zip(frame.condition, frame.draw.astype(int), strict=True)
        self.found.update(zip(keys, frame.image, strict=True))
