"""What the options of a detector do to AMS and UMS: a grid of ordinary runs, and their
numbers in long form.

Each point is a run of :func:`membench.runs.execute.execute`, kept under its own key: a
second call computes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from membench.errors import UserError, listed
from membench.metrics.names import SWEPT
from membench.options import detector_options
from membench.runs.execute import execute, execute_all
from membench.runs.finished import Run, spent
from membench.runs.spec import Spec
from membench.storage.files import DamagedFile

COLUMNS = (
    "seed",
    "control",
    "metric",
    "band",
    "threshold",
    "value",
    "low",
    "high",
    "n",
    "forwards",
    "jvps",
    "seconds",
    "run",
    "status",
    "error",
)

KINDS = {
    "seed": "int64",
    "control": bool,
    "n": "Int64",
    "forwards": "Int64",
    "jvps": "Int64",
} | dict.fromkeys(("threshold", "value", "low", "high", "seconds"), "float64")


class Point(NamedTuple):
    """One combination of the swept options. values: as the detector gets them;
    settings: as ``key=value``.
    """

    values: dict[str, Any]
    settings: tuple[str, ...]


def swept_values(text: str, option: str) -> list[str]:
    """The values of a sweep of an option; those that hold commas are parted by ``;``."""
    return listed(text, f"--sweep {option}:", ";" if ";" in text else ",")


def grid(detector: type, spec: Spec, sweeps: Sequence[str]) -> list[Point]:
    """Every combination of ``["option=value,value", ...]``; values that hold commas
    themselves are parted by ``;``.

    spec: its options are set at every point. Raises :class:`UserError` for whatever the
    detector's Options refuses.
    """
    kept = {setting.partition("=")[0].strip() for setting in spec.options}
    swept: dict[str, list[str]] = {}
    for text in sweeps:
        option, _, values = (part.strip() for part in text.partition("="))
        if option in swept:
            raise UserError(f"option {option} is swept twice; give all its values in one --sweep")
        if option in kept:
            raise UserError(
                f"option {option} is both swept and set; leave out its --sweep or its --set"
            )
        if not option or not values:
            raise UserError(f"cannot read --sweep {text!r}; write --sweep option=value,value")
        swept[option] = [f"{option}={v}" for v in swept_values(values, option)]
    points: list[Point] = []
    for settings in itertools.product(*swept.values()):
        parsed = detector_options(
            spec.detector, detector, [*spec.options, *settings], spec.preset, spec.profile
        )
        points.append(Point({option: getattr(parsed, option) for option in swept}, settings))
        if any(points[-1].values == other.values for other in points[:-1]):
            raise UserError(f"--sweep gives {' '.join(settings)} twice")
    return points


def sweep(
    spec: Spec,
    points: Sequence[Point],
    seeds: Sequence[int],
    controls: Sequence[bool],
    out: Path,
    *,
    progress: bool,
) -> pd.DataFrame:
    """Runs every point: a row a point, seed, model, metric and band, with what they
    have in common in ``attrs``.

    A point that is refused with UserError is one row, with status ``refused`` and its
    ``error``. Raises UserError if all are, and at once if the disk refuses.
    """
    # An option that is called like another column gets the column option_<name>.
    swept = {
        option: f"option_{option}" if option in COLUMNS else option for option in points[0].values
    }
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    jobs = list(itertools.product(points, controls, seeds))

    def at(point: Point, control: bool, seed: int) -> Spec:
        return replace(spec, options=(*spec.options, *point.settings), seed=seed, control=control)

    for control, seed in itertools.product(controls, seeds) if len(points) > 1 else ():
        # Side by side the points share network evaluations. Which of them is refused,
        # and why, the loop below finds out.
        with contextlib.suppress(UserError):
            execute_all([at(point, control, seed) for point in points], out, progress=progress)
    for i, (point, control, seed) in enumerate(jobs, 1):
        if progress:
            print(
                f"{i} of {len(jobs)}: {' '.join(point.settings)}"
                f" seed={seed}{' (control model)' if control else ''}",
                file=sys.stderr,
            )
        values = {swept[option]: value for option, value in point.values.items()} | {
            "seed": seed,
            "control": control,
        }
        try:
            run = execute(at(point, control, seed), out, progress=progress)
        except UserError as error:
            if isinstance(error, DamagedFile) or isinstance(error.__cause__, OSError):
                raise  # the disk's refusal, not the detector's
            rows.append(values | {"status": "refused", "error": " ".join(str(error).split())})
            continue
        about = {name: run.info[name] for name in ("space", "n_examples", "n_task_examples")}
        rows += [values | row for row in _run_rows(run)]
    if not about:
        reasons = "; ".join(dict.fromkeys(row["error"] for row in rows))
        raise UserError(
            f"all {len(jobs)} points were refused: {reasons}" if len(jobs) > 1 else reasons
        )
    frame = pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=object)
            for name in (*swept.values(), *COLUMNS)
        }
    )
    frame = frame.astype(KINDS)
    common = {
        name: value for name, value in asdict(spec).items() if name not in ("seed", "control")
    }
    frame.attrs = {
        **common,
        "options": list(spec.options),
        "task_options": list(spec.task_options),
        "swept": swept,
        **about,
    }
    return frame


def _run_rows(run: Run) -> Iterator[dict[str, Any]]:
    common = {
        "forwards": spent(run, "forwards", "prepare", "samples"),
        "jvps": spent(run, "jvps", "prepare", "samples"),
        "seconds": run.info["seconds"],
        "run": str(run.path),
        "status": run.info["status"],
    }
    found = run.metrics[(run.metrics.subset == "all") & run.metrics.metric.isin(SWEPT)]
    if found.empty:  # no image, and no two classes to tell apart
        yield common
    for row in found.astype(object).where(found.notna(), None).to_dict("records"):
        yield common | {
            name: row[name] for name in ("metric", "band", "threshold", "value", "low", "high", "n")
        }
