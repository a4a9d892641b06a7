"""What a run will take, told before it is made: evaluations, and minutes from a timed
part of it, or on a GPU that is not here from what was counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import pandas as pd

from membench import registry
from membench.detector import Detector
from membench.models.denoiser import Denoiser
from membench.models.latent import LatentDenoiser
from membench.models.narrow import flop, narrowed
from membench.runs import contract
from membench.runs.execute import Skipped
from membench.runs.gpu_rate import gpu_seconds
from membench.runs.images import Extracted, Samples
from membench.runs.job import Job, load_task, open_job, told
from membench.runs.plan import encode, suits, unsuited
from membench.runs.shards import NoModel, sample_rows
from membench.runs.spec import Spec
from membench.runs.stored import is_finished
from membench.types import Sample

T = TypeVar("T")
TIMED = 8  # examples, or images, of a part that is timed
COUNTED = 2  # of one whose evaluations are counted
# In evaluations (docs/scale.md): an assumption
JVP, BACKWARD = 3, 2


@dataclass(frozen=True)
class Price:
    """What one detector takes on one task.

    examples: that it scores. images: that it extracts; None where its preparation
    decides. prepare: evaluations of the preparation. extract, score: evaluations and
    seconds of all images, and of all examples, from a timed part; None where its
    preparation must be made first. note: why there is nothing to tell. flop: floating-point
    operations of an evaluation, where they were counted on a narrow network and not
    timed; work: then of all, in evaluations, a JVP as JVP and a backward pass as BACKWARD.
    seeds: how many runs, which differ in the seed alone, are to be made at this price; of
    those that are all there, how many there are.
    """

    detector: str
    task: str
    examples: int
    images: int | None
    prepare: int
    extract: tuple[int, float] | None
    score: tuple[int, float] | None
    note: str = ""
    flop: float | None = None
    work: float = 0.0
    seeds: int = 1

    @property
    def evaluations(self) -> int | None:
        if self.extract is None or self.score is None:
            return None
        return self.prepare + self.extract[0] + self.score[0]

    @property
    def seconds(self) -> float | None:
        """The preparation at the pace of what was timed."""
        if self.extract is None or self.score is None or self.flop is not None:
            return None
        forwards, seconds = (self.extract[i] + self.score[i] for i in (0, 1))
        return seconds + (self.prepare * seconds / forwards if forwards else 0.0)

    @property
    def gpu_seconds(self) -> float | None:
        """Of its evaluations on the GPU of :mod:`membench.runs.gpu_rate`; None where
        they were timed instead, or are not known.
        """
        if self.flop is None or self.evaluations is None:
            return None
        return gpu_seconds(self.work * self.flop)


def prices(
    specs: Sequence[Spec],
    out: Path,
    seeds: Sequence[int] = (),
    *,
    progress: bool = True,
    skipped: list[Skipped] | None = None,
) -> list[Price]:
    """The price of each spec of one task, alone; nothing is stored. seeds: of the runs of
    each, in place of its own; one that is not there is timed.

    A detector scores, and extracts images for, the first examples; the rest is in
    proportion. A published text-to-image model on a CPU, where one evaluation takes
    seconds, is not timed: its evaluations are counted on a network of the same layers.
    out: where finished runs lie, which cost nothing. progress: whether the task shows
    bars. skipped: takes the detectors that a run with ``skip`` leaves out before any work,
    which have no price. Raises :class:`membench.errors.UserError` where a run would,
    before any work.
    """
    sees = any(registry.detectors().load(spec.detector).access.model for spec in specs)
    task = load_task(specs[0], needs_model=sees, progress=progress)
    model, narrow, each = None, None, None
    found = []
    with tempfile.TemporaryDirectory() as aside, ExitStack() as stack:
        for spec in specs:
            each_seed = [replace(spec, seed=seed) for seed in seeds] or [spec]
            jobs = [open_job(one, task, Path(aside), stack, {}, False) for one in each_seed]
            left = [job for job in jobs if not ended(job, out)]
            if not left:
                nothing, n = (0, 0.0), len(jobs[0].examples)
                note = "finished already"
                whole = Price(spec.detector, spec.task, n, 0, 0, nothing, nothing, note)
                found.append(replace(whole, seeds=len(jobs)))
                continue
            job = left[0]
            if job.detector.access.model and model is None:
                model = task.model()
                encode(model, job.conditions[:TIMED])
                if spec.profile == "full" and _is_slow(model):
                    narrow, each = narrowed(model), flop(model)
            asked: Any = model if job.detector.access.model else NoModel()
            if skipped is None:
                told(job, lambda job=job, asked=asked: suits(job, asked))  # type: ignore[misc]
            elif reason := unsuited(job, asked):
                skipped.append(Skipped(spec.task, spec.detector, reason))
                continue
            if narrow is None or not job.detector.access.model:
                price = _price(job, asked, TIMED)
            else:
                price = replace(_price(job, narrow, COUNTED), flop=each)
            found.append(replace(price, seeds=len(left)))
    return found


def _is_slow(model: Denoiser) -> TypeGuard[LatentDenoiser]:
    return isinstance(model, LatentDenoiser) and model.device.type == "cpu"


def ended(job: Job, out: Path) -> bool:
    """Whether the run of this job lies finished below ``out``."""
    spec = job.spec
    folder = out / spec.task / spec.profile / spec.detector / job.folder.path.name
    return (folder / "run.json").exists() and is_finished(folder)


def _price(job: Job, model: Denoiser, tried: int) -> Price:
    """tried: how many examples, or images, are asked about."""
    detector, spec = job.detector, job.spec
    forwards = contract.preparation_forwards(detector, model, job.conditions)
    whole = Price(spec.detector, spec.task, len(job.examples), None, forwards, None, None)
    if not prepares_nothing(detector):
        return replace(whole, note="its preparation must be made before the rest can be told")
    requests = contract.plan(detector, job.conditions)
    part = job.conditions[:tried]
    ids = {c.id for c in part}
    own = [r for r in requests if r.condition.id in ids]
    # What scores by images needs those of the part; other requests are of no example
    if not own or not detector.access.images:
        own = (own or list(requests))[:tried]
    samples: list[Sample] = []
    extract, work = (0, 0.0), 0.0
    if own:
        model.ready_images()
        samples, extract, work = _timed(
            model, lambda: contract.extract(detector, model, own), len(requests) / len(own)
        )
    found = Samples.of([pd.DataFrame(sample_rows(samples))] if samples else [])
    if spec.extract_only:
        score, more = (0, 0.0), 0.0
    else:
        _, score, more = _timed(
            model,
            lambda: contract.score(detector, model, part, Extracted(found)),
            len(job.examples) / max(len(part), 1),
        )
    work += forwards + more
    return replace(whole, images=len(requests), extract=extract, score=score, work=work)


def _timed(
    model: Denoiser, act: Callable[[], T], times: float
) -> tuple[T, tuple[int, float], float]:
    """What ``act`` returns; its evaluations and seconds, so many times; its work in
    evaluations.
    """
    before, began = replace(model.cost), time.monotonic()
    found = act()
    seconds = time.monotonic() - began
    spent = model.cost - before
    work = (spent.forwards + JVP * spent.jvps + BACKWARD * spent.backwards) * times
    return found, (round((spent.forwards + spent.jvps) * times), seconds * times), work


def prepares_nothing(detector: Detector) -> bool:
    """Whether it has no work of its own before it plans and scores."""
    return type(detector).prepare is Detector.prepare
