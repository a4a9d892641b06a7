"""What becomes of a run on Ray when something goes wrong, for real: processes, signals,
the kernel's limits and two machines made of namespaces.

    python benchmarks/ray_faults.py [--only killed,driver] [--limit 512] [--pace 5]

Each case is ``membench run --executor ray`` in a process of its own, with the detector
of ``ray_faulty.py``, whose workers go wrong where a file tells them to, and ends with
the bytes of one process or with one line. ``nodes`` and ``folder`` need root (network
and mount namespaces), ``oom`` a memory cgroup that can be written. ``speed`` lets each
shard wait for ``--pace`` seconds, as for a GPU, so that its ratio tells what handing out
costs and not how busy the cores are. docs/design/ray.md holds what came of it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_faulty import CGROUP, FOLDER, LIMIT_MB, PACE, SLOW, lines, place

TABLES = ("scores", "samples", "matches", "metrics")
PLUGIN = str(Path(__file__).resolve().with_name("ray_faulty.py"))


# ------------------------------------------------------------------------------ the cases


@dataclass
class Ended:
    """What a command did. shards: as lines() of it."""

    code: int
    seconds: float
    err: str
    shards: list[dict[str, Any]]
    run: Path | None

    def told(self, words: str) -> int:
        return sum(words in line for line in self.err.splitlines())

    def refusal(self, words: str) -> str:
        """The one line that it ended with, which holds these words. Of cores that are busy
        a run says after a minute that it still waits.
        """
        told = [line for line in self.err.splitlines() if "still waiting" not in line]
        assert self.code == 2 and len(told) == 1 and words in told[0], self.err
        return f"{told[0]!r}, code 2"


class Cases:
    def __init__(self, root: Path, limit: int, pace: float) -> None:
        self.root, self.limit, self.pace = root, limit, pace
        self.env = {**os.environ, FOLDER: str(root / "faults"), "OMP_NUM_THREADS": "1"}
        (root / "token").write_text(secrets.token_hex(32))
        self.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(root / "token")}
        os.environ[FOLDER] = self.env[FOLDER]
        self.whole: Path | None = None

    def command(self, out: Path, *words: str) -> list[str]:
        return [
            *(sys.executable, "-m", "membench", "run", "--quiet", "--plugin", PLUGIN),
            *("--detector", "ray_faults", "--task", "sd_webster", "--limit", str(self.limit)),
            *("--runs", str(out), *words),
        ]

    def run(
        self,
        name: str,
        *words: str,
        fault: str = "",
        before: Sequence[str] = (),
        until: Callable[[Path], bool] | None = None,
    ) -> Ended:
        """A run into the folder ``name``. before: of the command line; until: when it is
        killed.
        """
        out, faults = self.root / name, place()
        faults.mkdir(exist_ok=True)
        (faults / "log").unlink(missing_ok=True)
        if fault:
            (faults / fault).touch()
        began = time.monotonic()
        with (self.root / "err").open("w+") as err:
            command = [*before, *self.command(out, *words)]
            process = subprocess.Popen(command, stdout=err, stderr=err, env=self.env)
            while until is not None and process.poll() is None and not until(out):
                time.sleep(0.05)
            if until is not None:
                process.kill()
            code = process.wait()
            err.seek(0)
            text = err.read()
        assert not fault or not (faults / fault).exists(), f"{fault}: no worker did it\n{text}"
        run = next(out.glob("*/*/*/*/run.json"), None)
        return Ended(
            code, time.monotonic() - began, text, lines(), None if run is None else run.parent
        )

    def alone(self) -> Path:
        """The run of one process."""
        if self.whole is None:
            ended = self.run("alone")
            assert ended.code == 0 and ended.run is not None, ended.err
            print(f"one process: {ended.seconds:.1f} s, {len(ended.shards)} shards", flush=True)
            self.whole = ended.run
        return self.whole

    def equal(self, ended: Ended) -> str:
        """Says of a run that ended well what it took; its bytes are those of one process."""
        whole = self.alone()
        assert ended.code == 0 and ended.run is not None, ended.err
        for table in TABLES:
            files = [of / f"{table}.parquet" for of in (ended.run, whole)]
            assert files[0].read_bytes() == files[1].read_bytes(), table
        workers = Counter(line["pid"] for line in ended.shards).values()
        return f"{ended.seconds:.1f} s; shards by worker {sorted(workers)}; bytes of one process"

    # ------------------------------------------------------------------- one machine

    def two(self) -> str:
        return self._workers("two", 2)

    def four(self) -> str:
        return self._workers("four", 4)

    def _workers(self, name: str, count: int) -> str:
        self.env[PACE] = str(self.pace)  # or the first worker may have done all
        ended = self.run(name, "--executor", "ray", "--workers", str(count))
        del self.env[PACE]
        return self.equal(ended)

    def killed(self) -> str:
        return self._lost("killed")

    def oom(self) -> str:
        with cgroup():
            return self._lost("oom")

    def _lost(self, how: str) -> str:
        ended = self.run(how, "--executor", "ray", "--workers", "2", fault=how)
        told = self.equal(ended)
        again = Counter((line["phase"], line["first"]) for line in ended.shards)
        assert sum(n - 1 for n in again.values()) == 1 == ended.told("was lost"), ended.err
        return f"{told}; one shard computed again"

    def slow(self) -> str:
        ended = self.run("slow", "--executor", "ray", "--workers", "2", fault="slow")
        return f"{self.equal(ended)}; one of them {SLOW:g} s slower a shard"

    def refused(self) -> str:
        """An allocation that fails is the worker's one line; the next run goes on."""
        ray = ("--executor", "ray", "--workers", "2")
        ended = self.run("refused", *ray, fault="refused")
        told = ended.refusal("Unable to allocate")
        return f"{told}; again: {self.equal(self.run('refused', *ray))}"

    def driver(self) -> str:
        """SIGKILL to the driver once four shards are stored, and the same command again."""
        ray = ("--executor", "ray", "--workers", "2")

        def stored(out: Path) -> bool:
            return len(list(out.glob("*/*/*/*/shards/*.parquet"))) >= 4

        ended = self.run("driver", *ray, until=stored)
        assert ended.code == -signal.SIGKILL, ended.code
        kept = len(list((self.root / "driver").glob("*/*/*/*/shards/*.parquet")))
        gone = self.gone()
        again = self.run("driver", *ray)
        told = self.equal(again)
        all_shards = 2 * -(-self.limit // 64)
        assert len(again.shards) <= all_shards - kept, (len(again.shards), kept)
        return (
            f"{kept} of {all_shards} shards kept, its processes gone after {gone:.1f} s; again"
            f" {len(again.shards)} shards, {told}"
        )

    def gone(self) -> float:
        """Seconds until no process of a run is left."""
        began = time.monotonic()
        while left := self.processes():
            assert time.monotonic() - began < 120, f"still there: {left}"
            time.sleep(0.5)
        return time.monotonic() - began

    def processes(self) -> list[int]:
        """Processes of this benchmark's runs, by what they have in their environment."""
        mark, found = f"{FOLDER}={place()}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int(folder.name) != os.getpid() and mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # ended meanwhile
                continue
        return found

    def speed(self) -> str:
        """Seconds from the first score's begin to the last one's end, of one process over
        those of workers.
        """
        self.env[PACE] = str(self.pace)
        seconds = {}
        for workers in (0, 1, 2, 4):
            words = ("--executor", "ray", "--workers", str(workers)) if workers else ()
            self.equal(self.run(f"speed{workers}", *words))
            scored = [line["time"] for line in lines() if line["phase"] == "scores"]
            seconds[workers] = max(line["time"] for line in lines("end")) - min(scored)
        del self.env[PACE]
        ratios = ", ".join(f"{n}: {seconds[0] / s:.2f}" for n, s in seconds.items() if n)
        return (
            f"one process scores in {seconds[0]:.1f} s; times as fast by workers: {ratios}; load"
            f" average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )

    # ------------------------------------------------------------------ two machines

    def nodes(self) -> str:
        with cluster(self.root, self.env) as (address, inside):
            # "disabled": as without the token
            self.env["RAY_AUTH_MODE"] = "disabled"
            stranger = self.run("nodes", *ray_at(address), before=inside)
            self.env["RAY_AUTH_MODE"] = "token"
            print(f"without the token: {stranger.refusal('RAY_AUTH_MODE=token')}", flush=True)
            ended = self.run("nodes", *ray_at(address), before=inside)
        assert len({line["net"] for line in ended.shards}) == 2, "one machine did all"
        return f"{self.equal(ended)}; both machines computed"

    def folder(self) -> str:
        """The second machine sees an empty folder in place of the runs, in a run that lasts
        for longer than it waits for them.
        """
        (self.root / "folder").mkdir()
        self.env[PACE] = "40"
        with cluster(self.root, self.env, hidden=self.root / "folder") as (address, inside):
            ended = self.run("folder", *ray_at(address), before=inside)
        del self.env[PACE]
        return f"{ended.refusal('does not see')}, after {ended.seconds:.0f} s"


def ray_at(address: str) -> tuple[str, ...]:
    return "--executor", "ray", "--workers", "2", "--address", address


@contextmanager
def cgroup() -> Iterator[None]:
    """A group of processes that the kernel ends where it takes more than LIMIT_MB."""
    CGROUP.mkdir()
    try:
        (CGROUP / "memory.limit_in_bytes").write_text(str(LIMIT_MB << 20))
        yield
    finally:
        time.sleep(1)  # until the kernel has let go of who was killed
        CGROUP.rmdir()


@contextmanager
def cluster(
    root: Path, env: Mapping[str, str], hidden: Path | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Two Ray nodes in network namespaces that a cable joins, a core each: the head's
    address, and what begins a command on its machine. hidden: a folder that the second
    sees empty.
    """
    heads, second = f"mbf{os.getpid()}a", f"mbf{os.getpid()}b"
    address, port = "10.77.0.1", 6399
    # The second one's own: Ray's sockets of both would lie in one folder
    temporary = Path(tempfile.mkdtemp(prefix="mbr-", dir="/tmp"))
    empty = [temporary, *filter(None, [hidden])]
    mounts = "".join(f"mount -t tmpfs none {path} && " for path in empty)
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    ray += ["--object-store-memory=80000000", "--disable-usage-stats"]
    nodes = []
    try:
        for name in (heads, second):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            if name == second:
                ip(
                    "link",
                    "add",
                    "mbf",
                    "netns",
                    heads,
                    "type",
                    "veth",
                    "peer",
                    "mbf",
                    "netns",
                    name,
                )
        for name, own in ((heads, address), (second, "10.77.0.2")):
            ip("-n", name, "addr", "add", f"{own}/24", "dev", "mbf")
            ip("-n", name, "link", "set", "mbf", "up")
        inside = ["ip", "netns", "exec", heads]
        beside = ["ip", "netns", "exec", second, "sh", "-c", f'{mounts} exec "$@"', "sh"]
        head = ["--include-dashboard=false", f"--temp-dir={temporary}"]
        for command in (
            [*inside, *ray, "--head", f"--port={port}", f"--node-ip-address={address}", *head],
            [*beside, *ray, f"--address={address}:{port}", "--node-ip-address=10.77.0.2"],
        ):
            with (root / f"ray{len(nodes)}").open("w") as log:
                nodes.append(subprocess.Popen(command, stdout=log, stderr=log, env=dict(env)))
            end = time.monotonic() + 180
            while "Ray runtime started" not in (root / f"ray{len(nodes) - 1}").read_text():
                assert nodes[-1].poll() is None and time.monotonic() < end, (
                    root / f"ray{len(nodes) - 1}"
                ).read_text()
                time.sleep(0.5)
        yield f"{address}:{port}", inside
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait(60)
        for name in (heads, second):
            for pid in subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True
            ).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name])
        shutil.rmtree(temporary, ignore_errors=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


CASES = ("two", "four", "killed", "oom", "refused", "slow", "driver", "nodes", "folder", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CASES), help="cases, joined by commas")
    parser.add_argument("--limit", type=int, default=512, help="examples")
    parser.add_argument(
        "--pace", type=float, default=5.0, help="seconds that shards of two, four and speed wait"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mbf-", dir="/tmp") as name:
        cases = Cases(Path(name), args.limit, args.pace)
        for case in args.only.split(","):
            print(f"{case}: {getattr(cases, case)()}", flush=True)
            cases.gone()


if __name__ == "__main__":
    main()
