"""plan -> execute -> store -> metrics. Knows no detector and no task by name.

A killed run continues where it stopped (phases.py) and ends with the same numbers.
"""

from __future__ import annotations

import bisect
import itertools
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench import provenance, registry, store
from membench.denoiser import Denoiser
from membench.errors import UserError
from membench.hashing import json_hash
from membench.metrics.run import run_metrics
from membench.options import detector_options, parse_options
from membench.phases import SHARD, Phases, match, timer
from membench.pipelines import check_device
from membench.report import write_report
from membench.types import Detector, Example, LoadedTask, Prepares, Priced, Request
from membench.workspace import Workspace

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
    preset: str | None = None
    budget: int | None = None
    extract_only: bool = False


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
    preset: str | None = None,
    budget: int | None = None,
    extract_only: bool = False,
    out: str | Path = DEFAULT_OUT,
    progress: bool = True,
) -> Run:
    """Runs one detector on one task, or continues where a killed run stopped; returns its tables.

    options, task_options: ``["key=value", ...]`` (``membench show NAME`` lists them). limit: only the first examples
    of a fixed shuffle (marks the run as partial). control: against the control model. preset: a named set of the
    detector's options. extract_only: no scores. budget: the most target evaluations that preparation and extraction may
    take; implies extract_only. Raises :class:`UserError`.
    """
    spec = Spec(
        detector,
        task,
        profile,
        tuple(options),
        tuple(task_options),
        seed,
        limit,
        control,
        device,
        dtype,
        batch_size,
        preset,
        budget,
        extract_only or budget is not None,
    )
    return execute(spec, Path(out), progress=progress)


def execute(spec: Spec, out: Path, *, progress: bool = True) -> Run:
    began = time.monotonic()
    detector, task = _build(spec)
    examples = _limited(task.examples, spec.limit)
    parts = _key_parts(spec, detector, task, [e.id for e in examples])
    key = store.content_key(parts)
    with store.RunFolder.open(out, spec.task, spec.profile, spec.detector, key, parts) as folder:
        if not folder.complete:
            workspace = Workspace(out / spec.task / spec.profile / "prepared", _identity(spec, task), progress=progress)
            _compute(spec, detector, task, examples, folder, workspace, began, progress)
        found = load(folder.path)
        if not (folder.path / "report.html").exists():
            pictures = task.training_images() if len(found.samples) else np.empty((0, 1, 1, 3), np.uint8)
            write_report(found, pictures)
        return found


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
    options = detector_options(spec.detector, detector_class, spec.options, spec.preset, spec.profile)
    if spec.budget is not None and spec.budget < 1:
        raise UserError(f"--budget {spec.budget}: it must be at least 1 target evaluation")
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
        # Left out where they change nothing, so that older runs keep their keys.
        **({"extract_only": True} if spec.extract_only else {}),
        **({"budget": spec.budget} if spec.budget is not None else {}),
    }


def _identity(spec: Spec, task: LoadedTask) -> dict[str, Any]:
    """What a detector's preparation depends on besides its own options: the model, and how the task samples."""
    return {"weights": task.hashes["weights"], "dtype": spec.dtype, "sampling": dict(task.info.sampling), "seed": spec.seed}


# ---------------------------------------------------------------------------------------------- executing


def _compute(
    spec: Spec,
    detector: Detector,
    task: LoadedTask,
    examples: Sequence[Example],
    folder: store.RunFolder,
    workspace: Workspace,
    began: float,
    progress: bool,
) -> None:
    model, conditions = task.model(), [e.condition for e in examples]
    prepared: dict[str, Any] = {}
    if isinstance(detector, Prepares):
        _affordable(spec, detector.preparation_forwards(model, conditions), "preparation")
        prepared = detector.prepare(model, conditions, workspace)
    requests = _within_budget(spec, detector, model, workspace.cost.forwards, detector.plan(conditions))
    folder.start(_info(spec, detector, task, len(examples), len(requests)) | ({"prepared": prepared} if prepared else {}))
    phases = Phases(detector, model, folder, progress)
    samples = phases.extract(requests)
    scores = phases.score([] if spec.extract_only else examples, samples)
    truncated: set[str] = getattr(phases.model, "truncated", set())
    if truncated:
        print(f"membench: {len(truncated)} prompts are longer than the tokenizer's limit and were cut", file=sys.stderr)

    good = samples[samples.status == "ok"]
    with timer() as matching:
        matches = match(good, task)
    costs = folder.costs()
    if isinstance(detector, Prepares):
        costs = {"prepare": asdict(workspace.cost) | {"seconds": round(workspace.seconds, 3)}} | costs
    with timer() as measuring:
        evaluations = int(sum(costs.get(phase, {}).get("forwards", 0) for phase in ("prepare", "samples")))
        known = pd.DataFrame([(e.id, e.group, e.kind) for e in examples], columns=["id", "group", "kind"])
        table = run_metrics(scores, good, matches, task.info.space, evaluations=evaluations, seed=spec.seed, examples=known)
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


def _affordable(spec: Spec, forwards: int, what: str) -> None:
    if spec.budget is not None and forwards >= spec.budget:
        raise UserError(f"--budget {spec.budget}: the {what} alone takes {forwards:,} target evaluations; raise the budget")


def _within_budget(spec: Spec, detector: Detector, model: Denoiser, spent: int, requests: Sequence[Request]) -> list[Request]:
    """The first requests that the budget pays for. Raises :class:`UserError` if it pays for none."""
    if spec.budget is None:
        return list(requests)
    if not isinstance(detector, Priced):
        raise UserError(f"detector {spec.detector} does not say what an image costs, so --budget cannot cap it; leave --budget out")
    prices = [detector.image_forwards(model, request) for request in requests]
    total = list(itertools.accumulate(prices, initial=spent))[1:]
    paid = bisect.bisect_right(total, spec.budget)
    if requests and not paid:
        _affordable(spec, total[0], "preparation with one image")
        raise UserError(f"--budget {spec.budget} pays for no image; one takes {prices[0]} target evaluations")
    return list(requests[:paid])


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
        "extract_only": spec.extract_only,
        "budget": spec.budget,
        "preset": spec.preset,
        "membench": provenance.commit(),
        "versions": provenance.versions(),
    }
