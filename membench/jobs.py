"""What to run, resolved: options parsed, examples chosen, the key made, the run's folder opened and locked."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from membench import provenance, registry, store
from membench.batch import AUTO, USUAL, Tuned
from membench.denoiser import Denoiser
from membench.errors import UserError
from membench.hashing import json_hash
from membench.options import detector_options, parse_options
from membench.phases import SHARD
from membench.pipelines import check_device
from membench.types import Checks, Condition, Detector, Example, LoadedTask, Priced, Request, Supervised, Task
from membench.workspace import Workspace

T = TypeVar("T")
EXPENSIVE = 500  # target evaluations an image beyond which --detector all leaves a detector out; diffusers' slowest default takes 100


@dataclass(frozen=True)
class Spec:
    """What to run, resolved. ``options`` and ``task_options`` are ``key=value`` strings as passed.

    batch_size: images through the network at once; 0 (AUTO): what suits model and device. compile: by ``torch.compile``.
    """

    detector: str
    task: str
    profile: str = "mini"
    options: Sequence[str] = ()
    task_options: Sequence[str] = ()
    seed: int = 0
    limit: int | None = None
    control: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = AUTO
    preset: str | None = None
    budget: int | None = None
    extract_only: bool = False
    compile: bool = False


@dataclass(eq=False)
class Job:
    """A run that is to be made, and the folder that it is made in."""

    spec: Spec
    detector: Detector
    task: LoadedTask
    examples: list[Example]
    folder: store.RunFolder
    workspace: Workspace

    @property
    def conditions(self) -> list[Condition]:
        return [e.condition for e in self.examples]


def open_task(spec: Spec) -> Task:
    """The task with its options, before anything is loaded. Raises :class:`UserError` for a wrong name, profile or option."""
    task_class = registry.tasks().load(spec.task)
    if spec.profile not in task_class.info.profiles:
        raise registry.unknown_name("profile", spec.profile, task_class.info.profiles, f"membench show {spec.task}")
    registry.detectors().get(spec.detector)
    return task_class(parse_options(task_class.Options, spec.task_options, owner=f"task {spec.task}"))


def load_task(spec: Spec, *, needs_model: bool = True) -> LoadedTask:
    """needs_model: False where no detector of the command asks the network; a task that can (``model_optional``) then does without."""
    check_device(spec.device)
    task = open_task(spec)
    extra = {"needs_model": False} if not needs_model and getattr(task, "model_optional", False) else {}
    # Until the model is there: for a task's feature extractors, and for a model of the pool, which has batches of its own.
    batch_size = USUAL if spec.batch_size == AUTO else spec.batch_size
    loaded = task.load(spec.profile, control=spec.control, device=spec.device, dtype=spec.dtype, batch_size=batch_size, **extra)
    return replace(loaded, model=Tuned(loaded.model, spec.batch_size, spec.compile))


def open_job(
    spec: Spec, task: LoadedTask, out: Path, stack: ExitStack, others: Mapping[str, Job], progress: bool, *, attach: bool = False
) -> Job:
    """The job of a spec, its folder locked; of two specs that ask for the same run, the first one's.

    attach: in a worker of a process that holds the lock.
    """
    detector_class = registry.detectors().load(spec.detector)
    options = detector_options(spec.detector, detector_class, spec.options, spec.preset, spec.profile)
    if spec.budget is not None and spec.budget < 1:
        raise UserError(f"--budget {spec.budget}: it must be at least 1 target evaluation")
    try:
        detector = detector_class(options, seed=spec.seed, sampling=task.info.sampling)
    except ValueError as error:
        raise UserError(f"detector {spec.detector}: {error}") from None
    if spec.budget is not None and not isinstance(detector, Priced):
        raise UserError(f"detector {spec.detector} does not say what an image costs, so --budget cannot cap it; leave --budget out")
    examples = _limited(task.examples, spec.limit)
    parts = _key_parts(spec, detector, task, [e.id for e in examples])
    key = store.content_key(parts)
    if key in others:
        return others[key]
    opened = store.RunFolder.attach if attach else store.RunFolder.open
    folder = stack.enter_context(opened(out, spec.task, spec.profile, spec.detector, key, parts))
    workspace = Workspace(out / spec.task / spec.profile / "prepared", _identity(spec, task), progress=progress)
    return Job(spec, detector, task, examples, folder, workspace)


def told(job: Job, act: Callable[[], T]) -> T:
    """What ``act`` returns; a refusal names the detector, of which there may be several."""
    try:
        return act()
    except UserError as error:
        raise UserError(f"detector {job.spec.detector}: {error}") from error.__cause__


def suits(job: Job, model: Denoiser) -> None:
    """Checks a detector, and shows one that learns from labels the examples. Raises :class:`UserError` where it does not suit them."""
    detector = job.detector
    if isinstance(detector, Checks):
        detector.check(model, job.conditions)
    if job.spec.extract_only and not detector.access.model:
        raise UserError("it sees no model, so it extracts no image, and is here to score nothing; leave --extract-only and --budget out")
    if detector.access.labels:
        if not isinstance(detector, Supervised):
            raise TypeError(f"{type(detector).__name__} declares Access(labels=True) and has no fit (membench.types.Supervised)")
        detector.fit(job.conditions, [e.label for e in job.examples], [e.group for e in job.examples])


def unsuited(job: Job, model: Denoiser) -> str:
    """Why ``--detector all`` leaves a detector out, in a line; empty for one that suits the task."""
    detector = job.detector
    try:
        suits(job, model)
    except UserError as error:
        return str(error)
    if isinstance(detector, Priced):
        price = detector.image_forwards(model, Request(job.conditions[0].bare, 0))
        if price > EXPENSIVE:
            return f"it takes {price:,} evaluations an image of this model, more than {EXPENSIVE:,}; name it to run it all the same"
    return ""


def _limited(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """The first ``limit`` in the order of their hashes: a mix of all kinds, the same for everybody."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: it must be at least 1")
    if limit is None or limit >= len(examples):
        return list(examples)
    kept = set(sorted(e.id for e in examples)[:limit])
    return [e for e in examples if e.id in kept]


