"""Kinds of malformed input, each with the line that refuses it."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed import damaged, parquet, png

from membench.cli.main import main
from membench.datasets.collection import read_collection
from membench.datasets.records import read_records
from membench.errors import UserError
from membench.features.extractor import weights_file
from membench.options import LARGEST, parse_options
from membench.runs import contract
from membench.runs.config import MOST_RUNS, read_config
from membench.runs.execute import execute
from membench.runs.spec import Spec
from membench.seeds import LARGEST_SEED
from membench.storage.archives import ARCHIVE_ERRORS, members
from membench.storage.cache import cache_root, cached_array
from membench.storage.files import DamagedFile, write_json
from membench.storage.hashing import json_hash
from membench.storage.reading import read_plain, read_text, shown
from membench.types import Access, Condition, Request, Sample

A, B = Condition("a", "a mug"), Condition("b", "a cup")
IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))


# --------------------------------------------------------------------------------- files


def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    for path, why in (
        (tmp_path / "pipe", "is a pipe; give a file"),
        (Path("/dev/zero"), "is a device; give a file"),
        (tmp_path, "is a folder; give a file"),
        (tmp_path / "large", "has 11 bytes, more than 10"),
        (tmp_path / "none", "does not exist"),
        (Path("x" * 5000), "does not exist"),
        (Path("a\0b"), "embedded null"),
    ):
        with pytest.raises(UserError, match=why) as raised:
            read_plain(path, most=10)
        assert len(str(raised.value)) < 500
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa")
    assert read_text(tmp_path / "text") == "a" and shown(Path("a")) == "a"
    (tmp_path / "text").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n")
    with pytest.raises(UserError, match=r"text is a Git LFS pointer, not the file itself: run git"):
        read_text(tmp_path / "text")
    (tmp_path / "text").write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"text is not UTF-8 \(byte 1\)"):
        read_text(tmp_path / "text")


def test_a_home_folder_that_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~w.pt`` is a file's name; in a container a user may have no home."""
    monkeypatch.chdir(tmp_path)
    Path("~w.pt").write_bytes(b"w")
    assert weights_file("~w.pt") == (Path("~w.pt"), hashlib.sha256(b"w").hexdigest()[:12])
    with pytest.raises(UserError, match=r"no weights file ~v\.pt that can be read"):
        weights_file("~v.pt")

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "MEMBENCH_CACHE"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="no home folder for the cache; set MEMBENCH_CACHE"):
        cache_root()


def test_a_name_that_is_no_text_is_written_and_read(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"path": "\udcff"})
    assert json.loads((tmp_path / "f.json").read_bytes()) == {"path": "\udcff"}


