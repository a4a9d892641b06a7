"""Commands that are ended at any moment, and whether the same command then ends with the
same numbers.

    python benchmarks/kills.py --minutes 30 [--seed 1] [--only run,train] [--work FOLDER]

A round takes one workload, ends it up to four times (SIGKILL, SIGTERM or SIGINT at a
random moment; as root on Linux a full disk or one that became read-only, too; some under
a clock that jumps), runs it to its end, and compares every Parquet column and every file
of weights with those of an uninterrupted one, bit by bit. Times, places and the memory
that was used may differ; temporary files and shards may not stay. Prints a line a round,
then the counts. What fails keeps its folder.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

SIDE = (
    "--set side.synthetic=96 --set side.clusters=4 --set side.cohesion=-1 --set"
    " side.generations=32 --set side.classifier_steps=12 --set side.batch=8 --set"
    " side.neighbours=5 --set side.steps=4 --set side.keep=1 --set side.min_members=1"
)
# {o}: the round's folder; {data}: images for an audit; {model}: a shipped model; {runs}:
# runs for a board
WORKLOADS = {
    "prompts": [
        "run --detector cfg_norm,dsm --task sd_webster --limit 24 --set images=0"
        " --runs {o}/runs --quiet"
    ],
    "captions": [
        "run --detector caption_length --task sd_webster --limit 70 --runs {o}/runs --quiet"
    ],
    "images": [
        "run --detector loss,membership,clid,flipd,score_norm,representation,png_size"
        " --task cifar10 --limit 24 --set images=0 --runs {o}/runs --quiet"
    ],
    "side": [f"run --detector side --task cifar10 --extract-only {SIDE} --runs {{o}}/runs --quiet"],
    "filter": [
        "run --detector filter --task cifar10 --extract-only --set filter.scorer=loss --set"
        " filter.settings=condition=unconditional --set filter.source=null --set"
        " filter.candidates=60 --set filter.keep=20 --runs {o}/runs --quiet"
    ],
    "pool": [
        "run --detector loss,png_size --task cifar10 --set cifar10.pool=80 --set images=0 --runs"
        " {o}/runs --quiet"
    ],
    "train": [
        "train cifar10 --set steps=40 --set rungs=10,40 --set batch=4 --set grid_every=0 --set"
        " channels=8,8 --output {o}/work --quiet"
    ],
    "ablate": [
        "ablate --detector loss --task cifar10 --sweep t=200,400 --seeds 0,1 --limit 30 --set"
        " images=0 --runs {o}/runs --output {o}/ablation --quiet"
    ],
    "audit": [
        "audit --model {model} --data {data} --unconditional --budget 1500 --output {o}/audit"
        " --quiet"
    ],
    "board": [
        "leaderboard --runs {runs} --by seeds --format parquet --output {o}/board.parquet",
        "report --runs {runs} --output {o}/report",
    ],
    "ray": [
        "run --detector loss,png_size --task cifar10 --limit 130 --set images=0 --executor ray"
        " --workers 2 --runs {o}/runs --quiet"
    ],
}
WEIGHTS = {"ray": 0.3, "captions": 0.5}
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]
MAY_DIFFER = ("seconds", "created", "memory", "folder", "path")  # of columns


def start(command: str, words: dict[str, str], log: Path, *, jump: float, cache: Path) -> int:
    """The process id of a child that runs the command; all is imported already."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1), os.dup2(file, 2)
        os.environ["MEMBENCH_CACHE"] = str(cache)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if jump:
            real = time.time
            time.time = lambda: real() + jump
        from membench.cli.main import main
        from membench.tasks.pixels import train

        fit = train.fit
        train.fit = lambda plan, *a, **k: fit(replace(plan, checkpoint_seconds=0.2), *a, **k)
        code = main([part.format(**words) for part in command.split()])
    except SystemExit as end:  # Ray's own, of a SIGTERM
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """Its exit code, minus the signal that ended it, or None where it still runs then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.004)
    return None


def different(a: Path, b: Path) -> list[str]:
    """What of the uninterrupted folder ``a`` is not so in ``b``."""
    files = [
        {
            str(f.relative_to(root))
            for f in root.rglob("*")
            if f.is_file() and not f.name.endswith(".lock")
        }
        for root in (a, b)
    ]
    bad = [f"{'missing' if f in files[0] else 'more'}: {f}" for f in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        if name.endswith(".parquet"):
            one, two = (pd.read_parquet(root / name) for root in (a, b))
            kept = [c for c in one if c != "run" and not any(word in c for word in MAY_DIFFER)]
            try:
                pd.testing.assert_frame_equal(one[kept], two[kept], check_exact=True)
            except (AssertionError, KeyError) as error:
                bad.append(f"{name}: {error}")
        elif name.endswith(".safetensors"):  # beside them stand the seconds that they took
            first, second = (load_file(root / name) for root in (a, b))
            if first.keys() != second.keys() or any(
                not np.array_equal(first[k], second[k], equal_nan=True) for k in first
            ):
                bad.append(f"{name} differs")
        elif name.endswith(".npy") and (a / name).read_bytes() != (b / name).read_bytes():
            bad.append(f"{name} differs")
    left = [f.name for f in b.rglob("*") if ".partial" in f.name or f.name == "shards"]
    return bad + [f"left: {name}" for name in left]


class Disk:
    """A small file system of its own for a round, where root may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mount("size=2g", "-t", "tmpfs", "none")

    def _mount(self, options: str, *words: str) -> None:
        command = ["mount", "-o", options, *words, str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def full(self) -> None:
        for _ in range(100):  # refused where more was written since it was asked
            used = shutil.disk_usage(self.folder).used
            with contextlib.suppress(subprocess.CalledProcessError):
                return self._mount(f"remount,rw,size={max(used, 4096)}")
        raise RuntimeError(f"{self.folder}: it cannot be made full")

    def read_only(self) -> None:
        # Fails while a file is open for writing: then it stays as it is
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], capture_output=True)

    def whole(self) -> None:
        self._mount("remount,rw,size=2g")

    def gone(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def one_round(
    name: str, words: dict[str, str], took: float, folder: Path, rng: random.Random
) -> tuple[list[str], list[str]]:
    """Ends the workload at random moments, then lets it end; what was done, and what was
    wrong on the way.
    """
    disk = Disk(folder / "o") if sys.platform == "linux" and os.geteuid() == 0 else None
    log, done, wrong = folder / "log.txt", [], []
    for command in WORKLOADS[name]:
        for _ in range(rng.choice((1, 1, 2, 3, 4))):
            jump = rng.choice((0.0, 0.0, 1e7, -1e7))
            pid = start(command, words, log, jump=jump, cache=folder / "o" / "cache")
            code = ended(pid, rng.uniform(0, took / len(WORKLOADS[name]) * 1.05))
            if code is not None:
                done.append(f"ended {code}")
                break
            trouble = rng.choice(("signal", "signal", "full", "read-only")) if disk else "signal"
            if trouble == "signal":
                how = rng.choice(SIGNALS)
                os.kill(pid, how)
                done.append(signal.Signals(how).name)
            else:
                assert disk
                disk.full() if trouble == "full" else disk.read_only()
                done.append(trouble)
            if (code := ended(pid, 120)) is None:
                os.kill(pid, signal.SIGKILL)
                wrong.append(f"{done[-1]}: still there after 120 s")
                ended(pid, 10)
            elif trouble != "signal" and code not in (0, 2):
                wrong.append(f"{done[-1]}: exit code {code}")
            done[-1] += f"{' clock' if jump else ''} {code}"
            if disk:
                disk.whole()
        pid = start(command, words, log, jump=0.0, cache=folder / "o" / "cache")
        if (code := ended(pid, 600)) != 0:
            wrong.append(f"the command itself: {code}")
            if code is None:
                os.kill(pid, signal.SIGKILL)
    if "Traceback" in log.read_text() and not all("SIG" in d for d in done):
        wrong.append("a traceback")
    kept = folder / "kept"
    shutil.copytree(folder / "o", kept, symlinks=True)
    if disk:
        disk.gone()
    return done, wrong


def images(folder: Path) -> None:
    """The training images of the shipped half a, for an audit."""
    from PIL import Image

    from membench.tasks.cifar10.scenes import WORLD
    from membench.tasks.pixels.mirror_task import pair_of

    folder.mkdir()
    for i, image in enumerate(pair_of(WORLD, 0).halves["a"].images[:60]):
        Image.fromarray(image).save(folder / f"{i:03d}.png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads")
    parser.add_argument("--work", type=Path)
    args = parser.parse_args(argv)
    work = args.work or Path(tempfile.mkdtemp(prefix="membench-kills-"))
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Imported once, for all children: a signal in an import of their own is no fault
    from membench.cli.main import main as _  # noqa: F401
    from membench.registry import detectors
    from membench.tasks.cifar10.task import DATA
    from membench.tasks.pixels import train as __  # noqa: F401

    for name in detectors().names():  # imported once, for all children
        detectors().load(name)
    names, took = args.only.split(","), {}
    images(work / "data")
    words = {"data": str(work / "data"), "model": str(DATA / "a" / "step-06000")}
    words["runs"] = str(work / "whole-images" / "o" / "runs")
    for name in dict.fromkeys(["images", *names]):
        folder = work / f"whole-{name}"
        (folder / "o").mkdir(parents=True)
        begun = time.monotonic()
        for command in WORKLOADS[name]:
            told = words | {"o": str(folder / "o")}
            pid = start(command, told, folder / "log.txt", jump=0, cache=folder / "o" / "cache")
            if ended(pid, 1200) != 0:
                sys.exit(f"{name}: {(folder / 'log.txt').read_text()}")
        took[name] = time.monotonic() - begun
        print(f"{name}: {took[name]:.0f} s uninterrupted", flush=True)
    rng, until = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    count: collections.Counter[str] = collections.Counter()
    while time.monotonic() < until:
        count["rounds"] += 1
        [name] = rng.choices(names, [WEIGHTS.get(n, 1.0) for n in names])
        folder = work / f"{count['rounds']:04d}-{name}"
        (folder / "o").mkdir(parents=True)
        done, bad = one_round(name, words | {"o": str(folder / "o")}, took[name], folder, rng)
        bad += different(work / f"whole-{name}" / "o", folder / "kept")
        print(count["rounds"], name, done, bad or "equal", flush=True)
        count["ended early"] += sum(not d.startswith("ended") for d in done)
        for d in done:
            count[d.split()[0]] += 1
        count["faulty"] += bool(bad)
        if not bad:
            shutil.rmtree(folder)
    print(dict(count))
    return int(bool(count["faulty"]))


if __name__ == "__main__":
    sys.exit(main())
