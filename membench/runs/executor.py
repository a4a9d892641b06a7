"""Who computes the shards of a phase, where it is not the process that was started: a
pool of workers (``ray_pool.RayPool``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from membench.models.denoiser import Denoiser
    from membench.runs.job import Job
    from membench.runs.shards import Work


class Executor(Protocol):
    """What a run asks of one. It changes how long a run takes, and no number."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What run.json says of it; no part of the key."""
        ...

    @property
    def peak_memory_mb(self) -> int:
        """The most resident memory that one of its processes has had so far, in MiB."""
        ...

    def compute(
        self, jobs: Sequence[Job], works: Sequence[Work], model: Denoiser, progress: bool
    ) -> None:
        """Computes and stores every missing shard of the works: one phase of each of
        the jobs, in their order.

        Raises :class:`~membench.errors.UserError`; shards that are stored by then are
        kept.
        """
        ...
