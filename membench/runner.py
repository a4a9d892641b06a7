"""plan -> execute -> store -> metrics. Knows no detector and no task by name.

The work is cut into shards of fixed size, so that neither the batch size nor an interruption changes what goes into
one: a killed run continues after its last finished shard and ends with the same numbers.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from membench import provenance, registry, store
from membench.errors import UserError
from membench.hashing import json_hash
from membench.metrics.run import run_metrics
from membench.options import parse_options
from membench.types import Cost, Detector, LoadedTask, Request, Sample

SHARD = 64  # conditions or images; part of the output's definition, not a knob
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


def _limited(examples: Sequence[Any], limit: int | None) -> list[Any]:
    """The first ``limit`` in the order of their hashes: a mix of all kinds, the same for everybody."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: it must be at least 1")
    if limit is None or limit >= len(examples):
        return list(examples)
    kept = set(sorted((e.id for e in examples))[:limit])
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
        "options": asdict(detector.options),  # type: ignore[attr-defined]
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
    spec: Spec, detector: Detector, task: LoadedTask, examples: list[Any], folder: store.RunFolder, began: float, progress: bool
) -> None:
    conditions = [e.condition for e in examples]
    requests = detector.plan(conditions)
    info: dict[str, Any] = {
        "detector": spec.detector,
        "task": spec.task,
        "task_version": task.info.version,
        "profile": spec.profile,
        "control": spec.control,
        "options_passed": list(spec.options),
        "options": asdict(detector.options),  # type: ignore[attr-defined]
        "task_options_passed": list(spec.task_options),
        "space": asdict(task.info.space),
        "hashes": dict(task.hashes),
        "access": asdict(detector.access),
        "seed": spec.seed,
        "dtype": spec.dtype,
        "device": spec.device,
        "batch_size": spec.batch_size,
        "n_examples": len(examples),
        "n_task_examples": len(task.examples),
        "n_images": len(requests),
        "membench": provenance.commit(),
        "versions": provenance.versions(),
    }
    folder.start(info)
    model = task.model()

    def sample_rows(part: Sequence[Request]) -> list[dict[str, Any]]:
        return [_sample_row(s) for s in detector.extract(model, part)]

    def shards(phase: str, items: Sequence[Any], expected: list[str], compute: Callable[[Any], list[dict[str, Any]]], unit: str) -> pd.DataFrame:
        with tqdm(total=len(items), desc=f"{spec.detector}: {phase}", unit=unit, disable=not progress, smoothing=0.1) as bar:
            for index, part in enumerate(_blocks(items)):
                if not folder.shard_done(phase, index):
                    before, start = _copy(model.cost), time.monotonic()
                    rows = compute(part)
                    cost = asdict(model.cost - before) | {"seconds": time.monotonic() - start}
                    folder.write_shard(phase, index, pd.DataFrame(rows), cost)
                bar.update(len(part))
        return folder.read_shards(phase, expected)

    samples = shards("samples", requests, [f"{r.condition.id}/{r.draw}" for r in requests], sample_rows, "img")
    by_condition: dict[str, list[dict[str, Any]]] = {}
    for row in samples.to_dict("records"):
        by_condition.setdefault(row["condition"], []).append(row)
    lookup = {e.id: e for e in examples}

    def score_rows(part: Sequence[Any]) -> list[dict[str, Any]]:
        extracted = {
            e.id: [
                Sample(e.condition, r["draw"], store.png_image(r["image"]), r["confidence"] if r["status"] == "ok" else math.nan)
                for r in sorted(by_condition.get(e.id, []), key=lambda r: r["draw"])
            ]
            for e in part
        }
        scores = detector.score(model, [e.condition for e in part], extracted)
        return [_score_row(lookup[e.id], float(s)) for e, s in zip(part, scores, strict=True)]

    scores = shards("scores", examples, list(lookup), score_rows, "ex")
    truncated = getattr(model, "truncated", set())
    if truncated:
        print(f"membench: {len(truncated)} prompts are longer than the tokenizer's limit and were cut", file=sys.stderr)

    good = samples[samples.status == "ok"] if len(samples) else samples
    start = time.monotonic()
    matches = _matches(good, task)
    matching = time.monotonic() - start
    start = time.monotonic()
    costs = folder.costs()
    table = run_metrics(scores, good, matches, task.info.space, evaluations=costs.get("samples", {}).get("forwards", 0), seed=spec.seed)
    measuring = time.monotonic() - start
    failed = int((scores.status != "ok").sum()), int((samples.status != "ok").sum()) if len(samples) else 0
    partial = len(examples) < len(task.examples) or any(failed)
    folder.finish(
        {"scores": scores, "samples": samples, "matches": matches, "metrics": table},
        {
            "status": "partial" if partial else "complete",
            "failed": {"scores": failed[0], "samples": failed[1]},
            "truncated_prompts": len(truncated),
            "phases": costs | {"matches": {"seconds": matching}, "metrics": {"seconds": measuring}},
            "seconds": time.monotonic() - began,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        },
    )


def _blocks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[i : i + SHARD] for i in range(0, len(items), SHARD))


def _copy(cost: Cost) -> Cost:
    return Cost(**asdict(cost))


def _sample_row(s: Sample) -> dict[str, Any]:
    ok = math.isfinite(s.confidence)
    return {
        "sample_id": f"{s.condition.id}/{s.draw}",
        "condition": s.condition.id,
        "draw": s.draw,
        "prompt": s.condition.prompt,
        "confidence": s.confidence,
        "status": "ok" if ok else "failed: the network returned NaN or infinity",
        "image": store.png_bytes(s.image),
    }


def _score_row(e: Any, score: float) -> dict[str, Any]:
    ok = math.isfinite(score)
    return {
        "id": e.id,
        "score": score,
        "label": e.label,
        "kind": e.kind,
        "group": e.group,
        "source": e.source,
        "prompt": e.condition.prompt,
        "status": "ok" if ok else "failed",
        "error": None if ok else "the network returned NaN or infinity",
    }


def _matches(samples: pd.DataFrame, task: LoadedTask) -> pd.DataFrame:
    """Every generated-training pair within the space's floor, and the nearest of each image."""
    from membench.similarity.l2 import normalised_l2

    if samples.empty:
        return pd.DataFrame({"sample_id": [], "training_id": [], "training": [], "similarity": [], "rank": []})
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
