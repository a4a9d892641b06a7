"""What a task needs: found, fetched, or named with the command that fetches it; and the
command itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from membench import registry
from membench.cli.main import main
from membench.errors import UserError, UserErrors
from membench.fetching.resources import Resource, download, ensure


class Shelf:
    """Resources that are files of a folder; done: what was looked for and fetched, in
    order.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.done = root, list[str]()

    def get(self, name: str, *, fails: str = "", damaged: str = "", note: str = "1 MB") -> Resource:
        path = self.root / name

        def find() -> Path | None:
            self.done.append(f"find {name}")
            if damaged:
                raise UserError(damaged)
            return path if path.exists() else None

        def fetch() -> Path:
            self.done.append(f"fetch {name}")
            if fails:
                raise UserError(fails)
            path.write_text(name)
            return path

        return Resource(name, f"the {name}", find, fetch, f"membench download task --{name}", note)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return Shelf(tmp_path)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_what_is_missing_is_fetched(shelf: Shelf, capsys) -> None:
    a, b = shelf.get("a"), shelf.get("b", note="")
    (shelf.root / "a").write_text("here")
    assert ensure([a, b]) == {"a": shelf.root / "a", "b": shelf.root / "b"}
    assert shelf.done == ["find a", "find b", "fetch b"]
    assert capsys.readouterr() == ("", "membench: fetching the b\n")
    assert list(ensure([b, a])) == ["b", "a"] and capsys.readouterr().err == ""
    assert ensure([]) == {}


def test_offline_one_line_a_missing_item(shelf: Shelf, monkeypatch) -> None:
    offline(monkeypatch)
    (shelf.root / "b").write_text("here")
    with pytest.raises(UserError) as error:
        ensure([shelf.get("a"), shelf.get("b"), shelf.get("c", note="")])
    assert str(error.value).splitlines() == [
        "the a (1 MB) is missing; fetch it with: membench download task --a",
        "the c is missing; fetch it with: membench download task --c",
    ]
    assert not any(what.startswith("fetch") for what in shelf.done)
    assert ensure([shelf.get("b")]) == {"b": shelf.root / "b"}


def test_the_first_failure_names_what_else_is_missing(shelf: Shelf) -> None:
    with pytest.raises(UserError) as error:
        ensure([shelf.get("a"), shelf.get("b", fails="it is gated"), shelf.get("c")])
    assert str(error.value).splitlines() == [
        "the b is missing: it is gated; to try again: membench download task --b",
        "the c (1 MB) is missing; fetch it with: membench download task --c",
    ]
    assert "fetch a" in shelf.done and "fetch c" not in shelf.done


def test_a_damaged_file_is_said_before_anything_is_fetched(shelf: Shelf) -> None:
    with pytest.raises(UserError) as error:
        ensure([shelf.get("a"), shelf.get("b", damaged="b has another SHA-256; move it away")])
    assert str(error.value).splitlines()[0] == "b has another SHA-256; move it away"
    assert str(error.value).splitlines()[1].startswith("the a (1 MB) is missing")
    assert "fetch a" not in shelf.done


@pytest.mark.parametrize("use", [ensure, download])
def test_two_of_one_name(shelf: Shelf, use: Callable[[list[Resource]], object]) -> None:
    with pytest.raises(ValueError, match=r"two resources of one name: \['a'\]"):
        use([shelf.get("a"), shelf.get("b"), shelf.get("a")])


def test_download_goes_on_after_a_failure(shelf: Shelf, capsys) -> None:
    (shelf.root / "a").write_text("here")
    wanted = [
        shelf.get("a"),
        shelf.get("b", fails="it is\ngated"),
        shelf.get("c"),
        shelf.get("d", damaged="wrong"),
    ]
    assert download(wanted) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"a: present: {shelf.root / 'a'}",
        "b: failed: it is gated",
        f"c: fetched: {shelf.root / 'c'}",
        "d: failed: wrong",
    ]
    assert "membench: fetching the c (1 MB)" in err and "2 of 4 could not be had" in err
    assert download([wanted[0], wanted[2]]) == 0 and "c: present" in capsys.readouterr().out


def test_download_offline_says_what_is_missing(shelf: Shelf, capsys, monkeypatch) -> None:
    offline(monkeypatch)
    (shelf.root / "a").write_text("here")
    assert download([shelf.get("a"), shelf.get("b")]) == 2
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0].startswith("a: present")
        and out[1].startswith("b: missing: --offline")
        and "membench download task --b" in out[1]
    )
    assert "fetch b" not in shelf.done
    assert download([shelf.get("a")]) == 0


# --------------------------------------------------------------------- the command line


