"""What a run will take, told before it is made: evaluations, and minutes from a timed
part of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from membench import registry
from membench.detector import Detector
from membench.models.denoiser import Denoiser
from membench.runs import contract
from membench.runs.folder import read_info
from membench.runs.job import Job, load_task, open_job, told
from membench.runs.plan import encode, suits
from membench.runs.shards import Extracted, NoModel, sample_rows
from membench.runs.spec import Spec

T = TypeVar("T")
TIMED = 8  # examples, or images, of a part that is timed


@dataclass(frozen=True)
class Price:
    """What one detector takes on one task.

    examples: that it scores. images: that it extracts; None where its preparation
    decides. prepare: evaluations of the preparation. extract, score: evaluations and
    seconds of all images, and of all examples, from a timed part; None where its
    preparation must be made first. note: why there is nothing to tell.
    """

    detector: str
    task: str
    examples: int
    images: int | None
    prepare: int
    extract: tuple[int, float] | None
    score: tuple[int, float] | None
    note: str = ""

    @property
    def evaluations(self) -> int | None:
        if self.extract is None or self.score is None:
            return None
        return self.prepare + self.extract[0] + self.score[0]

    @property
    def seconds(self) -> float | None:
        """The preparation at the pace of what was timed."""
        if self.extract is None or self.score is None:
            return None
        forwards, seconds = (self.extract[i] + self.score[i] for i in (0, 1))
        return seconds + (self.prepare * seconds / forwards if forwards else 0.0)


def prices(specs: Sequence[Spec], out: Path) -> list[Price]:
    """The price of each spec of one task, alone; nothing is stored.

    A detector scores, and extracts images for, the first examples; the rest is in
    proportion. out: where finished runs lie, which cost nothing. Raises
    :class:`membench.errors.UserError` where a run would, before any work.
    """
    sees = any(registry.detectors().load(spec.detector).access.model for spec in specs)
    task = load_task(specs[0], needs_model=sees)
    model = None
    found = []
    with tempfile.TemporaryDirectory() as aside, ExitStack() as stack:
        for spec in specs:
            job = open_job(spec, task, Path(aside), stack, {}, False)
            if _finished(job, out):
                nothing = (0, 0.0)
                own = (spec.detector, spec.task, len(job.examples))
                found.append(Price(*own, 0, 0, nothing, nothing, "finished already"))
                continue
            if job.detector.access.model and model is None:
                model = task.model()
                encode(model, job.conditions[:TIMED])
            asked: Any = model if job.detector.access.model else NoModel()
            told(job, lambda job=job, asked=asked: suits(job, asked))  # type: ignore[misc]
            found.append(_price(job, asked))
    return found


def _finished(job: Job, out: Path) -> bool:
    spec = job.spec
    folder = out / spec.task / spec.profile / spec.detector / job.folder.path.name
    done = (folder / "run.json").exists() and read_info(folder).get("status")
    return done in ("complete", "partial")


def _price(job: Job, model: Denoiser) -> Price:
    detector, spec = job.detector, job.spec
    forwards = contract.preparation_forwards(detector, model, job.conditions)
    whole = Price(spec.detector, spec.task, len(job.examples), None, forwards, None, None)
    if not prepares_nothing(detector):
        return replace(whole, note="its preparation must be made before the rest can be told")
    requests = contract.plan(detector, job.conditions)
    part = job.conditions[:TIMED]
    ids = {c.id for c in part}
    own = [r for r in requests if r.condition.id in ids] or list(requests)
    own = own[:TIMED] if not detector.access.images else own
    if own:
        model.ready_images()
    samples, extract = _timed(
        model, lambda: contract.extract(detector, model, own), len(requests) / max(len(own), 1)
    )
    rows = pd.DataFrame(sample_rows(samples))
    if rows.empty:
        rows = pd.DataFrame({"condition": [], "draw": []})
    if spec.extract_only:
        score = (0, 0.0)
    else:
        _, score = _timed(
            model,
            lambda: contract.score(detector, model, part, Extracted(rows)),
            len(job.examples) / max(len(part), 1),
        )
    return replace(whole, images=len(requests), extract=extract, score=score)


def _timed(model: Denoiser, act: Callable[[], T], times: float) -> tuple[T, tuple[int, float]]:
    """What ``act`` returns, and its evaluations and seconds, so many times."""
    before, began = replace(model.cost), time.monotonic()
    found = act()
    seconds = time.monotonic() - began
    spent = model.cost - before
    return found, (round((spent.forwards + spent.jvps) * times), seconds * times)


def prepares_nothing(detector: Detector) -> bool:
    """Whether it has no work of its own before it plans and scores."""
    return type(detector).prepare is Detector.prepare
