"""What a finished run cost, in evaluations of the target model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from membench.runs import Run

PER_EXAMPLE = {"forwards": "fwd/ex", "jvps": "jvp/ex", "decodes": "dec/ex", "encodes": "enc/ex"}  # what tables show of a score's cost


def spent(run: Run, what: str, *phases: str) -> int:
    """A cost of the phases named, or of all; what an older run did not count is 0."""
    return sum(int(cost.get(what, 0)) for phase, cost in run.info["phases"].items() if not phases or phase in phases)


def evaluations(run: Run, *phases: str) -> int:
    """Passes over the target network: a Jacobian-vector product in forward mode is one, as a forward is."""
    return spent(run, "forwards", *phases) + spent(run, "jvps", *phases)


def per_example(run: Run, what: str) -> float:
    """What a score took of a cost; all that the run took, where a detector scores by its images. NaN for a run without scores."""
    phases = ("scores", *(("prepare", "samples") if run.info["access"]["images"] else ()))
    return spent(run, what, *phases) / len(run.scores) if len(run.scores) else float("nan")
