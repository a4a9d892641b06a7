"""A results folder is data: reading one that somebody else made runs nothing, asks
nobody, and reads nothing beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from boards import COPIED, board_once, make
from conftest import ROOT
from test_board_commands import renamed

from membench.cli.main import main
from membench.errors import UserError
from membench.reports import board_page
from membench.reports.drawing import draw
from membench.runs.finished import load, read_runs
from membench.storage import hashing
from membench.storage.files import atomic_write

NASTY = "\x1b[2Jx\u202e`a`|[b](http://c.example)<img src=http://d.example/e.png>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs."""
    root = tmp_path_factory.mktemp("made") / "runs"
    make(root, COPIED)
    make(root, [0] * 8, detector="side")
    return root


@pytest.fixture
def foreign(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def edit(folder: Path, *, keep_key: bool = True, **fields: object) -> None:
    """Changes run.json, in the key's parts too where they hold a field of the name, and
    makes the key fit them again.
    """
    info = json.loads((folder / "run.json").read_text())
    parts = info["key_parts"] | {
        name: value for name, value in fields.items() if name in info["key_parts"] and keep_key
    }
    key = hashing.content_key(parts)
    (folder / "run.json").write_text(json.dumps(info | fields | {"key_parts": parts, "key": key}))
    for table in folder.glob("*.parquet"):
        held = pq.read_table(table)
        pq.write_table(
            held.replace_schema_metadata({**held.schema.metadata, b"run": key.encode()}), table
        )


def change(folder: Path, table: str, **columns: object) -> None:
    """Other values in a stored table, a whole column each."""
    held = pq.read_table(folder / f"{table}.parquet")
    for name, values in columns.items():
        at = held.column_names.index(name)
        filled = values if isinstance(values, list) else [values] * len(held)
        held = held.set_column(
            at, held.schema.field(name), pa.array(filled, held.schema.field(name).type)
        )
    pq.write_table(held, folder / f"{table}.parquet")


def rows(folder: Path, table: str, of: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / f"{table}.parquet"
    pq.write_table(of(pq.read_table(path)), path)


def one(root: Path, detector: str = "side") -> Path:
    return next(root.glob(f"*/*/{detector}/*"))


# ------------------------------------------------------------------ nothing is executed

WATCHED = """
import os, sys
own = [os.path.realpath(p) for p in {own!r}]
seen, STARTS = [], ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
HEAVY = ("torch", "diffusers", "transformers")
def watch(event, args):
    if event.startswith("socket.") and event != "socket.gethostname" or event in STARTS:
        seen.append((event, str(args)))
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith({secret!r}) or "evil" in path:
            seen.append((event, path))
    if event == "import" and args[0].split(".")[0] in HEAVY + ("evil",):
        seen.append((event, args[0]))
import matplotlib.font_manager  # looks for fonts, once
sys.addaudithook(watch)
from membench.cli.main import main
for argv in {commands!r}:
    assert main(argv) == 0, argv
assert not seen, seen
"""


def test_a_foreign_folder_runs_nothing(foreign: Path, tmp_path: Path) -> None:
    """Its run.json names a task that ships, with a program as the option of it, a model
    on the hub, and files of the user's. No command on finished runs imports torch.
    """
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("weights.pt", "published.parquet"):
        (secret / name).write_bytes(b"not to be read")
    (foreign.parent / "published.parquet").symlink_to(secret / "published.parquet")
    weights = secret / "weights.pt"
    for folder in list(foreign.glob("*/*/*/*")):
        renamed(folder / "run.json", "cifar10")
        edit(
            folder,
            task_options_passed=[
                "criterion=sscd",
                f"criterion_weights={weights}",
                "model=evil/model",
                f"data_root={secret}",
            ],
        )
    (foreign / "evil.py").write_text("raise SystemExit('run')")
    runs = str(foreign)
    views = ("run", "seeds", "summary", "kind", "band", "difference", "leaders", "published")
    commands = [
        [
            "leaderboard",
            "--runs",
            runs,
            "--by",
            view,
            *(["--band", "a=0:0.5", "--copy", "0.9"] if view == "band" else []),
        ]
        for view in views
    ]
    commands.append(["report", "--runs", runs, "--output", str(tmp_path / "page")])
    code = WATCHED.format(own=[runs], secret=str(secret), commands=commands)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=foreign,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "page" / "report.html").is_file() and "Traceback" not in done.stderr


# -------------------------------------------------------- what does not fit is left out

INFO = {
    "seed": lambda f: edit(f, keep_key=False, seed=7),
    "another copy threshold": lambda f: edit(
        f, keep_key=False, space=load(f).info["space"] | {"copy": 0.2}
    ),
    "other options": lambda f: edit(f, keep_key=False, options={"k": "9"}),
    "control": lambda f: edit(f, keep_key=False, control=True),
    "a key of other parts": lambda f: (f / "run.json").write_text(
        (f / "run.json").read_text().replace('"dtype": "float32"', '"dtype": "x"')
    ),
    "PARTIAL hidden": lambda f: edit(f, n_task_examples=800),
    "more examples than scores": lambda f: edit(f, n_examples=9, n_task_examples=9),
    "seconds": lambda f: edit(f, seconds=0.001),
    "fewer images": lambda f: edit(f, n_images=3),
    "failures": lambda f: edit(f, failed={"scores": 1, "samples": 0}, status="partial"),
    "a number as detector": lambda f: edit(f, detector=5),
    "null hashes": lambda f: edit(f, hashes=None),
    "a list as space": lambda f: edit(f, space=[]),
    "bands reversed": lambda f: edit(
        f, space=load(f).info["space"] | {"bands": [{"name": "a", "low": 2.0, "high": 1.0}]}
    ),
    "no bands": lambda f: edit(f, space=load(f).info["space"] | {"bands": []}),
    "a band with more in it": lambda f: edit(f, space=load(f).info["space"] | {"extra": 1}),
    "phases nested": lambda f: edit(f, phases={"scores": {"forwards": [1], "seconds": 1}}),
    "a huge count": lambda f: edit(f, phases={"scores": {"forwards": 10**400, "seconds": 1}}),
    "a flag as number": lambda f: edit(f, peak_memory_mb=True),
    "a word as compile": lambda f: edit(f, compile="x"),
    "an object as executor": lambda f: edit(f, executor={}),
    "a list as source": lambda f: edit(f, source=["a"]),
    "deep": lambda f: (f / "run.json").write_text(
        '{"schema_version": 1, "a": ' + "[" * 500 + "]" * 500 + "}"
    ),
    "deeper": lambda f: (f / "run.json").write_bytes(b"[" * 100_000),
    "NaN": lambda f: (f / "run.json").write_text(
        (f / "run.json").read_text().replace('"seconds": 5.0', '"seconds": NaN')
    ),
    "status": lambda f: edit(f, status=["complete"]),
    "version": lambda f: edit(f, schema_version="1"),
    "an array": lambda f: (f / "run.json").write_text("[]"),
}
TABLES = {
    "scores of another run": lambda f: shutil.copy(
        one(f.parents[3], "random") / "scores.parquet", f
    ),
    "all tables of another run": lambda f: [
        shutil.copy(p, f) for p in one(f.parents[3], "random").glob("*.parquet")
    ],
    "rows missing": lambda f: rows(f, "scores", lambda t: t.slice(0, 5)),
    "rows twice": lambda f: rows(f, "matches", lambda t: pa.concat_tables([t, t])),
    "no matches": lambda f: rows(f, "matches", lambda t: t.slice(0, 0)),
    "no samples": lambda f: rows(f, "samples", lambda t: t.slice(0, 0)),
    "no metrics": lambda f: rows(f, "metrics", lambda t: t.slice(0, 0)),
    "forged metrics": lambda f: change(f, "metrics", value=0.99),
    "intervals reversed": lambda f: change(f, "metrics", low=0.9, high=0.1),
    "other scores": lambda f: change(f, "scores", score=[float(-i) for i in range(8)]),
    "a label of 2": lambda f: change(f, "scores", label=2),
    "one group of both labels": lambda f: change(f, "scores", group="g"),
    "infinite scores": lambda f: change(f, "scores", score=float("inf")),
    "a negative distance": lambda f: change(f, "matches", similarity=-0.5),
    "an infinite distance": lambda f: change(f, "matches", similarity=float("inf")),
    "no distance": lambda f: change(f, "matches", similarity=float("nan")),
    "one image by many names": lambda f: change(f, "matches", training=list(range(8))),
    "below 0": lambda f: change(f, "matches", training=-1),
    "an id of another draw": lambda f: change(f, "samples", draw=3),
    "a confidence that is none": lambda f: change(f, "samples", confidence=float("nan")),
}


@pytest.mark.parametrize("what", [*INFO, *TABLES])
def test_a_run_that_is_not_of_one_piece_is_left_out_and_named(foreign: Path, what: str) -> None:
    """How a command tells them: test_board_commands.py."""
    folder = one(foreign)
    (INFO | TABLES)[what](folder)
    found = read_runs(foreign)
    [problem] = found.problems
    assert problem.startswith(str(folder)) and "\n" not in problem
    assert [run.info["detector"] for run in found.runs] == ["random"]


@pytest.mark.parametrize(
    "field",
    [
        "key_parts",
        "space",
        "phases",
        "failed",
        "access",
        "membench",
        "n_examples",
        "seconds",
        "versions",
    ],
)
def test_a_field_that_is_missing(foreign: Path, field: str) -> None:
    path = one(foreign) / "run.json"
    path.write_text(
        json.dumps(
            {name: value for name, value in json.loads(path.read_text()).items() if name != field}
        )
    )
    found = read_runs(foreign)
    assert [run.info["detector"] for run in found.runs] == [
        "random"
    ] and f"lacks {field}" in found.problems[0]


def test_the_untouched_folder_is_read(foreign: Path) -> None:
    assert len(read_runs(foreign, verified=True).runs) == 2 and not read_runs(foreign).problems


# ----------------------------------------------------------- links, and what is written


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "samples.parquet"])
def test_links_are_not_followed(foreign: Path, tmp_path: Path, name: str) -> None:
    folder = one(foreign)
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    [problem] = read_runs(foreign).problems
    assert "is a link" in problem and name in problem


