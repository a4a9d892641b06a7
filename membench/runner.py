"""plan -> execute -> store -> metrics. Knows no detector and no task by name.

A killed run continues where it stopped (phases.py) and ends with the same numbers.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from membench import provenance, registry, store
from membench.errors import UserError
from membench.hashing import json_hash
from membench.metrics.run import run_metrics
from membench.options import parse_options
from membench.phases import SHARD, Phases, match, timer
from membench.pipelines import check_device
from membench.types import Detector, Example, LoadedTask

DEFAULT_OUT = Path("results/runs")


@dataclass(frozen=True)
class Run:
    """A finished run, for notebooks: ``run.json`` as a dict and the four tables as pandas frames."""

    path: Path
    info: dict[str, Any]
    scores: pd.DataFrame
    samples: pd.DataFrame
    matches: pd.DataFrame
    metrics: pd.DataFrame


@dataclass(frozen=True)
class Spec:
    """What to run, resolved. ``options`` and ``task_options`` are ``key=value`` strings as passed."""

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
    batch_size: int = 64


def run(
    detector: str,
    task: str,
    profile: str = "mini",
    *,
    options: Sequence[str] = (),
    task_options: Sequence[str] = (),
    seed: int = 0,
    limit: int | None = None,
    control: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 64,
    out: str | Path = DEFAULT_OUT,
    progress: bool = True,
) -> Run:
    """Runs one detector on one task, or continues where a killed run stopped; returns its tables.

    options, task_options: ``["key=value", ...]`` (``membench show NAME`` lists them). limit: only the first examples
    of a fixed shuffle (marks the run as partial). control: against the control model. Raises :class:`UserError`.
    """
    spec = Spec(detector, task, profile, tuple(options), tuple(task_options), seed, limit, control, device, dtype, batch_size)
    return execute(spec, Path(out), progress=progress)


def execute(spec: Spec, out: Path, *, progress: bool = True) -> Run:
    began = time.monotonic()
    detector, task = _build(spec)
    examples = _limited(task.examples, spec.limit)
    parts = _key_parts(spec, detector, task, [e.id for e in examples])
    key = store.content_key(parts)
    with store.RunFolder.open(out, spec.task, spec.profile, spec.detector, key, parts) as folder:
        if not folder.complete:
            _compute(spec, detector, task, examples, folder, began, progress)
        return load(folder.path)


def load(path: Path) -> Run:
    """The tables of a run folder. Raises :class:`UserError` for a damaged or newer one."""
    info, frames = store.read_run(path)
    return Run(path, info, **{name: frames[name] for name in ("scores", "samples", "matches", "metrics")})


# ----------------------------------------------------------------------------------------------- planning


def _build(spec: Spec) -> tuple[Detector, LoadedTask]:
    check_device(spec.device)
    detectors, tasks = registry.detectors(), registry.tasks()
    detector_class, task_class = detectors.load(spec.detector), tasks.load(spec.task)
    info = task_class.info
    if spec.profile not in info.profiles:
        raise registry.unknown_name("profile", spec.profile, info.profiles, f"membench show {spec.task}")
    task_options = parse_options(task_class.Options, spec.task_options, owner=f"task {spec.task}")
    options = parse_options(detector_class.Options, spec.options, owner=f"detector {spec.detector}")
    try:
        detector = detector_class(options, seed=spec.seed, sampling=info.sampling)
    except ValueError as error:
        raise UserError(f"detector {spec.detector}: {error}") from None
    task = task_class(task_options).load(
        spec.profile, control=spec.control, device=spec.device, dtype=spec.dtype, batch_size=spec.batch_size
    )
    return detector, task


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
    }


# ---------------------------------------------------------------------------------------------- executing


def _compute(
    spec: Spec, detector: Detector, task: LoadedTask, examples: Sequence[Example], folder: store.RunFolder, began: float, progress: bool
) -> None:
    requests = detector.plan([e.condition for e in examples])
    folder.start(_info(spec, detector, task, len(examples), len(requests)))
    phases = Phases(detector, task.model(), folder, progress)
    samples = phases.extract(requests)
    scores = phases.score(examples, samples)
    truncated: set[str] = getattr(phases.model, "truncated", set())
    if truncated:
        print(f"membench: {len(truncated)} prompts are longer than the tokenizer's limit and were cut", file=sys.stderr)

    good = samples[samples.status == "ok"]
    with timer() as matching:
        matches = match(good, task)
    costs = folder.costs()
    with timer() as measuring:
        evaluations = int(costs.get("samples", {}).get("forwards", 0))
        table = run_metrics(scores, good, matches, task.info.space, evaluations=evaluations, seed=spec.seed)
    failed = {"scores": int((scores.status != "ok").sum()), "samples": len(samples) - len(good)}
    if any(failed.values()):
        print(f"membench: {failed['scores']} scores and {failed['samples']} images failed (NaN); the run is partial", file=sys.stderr)
    folder.finish(
        {"scores": scores, "samples": samples, "matches": matches, "metrics": table},
        {
            "status": "partial" if any(failed.values()) or len(examples) < len(task.examples) else "complete",
            "failed": failed,
            "truncated_prompts": len(truncated),
            "phases": costs | {"matches": matching, "metrics": measuring},
            "seconds": round(time.monotonic() - began, 2),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        },
    )


def _info(spec: Spec, detector: Detector, task: LoadedTask, n_examples: int, n_images: int) -> dict[str, Any]:
    """What run.json says of a run before it begins."""
    return {
        **{name: getattr(spec, name) for name in ("detector", "task", "profile", "control", "seed", "dtype", "device", "batch_size")},
        "task_version": task.info.version,
        "options_passed": list(spec.options),
        "options": asdict(detector.options),
        "task_options_passed": list(spec.task_options),
        "space": asdict(task.info.space),
        "hashes": dict(task.hashes),
        "access": asdict(detector.access),
        "n_examples": n_examples,
        "n_task_examples": len(task.examples),
        "n_images": n_images,
        "membench": provenance.commit(),
        "versions": provenance.versions(),
    }
