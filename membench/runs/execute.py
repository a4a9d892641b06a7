"""plan -> execute -> store -> metrics. Knows no detector and no task by name.

A killed run continues where it stopped (shards.py) and ends with the same numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from membench import registry
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.plain import say
from membench.runs.conclude import conclude
from membench.runs.executor import Executor
from membench.runs.finished import Run, load
from membench.runs.images import Samples
from membench.runs.job import Job, load_task, open_job, run_info, told
from membench.runs.plan import Unprepared, encode, planned, suits, tell_alike, unsuited
from membench.runs.seen_file import remove_left
from membench.runs.shards import NoModel, Phases, Work, in_step, timer
from membench.runs.spec import Spec, held, source_of
from membench.runs.stored import HELD
from membench.storage.reading import is_text, shown
from membench.task import LoadedTask
from membench.types import Example, Tracker


@dataclass(frozen=True)
class Skipped:
    """A detector that was left out of a task, and why, in a line."""

    task: str
    detector: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """Finished runs, in the order of their specs, and the detectors that were left out."""

    runs: list[Run]
    skipped: list[Skipped]


def execute(
    spec: Spec, out: Path, *, progress: bool = True, executor: Executor | None = None
) -> Run:
    return execute_all([spec], out, progress=progress, executor=executor).runs[0]


def execute_all(
    specs: Sequence[Spec],
    out: Path,
    *,
    progress: bool = True,
    skip: bool = False,
    executor: Executor | None = None,
    quality: Sequence[str] = (),
    tracker: Tracker | None = None,
) -> Outcome:
    """Runs several detectors on one task: a run each, in order.

    Network evaluations that several need are made once.

    The specs differ in detector, options and preset alone. Each run's counts are those
    that it would take alone, and so are its seconds but for the memo's own work;
    ``shared`` says how many of its forwards had been made already. skip: detectors that
    do not suit the task, or cost far too much on it, are left out, with the reason, in
    place of a refusal of all. quality: features by which the images of each run are
    compared with training and held-out images (``runs.quality``). tracker: is told of
    finished shards, but of an executor's, and of the metrics of each run, at the step of
    its seed. Raises :class:`UserError`, before any work if it can be known, and
    ValueError for specs of several tasks or models.
    """
    if not is_text(str(out)):  # tables hold the names of their folders
        raise UserError(f"runs: the name of the folder {shown(out)} is not UTF-8; rename it")
    remove_left(out)
    began = time.monotonic()
    first = replace(specs[0], detector="", options=(), preset=None)
    if any(replace(spec, detector="", options=(), preset=None) != first for spec in specs):
        raise ValueError("specs that are run together differ in detector, options and preset alone")
    task = load_task(
        specs[0],
        needs_model=any(registry.detectors().load(spec.detector).access.model for spec in specs),
        progress=progress,
    )
    described = _described(quality, task, first, progress) if quality else None
    with ExitStack() as stack:
        jobs: dict[str, Job] = {}
        keys = []
        for spec in specs:  # a spec that asks for the same run as an earlier one is that one's job
            job = open_job(spec, task, out, stack, jobs, progress)
            keys.append(job.folder.path.name)
            jobs[keys[-1]] = job
        for job in jobs.values():
            _tell_changed_source(job)
        networks = _networks([job for job in jobs.values() if not job.folder.complete], task, began)
        skipped = _left_out(jobs, networks, skip)
        if progress and True in networks:  # below a refusal, which is one line
            from membench.runs.devices import device_line  # torch

            print(f"membench: {device_line(specs[0].device, specs[0].dtype)}", file=sys.stderr)
        for note in task.provenance.get("notes", ()):
            print(f"membench: {note}", file=sys.stderr)
        for together in _groups([job for job in jobs.values() if not job.folder.complete]):
            while together:
                try:
                    network = networks[together[0].detector.access.model]
                    _compute(together, network, progress, executor, tracker)
                    break
                except Unprepared as error:  # what has been prepared so far is kept
                    if not skip:
                        raise
                    skipped.append(_drop(jobs, error.job, str(error)))
                    together = [job for job in together if job is not error.job]
        runs = [load(jobs[key].folder.path) for key in keys if key in jobs]
        if described is not None:
            for run in runs:
                described(run)
        if tracker is not None:
            for run in runs:
                _tell(run, tracker)
        return Outcome(runs, skipped)


def _described(
    names: Sequence[str], task: LoadedTask, spec: Spec, progress: bool
) -> Callable[[Run], None]:
    """What gives a finished run its figures of quality; extractors are loaded now, so
    that one that cannot be is refused before any work.
    """
    from membench.runs.quality import features_of, measure  # torch

    asked = features_of(names, task, spec.device, spec.batch_size, progress)
    return lambda run: measure(run, task, asked)


_told: set[tuple[Path, str, str]] = set()  # what of a folder of runs was said already


def _tell_changed_source(job: Job) -> None:
    """A line where a finished run was made by other code under the same version; once a
    folder of runs, of which often all are.
    """
    made = job.folder.run.get("source") if job.folder.complete else None
    if not isinstance(made, dict):
        return
    known = {
        "detector": ("detector", job.spec.detector, job.detector.version),
        "task": ("task", job.spec.task, job.task.info.version),
        **{f"{HELD}{name}": ("detector", name, part.version) for name, part in held(job.detector)},
    }
    for what, source in source_of(job.spec, job.detector).items():
        kind, name, version = known[what]
        this = (job.folder.path.parents[3], kind, name)
        if made.get(what) != source and this not in _told:
            _told.add(this)
            say(
                f"{kind} {name} is other code than made {job.folder.path}, and its version is still"
                f" {version}: what is shown is the earlier code's; raise the version, or delete"
                " such runs"
            )


def _tell(run: Run, tracker: Tracker) -> None:
    """The metrics of all examples that have one value: no band, no curve."""
    whole = run.metrics[(run.metrics.subset == "all") & run.metrics.band.isna()]
    whole = whole.drop_duplicates("metric", keep=False)
    for name, value in zip(whole.metric, whole.value, strict=True):
        tracker.scalar(f"{'/'.join(run.path.parts[-4:])}/{name}", float(value), run.info["seed"])


@dataclass(frozen=True)
class _Network:
    """A model to ask, how many prompts its tokenizer has cut, and the seconds until it
    was ready.
    """

    model: Any
    truncated: int
    loading: float


def _networks(todo: Sequence[Job], task: LoadedTask, began: float) -> dict[bool, _Network]:
    """By whether a detector's access says that it sees a model: one that does not is
    given none, and none is loaded for it.
    """
    found = {False: _Network(NoModel(), 0, time.monotonic() - began)}
    if any(job.detector.access.model for job in todo):
        model = task.model()
        truncated = encode(model, todo[0].conditions)
        tell_alike(model, todo[0].examples)
        found[True] = _Network(model, truncated, time.monotonic() - began)
    return found


def _left_out(jobs: dict[str, Job], networks: Mapping[bool, _Network], skip: bool) -> list[Skipped]:
    """Checks every detector that has work to do.

    Raises :class:`UserError` for one that does not suit, or takes it out of ``jobs``.
    """
    skipped = []
    for job in [job for job in jobs.values() if not job.folder.complete]:
        model = networks[job.detector.access.model].model
        if not skip:
            told(job, lambda job=job, model=model: suits(job, model))  # type: ignore[misc]
        elif reason := unsuited(job, model):
            skipped.append(_drop(jobs, job, reason))
    return skipped


def _drop(jobs: dict[str, Job], job: Job, reason: str) -> Skipped:
    job.folder.discard()
    del jobs[job.folder.path.name]
    return Skipped(job.spec.task, job.spec.detector, reason)


def _groups(todo: Sequence[Job]) -> list[list[Job]]:
    """Which jobs run side by side: one that changes the network runs alone."""
    alone = [[job] for job in todo if job.detector.alone]
    rest = [
        [job for job in todo if not job.detector.alone and job.detector.access.model == sees]
        for sees in (False, True)
    ]
    return [*alone, *filter(None, rest)]


def _compute(
    jobs: Sequence[Job],
    network: _Network,
    progress: bool,
    executor: Executor | None,
    tracker: Tracker | None,
) -> None:
    """Runs jobs of one model side by side."""
    model = network.model
    if not jobs[0].detector.access.model:  # nothing that is worth spreading
        executor = None
    who = executor.info if executor else {"executor": "local", "workers": 1}
    # All, so that a refusal leaves none of them begun
    plans = [planned(job, model) for job in jobs]
    works = []
    for job, (requests, prepared) in zip(jobs, plans, strict=True):
        job.folder.start(
            {**run_info(job, len(requests)), **who} | ({"prepared": prepared} if prepared else {})
        )
        works.append(Phases(job.detector, model, job.folder).extract(requests))
    _shards(jobs, works, model, progress, executor, tracker)
    samples, works = scoring(jobs, works)
    _shards(jobs, works, model, progress, executor, tracker)
    with timer() as reading:
        if any(len(found.rows) for found in samples):
            jobs[0].task.training.images()
    # Which each of them would have to wait for alone
    loading = network.loading + reading["seconds"]
    for job, found, work in zip(jobs, samples, works, strict=True):
        conclude(job, found, work.scores(), network.truncated, loading, executor)


def _shards(
    jobs: Sequence[Job],
    works: Sequence[Work],
    model: Denoiser,
    progress: bool,
    executor: Executor | None,
    tracker: Tracker | None,
) -> None:
    if executor is None:
        in_step(works, model, progress, tracker=tracker)
    else:
        executor.compute(jobs, works, model, progress)


def scoring(jobs: Sequence[Job], works: Sequence[Work]) -> tuple[list[Samples], list[Work]]:
    """The images that the works have extracted, and the works that score with them."""
    samples = [work.samples() for work in works]
    return samples, [
        work.phases.score(_scored(job), found)
        for job, work, found in zip(jobs, works, samples, strict=True)
    ]


def _scored(job: Job) -> Sequence[Example]:
    return [] if job.spec.extract_only else job.examples