def _key_parts(spec: Spec, detector: Detector, task: LoadedTask, ids: list[str]) -> dict[str, Any]:
    """All that changes the output, and nothing else (no batch size, device index or number of workers)."""
    return {
        "task": spec.task,
        "task_version": task.info.version,
        "profile": spec.profile,
        "control": spec.control,
        "detector": spec.detector,
        "detector_version": detector.version,
        "options": asdict(detector.options),
        "sampling": dict(task.info.sampling),
        "space": asdict(task.info.space),
        "hashes": dict(task.hashes),
        "examples": json_hash(sorted(ids)),
        "seed": spec.seed,
        "dtype": spec.dtype,
        "shard": SHARD,
        **_plugin_code(spec),
        # Left out where they change nothing, so that older runs keep their keys.
        **({"extract_only": True} if spec.extract_only else {}),
        **({"budget": spec.budget} if spec.budget is not None else {}),
    }


def _plugin_code(spec: Spec) -> dict[str, Any]:
    """Hashes of the files of a plug-in detector or task, which a user edits without raising the version; nothing of built-ins."""
    entries = {"detector": registry.detectors().get(spec.detector), "task": registry.tasks().get(spec.task)}
    code = {kind: entry.code for kind, entry in entries.items() if entry.code}
    return {"plugin_code": code} if code else {}


def _identity(spec: Spec, task: LoadedTask) -> dict[str, Any]:
    """What a detector's preparation depends on besides its own options: the model, how the task samples, and a plug-in's own code."""
    return _plugin_code(spec) | {
        "weights": task.hashes["weights"],
        "dtype": spec.dtype,
        "sampling": dict(task.info.sampling),
        "seed": spec.seed,
    }


def affordable(spec: Spec, forwards: int, what: str) -> None:
    if spec.budget is not None and forwards >= spec.budget:
        raise UserError(f"--budget {spec.budget}: the {what} alone takes {forwards:,} target evaluations; raise the budget")


def within_budget(spec: Spec, detector: Detector, model: Denoiser, spent: int, requests: Sequence[Request]) -> list[Request]:
    """The first requests that the budget pays for. Raises :class:`UserError` if it pays for none."""
    if spec.budget is None:
        return list(requests)
    assert isinstance(detector, Priced)  # open_job refuses any other
    prices = [detector.image_forwards(model, request) for request in requests]
    total = list(itertools.accumulate(prices, initial=spent))[1:]
    paid = bisect.bisect_right(total, spec.budget)
    if requests and not paid:
        if spent:
            affordable(spec, total[0], "preparation with one image")
        raise UserError(f"--budget {spec.budget} pays for no image; one takes {prices[0]} target evaluations")
    return list(requests[:paid])


def run_info(job: Job, n_images: int) -> dict[str, Any]:
    """What run.json says of a run before it begins."""
    spec, detector, task = job.spec, job.detector, job.task
    used = task.model.batch_size if isinstance(task.model, Tuned) else spec.batch_size
    batch_size = "auto" if used == AUTO else used  # of a model that was never loaded
    return {
        **{name: getattr(spec, name) for name in ("detector", "task", "profile", "control", "seed", "dtype", "device", "compile")},
        "batch_size": batch_size,
        "task_version": task.info.version,
        "options_passed": list(spec.options),
        "options": asdict(detector.options),
        "task_options_passed": list(spec.task_options),
        "space": asdict(task.info.space),
        "hashes": dict(task.hashes),
        **{f"{what}_name": name for what, name in task.names.items()},
        "provenance": dict(task.provenance),
        "access": detector.access.record(),
        "n_examples": len(job.examples),
        "n_task_examples": len(task.examples),
        "n_images": n_images,
        "extract_only": spec.extract_only,
        "budget": spec.budget,
        "preset": spec.preset,
        "membench": provenance.commit(),
        "versions": provenance.versions(),
    }
