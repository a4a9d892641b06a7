"""What Python users and the command line call: a run and its page, finished runs, a
leaderboard, a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from membench import registry
from membench.auditing.audit import audit as execute_audit
from membench.auditing.outcome import write_outcome
from membench.auditing.settings import Settings
from membench.boards.board import By, board
from membench.boards.counterparts import counterparts
from membench.errors import UserError
from membench.models.batch_size import AUTO
from membench.models.loading import torch_dtype
from membench.notebook import Leaderboard, Result
from membench.options import as_settings
from membench.plain import say
from membench.reports.again import again
from membench.reports.audit_page import write_audit_page
from membench.reports.multiplicity import extracted, siblings
from membench.reports.page_boards import write_page
from membench.reports.run_page import write_report
from membench.runs import finished
from membench.runs.devices import device_of
from membench.runs.execute import execute_all
from membench.runs.executor import Executor
from membench.runs.finished import Run
from membench.runs.places import REPORT, RUNS
from membench.runs.spec import Spec
from membench.seeds import LARGEST_SEED
from membench.storage.files import check_target, disk_errors

Options = Mapping[str, Any] | Sequence[str]


def run(
    detector: str | type,
    task: str | type,
    profile: str = "mini",
    *,
    options: Options = (),
    task_options: Options = (),
    model: Any = None,
    seed: int = 0,
    limit: int | None = None,
    control: bool = False,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int = AUTO,
    compile: bool = False,
    preset: str | None = None,
    budget: int | None = None,
    extract_only: bool = False,
    out: str | Path = RUNS,
    progress: bool = True,
    executor: Executor | None = None,
    quality: Sequence[str] = (),
) -> Result:
    """Runs one detector on one task, or continues where a killed run stopped; returns
    its tables.

    detector, task: a name (``membench list``), or a class of one's own. options,
    task_options: ``{"steps": 5}`` or ``["steps=5"]`` (``membench show NAME`` lists
    them). model: in place of the task's, a folder, a hub id, or a diffusers pipeline in
    memory, which is stored under ``$MEMBENCH_CACHE`` once. limit: only the first
    examples of a fixed shuffle (marks the run as partial). control: against the control
    model. device: ``auto`` is cuda, else mps, else cpu. batch_size: 0 is what fits.
    compile: by ``torch.compile``. preset: a named set of the detector's options.
    extract_only: no scores. budget: the most target evaluations that preparation and
    extraction may take; implies extract_only. executor: who computes the shards
    (``ray_pool.RayPool``, entered); None: this process. quality: features by which its
    images are compared with training and held-out images (``["pixels"]``;
    docs/metrics.md).

    Raises :class:`membench.errors.UserError`.
    """
    # Before the work: what is stored is refused where it is read
    seed = _whole("seed", seed, 0, LARGEST_SEED)
    limit = None if limit is None else _whole("limit", limit, 1)
    budget = None if budget is None else _whole("budget", budget, 1)
    batch_size = _whole("batch_size", batch_size, 0, 2**20)
    for name, flag in (("control", control), ("compile", compile), ("extract_only", extract_only)):
        if not isinstance(flag, bool):
            raise UserError(f"{name}={str(flag)[:60]!r}: it must be True or False")
    torch_dtype(dtype)
    of_task = as_settings(task_options)
    if model is not None:
        of_task.append(f"model={_model(model)}")
    spec = Spec(
        detector if isinstance(detector, str) else registry.detectors().of(detector),
        task if isinstance(task, str) else registry.tasks().of(task),
        profile,
        tuple(as_settings(options)),
        tuple(of_task),
        seed,
        limit,
        control,
        device_of(device),
        dtype,
        batch_size,
        preset,
        budget,
        extract_only or budget is not None,
        compile,
    )
    [found] = execute_all(
        [spec],
        Path(out),
        progress=progress,
        executor=executor,
        quality=[quality] if isinstance(quality, str) else quality,
    ).runs
    write_pages([found])
    return Result.of(found)


def _whole(name: str, value: Any, least: int, most: int = 2**62) -> int:
    """The number, numpy's, too. Raises :class:`UserError` for another."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or not least <= value <= most
    ):
        raise UserError(
            f"{name}={str(value)[:60]}: it must be a whole number from {least} to {most:,}"
        )
    return int(value)


def _model(model: Any) -> str:
    if isinstance(model, str | Path):
        return str(model)
    from membench.models.given import folder_of

    return str(folder_of(model))