@pytest.mark.parametrize("option", ["--prompts", "--runs", "--model", "--set"])
def test_an_argument_that_is_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    file = tmp_path / os.fsdecode(b"p\xff.csv")
    file.write_text("prompt\na\n")
    words = ["run", "--detector", "caption_length", "--task", "sd_webster"]
    assert main([*words, option, str(file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("p\\udcff.csv is not UTF-8; rename the file")


def test_a_folder_of_runs_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        execute(Spec("caption_length", "sd_webster"), tmp_path / "\udcff", progress=False)


def test_a_hash_of_a_name_that_is_no_text() -> None:
    assert json_hash(["\udcff"]) != json_hash(["\udcfe"]) != json_hash(["\ud800"])
    assert json_hash(["\u00e9"]) == hashlib.sha256('["\u00e9"]'.encode()).hexdigest()


def test_a_cached_array_proves_itself(tmp_path: Path) -> None:
    def array() -> np.ndarray:
        return cached_array("a", {}, (4, 4), np.uint8, lambda: iter([np.eye(4, dtype=np.uint8)]))

    assert (array() == np.eye(4)).all()
    [file] = (tmp_path / "cache").glob("*.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\7")
    with pytest.raises(DamagedFile, match="is not what was written"):
        array()
    file.write_bytes(whole.replace(b"descr", b"(((((", 1))
    with pytest.raises(DamagedFile, match="is damaged"):
        array()
    file.unlink()
    assert (array() == np.eye(4)).all()


def test_what_is_kept_of_a_collection_proves_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(2):
        (tmp_path / "data" / f"{i}.png").write_bytes(png(90 * i))

    def read() -> np.ndarray:
        return np.array(read_collection(tmp_path / "data", 8).images())

    first = read()
    [note] = (tmp_path / "cache" / "collections").glob("*.json")
    note.write_text(note.read_text().replace("0.png", "9.png"))
    assert (read() == first).all() and "0.png" in note.read_text()  # made again
    pixels = note.with_suffix(".u8")
    pixels.write_bytes(b"\1" + pixels.read_bytes()[1:])
    with pytest.raises(DamagedFile, match="is not what was written"):
        read()


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ('{"file_name": "a", "text": {"x": 1}}', "text is no text"),
        ('{"file_name": ["a"], "text": "x"}', "file_name is no text"),
        ('{"file_name": "a", "text": [["x"]]}', "text is no text"),
        ('{"file_name": "a", "text": ["x", 5, null]}', ""),
    ],
)
def test_a_caption_is_a_text(tmp_path: Path, row: str, error: str) -> None:
    (tmp_path / "t.jsonl").write_text(row)
    [record] = read_records(tmp_path / "t.jsonl")
    assert record.error == error
    assert error or record.texts() == ["x", "5"]


def test_damaged_images_of_a_table_and_of_a_shard_are_counted(tmp_path: Path) -> None:
    """A page of Parquet that cannot be unpacked; an archive whose member has no end."""
    whole = parquet({"image": [png(i) for i in range(8)], "text": ["a"] * 8})
    for seed in range(12):
        folder = tmp_path / f"p{seed}"
        folder.mkdir()
        (folder / "a.parquet").write_bytes(damaged(random.Random(seed), whole))
        try:
            found = read_collection(folder, 8, max_bad=float("inf"))
        except UserError:
            continue
        assert found.rows + len(found.bad) >= 1
    head = bytearray(512)
    head[:5], head[100:108], head[156:157] = b"0.png", b"0000644\0", b"0"
    for size in (b"77777777777\0", b"\xff" * 12):  # 8 GB; -1
        head[124:136] = size
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        (tmp_path / "a.tar").write_bytes(bytes(head) + bytes(2048))
        with pytest.raises(ARCHIVE_ERRORS):
            list(members(tmp_path / "a.tar"))


# ------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Numbers:
    n: int = field(default=1, metadata={"min": 0})
    x: float = 1.0
    seed: int = field(default=0, metadata={"min": 0, "max": LARGEST_SEED})
    many: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    "text",
    ["n=" + "9" * 25, f"n={LARGEST + 1}", "x=1e308", "x=-1e30", "many=1" + ",1" * 10001],
)
def test_an_absurd_number_is_refused_by_range(text: str) -> None:
    with pytest.raises(UserError, match="is too much; numbers go up to 10,000,000"):
        parse_options(Numbers, [text], "detector d")
    kept = parse_options(Numbers, [f"n={LARGEST}", f"seed={LARGEST_SEED}"], "detector d")
    assert kept.n == LARGEST and kept.seed == LARGEST_SEED


@pytest.mark.parametrize(
    "words",
    [
        ["--draws", "9" * 25],
        ["--guidance", "nan"],
        ["--guidance", "inf"],
        ["--steps", "-1"],
        ["--budget", "9" * 400 + "h"],
        ["--budget", "2000000000000"],
        ["--budget", "0m"],
    ],
)
def test_absurd_numbers_of_an_audit(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["audit", "--model", "none", "--data", "none", *words]) == 2
    assert re.fullmatch(rf"membench: {words[0]} .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("detectors: &a [png_size]\ntasks: *a", "a reference"),
        ("? [a, b]\n: 1", "a key that is no word"),
        ("seeds: [2001-13-45]", "month must be in"),
        ("seeds: [" + "9" * 5000 + "]", "Exceeds the limit"),
        ("detectors: [png_size]\ntasks: [cifar10]\nseeds: [1, 1]", "one stands twice"),
        ("detectors: [png_size]\ntasks: [cifar10]\nseeds: [" + "9" * 25 + "]", "up to 18 digits"),
        ("detectors: [png_size]\ntasks: [cifar10]\nlimit: 0", "limit must be at least 1"),
        ("detectors: [png_size]\ntasks: [cifar10]\ndtype: float64", "dtype must be one of"),
        ("detectors: [png_size]\ntasks: [cifar10]\ndtype: " + "x" * 5000, "dtype must be one of"),
        ("detectors: [{png_size: {1: 2}}]\ntasks: [cifar10]", "1 is no name of an option"),
        ("detectors: [{png_size: {preset: [a]}}]\ntasks: [cifar10]", "preset must be a word"),
        ("detectors: [{png_size: {images: [[1]]}}]\ntasks: [cifar10]", "a list of lists"),
    ],
)
def test_a_file_of_runs(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(told)) as raised:
        read_config(tmp_path / "runs.yaml")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600


