"""The workers of a Ray pool: which shard each computes, and what becomes of the shard
of a lost one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from membench.errors import UserError
from membench.runs import ray_cluster
from membench.runs.ray_worker import Stage

LOSSES = 3  # workers that one shard, or the start, may lose before the run gives up

# Seconds without any answer after which a run that waits for its first worker says so
PATIENCE = 60.0


@dataclass(eq=False)
class _Seat:
    """A worker as the driver sees it. stage: what it is ready for, or makes ready for;
    where: for messages, "" until it has started.
    """

    actor: Any
    stage: Stage | None = None
    where: str = ""


class Seats:
    """Workers, started when there is work for them. peak_memory_mb: the most that one has
    told of.
    """

    def __init__(self) -> None:
        self.peak_memory_mb = 0
        self._seats: list[_Seat] = []
        # Of each call under way: whose, and of which shard (None: it starts or makes ready)
        self._tasks: dict[Any, tuple[_Seat, int | None]] = {}

    def open(self, ray: Any, actor: Callable[[], Any], count: int) -> None:
        """actor: starts a worker; count: how many there may be."""
        self._ray, self._actor, self._count = ray, actor, count

    def clear(self) -> None:
        """Ends the workers; shards that are stored stay."""
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats, self._tasks = [], {}

    def hand_out(
        self, stage: Stage, todo: deque[int], one_by_one: bool, finished: Callable[[int], None]
    ) -> None:
        """Has every shard of ``todo`` computed. one_by_one: the workers make ready one
        after another.
        """
        tasks, lost = self._tasks, Counter[int | None]()
        while todo or any(index is not None for _, index in tasks.values()):
            busy = {seat for seat, _ in tasks.values()}
            flying = sum(index is not None for _, index in tasks.values())
            while len(self._seats) < min(self._count, len(todo) + flying):
                self._seats.append(seat := _Seat(self._actor()))
                tasks[seat.actor.start.remote()] = seat, None
                busy.add(seat)
            for seat in [seat for seat in self._seats if seat not in busy]:
                entering = sum(of.where != "" and index is None for of, index in tasks.values())
                if seat.stage is stage and todo:
                    index = todo.popleft()
                    tasks[seat.actor.shard.remote(index)] = seat, index
                    flying += 1
                elif (
                    seat.stage is not stage
                    and len(todo) > entering
                    and not (one_by_one and entering)
                ):
                    tasks[seat.actor.enter.remote(stage)] = seat, None
                    seat.stage = stage
            self._answer(stage, todo, lost, finished)
        # The run is over for those that are still making ready for it, not for those that
        # start, of whatever run; of its images, it is not
        if stage.phase != "samples":
            for task, (seat, _) in [*tasks.items()]:
                if seat.where:
                    self._dismiss(seat)
                    del tasks[task]

    def _answer(
        self,
        stage: Stage,
        todo: deque[int],
        lost: Counter[int | None],
        finished: Callable[[int], None],
    ) -> None:
        """Waits for the next answer of a worker, and takes it."""
        tasks = self._tasks
        ready, _ = self._ray.wait(list(tasks), num_returns=1, timeout=PATIENCE)
        if not ready:
            if all(index is None for _, index in tasks.values()):
                ray_cluster.tell("still waiting for the first worker; is the cluster busy?")
            return
        seat, index = tasks.pop(ready[0])
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(ready[0])
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise  # a defect: its text is the traceback of the worker
        except exceptions.RayError as error:
            self._dismiss(seat)
            what = f"at shard {index} of {stage.phase}"
            if index is None:
                what = "while it made ready" if seat.where else "while it started"
            if getattr(error, "actor_init_failed", False):
                why = str(error).strip().splitlines()[-1]
                raise UserError(
                    f"a worker cannot start ({why}); membench must be installed on every machine of"
                    " the cluster"
                ) from error
            lost[index] += 1
            if lost[index] >= LOSSES:
                raise UserError(
                    f"{LOSSES} workers were lost {what} (killed for memory? fewer --workers, a"
                    " smaller --batch-size); what is finished is kept, and the same command"
                    " continues"
                ) from error
            if index is not None:
                todo.appendleft(index)
            where = f" ({seat.where})" if seat.where else ""
            ray_cluster.tell(f"a worker{where} was lost {what}; another one takes over")
            return
        if index is None:
            seat.where, lost[None] = answer or seat.where, 0
        else:
            self.peak_memory_mb = max(self.peak_memory_mb, answer)
            finished(index)

    def _dismiss(self, seat: _Seat) -> None:
        self._ray.kill(seat.actor)
        self._seats.remove(seat)
