"""Shards computed by a pool of Ray actors, on this machine or on a cluster.
docs/design/ray.md says why it changes no number.

The driver holds the locks, prepares, hands out shards and merges; workers write shards
into the run folders.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock
from tqdm.auto import tqdm

from membench.detector import prepares
from membench.errors import UserError
from membench.runs import ray_cluster
from membench.runs.ray_seats import Seats
from membench.runs.ray_worker import (
    Setting,
    Stage,
    Worker,
    environment,
    made_by,
    plan_hash,
    wait_for,
)
from membench.runs.seen_file import SeenFile, put

if TYPE_CHECKING:
    from membench.models.denoiser import Denoiser
    from membench.runs.job import Job
    from membench.runs.shards import Work


class RayPool:
    """An executor (:class:`membench.runs.executor.Executor`) for ``with RayPool(...) as
    pool:`` and ``membench.run(..., executor=pool)``.

    workers: how many; None: as many as there are GPUs, where device is a GPU, or as the
    cores have room for. address: of a running cluster, ``host:port`` or ``auto``; None:
    this machine, unless Ray has been started in this process. plugins: files that
    ``--plugin`` named. Raises :class:`UserError` if Ray is not installed, the cluster
    is not there or too small.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        device: str = "cpu",
        plugins: Sequence[str | Path] = (),
    ) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: it must be at least 1")
        self.address, self.device, self.plugins = (
            address,
            device,
            tuple(str(Path(p).resolve()) for p in plugins),
        )
        self._asked, self._count = workers, 0
        self._seats = Seats()
        # Of each folder of runs: the file by which workers know it
        self._tokens: dict[Path, SeenFile] = {}
        self._temporary: tuple[Path, BaseFileLock] | None = None
        self._ours = False

    # ---------------------------------------------------------------------- the cluster

    def __enter__(self) -> RayPool:
        self._ray = ray_cluster.imported(alone=self.address is None)
        # Before any work; a cluster of our own cannot be missing, and is started when
        # there is work
        if self.address is not None:
            try:
                self._connect()
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._ours:
            self._ray.shutdown()
            self._ours, self._count = False, 0
        if self._temporary:
            folder, lock = self._temporary
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            self._temporary = None

    def stop(self) -> None:
        """Ends the workers; shards that are stored stay.

        The next :meth:`compute` starts others.
        """
        self._seats.clear()
        for token in self._tokens.values():
            token.remove()
        self._tokens = {}

    def _token(self, out: Path) -> str:
        if out not in self._tokens:
            self._tokens[out] = put(out)
        return self._tokens[out].path.name

    def _connect(self) -> None:
        if self._count:
            return
        import torch

        threads = torch.get_num_threads()
        gpu = self.device.startswith("cuda")
        needs = {"CPU": 1, "GPU": 1} if gpu else {"CPU": threads}
        if self.address is not None:
            ray_cluster.reach(self.address)
        if not self._ray.is_initialized():
            self._ours = True
            if self.address is not None:
                ray_cluster.join(self._ray, self.address)
            else:
                room = max(
                    1, torch.cuda.device_count() if gpu else (os.cpu_count() or 1) // threads
                )
                self._temporary = ray_cluster.own_folder()
                cores = (self._asked or room) * needs["CPU"]
                ray_cluster.start(self._ray, cores, str(self._temporary[0]))
        room = ray_cluster.room(self._ray.nodes(), needs)
        count = self._asked or room
        if count > room or not room:
            takes = (
                "a GPU" if gpu else f"a core for each of {threads} torch threads (OMP_NUM_THREADS)"
            )
            raise UserError(
                f"--workers {count}: there is room for {room}, since a worker takes {takes}"
            )
        setting = Setting(os.getcwd(), environment(), threads, self.plugins, made_by())
        options = {
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0),
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        self._seats.open(
            self._ray,
            lambda: self._ray.remote(Worker).options(**options).remote(setting),
            count,
        )
        self._count = count  # last: a pool that was refused is asked anew

    # ---------------------------------------------------------------------- an executor

    @property
    def info(self) -> Mapping[str, Any]:
        self._connect()
        return {"executor": "ray", "workers": self._count}

    @property
    def peak_memory_mb(self) -> int:
        return self._seats.peak_memory_mb

    def compute(
        self, jobs: Sequence[Job], works: Sequence[Work], model: Denoiser, progress: bool
    ) -> None:
        """See :class:`membench.runs.executor.Executor`.

        Of the model only the batch size is used: each worker has its own.
        """
        from membench.runs.shards import SHARD, UNITS

        if any(job.spec.device != self.device for job in jobs):
            raise ValueError(f"a pool for {self.device} cannot compute on {jobs[0].spec.device}")
        self._connect()

        def size(index: int) -> int:
            return sum(len(work.items[index * SHARD : (index + 1) * SHARD]) for work in works)

        phase, indices = works[0].phase, range(max(map(len, works)))
        todo = [index for index in indices if not all(work.done(index) for work in works)]
        total = sum(map(size, indices))
        with tqdm(
            total=total,
            initial=total - sum(map(size, todo)),
            desc=phase,
            unit=UNITS[phase],
            disable=not (progress and total),
        ) as bar:
            if not todo:
                return
            out = jobs[0].folder.path.parents[3].resolve()

            def finished(index: int) -> None:
                if not wait_for(lambda: all(work.done(index) for work in works)):
                    raise UserError(
                        f"shard {index} of {phase}, which a worker has written, is not seen in"
                        f" {out}; run again"
                    )
                bar.update(size(index))

            parts = tuple(job.folder.key_parts for job in jobs)
            # What "auto" came to here: on another device it might be another number,
            # and the last bits with it.
            specs = tuple(replace(job.spec, batch_size=model.batch_size) for job in jobs)
            stage = Stage(specs, parts, str(out), self._token(out), phase, plan_hash(list(works)))
            try:
                # Ray tells of a lost worker on stdout, in ten lines; we tell of it
                # ourselves.
                with contextlib.redirect_stdout(io.StringIO()):
                    self._seats.hand_out(
                        stage, deque(todo), any(prepares(job.detector) for job in jobs), finished
                    )
            except BaseException:
                self.stop()
                raise