@dataclass(frozen=True)
class Options:
    model: str = ""
    prompts: str = ""
    negatives: str = ""
    ground_truth: str = ""
    steps: int = field(default=1, metadata={"min": 1})


@pytest.fixture
def task(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """A task "shelf" whose resources are a, b; the options that it was made with."""
    made: list[Options] = []

    class Task:
        def __init__(self, options: Options) -> None:
            made.append(options)

        def resources(self) -> list[Resource]:
            return [shelf.get("a"), shelf.get("b")]

    Task.Options, Task.info = Options, SimpleNamespace(profiles=("mini",))  # type: ignore[attr-defined]
    known = registry.tasks()
    load = known.load
    monkeypatch.setitem(
        known._entries, "shelf", registry.Entry("shelf", "task", "nowhere:Task", "a test")
    )
    monkeypatch.setattr(known, "load", lambda name: Task if name == "shelf" else load(name))
    # What --offline sets is taken back after the test
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    return made


def test_the_command(task: list[Options], shelf: Shelf, capsys) -> None:
    command = [
        "download",
        "shelf",
        "--model",
        "o/m@v1",
        "--prompts",
        "p.csv,coco",
        "--negatives",
        "n",
        "--set",
        "shelf.steps=3",
    ]
    assert main(command) == 0
    assert task == [Options("o/m@v1", "p.csv,coco", "n", "", 3)]
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: fetched: {shelf.root / name}" for name in "ab"
    ]
    assert main(["download", "shelf", "--images"]) == 0 and task[-1] == Options(ground_truth="urls")


def test_the_command_offline(task: list[Options], shelf: Shelf, capsys) -> None:
    assert main(["download", "shelf", "--offline"]) == 2
    assert capsys.readouterr().out.count("missing: --offline") == 2 and "fetch a" not in shelf.done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "unknown task 'nope'"),
        (["shelf", "--set", "shelf.stops=3"], "stops"),
        (["shelf", "--set", "other.steps=3"], "'other' is not a name of this run"),
        (["shelf", "--set", "shelf.steps=0"], "steps"),
        (["shelf", "--no-such"], "--no-such"),
        ([], "task"),
    ],
)
def test_what_a_user_can_do_wrong(
    task: list[Options], capsys, arguments: list[str], words: str
) -> None:
    assert main(["download", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("membench: ") and words in err, err


def test_a_task_that_needs_nothing(task: list[Options], capsys, monkeypatch) -> None:
    monkeypatch.setattr(registry.tasks().load("shelf"), "resources", lambda self: [])
    assert main(["download", "shelf"]) == 2
    assert "membench: task shelf has nothing to download" in capsys.readouterr().err


def test_images_are_for_tasks_that_have_some(task: list[Options], capsys, monkeypatch) -> None:
    @dataclass(frozen=True)
    class Without:
        model: str = ""

    monkeypatch.setattr(registry.tasks().load("shelf"), "Options", Without)
    assert main(["download", "shelf", "--images"]) == 2
    assert "task shelf has no ground-truth images" in capsys.readouterr().err


def test_every_line_of_an_error_says_whose_it_is(capsys, monkeypatch) -> None:
    def fail(args: object) -> int:
        raise UserErrors("the a is missing", "the b\nis missing")

    monkeypatch.setattr(main.__globals__["COMMANDS"]["doctor"], "call", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "membench: the a is missing\nmembench: the b\\nis missing\n"


def test_negatives_are_for_one_task_as_prompts_are(capsys) -> None:
    assert (
        main(["run", "--detector", "cfg_norm", "--task", "cifar10,celeba", "--negatives", "n.csv"])
        == 2
    )
    assert "--negatives is for one task, and --task names 2" in capsys.readouterr().err


def test_the_command_of_a_control_keeps_the_negatives() -> None:
    from membench.boards.control import control_command

    info = {
        "detector": "cfg_norm",
        "task": "sd_webster",
        "profile": "mini",
        "options_passed": [],
        "task_options_passed": ["prompts=p.csv", "negatives=n.csv", "half=b"],
        "seed": 0,
        "dtype": "float32",
        "n_examples": 4,
        "n_task_examples": 4,
    }
    words = control_command(info).split()
    assert (
        words[words.index("--negatives") + 1] == "n.csv"
        and words[words.index("--prompts") + 1] == "p.csv"
    )
    assert "sd_webster.half=b" in words


def test_a_model_may_come_with_mirrors_of_ones_own() -> None:
    from membench.models.checkpoints import choices

    own = choices("CompVis/stable-diffusion-v1-4, me/copy@abc,you/copy")
    assert own == [
        ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b"),
        ("me/copy", "abc"),
        ("you/copy", ""),
    ]
    assert choices("sd-1.4,CompVis/stable-diffusion-v1-4") == own[:1]
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        choices("sd-1.4,")
