"""What is made of a job's images and scores: matches, metrics, and the run's tables."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd

from membench.metrics.table import run_metrics
from membench.runs.check import NOT_COMPARED, evaluations_of_images
from membench.runs.executor import Executor
from membench.runs.finished import Run
from membench.runs.images import Samples
from membench.runs.job import Job
from membench.runs.matching import match, with_truth
from membench.runs.nearest import example_images, nearest_table
from membench.runs.shards import timer
from membench.storage import host
from membench.types import Cost


def conclude(
    job: Job,
    extracted: Samples,
    scores: pd.DataFrame,
    truncated: int,
    loading: float,
    executor: Executor | None,
) -> None:
    """Matches and metrics of a job whose images and scores are made; writes its tables."""
    samples = extracted.rows
    failed = {
        "scores": int((scores.status != "ok").sum()),
        "samples": int((samples.status != "ok").sum()),
    }
    if not job.task.training.ids:
        samples = samples.assign(status=samples.status.where(samples.status != "ok", NOT_COMPARED))
    good = samples[samples.status == "ok"]
    with timer() as matching:
        matches, own = match(good, extracted.images, job.task)
        samples = with_truth(samples, own, job.task.info.space)
        good = samples.loc[good.index]
    costs = job.folder.costs()
    if job.detector.alone or job.workspace.cost != Cost():
        costs = {
            "prepare": asdict(job.workspace.cost) | {"seconds": round(job.workspace.seconds, 3)}
        } | costs
    with timer() as measuring:
        known = pd.DataFrame(
            [(e.id, e.group, e.kind) for e in job.examples], columns=["id", "group", "kind"]
        )
        table = run_metrics(
            scores,
            good,
            matches,
            job.task.info.space,
            evaluations=evaluations_of_images(costs),
            seed=job.spec.seed,
            examples=known,
            training_kinds=job.task.training.kinds,
        )
    if any(failed.values()):
        print(
            f"membench: {failed['scores']} scores and {failed['samples']} images failed (NaN); the"
            " run is partial",
            file=sys.stderr,
        )
    tables = {"scores": scores, "matches": matches, "metrics": table}
    kept = [example_images(scores, job.examples)] if len(scores) else []
    if len(good):
        space = {"space": asdict(job.task.info.space)}
        made = Run(job.folder.path, space, samples=samples, **tables)
        kept.append(nearest_table(made, job.task.training.images()))
    if any(map(len, kept)) or len(good):
        tables["nearest"] = pd.concat(kept, ignore_index=True).drop_duplicates("training_id")
    phases = costs | {"matches": matching, "metrics": measuring}
    job.folder.finish(
        tables,
        Samples(samples, extracted.images),
        {
            "status": (
                "partial"
                if any(failed.values()) or len(job.examples) < len(job.task.examples)
                else "complete"
            ),
            "failed": failed,
            "finished": datetime.now(UTC).date().isoformat(),
            # Without scores nothing else says whose an image is
            **({} if len(scores) else {"owners": _owners(known, good)}),
            "truncated_prompts": truncated,
            "phases": phases,
            # Loading, and every phase of all sessions, shared evaluations at what they
            # took.
            "seconds": round(loading + sum(phase["seconds"] for phase in phases.values()), 2),
            "peak_memory_mb": max(
                host.peak_memory_mb(), executor.peak_memory_mb if executor else 0
            ),
        },
    )


def _owners(examples: pd.DataFrame, images: pd.DataFrame) -> dict[str, list[str]]:
    """Group and kind of each example that images were generated for, by its id."""
    asked = examples[examples.id.isin(images.condition)]
    return {r.id: [r.group, r.kind] for r in asked.itertuples()}
