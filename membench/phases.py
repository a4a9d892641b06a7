"""The phases of a run: extract images, score examples, match images with the training set.

Work is cut into shards of fixed size, so that neither the batch size nor an interruption changes what goes into one: a
finished shard is on disk, and the next process begins after the last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from membench import store
from membench.denoiser import Denoiser
from membench.similarity.l2 import normalised_l2
from membench.types import Condition, Detector, Example, LoadedTask, Request, Sample

SHARD = 64  # conditions or images; part of the output's definition, not a knob
NOT_FINITE = "the network returned NaN or infinity"
T = TypeVar("T")
Row = dict[str, Any]


@contextmanager
def timer() -> Iterator[dict[str, float]]:
    """Fills ``{"seconds": ...}`` when the block ends."""
    found: dict[str, float] = {}
    start = time.monotonic()
    yield found
    found["seconds"] = round(time.monotonic() - start, 3)


class Phases:
    """Runs a detector's two phases over shards."""

    def __init__(self, detector: Detector, model: Denoiser, folder: store.RunFolder, progress: bool) -> None:
        self.detector, self.model, self.folder, self.progress = detector, model, folder, progress

    def extract(self, requests: Sequence[Request]) -> pd.DataFrame:
        """The samples table; failed ones are rows too."""

        def rows(part: Sequence[Request]) -> list[Row]:
            return [_sample_row(sample) for sample in self.detector.extract(self.model, part)]

        return self._shards("samples", requests, [_sample_id(r.condition.id, r.draw) for r in requests], rows, "img")

    def score(self, examples: Sequence[Example], samples: pd.DataFrame) -> pd.DataFrame:
        """The scores table. The detector sees conditions and its own samples, no label and no training image."""
        extracted = Extracted(samples)

        def rows(part: Sequence[Example]) -> list[Row]:
            scores = self.detector.score(self.model, [e.condition for e in part], extracted)
            return [_score_row(example, float(score)) for example, score in zip(part, scores, strict=True)]

        return self._shards("scores", examples, [e.id for e in examples], rows, "ex")

    def _shards(
        self, phase: str, items: Sequence[T], expected: list[str], compute: Callable[[Sequence[T]], list[Row]], unit: str
    ) -> pd.DataFrame:
        with tqdm(total=len(items), desc=phase, unit=unit, disable=not self.progress, smoothing=0.1) as bar:
            for index, start in enumerate(range(0, len(items), SHARD)):
                part = items[start : start + SHARD]
                if not self.folder.shard_done(phase, index):
                    before = replace(self.model.cost)
                    with timer() as seconds:
                        rows = compute(part)
                    self.folder.write_shard(phase, index, pd.DataFrame(rows), asdict(self.model.cost - before) | seconds)
                bar.update(len(part))
        return self.folder.read_shards(phase, expected)


def match(samples: pd.DataFrame, task: LoadedTask) -> pd.DataFrame:
    """The matches table: every generated-training pair within the space's floor, and the nearest of each image."""
    if samples.empty:
        return store.SCHEMAS["matches"].empty_table().to_pandas()
    images = np.stack([store.png_image(png) for png in samples.image])
    found = normalised_l2(images, task.training_images(), floor=task.info.space.floor)
    ids = np.asarray(task.training_ids, dtype=object)
    return pd.DataFrame(
        {
            "sample_id": samples.sample_id.to_numpy()[found.generated],
            "training_id": ids[found.training],
            "training": found.training,
            "similarity": found.similarity,
            "rank": found["rank"],
        }
    )


def _sample_id(condition: str, draw: int) -> str:
    return f"{condition}/{draw}"


def _sample_row(s: Sample) -> Row:
    ok = math.isfinite(s.confidence)
    return {
        "sample_id": _sample_id(s.condition.id, s.draw),
        "condition": s.condition.id,
        "draw": s.draw,
        "prompt": s.condition.prompt,
        "confidence": s.confidence if ok else None,
        "status": "ok" if ok else f"failed: {NOT_FINITE}",
        "image": store.png_bytes(s.image),
    }


class Extracted(Mapping[str, Sequence[Sample]]):
    """A run's samples by condition id, in order of draw; the confidence of a failed one is NaN.

    Images are decoded when a condition is looked up and not kept: at full scale they would not fit in memory. A
    condition of which nothing was extracted has no samples.
    """

    def __init__(self, samples: pd.DataFrame) -> None:
        self._rows = dict(list(samples.sort_values("draw").groupby("condition")))

    def __getitem__(self, condition: str) -> list[Sample]:
        if condition not in self._rows:
            return []
        rows = self._rows[condition]
        prompt = rows.prompt.iloc[0]
        owner = Condition(condition, prompt if isinstance(prompt, str) else None)
        return [Sample(owner, int(r.draw), store.png_image(r.image), float(r.confidence)) for r in rows.itertuples()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _score_row(e: Example, score: float) -> Row:
    ok = math.isfinite(score)
    return {
        "id": e.id,
        "score": score if ok else None,
        "label": e.label,
        "kind": e.kind,
        "group": e.group,
        "source": e.source,
        "prompt": e.condition.prompt,
        "status": "ok" if ok else "failed",
        "error": None if ok else NOT_FINITE,
    }
