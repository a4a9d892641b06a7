"""Names, summaries and plug-ins; and that none of it imports torch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from membench import registry
from membench.detector import Detector
from membench.errors import UserError, suggest, unknown_name
from membench.plugins import load_plugin
from membench.registry import Registry
from membench.task import Task

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "diffusers", "pandas", "pyarrow", "sklearn", "numpy")
DETECTOR = '''
from dataclasses import dataclass
from membench.types import Access
@dataclass(frozen=True)
class _Options: pass
class MyNorm:
    """A norm."""
    Options = _Options
    version = 1
    access = Access()
    def plan(self, conditions): return []
    def extract(self, model, requests): return []
    def score(self, model, conditions, extracted): return []
'''


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Plug-ins of one test are not seen by the next."""
    registry.detectors.cache_clear()
    yield
    registry.detectors.cache_clear()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_plugin(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_built_ins_are_found_and_described() -> None:
    for known, names in (
        (registry.detectors(), {"random", "cfg_norm"}),
        (registry.tasks(), {"sd_webster"}),
    ):
        assert names <= set(known.names())
        for name in names:
            summary = known.get(name).summary
            assert summary and not summary.startswith("("), f"{name}: {summary}"


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from membench import registry, options\nprint([(n, r.get(n).summary) for r in"
        f" (registry.detectors(), registry.tasks()) for n in r.names()])\nprint([m for m in {HEAVY}"
        " if m in sys.modules], [m for m in sys.modules if m.startswith('membench.detectors')])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "cfg_norm" in out[0] and "sd_webster" in out[0]
    assert out[1] == "[] []"


def test_summary_is_read_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    write(package / "__init__.py", "raise RuntimeError('imported')")
    write(package / "inner.py", '"""Found by its path.\n\nMore."""\nraise RuntimeError("imported")')
    write(package / "bare.py", 'class Attr:\n    """Of the class."""')
    write(package / "wrong.py", "def (")
    monkeypatch.syspath_prepend(tmp_path)
    known = Registry("detector")
    assert known.add("a", "explosive.inner:Attr", "here").summary == "Found by its path."
    assert known.add("b", "explosive.bare:Attr", "here").summary == "Of the class."
    assert known.add("c", "explosive.bare:Other", "here").summary == ""
    assert (
        known.add("d", "explosive.absent:Attr", "here").summary
        == "(no source found for explosive.absent)"
    )
    assert (
        known.add("e", "explosive.inner.deeper:Attr", "here").summary
        == "(no source found for explosive.inner.deeper)"
    )
    assert (
        known.add("g", "explosive.inner.json:Attr", "here").summary
        == "(no source found for explosive.inner.json)"
    )  # not sys.path's json
    assert known.add("f", "explosive.wrong:Attr", "here").summary.startswith(
        "(unreadable, SyntaxError"
    )


def test_load_gives_the_object_and_a_broken_entry_names_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "needs_missing.py", "import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    known = Registry("detector")
    write(tmp_path / "whole.py", DETECTOR)
    known.add("good", "whole:MyNorm", "here")
    known.add("broken", "needs_missing:Attr", "distribution far-away")
    known.add("hollow", "collections:Absent", "distribution far-away")
    loaded = known.load("good")
    assert (
        loaded is known.load("good")
        and issubclass(loaded, Detector)
        and loaded.__name__ == "MyNorm"
    )
    with pytest.raises(
        UserError,
        match=r"'broken' of distribution far-away .*No module named 'a_library_that_is_not_there'",
    ):
        known.load("broken")
    with pytest.raises(
        UserError, match=r"'hollow' of distribution far-away .*no attribute 'Absent'"
    ):
        known.load("hollow")


def test_unknown_name_suggests() -> None:
    with pytest.raises(UserError) as error:
        registry.detectors().get("cfg_nrom")
    assert (
        str(error.value)
        == "unknown detector 'cfg_nrom'. Did you mean 'cfg_norm'? See: membench list detectors;"
        " --plugin FILE.py loads one of your own"
    )
    assert (
        str(unknown_name("task", "zzz", ["cifar10"], "membench list tasks"))
        == "unknown task 'zzz'. See: membench list tasks"
    )
    assert suggest("SIDE", ["side", "random"]) == " Did you mean 'side'?"
    assert suggest("ab", ["abc", "abd", "abe", "abf"]).count("'") == 6  # three of the four


def test_an_unknown_name_is_told_beside_those_of_plugins(tmp_path: Path) -> None:
    """A detector is called like its class, and not like its file."""
    load_plugin(write(tmp_path / "new_score.py", DETECTOR))
    with pytest.raises(UserError, match=r"list detectors; of your own there is my_norm$"):
        registry.detectors().get("new_score")


def test_two_places_with_one_name_are_both_told(tmp_path: Path) -> None:
    known = Registry("detector")
    first = known.add("x", "a:A", "distribution one")
    assert known.add("x", "a:A", "distribution two") is first  # the same thing twice is one thing
    with pytest.raises(
        UserError,
        match=(
            r"two detectors are called 'x': distribution one \(a:A\) and distribution two \(b:B\)"
        ),
    ):
        known.add("x", "b:B", "distribution two")
    mine = write(tmp_path / "mine.py", DETECTOR + "    name = 'cfg_norm'\n")
    message = refusal(mine)
    assert (
        f"{mine}:6" in message
        and "membench.detectors.cfg_norm:CfgNorm" in message
        and str(ROOT / "pyproject.toml") in message
    )


def test_plugin_file_is_registered_under_its_name(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.py",
        DETECTOR
        + DETECTOR.replace("MyNorm", "Other")
        + "    name = 'chosen'\n"
        + "class _Base(Other): pass\n",
    )
    assert [e.name for e in load_plugin(file)] == ["my_norm", "chosen"]
    entry = registry.detectors().get("my_norm")
    assert entry.origin == f"{file}:6" and entry.summary == "A norm."
    assert registry.detectors().load("my_norm").__name__ == "MyNorm"
    load_plugin(file)  # again: the same


def test_an_edited_plugin_is_other_code(tmp_path: Path) -> None:
    """Of one size and one moment, so that bytecode of the first version would pass for
    that of the second.
    """
    file = tmp_path / "mine.py"
    for sign in ("+", "-", "+"):
        text = DETECTOR + f"    value = {sign}1\n"
        [entry] = load_plugin(write(file, text))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert (
            entry.code
            == registry.detectors().get("my_norm").code
            == hashlib.sha256(text.encode()).hexdigest()
        )
        assert registry.detectors().load("my_norm").value == int(f"{sign}1")
    write(file, "raise RuntimeError")  # not run: the code is what was loaded
    assert registry.detectors().get("my_norm").code == entry.code
    assert not list(tmp_path.rglob("*.pyc"))


def test_the_code_of_built_ins_is_no_part_of_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from membench.runs.job import _identity
    from membench.runs.spec import Spec
    from membench.runs.spec import plugin_code as _plugin_code
    from membench.task import LoadedTask
    from membench.types import Training

    def of(spec: Spec) -> Any:
        cls = registry.detectors().load(spec.detector)
        return cls(cls.Options(), seed=0, sampling={"steps": 2, "guidance": 1.0})

    tasks = registry.tasks()
    # Other tests may have registered theirs
    names, shipped = (
        [name for name in known.names() if known.get(name).target.startswith("membench.")]
        for known in (registry.detectors(), tasks)
    )
    specs = [Spec(name, task) for name in names for task in shipped]
    assert len(names) > 10 and all(_plugin_code(spec, of(spec)) == {} for spec in specs)
    load_plugin(write(tmp_path / "mine.py", DETECTOR))
    write(tmp_path / "far_task.py", "class Far: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine, far = (
        hashlib.sha256((tmp_path / f"{name}.py").read_bytes()).hexdigest()
        for name in ("mine", "far_task")
    )
    found = {"plugin_code": {"detector": mine}}
    spec = Spec("my_norm", "sd_webster")
    assert _plugin_code(spec, of(spec)) == found
    task = LoadedTask(
        tasks.load("sd_webster").info, "mini", [], Training.none(), list, {"weights": "w"}
    )
    # What a plug-in prepares is made by its code, too
    assert _identity(spec, of(spec), task).items() >= found.items()
    side = Spec("side", "sd_webster")
    assert "plugin_code" not in _identity(side, of(side), task)
    try:
        tasks.add("far", "far_task:Far", "distribution far-away")
        assert _plugin_code(Spec("my_norm", "far"), of(spec)) == {
            "plugin_code": {"detector": mine, "task": far}
        }
    finally:
        registry.tasks.cache_clear()


def test_a_borrowed_detector_is_not_the_plugins_own(tmp_path: Path) -> None:
    other = write(tmp_path / "other.py", DETECTOR)
    load_plugin(other)
    module = registry.detectors().get("my_norm").target.partition(":")[0]
    borrower = write(
        tmp_path / "borrower.py", f"from {module} import MyNorm\nclass Better(MyNorm): pass\n"
    )
    assert [e.name for e in load_plugin(borrower)] == ["better"]


TASK = '''
from membench.task import TaskInfo
from membench.types import Space
class Near:
    """A task."""
    info = TaskInfo("near_by", 1, ("mini",), Space("none", True, (), 1.0, 1.0, ""))
    def load(self, profile, *, control, device, dtype, batch_size): ...
'''


def test_a_plugin_file_may_hold_tasks_and_detectors(tmp_path: Path) -> None:
    file = write(tmp_path / "both.py", DETECTOR + TASK)
    try:
        assert [(e.kind, e.name) for e in load_plugin(file)] == [
            ("detector", "my_norm"),
            ("task", "near_by"),
        ]
        found = registry.tasks().load("near_by")
        assert (
            issubclass(found, Task)
            and found().resources() == []
            and registry.tasks().get("near_by").summary == "A task."
        )
        code = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (
            registry.tasks().get("near_by").code == registry.detectors().get("my_norm").code == code
        )
    finally:
        registry.tasks.cache_clear()


def test_plugins_of_one_file_name_do_not_collide(tmp_path: Path) -> None:
    for folder, name in (("a", "First"), ("b", "Second")):
        (tmp_path / folder).mkdir()
        load_plugin(write(tmp_path / folder / "same.py", DETECTOR.replace("MyNorm", name)))
    assert {registry.detectors().load(n).__name__ for n in ("first", "second")} == {
        "First",
        "Second",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "holds no detector and no task"),
        ("class Near:\n    version = 1\n    def plan(self): ...\n", "Near lacks score"),
        ("raise ValueError('two\\nlines')\n", "fails on import: ValueError: two lines"),
        ("def (\n", "fails on import: SyntaxError"),
        ("raise SystemExit(3)\n", "fails on import: SystemExit: 3"),
        ("import os\nos._exit(0)\n", "fails on import: SystemExit: 0"),
        (
            DETECTOR.replace("conditions, extracted", "conditions"),
            "MyNorm.score takes other arguments than a detector's (self, model",
        ),
        (
            DETECTOR + "    def __init__(self, options): pass\n",
            "MyNorm.__init__ takes other arguments",
        ),
        (DETECTOR.replace("Access()", "{}"), "MyNorm.access is {}, not membench.types.Access"),
        (
            DETECTOR.replace("def score", "async def score"),
            "MyNorm.score is async, and nobody awaits it",
        ),
        (DETECTOR.replace("version = 1", "version = 1; name = 'all'"), "is called 'all', which"),
        (DETECTOR.replace("version = 1", "version = 1; presets = 5"), "MyNorm.presets is no map"),
        (DETECTOR.replace("version = 1", "version = 1; tuning = {1: 2}"), "MyNorm.tuning[1] is no"),
        (
            DETECTOR.replace("version = 1", "version = 1; presets = {'mini': {'zz': 1}}"),
            "preset mini of MyNorm names 'zz', which is no option",
        ),
        (
            DETECTOR.replace("version = 1", "version = 1; presets = {'mini': 3}"),
            "preset mini of MyNorm is '3', not a mapping",
        ),
        (
            DETECTOR.replace("_Options: pass", "_Options: t: int = 'x'"),
            "MyNorm.Options has t='x'; it must be int",
        ),
        (
            DETECTOR.replace("_Options: pass", "_Options: t: float = 1").replace(
                "version = 1", "version = 1; tuning = {'images': {'t': [2, 'x']}}"
            ),
            "MyNorm.tuning['images'] has t='x'; it must be float",
        ),
        (
            DETECTOR.replace("class MyNorm", "import enum\nclass MyNorm(enum.Enum)"),
            "MyNorm cannot be completed to a detector",
        ),
        (
            "class Far:\n    info = 1\n    def load(self, profile, **how): ...\n",
            "Far.info is 1, not membench.task.TaskInfo",
        ),
    ],
)
def test_plugin_mistakes_are_one_line(tmp_path: Path, text: str, told: str) -> None:
    before = set(sys.modules)
    assert told in refusal(write(tmp_path / "mine.py", text))
    assert "fails" not in told or set(sys.modules) == before


def test_plugin_that_is_missing_or_not_python(tmp_path: Path) -> None:
    assert "no plug-in file" in refusal(tmp_path / "absent.py")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    assert "no plug-in file" in refusal(tmp_path / "loop.py")
    assert "no plug-in file" in refusal(Path("a\0b"))
    assert "ends in .py" in refusal(write(tmp_path / "notes.txt", DETECTOR))


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        ("CfgNorm", "cfg_norm"),
        ("SIDE", "side"),
        ("SIDENorm2", "side_norm2"),
        ("DDIMInversion", "ddim_inversion"),
    ],
)
def test_snake_case(cls: str, name: str) -> None:
    assert registry._snake(cls) == name


def test_checkout_declares_for_itself_and_a_wheel_does_not(tmp_path: Path) -> None:
    assert registry._checkout(tmp_path / "pyproject.toml") is None
    assert (
        registry._checkout(write(tmp_path / "pyproject.toml", "[project]\nname = 'other'\n"))
        is None
    )
    declared = registry._checkout(ROOT / "pyproject.toml") or {}
    assert declared["membench.detectors"]["cfg_norm"] == "membench.detectors.cfg_norm:CfgNorm"


def test_entry_point_of_another_distribution(tmp_path: Path) -> None:
    """Stale metadata of membench itself is not listened to in a checkout; another
    distribution's is.
    """
    for name, lines in (
        ("membench", "stale = membench.gone:Gone"),
        ("far-away", "far = far_module:Far"),
    ):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        write(info / "entry_points.txt", f"[membench.detectors]\n{lines}\n")
    code = "from membench.registry import detectors as d; print(d().names(), d().get('far').origin)"
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "'far'" in out and "stale" not in out and "distribution far-away" in out