def load(path: str | Path) -> Result:
    """The run of a folder.

    Raises :class:`membench.errors.UserError` for one that is missing or damaged.
    """
    return Result.of(finished.load(Path(path)))


def leaderboard(
    runs: Run | str | Path | Iterable[Run | str | Path] = RUNS, by: By = "run"
) -> Leaderboard:
    """Finished runs side by side: ``.frame`` holds the numbers, a notebook shows the
    tables.

    runs: results of :func:`run` or :func:`load`, folders of one run each, or of many.
    by: what a row is (``membench leaderboard --help``). Raises
    :class:`membench.errors.UserError` where there is no run, or none that ``by`` asks
    for.
    """
    return Leaderboard(board(_runs(runs, verified=False), by))


def report(
    runs: Run | str | Path | Iterable[Run | str | Path] = RUNS,
    output: str | Path = REPORT,
    *,
    pdf: bool = False,
    progress: bool = False,
) -> Path:
    """Writes ``report.html``, ``report.md`` and the plots of finished runs into the
    folder ``output``; returns the page's path.

    runs: as of :func:`leaderboard`. pdf: plots as PDF, too, beside PNG and SVG. Raises
    :class:`membench.errors.UserError`.
    """
    listed = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    made, folder = board(_runs(listed, verified=True), "seeds", compare=("auroc",)), Path(output)
    for name in ("report.html", "report.md"):
        check_target(folder / name)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    folders = dict.fromkeys(one.path if isinstance(one, Run) else Path(one) for one in listed)
    command = again(list(folders), folder, pdf=pdf)
    return write_page(made, folder, pdf=pdf, progress=progress, command=command)


def _runs(given: Run | str | Path | Iterable[Run | str | Path], *, verified: bool) -> list[Run]:
    """One run twice counts once. verified: of ``finished.load``. Raises
    :class:`UserError` for two of one key with different numbers: the key names all that
    changes the output, so that one of them is a changed file, or there is a bug.
    """
    listed = [given] if isinstance(given, Run | str | Path) else list(given)
    found: list[Run] = []
    for one in listed:
        if isinstance(one, Run):
            found.append(one)
        elif (Path(one) / "run.json").is_file():
            found.append(finished.load(Path(one), verified=verified))
        else:
            many = finished.read_runs(Path(one), verified=verified)
            for problem in many.problems:
                say(f"left out: {problem}")
            found += many.runs
    if not found:
        raise UserError("no run was given: a result of membench.run, or a folder of runs")
    by_key: dict[str, Run] = {}
    for run in found:
        first = by_key.setdefault(run.info["key"], run)
        if first is not run and (where := finished.difference(first, run)):
            raise UserError(
                f"{first.path} and {run.path} are one run (key {run.info['key']}) with different"
                f" numbers ({where}): a bug in membench or a changed file; name one of them"
            )
    return list(by_key.values())


def write_pages(runs: Sequence[Run]) -> None:
    """Writes ``report.html`` of each finished run that has none, from its folder alone.

    The pages of runs that show such a run beside their own, or whose verdict it decides,
    are written again; one that cannot be written is named on stderr.
    """
    others: set[Path] = set()
    new = [run for run in runs if not (run.path / "report.html").exists()]
    for run in new:
        write_report(run)
        others |= {
            other.path
            for other in counterparts([run])
            if other.info["seed"] == run.info["seed"] and not other.path.is_symlink()
        }
        others |= set(siblings(run.path, run.info)) if len(extracted(run.metrics)) else set()
    # Those of this call show the others of it already
    for folder in sorted(others - {run.path for run in new}):
        try:
            if (folder / "report.html").exists():
                write_report(finished.load(folder))
        except UserError as error:
            say(f"{folder / 'report.html'} still lacks this run's series: {error}")


def audit(
    model: str,
    data: str | Path,
    output: str | Path | None = None,
    *,
    dry_run: bool = False,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Which training images does a model give back? What ``membench audit`` does.

    output: a folder; None: ``results/audits/DATA-MODEL``. settings: of
    :class:`membench.auditing.settings.Settings`. Returns what ``audit.json``
    holds; of a dry run its plan alone. Raises :class:`UserError`.
    """
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(settings) - known):
        raise UserError(f"unknown setting {unknown[0]!r} of an audit: {', '.join(sorted(known))}")
    asked = Settings(model, data, **settings)  # type: ignore[arg-type]  # a text is made a path
    folder = Path(output) if output else asked.folder
    return run_audit(asked, folder, dry_run=dry_run, progress=progress)


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
