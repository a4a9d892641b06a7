"""The phases of a run: extract images, score examples, match images with the training
set.

Work is cut into shards of fixed size, so that neither the batch size nor an
interruption changes what goes into one: a finished shard is on disk, and the next
process begins after the last.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from membench.detector import Detector
from membench.models.denoiser import Denoiser
from membench.models.memo import Memo
from membench.runs import contract
from membench.runs.folder import RunFolder
from membench.runs.images import Extracted, Samples
from membench.storage.images import pngs
from membench.types import Cost, Example, Request, Sample, Tracker

SHARD = 64  # conditions or images; part of the output's definition, not a knob
UNITS = {"samples": "img", "scores": "ex"}
Row = dict[str, Any]
Compute = Callable[[Sequence[Any]], list[Row]]


@contextmanager
def timer() -> Iterator[dict[str, float]]:
    """Fills ``{"seconds": ...}`` when the block ends."""
    found: dict[str, float] = {}
    start = time.monotonic()
    yield found
    found["seconds"] = round(time.monotonic() - start, 3)


class NoModel:
    """In place of the model, for a detector whose access says that it sees none: it
    costs nothing, and nothing may be asked of it.
    """

    def __init__(self) -> None:
        self.cost, self.memo = Cost(), None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of copying and the like
            raise AttributeError(name)
        raise RuntimeError(
            f"a detector that declares Access(model=False) asks for the model's {name!r}"
        )


class Work:
    """A phase of one detector, cut into shards: ``items`` whose rows ``compute`` makes."""

    def __init__(
        self,
        phases: Phases,
        phase: str,
        items: Sequence[Any],
        expected: list[str],
        compute: Compute,
    ) -> None:
        self.phases, self.phase, self.items, self.expected, self.compute = (
            phases,
            phase,
            items,
            expected,
            compute,
        )

    def __len__(self) -> int:
        return -(-len(self.items) // SHARD)

    def done(self, index: int) -> bool:
        return index >= len(self) or self.phases.folder.shard_done(self.phase, index)

    def shard(self, index: int) -> None:
        """Computes a shard and stores it, unless it is stored already."""
        part = self.items[index * SHARD : (index + 1) * SHARD]
        cost = self.phases.model.cost
        before = replace(cost)
        with timer() as seconds:
            rows = self.compute(part)
        if not self.done(index):
            spent = cost - before
            # What a detector takes alone: others of the same command have made some of
            # its evaluations.
            seconds["seconds"] = round(seconds["seconds"] + spent.shared_seconds, 3)
            self.phases.folder.write_shard(
                self.phase, index, pd.DataFrame(rows), asdict(spent) | seconds
            )

    def scores(self) -> pd.DataFrame:
        """All scores; the shards must be done."""
        return self.phases.folder.read_shards("scores", self.expected)

    def samples(self) -> Samples:
        """All samples; the shards must be done."""
        return self.phases.folder.read_samples(self.expected)


def in_step(
    works: Sequence[Work],
    model: Denoiser,
    progress: bool,
    indices: Iterable[int] | None = None,
    tracker: Tracker | None = None,
) -> None:
    """Computes the first shard of every work, then the second: what several ask of the
    network about it is evaluated once.

    A shard that one of them lacks is computed for all (a killed run may have stopped in
    between), so that the same evaluations share a batch, and an interruption changes no
    bit. indices: only these shards; None: all, in order. tracker: is told how many
    images or examples of each work are done, a step a shard.
    """
    model.memo = Memo() if len(works) > 1 else None
    told = False
    try:
        name, total = works[0].phase if works else "", sum(len(work.items) for work in works)
        with tqdm(
            total=total,
            desc=name,
            unit=UNITS.get(name, "it"),
            disable=not (progress and total),
            smoothing=0.1,
        ) as bar:
            for index in range(max(map(len, works), default=0)) if indices is None else indices:
                missing = not all(work.done(index) for work in works)
                before, began = replace(model.cost), time.monotonic()
                for work in works:
                    if missing and index < len(work):
                        work.shard(index)
                    bar.update(len(work.items[index * SHARD : (index + 1) * SHARD]))
                    if tracker is not None and index < len(work):
                        done = min((index + 1) * SHARD, len(work.items))
                        tracker.scalar(f"{work.phases.folder.title}/{work.phase}", done, index)
                if missing and progress and not told:
                    told = True
                    line = price_line(works, index, model.cost - before, time.monotonic() - began)
                    bar.write(line, file=sys.stderr) if line else None
                if model.memo is not None:
                    model.memo.clear()
    finally:
        model.memo = None


def price_line(works: Sequence[Work], index: int, spent: Cost, seconds: float) -> str:
    """What is left after a shard of every work, by what it took; empty for nothing."""
    sizes = [len(work.items[index * SHARD : (index + 1) * SHARD]) for work in works]
    left = sum(
        len(work.items[i * SHARD : (i + 1) * SHARD])
        for work in works
        for i in range(index + 1, len(work))
        if not work.done(i)
    )
    if not left or not sum(sizes):
        return ""
    times = left / sum(sizes)
    evaluations = round((spent.forwards + spent.jvps) * times)
    return (
        f"membench: {works[0].phase}: {evaluations:,} evaluations and"
        f" {seconds * times / 60:.1f} min are left, timed on the first {sum(sizes):,}"
    )


class Phases:
    """A detector's two phases as works."""

    def __init__(self, detector: Detector, model: Denoiser, folder: RunFolder) -> None:
        self.detector, self.model, self.folder = detector, model, folder

    def extract(self, requests: Sequence[Request]) -> Work:
        """Makes the samples table; failed ones are rows too."""

        def rows(part: Sequence[Request]) -> list[Row]:
            return sample_rows(contract.extract(self.detector, self.model, part))

        return Work(
            self, "samples", requests, [_sample_id(r.condition.id, r.draw) for r in requests], rows
        )

    def score(self, examples: Sequence[Example], samples: Samples) -> Work:
        """Makes the scores table.

        The detector sees conditions and its own samples, no label and no training
        image.
        """
        extracted, drawn = Extracted(samples), drawn_bits(samples)

        def rows(part: Sequence[Example]) -> list[Row]:
            scores = contract.score(
                self.detector, self.model, [e.condition for e in part], extracted
            )
            own = [e.id for e in part if e.condition.image is not None]
            images = [e.condition.image for e in part if e.condition.image is not None]
            bits = {id_: 8.0 * len(png) for id_, png in zip(own, pngs(images), strict=True)}
            return [
                _score_row(
                    example,
                    score,
                    bits.get(example.id, drawn.get(example.id)),
                    self.detector.failure,
                )
                for example, score in zip(part, scores, strict=True)
            ]

        return Work(self, "scores", examples, [e.id for e in examples], rows)