def test_a_linked_folder_is_not_followed_and_a_linked_root_is(
    foreign: Path, tmp_path: Path
) -> None:
    folder = one(foreign)
    folder.rename(tmp_path / "aside")
    folder.symlink_to(tmp_path / "aside")
    [problem] = read_runs(foreign).problems
    assert str(folder) in problem and "reached by a link" in problem
    (tmp_path / "root").symlink_to(foreign)
    assert len(read_runs(tmp_path / "root").runs) == 1


def specials(folder: Path) -> dict[str, Path]:
    (folder / "a folder").mkdir()
    (folder / "target").write_text("mine")
    (folder / "a link").symlink_to(folder / "target")
    (folder / "a dangling link").symlink_to(folder / "none")
    os.mkfifo(folder / "a pipe")
    return {name: folder / name for name in ("a folder", "a link", "a dangling link", "a pipe")} | {
        "a device": Path("/dev/null")
    }


@pytest.mark.parametrize(
    "name", ["a folder", "a link", "a dangling link", "a pipe", "a device", "too long", "a null"]
)
@pytest.mark.parametrize("fmt", ["table", "csv", "parquet"])
def test_what_is_not_a_regular_file_is_not_replaced(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, fmt: str
) -> None:
    path = ({"too long": tmp_path / ("x" * 300), "a null": Path("a\0b")} | specials(tmp_path))[name]
    kind = None if name in ("too long", "a null") else path.lstat().st_mode
    assert main(["leaderboard", "--runs", str(made), "--format", fmt, "--output", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert ("holds a NUL" if name == "a null" else "choose another name") in err
    assert (kind is None or path.lstat().st_mode == kind) and (
        tmp_path / "target"
    ).read_text() == "mine"


def test_a_page_does_not_replace_a_link(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "page" / "report.html").symlink_to(tmp_path / "mine")
    assert main(["report", "--runs", str(made), "--output", str(tmp_path / "page")]) == 2
    assert (
        "is a symbolic link" in capsys.readouterr().err
        and (tmp_path / "mine").read_text() == "mine"
    )
    with pytest.raises(UserError, match="symbolic link"):
        atomic_write(tmp_path / "page" / "report.html", lambda path: path.write_text("x"))


# ------------------------------------------------------------------------ what is shown


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["leaderboard", *words]) == 0
    captured = capsys.readouterr()
    assert "\x1b[2J" not in captured.err and "\u202e" not in captured.err
    return captured.out


def test_an_image_without_its_bytes(foreign: Path) -> None:
    change(one(foreign), "samples", image=None)
    with pytest.raises(UserError, match="it holds an image without its bytes"):
        load(one(foreign))
    assert len(load(one(foreign), verified=False).samples) == 8  # a board shows none


def test_half_a_surrogate_pair_is_shown_as_its_escape(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON can hold it; UTF-8, and with it Parquet, cannot."""
    half = "a\udcff\ud800"
    edit(one(foreign), model_name=half, data_name=half, device=half, options_passed=[f"o={half}"])
    made = tmp_path / "board.parquet"
    shown(capsys, "--runs", str(foreign), "--format", "parquet", "--output", str(made))
    assert "a\\udcff\\ud800" in set(pd.read_parquet(made).model)
    assert "o=a\\udcff\\ud800" in shown(capsys, "--runs", str(foreign))


def test_nothing_in_a_folder_becomes_more_than_text(
    foreign: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names of detectors, options and kinds with escapes, Markdown, HTML and formulas,
    in every format.
    """
    monkeypatch.setattr("membench.boards.board.board", board_once())
    monkeypatch.setattr(  # a PNG holds no text
        board_page,
        "draw",
        lambda plots, kind, **how: draw(plots, kind, **how) if kind == "svg" else b"",
    )
    folder = one(foreign)
    change(folder, "scores", kind=[f"{NASTY} {i % 2}" for i in range(8)], prompt=NASTY)
    metrics = pq.read_table(folder / "metrics.parquet")
    names = [NASTY + " 1" if s == "kind=MV" else s for s in metrics["subset"].to_pylist()]
    change(
        folder,
        "metrics",
        subset=[f"kind={name}" if name.startswith(NASTY) else name for name in names],
    )
    edit(folder, detector=f"={NASTY}", options_passed=[f"@{NASTY}"])
    runs = str(foreign)
    assert not read_runs(foreign).problems
    for by in ("run", "seeds", "kind", "difference", "summary", "leaders", "band"):
        text = shown(capsys, "--runs", runs, "--by", by)
        assert "\x1b" not in text and "\u202e" not in text and "\\x1b[2J" in text
        text = shown(capsys, "--runs", runs, "--by", by, "--format", "md")
        assert "\x1b" not in text and "\u202e" not in text and "<img" not in text
        # No bracket opens a link
        assert "](http:" not in text and not re.search(r"(?<!\\)\[[^]]*\]\(http", text)
        assert "\\[b](http\\://c.example)&lt;img" in text and "\\`a\\`\\|" in text
    csv = shown(capsys, "--runs", runs, "--format", "csv")
    assert "\x1b" not in csv and ",'=" in csv and ",'@" in csv and ",=" not in csv
    frame = pd.DataFrame(json.loads(shown(capsys, "--runs", runs, "--format", "json")))
    assert f"={NASTY}" in set(frame.detector)  # data, exact
    made = tmp_path / "board.parquet"
    shown(capsys, "--runs", runs, "--format", "parquet", "--output", str(made))
    assert f"={NASTY}" in set(pd.read_parquet(made).detector) and "\x1b" not in shown(
        capsys, "--runs", str(made)
    )
    assert main(["report", "--runs", runs, "--output", str(tmp_path / "page")]) == 0
    html, md = ((tmp_path / "page" / name).read_text() for name in ("report.html", "report.md"))
    assert (
        "\x1b" not in html + md
        and "\u202e" not in html + md
        and "<img src=http" not in html + md
        and "Content-Security-Policy" in html
    )
    drawn = list((tmp_path / "page" / "plots").glob("*.svg"))
    assert drawn
    for svg in drawn:
        assert "\x1b" not in svg.read_text() and "<img" not in svg.read_text()


def test_an_image_that_is_none_is_said_to_be_none(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_page, "draw", lambda plots, kind, heading: kind.encode())
    monkeypatch.setattr("membench.reports.page.inline", lambda plot: plot.slug)
    for detector in ("random", "side"):  # an image that both made is shown once
        change(one(foreign, detector), "samples", image=b"garbage")
    assert main(["report", "--runs", str(foreign), "--output", str(tmp_path / "page")]) == 0
    assert "not a readable image" in (tmp_path / "page" / "report.html").read_text()
