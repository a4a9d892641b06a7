"""Runs a detector on a task and writes its page: what Python users and the command line
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from membench.audit.audit import audit as execute_audit
from membench.audit.outcome import write_outcome
from membench.audit.settings import Settings
from membench.errors import UserError
from membench.models.batch_size import AUTO
from membench.plain import say
from membench.reports.audit_page import write_audit_page
from membench.reports.multiplicity import extracted, siblings
from membench.reports.run_page import write_report
from membench.runs.execute import execute
from membench.runs.executor import Executor
from membench.runs.finished import Run, load
from membench.runs.spec import Spec

DEFAULT_OUT = Path("results/runs")


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
    batch_size: int = AUTO,
    compile: bool = False,
    preset: str | None = None,
    budget: int | None = None,
    extract_only: bool = False,
    out: str | Path = DEFAULT_OUT,
    progress: bool = True,
    executor: Executor | None = None,
) -> Run:
    """Runs one detector on one task, or continues where a killed run stopped; returns
    its tables.

    options, task_options: ``["key=value", ...]`` (``membench show NAME`` lists them).
    limit: only the first examples of a fixed shuffle (marks the run as partial).
    control: against the control model. batch_size: 0 is what fits. compile: by
    ``torch.compile``. preset: a named set of the detector's options. extract_only: no
    scores. budget: the most target evaluations that preparation and extraction may
    take; implies extract_only. executor: who computes the shards (``ray_pool.RayPool``,
    entered); None: this process. Raises :class:`UserError`.
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
        compile,
    )
    found = execute(spec, Path(out), progress=progress, executor=executor)
    write_pages([found])
    return found


def write_pages(runs: Sequence[Run]) -> None:
    """Writes ``report.html`` of each finished run that has none, from its folder alone.

    The pages of runs that show such a run beside their own are written again; one that
    cannot be written is named on stderr.
    """
    for run in runs:
        if (run.path / "report.html").exists():
            continue
        write_report(run)
        for folder in siblings(run.path, run.info) if len(extracted(run.metrics)) else ():
            try:
                if (folder / "report.html").exists():
                    write_report(load(folder))
            except UserError as error:
                say(f"{folder / 'report.html'} still lacks this run's series: {error}")


def audit(
    model: str,
    data: str | Path,
    output: str | Path = "results/audit",
    *,
    dry_run: bool = False,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Which training images does a model give back? What ``membench audit`` does.

    settings: of :class:`membench.audit.settings.Settings`. Returns what ``audit.json``
    holds; of a dry run its plan alone. Raises :class:`UserError`.
    """
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(settings) - known):
        raise UserError(f"unknown setting {unknown[0]!r} of an audit: {', '.join(sorted(known))}")
    asked = Settings(model=str(model), data=Path(data), **settings)
    return run_audit(asked, Path(output), dry_run=dry_run, progress=progress)


def run_audit(
    settings: Settings, output: Path, *, dry_run: bool = False, progress: bool = True
) -> dict[str, Any]:
    """An audit of settings, and its page and tables in ``output``."""
    found = execute_audit(settings, output, dry_run=dry_run, progress=progress)
    if dry_run:
        return {"plan": found.plan, "not_judged": found.not_judged}
    told = write_outcome(found, output)
    write_audit_page(output, told)
    return told