def drawn_bits(samples: Samples) -> dict[str, float]:
    """Mean bits of the stored PNGs by condition id, undecoded; a failed sample does not
    count.
    """
    rows = samples.rows.assign(bits=8.0 * samples.images.sizes)
    good = rows[(rows.status == "ok") & (rows.bits > 0)]
    return good.bits.groupby(good.condition).mean().to_dict()


def _sample_id(condition: str, draw: int) -> str:
    return f"{condition}/{draw}"


def sample_rows(samples: Sequence[Sample]) -> list[Row]:
    encoded = pngs([sample.image for sample in samples])
    return [_sample_row(sample, png) for sample, png in zip(samples, encoded, strict=True)]


def _sample_row(s: Sample, png: bytes) -> Row:
    ok = math.isfinite(s.confidence)
    return {
        "sample_id": _sample_id(s.condition.id, s.draw),
        "condition": s.condition.id,
        "draw": s.draw,
        "prompt": s.condition.prompt,
        "confidence": s.confidence if ok else None,
        "status": "ok" if ok else f"failed: {Detector.failure}",
        "image": png,
        "truth_similarity": None,  # found when the images are compared
        "truth_label": None,
    }


def _score_row(e: Example, score: float, png_bits: float | None, failure: str) -> Row:
    ok = math.isfinite(score)
    return {
        "id": e.id,
        "score": score if ok else None,
        "label": e.memorized,
        "kind": e.kind,
        "group": e.group,
        "source": e.source,
        "prompt": e.condition.prompt,
        "status": "ok" if ok else "failed",
        "error": None if ok else failure,
        "png_bits": png_bits,
        "similarity": e.similarity,
        "nearest": e.nearest,
    }
