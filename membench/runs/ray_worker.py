"""What runs in a worker process of :mod:`membench.runs.ray_pool`: it loads what the
driver has loaded, and computes shards.

Imports neither torch nor the hub's library at the top: both read the environment when
they are imported, which is the driver's.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.errors import UserError
from membench.storage.hashing import json_hash

if TYPE_CHECKING:
    from membench.runs.job import Job
    from membench.runs.shards import Work
    from membench.runs.spec import Spec

# Seconds until a file of another machine must be seen: NFS keeps what it knows of a
# folder for up to 60
VISIBLE = 90.0
COPIED = ("MEMBENCH_", "HF_", "TRANSFORMERS_", "TORCH_", "PYTORCH_", "CUBLAS_", "MKL_")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Setting:
    """What a worker process takes over from the driver's. threads: of torch; made_by:
    see :func:`made_by`.
    """

    folder: str
    environment: Mapping[str, str | None]
    threads: int
    plugins: tuple[str, ...]
    made_by: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One phase of jobs that are computed in step.

    key_parts: of each job. token: a file that the driver has written into ``out``.
    plan: see :func:`plan_hash`.
    """

    specs: tuple[Spec, ...]
    key_parts: tuple[Mapping[str, Any], ...]
    out: str
    token: str
    phase: str
    plan: str


def environment() -> dict[str, str | None]:
    """The variables that workers take over; None: unset.

    No access token: Ray's logs are no place for one.

    Ray gives its workers an ``OMP_NUM_THREADS`` of its own, and another machine has
    other cores: with another number of threads sums of floats are ordered otherwise,
    and their last bits differ.
    """
    found: dict[str, str | None] = {
        k: v for k, v in os.environ.items() if k.startswith(COPIED) and "TOKEN" not in k
    }
    found |= {name: os.environ.get(name) for name in THREADS}
    return found | {
        "OPENBLAS_NUM_THREADS": (
            found["OPENBLAS_NUM_THREADS"] or found["OMP_NUM_THREADS"] or str(os.cpu_count())
        )
    }


def made_by() -> dict[str, Any]:
    """What must be the same in all processes of a run: versions, and membench's commit."""
    from membench.storage import provenance

    return {
        "python": platform.python_version(),
        **provenance.versions(),
        "membench": provenance.commit()["commit"],
    }


def plan_hash(works: list[Work]) -> str:
    """Hash of the phase and the ids of all rows, in the order in which they are cut
    into shards.
    """
    return json_hash([[work.phase, *work.expected] for work in works])


def wait_for(seen: Callable[[], bool]) -> bool:
    """Whether ``seen()`` comes true within ``VISIBLE`` seconds."""
    end = time.monotonic() + VISIBLE
    while not seen():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


class Worker:
    """Computes shards in a process of its own.

    Every method raises :class:`UserError` in one line for what a user can mend.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._opened: Stage | None = None
        self._jobs: list[Job] = []
        self._extraction: list[Work] = []
        self._works: list[Work] = []
        self._model: Any = None

    def start(self) -> str:
        """Takes over the driver's setting, before all else; returns where this process runs.

        Apart from :meth:`enter`: a Stage, as Ray unpacks it, imports torch and numpy, which
        read the environment.
        """
        setting = self.setting
        for name, value in setting.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # So that relative paths of options lead where they lead in the driver
        if os.path.isdir(setting.folder):
            os.chdir(setting.folder)
        mine = made_by()
        if differing := sorted(
            k for k in {*mine, *setting.made_by} if mine.get(k) != setting.made_by.get(k)
        ):
            theirs = ", ".join(
                f"{k} {mine.get(k)} instead of {setting.made_by.get(k)}" for k in differing
            )
            raise UserError(
                f"the worker on {platform.node()} has {theirs}; install the same versions on all"
                " machines"
            )
        import torch

        from membench import plugins

        torch.set_num_threads(setting.threads)
        for plugin in setting.plugins:
            plugins.load_plugin(plugin)
        return f"{platform.node()}, process {os.getpid()}"

    def enter(self, stage: Stage) -> None:
        """Makes ready for the stage's shards, whatever was done before."""
        token = Path(stage.out, stage.token)
        if not wait_for(token.exists):
            raise UserError(
                f"the worker on {platform.node()} does not see {stage.out}; with --address, --runs"
                " must be a folder that all machines share"
            )
        # key_parts: between two runs of one pool a file that the specs name may have changed
        known = self._opened
        if known is None or (known.specs, known.out, known.key_parts) != (
            stage.specs,
            stage.out,
            stage.key_parts,
        ):
            self._open(stage)
        if stage.phase == "samples":
            self._works = self._extraction
        else:
            self._works = self._scoring()
        if plan_hash(self._works) != stage.plan:
            raise UserError(
                f"the worker on {platform.node()} plans other images than the driver; a detector's"
                " plan must be a function of its input"
            )

    def shard(self, index: int) -> int:
        """Computes shard ``index`` of all works and writes it into their folders;
        returns the peak memory of this process, in MiB.
        """
        from membench.runs.shards import in_step
        from membench.storage import host

        in_step(self._works, self._model, False, [index])
        return host.peak_memory_mb()

    def _open(self, stage: Stage) -> None:
        """Loads the task, its model and the detectors as the driver did: same order,
        same calls.
        """
        from membench.runs.job import load_task, open_job
        from membench.runs.plan import encode, planned, suits
        from membench.runs.shards import Phases

        # A model's memory, for the next
        self._opened, self._jobs, self._extraction, self._works, self._model = (
            None,
            [],
            [],
            [],
            None,
        )
        # Ray shows a worker its own GPU alone, as cuda:0.
        specs = [replace(spec, device=spec.device.partition(":")[0]) for spec in stage.specs]
        task = load_task(specs[0], progress=False)
        others: dict[str, Job] = {}
        with ExitStack() as nothing:  # no lock is held here
            jobs = [
                open_job(spec, task, Path(stage.out), nothing, others, False, attach=True)
                for spec in specs
            ]
        for job, parts in zip(jobs, stage.key_parts, strict=True):
            mine = job.folder.key_parts
            if differing := sorted(k for k in {*mine, *parts} if mine.get(k) != parts.get(k)):
                raise UserError(
                    f"the worker on {platform.node()} has another {', '.join(differing)} than the"
                    " driver; data, models and detectors must be the same on all machines"
                )
        self._model = model = task.model()
        encode(model, jobs[0].conditions)
        for job in jobs:
            suits(job, model)
        self._extraction = [
            Phases(job.detector, model, job.folder).extract(planned(job, model)[0]) for job in jobs
        ]
        self._jobs, self._opened = jobs, stage

    def _scoring(self) -> list[Work]:
        from membench.runs.execute import scoring

        def all_there() -> bool:
            return all(work.done(index) for work in self._extraction for index in range(len(work)))

        if not wait_for(all_there):
            raise UserError(
                f"the worker on {platform.node()} does not see the images of"
                f" {self._jobs[0].folder.path}; run again"
            )
        return scoring(self._jobs, self._extraction)[1]
