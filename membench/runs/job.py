"""What to run, resolved: options parsed, examples chosen, the key made, the run's
folder opened and locked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from membench import registry
from membench.detector import Detector
from membench.errors import UserError
from membench.models.batch_size import AUTO, USUAL, Tuned
from membench.models.loading import check_device
from membench.options import detector_options, parse_options
from membench.runs import contract
from membench.runs.folder import RunFolder
from membench.runs.spec import Spec, key_parts, plugin_code, source_of
from membench.storage import provenance
from membench.storage.hashing import content_key, json_hash
from membench.storage.workspace import Workspace
from membench.task import LoadedTask, Task
from membench.types import UNLABELLED, Condition, Example

T = TypeVar("T")


@dataclass(eq=False)
class Job:
    """A run that is to be made, and the folder that it is made in."""

    spec: Spec
    detector: Detector
    task: LoadedTask
    examples: list[Example]
    folder: RunFolder
    workspace: Workspace

    @property
    def conditions(self) -> list[Condition]:
        return [e.condition for e in self.examples]


def open_task(spec: Spec) -> Task:
    """The task with its options, before anything is loaded.

    Raises :class:`UserError` for a wrong name, profile or option.
    """
    task_class = registry.task_of(spec.task, spec.profile)
    registry.detectors().get(spec.detector)
    return task_class(
        parse_options(task_class.Options, spec.task_options, owner=f"task {spec.task}")
    )


def load_task(spec: Spec, *, needs_model: bool = True, progress: bool = True) -> LoadedTask:
    """needs_model: False where no detector of the command asks the network; a task that
    can (``model_optional``) then does without. progress: whether the task shows bars.
    """
    check_device(spec.device)
    task = open_task(spec)
    task.progress = progress
    extra = {"needs_model": False} if not needs_model and task.model_optional else {}
    # Until the model is there: for a task's feature extractors, and for a model of the
    # pool, which has batches of its own.
    batch_size = USUAL if spec.batch_size == AUTO else spec.batch_size
    how = {
        "control": spec.control,
        "device": spec.device,
        "dtype": spec.dtype,
        "batch_size": batch_size,
    }
    loaded = contract.load(task, spec.profile, **how, **extra)
    return replace(loaded, model=Tuned(loaded.model, spec.batch_size, spec.compile))


def open_job(
    spec: Spec,
    task: LoadedTask,
    out: Path,
    stack: ExitStack,
    others: Mapping[str, Job],
    progress: bool,
    *,
    attach: bool = False,
) -> Job:
    """The job of a spec, its folder locked; of two specs that ask for the same run, the
    first one's.

    attach: in a worker of a process that holds the lock.
    """
    detector_class = registry.detectors().load(spec.detector)
    options = detector_options(
        spec.detector, detector_class, spec.options, spec.preset, spec.profile
    )
    if spec.budget is not None and spec.budget < 1:
        raise UserError(f"--budget {spec.budget}: it must be at least 1 target evaluation")
    # The profile is for detectors that hold others, whose presets are theirs, too
    of_run = {
        "examples": task.info.examples,
        "profile": spec.profile,
        "extract_only": spec.extract_only,
    }
    sampling = {**task.info.sampling, **of_run}
    try:
        detector = contract.construct(detector_class, options, seed=spec.seed, sampling=sampling)
    except ValueError as error:
        raise UserError(f"detector {spec.detector}: {error}") from None
    if detector.access.second_model:
        task = _referred(spec, detector, task, progress)
    examples = _limited(task.examples, spec.limit)
    parts = key_parts(spec, detector, task, [e.id for e in examples])
    key = content_key(parts)
    if key in others:
        return others[key]
    opened = RunFolder.attach if attach else RunFolder.open
    folder = stack.enter_context(opened(out, spec.task, spec.profile, spec.detector, key, parts))
    workspace = Workspace(
        out / spec.task / spec.profile / "prepared",
        _identity(spec, detector, task),
        progress=progress,
    )
    return Job(spec, detector, task, examples, folder, workspace)


def _referred(spec: Spec, detector: Detector, task: LoadedTask, progress: bool) -> LoadedTask:
    """Hands the task's control model to a detector that sees two.

    Its run is of both, so it shares no board with runs of one, and examples that the
    control model was trained on have no label.

    Raises :class:`UserError` where the control model is what is scored, or the task has
    none.
    """
    if spec.control:
        raise UserError(
            f"detector {spec.detector}: --control scores the reference model itself, and the"
            " difference is 0; leave it out"
        )
    named = getattr(detector.options, "reference", "")
    options = (*spec.task_options, *([f"control_model={named}"] if named else []))
    try:
        control = replace(spec, control=True, task_options=options)
        other = load_task(control, progress=progress)
    except UserError as error:
        raise UserError(
            f"detector {spec.detector} needs the task's control model as its reference: {error}"
        ) from error
    contract.refer(detector, other.model)
    reference = other.hashes["weights"]
    # What the reference has memorized it says of itself, louder than any other negative
    examples = [
        replace(e, memorized=UNLABELLED) if e.id in other.control_saw else e for e in task.examples
    ]
    return replace(
        task,
        examples=examples,
        hashes={
            **task.hashes,
            "reference": reference,
            "weights": json_hash([task.hashes["weights"], reference]),
        },
    )


def told(job: Job, act: Callable[[], T]) -> T:
    """What ``act`` returns; a refusal names the detector, of which there may be
    several.
    """
    try:
        return act()
    except UserError as error:
        raise UserError(f"detector {job.spec.detector}: {error}") from error.__cause__


def _limited(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """The first ``limit`` in the order of their hashes: a mix of all kinds, the same
    for everybody.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: it must be at least 1")
    if limit is None or limit >= len(examples):
        return list(examples)
    kept = set(sorted(e.id for e in examples)[:limit])
    return [e for e in examples if e.id in kept]


def _identity(spec: Spec, detector: Detector, task: LoadedTask) -> dict[str, Any]:
    """What a detector's preparation depends on besides its own options: the model, how
    the task samples, and a plug-in's own code.
    """
    return plugin_code(spec, detector) | {
        "weights": task.hashes["weights"],
        "dtype": spec.dtype,
        "sampling": dict(task.info.sampling),
        "seed": spec.seed,
    }


def run_info(job: Job, n_images: int) -> dict[str, Any]:
    """What run.json says of a run before it begins."""
    spec, detector, task = job.spec, job.detector, job.task
    used = task.model.batch_size if isinstance(task.model, Tuned) else spec.batch_size
    batch_size = "auto" if used == AUTO else used  # of a model that was never loaded
    return {
        **{
            name: getattr(spec, name)
            for name in (
                "detector",
                "task",
                "profile",
                "control",
                "seed",
                "dtype",
                "device",
                "compile",
            )
        },
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
        "attack": detector.attack,
        "n_examples": len(job.examples),
        "n_task_examples": len(task.examples),
        "n_images": n_images,
        "extract_only": spec.extract_only,
        "budget": spec.budget,
        "preset": spec.preset,
        "source": source_of(spec, detector),
        "membench": provenance.commit(),
        "versions": provenance.versions(),
    }
