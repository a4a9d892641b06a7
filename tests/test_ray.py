"""Shards computed by Ray workers: the bytes that one process makes, whatever is lost on
the way.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import slow

from membench import api, plugins, registry
from membench.cli.main import main
from membench.errors import UserError
from membench.runs import check, conclude, ray_cluster, ray_worker
from membench.runs.execute import execute_all
from membench.runs.finished import Run
from membench.runs.job import load_task
from membench.runs.ray_pool import RayPool
from membench.runs.ray_seats import Seats
from membench.runs.ray_worker import Setting, Stage, Worker, made_by
from membench.runs.spec import Spec
from membench.storage.hashing import json_hash
from membench.storage.tables import SCHEMAS, read_table
from membench.tasks.sd_webster import task

ray = pytest.importorskip("ray")

LIMIT = 150  # 3 shards of examples, the last one shorter
TABLES = ("scores", "samples", "matches")
# Detectors that ask the network once an example, score by their own images and by what
# they were told of labels, say in a log what they do, and go wrong on the first shard
# that they are given while a file says so.
PLUGIN = '''
"""Detectors that go wrong."""
import json, os, signal, time
from dataclasses import dataclass, replace

import numpy as np

from membench.errors import UserError
from membench.seeds import seed_of
from membench.tasks.sd_webster.task import SdWebster
from membench.types import Access, Request, Sample

# In every worker as in the driver: ten steps would take most of the time
SdWebster.info = replace(SdWebster.info, sampling={**SdWebster.info.sampling, "steps": 3})


@dataclass(frozen=True)
class Options:
    pass


def note(*words):
    with open(os.environ["MEMBENCH_TEST"] + "/log", "a") as log:
        log.write(json.dumps(words) + "\\n")


def told(what):
    """Whether this process is the one that shall do it."""
    try:
        os.unlink(os.environ["MEMBENCH_TEST"] + "/" + what)
    except FileNotFoundError:
        return False
    return True


def meet():
    """Waits until a second worker is there, where a file asks for that.

    Else the first may have done all before.
    """
    if os.path.exists(os.environ["MEMBENCH_TEST"] + "/meet"):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with open(os.environ["MEMBENCH_TEST"] + "/log") as log:
                if len({pid for word, *_, pid in map(json.loads, log) if word == "samples"}) > 1:
                    break
            time.sleep(0.05)


class Mortal:
    Options = Options
    version = 1
    access = Access(images=True, labels=True)

    def __init__(self, options, *, seed, sampling):
        self.options, self.seed = options, seed

    def fit(self, conditions, labels, groups):
        self.share = sum(labels) / len(labels)

    def plan(self, conditions):
        return [Request(c, 0) for c in conditions]

    def extract(self, model, requests):
        note("samples", requests[0].condition.id, os.getpid())
        meet()
        if told("exit"):
            os.kill(os.getpid(), signal.SIGKILL)
        if told("refuse"):
            raise UserError("no image today; come back tomorrow")
        drawn = [
            np.random.default_rng(seed_of(self.seed, r.condition.id)).integers(
                0, 256, (64, 64, 3), dtype=np.uint8
            )
            for r in requests
        ]
        return [
            Sample(r.condition, r.draw, image, float(image.mean()))
            for r, image in zip(requests, drawn)
        ]

    def score(self, model, conditions, extracted):
        note("scores", conditions[0].id, os.getpid())
        x = model.noise([(c.id, 0) for c in conditions], self.seed)
        norms = model.eps(x, 500, model.condition(conditions)).flatten(1).norm(dim=1).tolist()
        return [n + extracted[c.id][0].image.mean() + self.share for n, c in zip(norms, conditions)]


class Prepared(Mortal):
    alone = True

    def prepare(self, model, conditions, workspace):
        note("begin", os.getpid())
        stage = workspace.stage("mortal", {}, self.make)
        time.sleep(0.3)
        note("end", os.getpid())
        self.added = json.loads((stage.path / "made.json").read_text())
        return {"added": self.added}

    def preparation_forwards(self, model, conditions):
        return 0

    def make(self, folder):
        from membench.types import Cost

        note("made", os.getpid())
        (folder / "made.json").write_text(json.dumps(os.getpid()))
        return Cost(forwards=5), 1.0

    def score(self, model, conditions, extracted):
        return [score + self.added for score in super().score(model, conditions, extracted)]
'''


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the plug-in, its log and the files that tell it to go wrong.

    Training images are noise, and metrics and report left out: nothing here looks at
    them.
    """
    folder = tmp_path_factory.mktemp("world")
    (folder / "mortal.py").write_text(PLUGIN)
    pictures = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "training_images_of", lambda half, number: pictures)
        patch.setattr(api, "write_report", lambda *_: None)
        patch.setattr(
            conclude, "run_metrics", lambda *_, **__: SCHEMAS["metrics"].empty_table().to_pandas()
        )
        patch.setattr(check, "_check_metrics", lambda *_: None)  # so the loaded run has none
        patch.setattr(task.SdWebster, "info", task.SdWebster.info)  # which the plug-in replaces
        patch.setenv("MEMBENCH_TEST", str(folder))
        patch.setattr(registry, "detectors", lambda known=registry.Registry("detector"): known)
        plugins.load_plugin(folder / "mortal.py")
        yield folder


