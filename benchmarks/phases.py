"""Where the time of a run goes, per detector and phase: the network's own time, and
what is around it.

    python benchmarks/phases.py [--detector cfg_norm,random] [--task sd_webster]
        [--limit 64] [--batch-size 64] [--set images=0] [--clock cpu]

Each part is timed without the parts that it calls, so a row's parts sum to its phase:
network (evaluations), noise, text (prompts to embeddings), vae (decoding and encoding),
memo (looking up evaluations that are shared), png, tables (files written), compare
(images with the training set), metrics, and rest, the detector's own arithmetic above
all. Several detectors run in one command and share evaluations, as users run them, so
that the first of them pays; the last line is what they took together, beside the
dearest. --apart runs each alone. Derivatives do not pass through the door that is
timed: they are in the rest. --clock cpu: seconds of the process, where other programs
share the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from membench.models.denoiser import Denoiser
from membench.models.latent import LatentDenoiser
from membench.models.memo import Memo
from membench.models.pixel import PixelDenoiser
from membench.runs import conclude, execute, shards
from membench.runs.folder import RunFolder
from membench.runs.spec import Spec

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "network": ((Denoiser, "_predict"),),
    "noise": ((Denoiser, "noise"),),
    "text": ((LatentDenoiser, "condition"),),
    "vae": tuple(
        (of, name) for of in (LatentDenoiser, PixelDenoiser) for name in ("decode", "encode")
    ),
    "memo": ((Memo, "rows"), (Memo, "clear")),
    "png": ((shards, "pngs"),),
    "tables": ((RunFolder, "write_shard"), (RunFolder, "finish")),
    "compare": ((conclude, "match"),),
    "metrics": ((conclude, "run_metrics"),),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
REST = "rest"
Row = tuple[str, str]  # detector and phase


class Clock:
    """Seconds of each part of each (detector, phase), a part's own without those that
    it calls.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[Row, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.row: Row | None = None
        self._stack: list[str] = []
        self._now, self._last = now, now()

    def _charge(self) -> None:
        now = self._now()
        if self.row is not None:
            self.seconds[self.row][self._stack[-1] if self._stack else REST] += now - self._last
        self._last = now

    def part(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, its time charged to the part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self._stack.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                self._charge()
                self._stack.pop()

        return timed

    def phase(self, call: Callable[..., Any], row: Callable[..., Row]) -> Callable[..., Any]:
        """``call``, a phase of what ``row`` makes of its arguments."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self.row = row(*args, **kwargs)
            try:
                return call(*args, **kwargs)
            finally:
                self._charge()
                self.row = None

        return timed


@contextlib.contextmanager
def profiled(now: Callable[[], float] = time.perf_counter) -> Iterator[Clock]:
    """Within it, runs are timed."""
    clock = Clock(now)
    with contextlib.ExitStack() as stack:
        for name, calls in PARTS.items():
            for of, attribute in calls:
                timed = clock.part(name, getattr(of, attribute))
                stack.enter_context(mock.patch.object(of, attribute, timed))

        def of_work(work: shards.Work, index: int) -> Row:
            return work.phases.folder.path.parent.name, work.phase

        def of_job(job: Any, *_: Any, **__: Any) -> Row:
            return job.spec.detector, "end"

        for of, attribute, row in (
            (shards.Work, "shard", of_work),
            (execute, "conclude", of_job),
        ):
            timed = clock.phase(getattr(of, attribute), row)
            stack.enter_context(mock.patch.object(of, attribute, timed))
        yield clock


def table(clock: Clock) -> str:
    """A line a detector and phase: seconds, and the share of each part in percent."""
    names = [*PARTS, REST]
    lines = [f"{'detector':<19}{'phase':<9}{'s':>8}" + "".join(f"{n:>8}" for n in names)]
    for (detector, phase), parts in clock.seconds.items():
        total = sum(parts.values())
        shares = "".join(f"{100 * parts.get(name, 0.0) / total:>8.1f}" for name in names)
        lines.append(f"{detector:<19}{phase:<9}{total:>8.2f}{shares}")
    return "\n".join(lines)


def shared(phases: Sequence[Mapping[str, Any]]) -> str:
    """What detectors of one command took together, beside the dearest of them alone:
    wall seconds and evaluations of the phases that ask the network.
    """
    asked = [
        [cost for name, cost in run.items() if name in ("samples", "scores")] for run in phases
    ]
    alone = [sum(cost["seconds"] for cost in run) for run in asked]
    found = sum(alone) - sum(cost["shared_seconds"] for run in asked for cost in run)
    forwards = [sum(cost["forwards"] for cost in run) for run in asked]
    paid = sum(forwards) - sum(cost["shared"] for run in asked for cost in run)
    return (
        f"together {found:.2f} s, the dearest alone {max(alone):.2f} s: {found / max(alone):.2f}"
        f" times; {paid:,} forwards, the most of one {max(forwards):,}:"
        f" {paid / max(forwards):.2f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="cfg_norm,random")
    parser.add_argument("--task", default="sd_webster")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--set", dest="options", action="append", default=[])
    parser.add_argument("--apart", action="store_true", help="each detector in a run of its own")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    specs = [
        Spec(
            name,
            args.task,
            options=tuple(args.options),
            limit=args.limit,
            batch_size=args.batch_size,
        )
        for name in args.detector.split(",")
    ]
    with profiled(CLOCKS[args.clock]) as clock:
        runs = []
        for together in [[spec] for spec in specs] if args.apart else [specs]:
            with tempfile.TemporaryDirectory() as out:
                runs += execute.execute_all(together, Path(out), progress=False).runs
    print(table(clock))
    if len(runs) > 1 and not args.apart:
        print(shared([run.info["phases"] for run in runs]))


if __name__ == "__main__":
    main()
