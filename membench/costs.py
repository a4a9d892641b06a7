"""What a finished run cost, in evaluations of the target model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from membench.runner import Run


def spent(run: Run, what: str, *phases: str) -> int:
    """A cost of the phases named, or of all; what an older run did not count is 0."""
    return sum(int(cost.get(what, 0)) for phase, cost in run.info["phases"].items() if not phases or phase in phases)


def forwards_per_example(run: Run) -> float:
    """Forwards that a score took; NaN for a run without scores."""
    return _of_scores(run, "forwards")


def jvps_per_example(run: Run) -> float:
    """Jacobian-vector products that a score took; NaN for a run without scores."""
    return _of_scores(run, "jvps")


def _of_scores(run: Run, what: str) -> float:
    """Per scored example; all of the run's, where a detector scores by its images."""
    phases = ("scores", *(("prepare", "samples") if run.info["access"]["images"] else ()))
    return spent(run, what, *phases) / len(run.scores) if len(run.scores) else float("nan")