def test_a_file_of_more_runs_than_anybody_makes(tmp_path: Path) -> None:
    many = list(range(400))
    text = f"detectors: [png_size]\ntasks: [cifar10]\nseeds: {many}\nworlds: {many}"
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(UserError, match=f"160,000 runs, more than {MOST_RUNS:,}"):
        read_config(tmp_path / "runs.yaml")


# ------------------------------------------------------------------------------ plug-ins


class Plugged:
    """A class of no shipped module, whose methods do what they are told."""

    access = Access()

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def score(self, model: Any, conditions: list[Condition], extracted: Any) -> Any:
        conditions.clear()  # its own list
        return self.act()

    def plan(self, conditions: list[Condition]) -> Any:
        return self.act()

    extract = prepare = preparation_forwards = score


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a\nb"), KeyError(5), SystemExit(0), GeneratorExit(), Stop(), OSError(28)],
)
def test_what_a_plug_in_raises_is_one_line_with_its_place(error: BaseException) -> None:
    with pytest.raises(contract.ContractError, match=r"^Plugged\.score ") as raised:
        contract.score(Plugged(raising(error)), None, [A], {})  # type: ignore[arg-type]
    told = str(raised.value)
    assert "\n" not in told
    assert isinstance(error, SystemExit) or re.search(r"fails at .*test_refusals\.py:\d+: ", told)


def test_ctrl_c_and_a_refusal_pass_through_a_plug_in() -> None:
    for error in (KeyboardInterrupt(), UserError("no")):
        with pytest.raises(type(error)) as raised:
            contract.score(Plugged(raising(error)), None, [A], {})  # type: ignore[arg-type]
        assert raised.value is error


@pytest.mark.parametrize(
    ("method", "value", "told"),
    [
        ("score", [10**400], "returns a list of int; it must return a list of floats"),
        ("score", [1.0], "returns 1 values for 2 conditions"),
        ("plan", [Request(A, -1)], "a draw from 0"),
        ("plan", [Request(A, "x")], "a draw from 0"),  # type: ignore[arg-type]
        ("plan", [Request(A, 2**31)], "a draw from 0"),
        ("plan", [Request(None, 0)], "a Request is a Condition"),  # type: ignore[arg-type]
        ("prepare", {"a": float("nan")}, "what run.json cannot hold"),
        ("prepare", {"a": np.float32(1)}, "what run.json cannot hold"),
        ("preparation_forwards", -1, "a whole number from 0"),
        ("preparation_forwards", "x", "a whole number from 0"),
        ("extract", [Sample(A, 0, IMAGE[:0], 1.0)] * 2, "it must be a uint8 array"),
        ("extract", [Sample(None, 0, IMAGE, 1.0)] * 2, "in another order"),  # type: ignore[arg-type]
        (
            "extract",
            [Sample(A, 0, IMAGE, 1.0), Sample(B, 0, IMAGE[:4], 1.0)],
            "images of 8x4 and 8x8; they must be of one size",
        ),
    ],
)
def test_what_a_plug_in_returns(method: str, value: Any, told: str) -> None:
    detector: Any = Plugged(lambda: value)
    detector.extract = lambda model, requests: value
    detector.prepare = lambda model, conditions, workspace: value
    detector.preparation_forwards = lambda model, conditions: value
    model: Any = None
    asked: dict[str, Callable[[], Any]] = {
        "score": lambda: contract.score(detector, model, [A, B], {}),
        "plan": lambda: contract.plan(detector, [A, B]),
        "prepare": lambda: contract.prepare(detector, model, [A, B], None),
        "preparation_forwards": lambda: contract.preparation_forwards(detector, model, [A, B]),
        "extract": lambda: contract.extract(detector, model, [Request(A, 0), Request(B, 0)]),
    }
    with pytest.raises(contract.ContractError, match=re.escape(told)):
        asked[method]()