@pytest.fixture(scope="module")
def pool(world: Path) -> Iterator[RayPool]:
    """Two workers on a cluster of this module's own."""
    with RayPool(2, plugins=[world / "mortal.py"]) as pool:
        yield pool


@pytest.fixture(scope="module")
def spec(tiny_pipeline_folder: Path) -> Callable[..., Spec]:
    def make(detector: str = "mortal", options: Sequence[str] = (), **changes) -> Spec:
        return Spec(
            detector,
            "sd_webster",
            options=options,
            task_options=[f"model={tiny_pipeline_folder}"],
            **{"limit": LIMIT} | changes,
        )

    return make


@pytest.fixture
def log(world: Path) -> Callable[[], list[list]]:
    for name in ("log", "meet"):
        (world / name).unlink(missing_ok=True)
    return lambda: [json.loads(line) for line in (world / "log").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(spec, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The plug-in's run in one process."""
    return execute_all([spec()], tmp_path_factory.mktemp("alone"), progress=False).runs[0]


def assert_equal(run: Run, other: Run) -> None:
    assert run.path.name == other.path.name and run.path != other.path
    for name in TABLES:
        assert (run.path / f"{name}.parquet").read_bytes() == (
            other.path / f"{name}.parquet"
        ).read_bytes(), name


def counted(run: Run) -> dict[str, dict[str, int]]:
    """Evaluations by phase; no seconds."""
    return {
        phase: {k: v for k, v in cost.items() if "seconds" not in k}
        for phase, cost in run.info["phases"].items()
    }


# --------------------------------------------------------------------- the same numbers


def test_two_workers_make_the_bytes_of_one_process(spec, pool: RayPool, tmp_path: Path) -> None:
    """Detectors in step, which share evaluations within a shard: rows, costs and what
    was shared are those of one process.
    """
    specs = [spec("cfg_norm", ["draws=1", "images=0"]), spec("score_norm", ["draws=1", "images=1"])]
    here = execute_all(specs, tmp_path / "here", progress=False).runs
    there = execute_all(specs, tmp_path / "there", progress=False, executor=pool).runs
    for one, two in zip(here, there, strict=True):
        assert len(one.scores) == LIMIT and one.scores.score.notna().all()
        assert_equal(one, two)
        assert counted(one) == counted(two)
        assert (one.info["executor"], one.info["workers"]) == ("local", 1) and (
            two.info["executor"],
            two.info["workers"],
        ) == ("ray", 2)
        assert "workers" not in one.info["key_parts"] and two.info["peak_memory_mb"] > 100
    assert sum(run.info["phases"]["scores"]["shared"] for run in there) > 0


def test_a_killed_worker_loses_its_shard_and_nothing_else(
    alone: Run, spec, pool: RayPool, world: Path, log, tmp_path: Path, capfd
) -> None:
    """One of two workers dies by SIGKILL at its first shard; every other shard is
    computed once, and the bytes are the same.
    """
    (world / "meet").touch()
    (world / "exit").touch()
    [run] = execute_all([spec()], tmp_path, progress=False, executor=pool).runs
    assert_equal(alone, run)
    assert counted(alone) == counted(run)
    calls = Counter((phase, first) for phase, first, _ in log())
    # 3 shards of each of two phases, and one of them again
    assert sorted(calls.values()) == [1, 1, 1, 1, 1, 2]
    assert len({pid for _, _, pid in log()} - {os.getpid()}) >= 2
    captured = capfd.readouterr()
    [told] = [line for line in captured.err.splitlines() if "lost" in line]
    assert "was lost at shard" in told and "another one takes over" in told
    assert captured.out == ""  # stdout is data


def test_a_run_that_was_stopped_goes_on_in_workers(
    alone: Run, spec, pool: RayPool, log, tmp_path: Path, monkeypatch
) -> None:
    """Ctrl-C after the first shard of one process: workers compute the rest, and the
    bytes are the same.
    """

    def stop(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tqdm.tqdm.update", stop)
        execute_all([spec()], tmp_path, progress=False)
    assert [shard.name for shard in tmp_path.rglob("shards/*.parquet")] == ["samples-00000.parquet"]
    [run] = execute_all([spec()], tmp_path, progress=False, executor=pool).runs
    assert_equal(alone, run)
    assert len(log()) == 1 + 2 + 3
    assert [(old["executor"], old["workers"]) for old in run.info["earlier"]] == [("local", 1)]


@slow
def test_workers_prepare_one_after_another_from_the_drivers_stages(
    spec, pool: RayPool, world: Path, log, tmp_path: Path
) -> None:
    (world / "meet").touch()
    [run] = execute_all([spec("prepared")], tmp_path, progress=False, executor=pool).runs
    lines = log()
    # By the driver, once
    assert [line for line in lines if line[0] == "made"] == [["made", os.getpid()]]
    prepared = [line for line in lines if line[0] in ("begin", "end")]
    assert [word for word, _ in prepared] == ["begin", "end"] * (len(prepared) // 2)
    assert len({pid for _, pid in prepared}) == 3
    assert (
        run.info["prepared"] == {"added": os.getpid()}
        and run.info["phases"]["prepare"]["forwards"] == 5
    )
    assert (run.scores.score > os.getpid()).all()


# ---------------------------------------------------------------------- what goes wrong


def test_what_a_worker_refuses_is_the_users_line_and_the_rest_goes_on_here(
    alone: Run, spec, pool: RayPool, world: Path, log, tmp_path: Path
) -> None:
    """The second of two workers refuses its shard.

    What is finished is kept, and one process ends with the same bytes.
    """
    (world / "meet").touch()
    (world / "refuse").touch()
    with pytest.raises(UserError, match=r"^no image today; come back tomorrow$"):
        execute_all([spec()], tmp_path, progress=False, executor=pool)
    assert not pool._seats._seats and not list(tmp_path.glob(".shared-*"))
    kept = len(list(tmp_path.rglob("shards/*.parquet")))
    before = len(log())
    [run] = execute_all([spec()], tmp_path, progress=False).runs
    assert_equal(alone, run)
    assert kept < 3 and len(log()[before:]) == 3 - kept + 3
    assert [(old["executor"], old["workers"]) for old in run.info["earlier"]] == [("ray", 2)]


@dataclass(eq=False)
class Call:
    what: str
    answer: object


class Cluster:
    """In place of Ray: a worker starts, makes ready, and is lost at the second shard of
    three; ``error`` says how. Calls of ``slow`` have no answer.
    """

    exceptions = ray.exceptions

    def __init__(self, error: Exception, slow: Sequence[str] = ()) -> None:
        self.error = error
        self.slow = slow
        self.shards: list[int] = []
        self.started = self.killed = 0
        self.entering = self.most = 0  # workers that make ready, and the most of them at once

    def actor(self) -> SimpleNamespace:
        number = self.started
        self.started += 1

        def start() -> Call:
            return Call(f"start {number}", "somewhere")

        def shard(index: int) -> Call:
            self.shards.append(index)
            return Call(f"shard {index}", self.error if index == 1 else 7)

        def enter(stage: Stage) -> Call:
            self.entering += 1
            self.most = max(self.most, self.entering)
            return Call(f"enter {number}", None)

        calls = {"start": start, "enter": enter, "shard": shard}
        return SimpleNamespace(**{k: SimpleNamespace(remote=call) for k, call in calls.items()})

    def wait(self, calls: list[Call], **_) -> tuple[list[Call], list[Call]]:
        answered = next(call for call in calls if call.what not in self.slow)
        return [answered], [call for call in calls if call is not answered]

    def get(self, call: Call) -> object:
        if isinstance(call.answer, Exception):
            raise call.answer
        self.entering -= call.what.startswith("enter")
        return call.answer

    def kill(self, actor: object) -> None:
        self.killed += 1


def seats_of(cluster: Cluster, count: int = 1) -> Seats:
    seats = Seats()
    seats.open(cluster, cluster.actor, count)
    return seats


def test_a_shard_that_loses_every_worker_ends_the_run(capsys) -> None:
    cluster, finished = Cluster(ray.exceptions.ActorDiedError()), []
    stage = Stage((), (), "", "", "scores", "")
    with pytest.raises(
        UserError,
        match=(
            r"^3 workers were lost at shard 1 of scores .* what is finished is kept, and the same"
            r" command"
        ),
    ):
        seats_of(cluster).hand_out(stage, deque([0, 1, 2]), False, finished.append)
    assert cluster.shards == [0, 1, 1, 1] and finished == [0] and cluster.killed == 3
    assert (
        capsys.readouterr().err.count(
            "a worker (somewhere) was lost at shard 1 of scores; another one takes over"
        )
        == 2
    )


@pytest.mark.parametrize(("one_by_one", "most"), [(True, 1), (False, 2)])
def test_workers_make_ready_one_by_one_where_they_must(one_by_one: bool, most: int) -> None:
    cluster, finished = Cluster(ValueError()), []
    seats_of(cluster, 2).hand_out(
        Stage((), (), "", "", "scores", ""), deque([0, 2, 3, 4]), one_by_one, finished.append
    )
    assert sorted(finished) == [0, 2, 3, 4] == sorted(cluster.shards)
    assert cluster.most == most


def test_who_still_starts_is_kept_for_the_next_run_and_who_makes_ready_for_this_one_is_not() -> (
    None
):
    """The first worker has done all before."""
    cluster, finished = Cluster(ValueError(), slow=["enter 1", "start 2"]), list[int]()
    seats = seats_of(cluster, 3)
    seats.hand_out(Stage((), (), "", "", "scores", ""), deque([0, 2, 3, 4]), False, finished.append)
    assert finished == [0, 2, 3, 4]
    assert (cluster.started, cluster.killed, cluster.entering) == (3, 1, 1)
    cluster.slow = []
    seats.hand_out(Stage((), (), "", "", "scores", ""), deque([5, 6, 7]), False, finished.append)
    assert sorted(finished[4:]) == [5, 6, 7]
    assert (cluster.started, cluster.killed) == (4, 1)  # one in place of the one that was ended


def test_a_worker_that_is_lost_while_it_starts_is_replaced(capsys) -> None:
    """Nobody knows yet where it ran."""

    class Frail(Cluster):
        def get(self, call: Call) -> object:
            if call.what == "start 0":
                raise ray.exceptions.ActorDiedError()
            return super().get(call)

    cluster, finished = Frail(ValueError()), list[int]()
    seats_of(cluster).hand_out(
        Stage((), (), "", "", "scores", ""), deque([0, 2]), False, finished.append
    )
    assert finished == [0, 2] and (cluster.started, cluster.killed) == (2, 1)
    told = capsys.readouterr().err
    assert "a worker was lost while it started; another one takes over" in told


def test_what_a_worker_is_told_first_imports_nothing_that_reads_the_environment() -> None:
    """Else OpenBLAS, in whose sums the number of threads shows, and the hub's library would
    have read Ray's, not the driver's.
    """
    told = base64.b64encode(pickle.dumps((Worker, setting()))).decode()
    code = (
        f"import base64, pickle, sys; cls, told = pickle.loads(base64.b64decode({told!r}));"
        "cls(told); print({'torch', 'numpy', 'huggingface_hub'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_defect_in_a_worker_shows_the_workers_traceback_once() -> None:
    trace = "Traceback of the worker:\n  mine.py, line 7\nZeroDivisionError: an honest defect"
    cluster = Cluster(
        ray.exceptions.RayTaskError(
            "shard", trace, ZeroDivisionError("an honest defect")
        ).as_instanceof_cause()
    )
    with pytest.raises(ZeroDivisionError) as caught:
        seats_of(cluster).hand_out(
            Stage((), (), "", "", "scores", ""), deque([1]), False, lambda _: None
        )
    assert str(caught.value).count("mine.py, line 7") == 1 and caught.value.__cause__ is None
    assert cluster.shards == [1]


def test_a_machine_without_membench_is_one_line() -> None:
    failed = ray.exceptions.RayActorError(
        error_msg="The actor died\nModuleNotFoundError: No module named 'x'\n",
        actor_init_failed=True,
    )
    cluster = Cluster(failed)
    with pytest.raises(
        UserError,
        match=(
            r"^a worker cannot start \(ModuleNotFoundError: No module named 'x'\); membench must be"
            r" installed"
        ),
    ):
        seats_of(cluster).hand_out(
            Stage((), (), "", "", "scores", ""), deque([1]), False, lambda _: None
        )
    assert cluster.shards == [1]  # it is not tried again


def test_more_workers_than_the_cluster_holds_are_refused(pool: RayPool) -> None:
    assert pool.info["workers"] == 2
    with (
        RayPool(3) as other,
        pytest.raises(
            UserError,
            match=r"^--workers 3: there is room for 2, since a worker takes a core for each of 1 ",
        ),
    ):
        other.info  # noqa: B018 - it connects


def test_a_pool_that_was_refused_is_refused_again(monkeypatch) -> None:
    """And does not take itself for connected."""
    nobody = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: [])
    monkeypatch.setattr(ray_cluster, "imported", lambda alone: nobody)
    with RayPool(2) as pool:
        for _ in range(2):
            with pytest.raises(UserError, match="there is room for 0"):
                pool.info  # noqa: B018 - it connects


def test_room_counts_whole_workers_of_living_nodes() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert ray_cluster.room(nodes, {"CPU": 4}) == 1
    assert ray_cluster.room(nodes, {"CPU": 3}) == 3
    assert ray_cluster.room(nodes, {"CPU": 1, "GPU": 1}) == 2


SERVES = """
import sys
from membench.runs.ray_pool import RayPool
with RayPool(1) as pool:
    print(pool.info["workers"], flush=True)
    sys.stdin.read()
"""
LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # ::ffff:127.0.0.1
    "00000000000000000000000001000000",  # ::1
}


def listening(mark: bytes) -> set[str]:
    """The addresses on which processes listen that have this in their environment."""
    owned: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                owned |= {os.readlink(fd) for fd in (process / "fd").iterdir()}
        except OSError:  # ended meanwhile
            continue
    sockets = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return {s[1].partition(":")[0] for s in sockets if s[3] == "0A" and f"socket:[{s[9]}]" in owned}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cluster_of_its_own_is_reached_from_this_machine_alone(tmp_path: Path) -> None:
    mark = {"MEMBENCH_TEST_PORTS": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != ray_cluster.LOOPBACK} | mark,
        text=True,
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "1\n"
    found = listening("=".join(*mark.items()).encode())
    process.communicate("")
    assert process.returncode == 0
    assert found and found <= LOOPBACK


def test_a_cluster_that_refuses_us_is_told_in_one_line(capfd) -> None:
    """What Ray's library writes to stderr past Python is dropped; what follows is not."""

    def init(**_: object) -> None:
        os.write(2, b"InvalidAuthToken\n" * 20)
        raise ConnectionError("Failed to connect\nand so on")

    told = r"^--address here:1: no Ray cluster .* \(Failed to connect\); .*RAY_AUTH_MODE=token if"
    with pytest.raises(UserError, match=told):
        ray_cluster.join(SimpleNamespace(init=init, exceptions=ray.exceptions), "here:1")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


# ----------------------------------------------- a worker's own checks, in this process


def setting(**changes) -> Setting:
    arguments = {
        "folder": os.getcwd(),
        "environment": {},
        "threads": 1,
        "plugins": (),
        "made_by": made_by(),
    } | changes
    return Setting(**arguments)


def stage(spec: Spec, out: Path, parts: dict, plan: str = "") -> Stage:
    (out / "token").touch()
    return Stage((spec,), (parts,), str(out), "token", "samples", plan)


def test_a_worker_that_does_not_see_the_folder_says_so(spec, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray_worker, "VISIBLE", 0.0)
    there = stage(spec(), tmp_path, {})
    (tmp_path / "token").unlink()
    with pytest.raises(
        UserError, match=r"does not see .*--runs must be a folder that all machines share"
    ):
        Worker(setting()).enter(there)


def test_a_worker_with_another_library_says_so(spec, tmp_path: Path) -> None:
    other = setting(made_by=made_by() | {"torch": "0.4.1"})
    with pytest.raises(UserError, match=r"torch \S+ instead of 0\.4\.1; install the same versions"):
        Worker(other).start()


def test_a_worker_with_another_model_or_plan_says_so(alone: Run, spec, tmp_path: Path) -> None:
    parts = alone.info["key_parts"]
    other = parts | {"hashes": parts["hashes"] | {"weights": "0" * 64}}
    with pytest.raises(UserError, match="has another hashes than the driver"):
        Worker(setting()).enter(stage(spec(), tmp_path, other))
    with pytest.raises(UserError, match="plans other images"):
        Worker(setting()).enter(stage(spec(), tmp_path, parts, plan="0" * 64))
    assert [p.name for p in tmp_path.iterdir()] == ["token"]  # it has written nothing


def test_a_worker_looks_anew_where_a_file_has_changed_since_its_last_run(
    alone: Run, spec, tmp_path: Path
) -> None:
    """The specs are the same, and the driver's key is another."""
    parts = alone.info["key_parts"]
    worker = Worker(setting())
    with pytest.raises(UserError, match="plans other images"):  # it has opened its jobs by then
        worker.enter(stage(spec(), tmp_path, parts, plan="0" * 64))
    other = parts | {"hashes": parts["hashes"] | {"weights": "0" * 64}}
    with pytest.raises(UserError, match="has another hashes than the driver"):
        worker.enter(stage(spec(), tmp_path, other, plan="0" * 64))


def test_a_shard_holds_the_next_64_of_the_tasks_list(alone: Run, spec, tmp_path: Path) -> None:
    """Whoever computes it: of the examples that --limit keeps, those with the smallest
    ids, in the task's order.
    """
    known = [e.id for e in load_task(spec()).examples]
    ids = [name for name in known if name in sorted(known)[:LIMIT]]
    plan = json_hash([["samples", *(f"{name}/0" for name in ids)]])
    worker = Worker(setting())
    worker.enter(stage(spec(), tmp_path, alone.info["key_parts"], plan))
    assert worker.shard(1) > 100
    [shard] = tmp_path.rglob("shards/*")
    assert shard.name == "samples-00001.parquet"
    assert read_table(shard, "samples").condition.tolist() == ids[64:128]


def test_workers_take_over_the_environment_but_no_access_token(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MEMBENCH_CACHE", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = ray_worker.environment()
    assert found["HF_HUB_OFFLINE"] == "1" and found["MEMBENCH_CACHE"] == "/somewhere"
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"], found["MKL_NUM_THREADS"]) == (
        "3",
        "3",
        None,
    )
    assert "secret" not in found.values()


# --------------------------------------------------------------------- the command line


def refused(capsys, *words: str) -> str:
    assert (
        main(["run", "--detector", "cfg_norm", "--task", "sd_webster", "--limit", "1", *words]) == 2
    )
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_ray_that_is_not_installed_is_one_line(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'membench[ray]'" in refused(capsys, "--executor", "ray")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--executor", "ray", "--workers", "0"), "--workers 0: it must be at least 1"),
        (("--workers", "2"), "--workers is for --executor ray"),
        (("--address", "auto"), "--address is for --executor ray"),
        (("--executor", "ray", "--address", "ray://here:1"), "must be host:port or auto"),
    ],
)
def test_mistaken_arguments_are_one_line(capsys, words: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, *words)


def test_a_cluster_that_is_not_there_is_one_line(capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"127.0.0.1:{port}: nothing answers there" in refused(
        capsys, "--executor", "ray", "--address", f"127.0.0.1:{port}"
    )
