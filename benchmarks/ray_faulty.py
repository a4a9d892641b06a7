"""The detector of ``ray_faults.py``, a plug-in whose workers go wrong where a file says so."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from membench.detector import Detector
from membench.seeds import seed_of
from membench.types import Access, Condition, Request, Sample

FOLDER = "MEMBENCH_FAULTS"  # workers take over what begins like this
PACE = "MEMBENCH_PACE"  # seconds that each shard waits, as for a GPU
SLOW = 6.0  # seconds that a slow worker takes longer for a shard
LIMIT_MB = 3000  # of the worker that runs out of memory
CGROUP = Path("/sys/fs/cgroup/memory/membench_ray_faults")


def place() -> Path:
    return Path(os.environ[FOLDER])


def told(what: str) -> bool:
    """Whether this process is the one that shall do it: the first that asks, once two
    workers have begun.
    """
    if not (place() / what).exists():
        return False
    end = time.monotonic() + 300
    while len({line["pid"] for line in lines()}) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    try:
        os.unlink(place() / what)
    except FileNotFoundError:
        return False
    return True


def lines(what: str = "begin") -> list[dict[str, Any]]:
    """What workers have said of the shards that they began, or that they ended."""
    log = place() / "log"
    said = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in said if line["what"] == what]


def fill_memory() -> None:
    blocks = []
    for _ in range(4 * LIMIT_MB // 64):
        blocks.append(np.ones(64 << 20, dtype=np.uint8))
    raise AssertionError("no limit was met")


class RayFaults(Detector):
    """Scores by one evaluation and an image of noise; goes wrong where it is told to."""

    version = 1
    access = Access(images=True)
    slow = False

    def note(self, what: str, phase: str, first: Condition) -> None:
        said = {"what": what, "phase": phase, "first": first.id, "pid": os.getpid()}
        said |= {"net": os.readlink("/proc/self/ns/net"), "time": time.time()}
        with (place() / "log").open("a") as log:
            log.write(json.dumps(said) + "\n")

    def begin(self, phase: str, first: Condition) -> None:
        self.note("begin", phase, first)
        if told("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if told("oom"):
            (CGROUP / "cgroup.procs").write_text(str(os.getpid()))
            fill_memory()
        if told("refused"):
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (LIMIT_MB << 20),) * 2)
            fill_memory()
        RayFaults.slow = RayFaults.slow or told("slow")
        time.sleep(float(os.environ.get(PACE, "0")) + SLOW * RayFaults.slow)

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, 0) for c in conditions]

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        self.begin("samples", requests[0].condition)
        rngs = [np.random.default_rng(seed_of(self.seed, r.condition.id)) for r in requests]
        images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for rng in rngs]
        return [
            Sample(r.condition, r.draw, image, float(image.mean()))
            for r, image in zip(requests, images, strict=True)
        ]

    def score(
        self,
        model: Any,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        self.begin("scores", conditions[0])
        x = model.noise([(c.id, 0) for c in conditions], self.seed)
        norms = model.eps(x, 500, model.condition(conditions)).flatten(1).norm(dim=1).tolist()
        scores = [n + extracted[c.id][0].confidence for n, c in zip(norms, conditions, strict=True)]
        self.note("end", "scores", conditions[0])
        return scores
