"""What was asked for, and the parts of a run's key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from membench import registry
from membench.detector import Detector
from membench.models.batch_size import AUTO
from membench.runs.shards import SHARD
from membench.runs.stored import HELD
from membench.storage.hashing import json_hash
from membench.task import LoadedTask


@dataclass(frozen=True)
class Spec:
    """What to run, resolved.

    ``options`` and ``task_options`` are ``key=value`` strings as passed.

    batch_size: images through the network at once; 0 (AUTO): what suits model and
    device. compile: by ``torch.compile``.
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


def key_parts(spec: Spec, detector: Detector, task: LoadedTask, ids: list[str]) -> dict[str, Any]:
    """All that changes the output, and nothing else (no batch size, device index or
    number of workers).
    """
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
        **plugin_code(spec, detector),
        **({"holds": described(detector)} if detector.holds else {}),
        **({"reads": dict(detector.reads)} if detector.reads else {}),
        # Left out where they change nothing: most runs have neither.
        **({"extract_only": True} if spec.extract_only else {}),
        **({"budget": spec.budget} if spec.budget is not None else {}),
    }


def held(detector: Detector) -> Iterator[tuple[str, Detector]]:
    """(name, detector) of all that it holds, and of what those hold."""
    for name, part in sorted(detector.holds.items()):
        yield name, part
        yield from held(part)


def described(detector: Detector) -> dict[str, Any]:
    """What it holds, by name, as a key has it."""
    return {
        name: {
            "version": part.version,
            "options": asdict(part.options),
            **({"reads": dict(part.reads)} if part.reads else {}),
            **({"holds": described(part)} if part.holds else {}),
        }
        for name, part in detector.holds.items()
    }


def plugin_code(spec: Spec, detector: Detector) -> dict[str, Any]:
    """Hashes of the files of a plug-in detector or task, and of the plug-ins that the
    detector holds, which a user edits without raising the version; nothing of built-ins.
    """
    code = {what: entry.code for what, entry in _entries(spec, detector).items() if entry.code}
    return {"plugin_code": code} if code else {}


def source_of(spec: Spec, detector: Detector) -> dict[str, str]:
    """Hashes of the statements of the own files of the detector, the task and what the
    detector holds. They are no part of the key: ``version`` says what changes a number.
    """
    return {what: entry.source for what, entry in _entries(spec, detector).items()}


def _entries(spec: Spec, detector: Detector) -> dict[str, registry.Entry]:
    """ "detector", "task" and HELD NAME: where each is registered."""
    known = registry.detectors()
    return {
        "detector": known.get(spec.detector),
        "task": registry.tasks().get(spec.task),
        **{f"{HELD}{name}": known.get(name) for name, _ in held(detector)},
    }
