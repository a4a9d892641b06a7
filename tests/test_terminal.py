"""Tables in a pseudo-terminal of 80, 100 and 120 columns: no line is longer, and no
number and no name is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, board_once, make
from PIL import Image

from membench.boards.board import Board
from membench.cli.main import main
from membench.reports.lines import width
from membench.reports.run_end import LINES, run_end
from membench.reports.run_tables import run_table
from membench.reports.screen import on_screen
from membench.reports.short import shortened
from membench.reports.tables import tables_of
from membench.reports.terminal import laid_out
from membench.runs.finished import Found, read_runs
from membench.tasks.cifar10.task import DATA as PIXELS
from membench.tasks.cifar10.task import RUNGS

LONG = "a_detector_of_a_long_name"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
VIEWS = ("run", "seeds", "kind", "source", "band", "difference", "leaders", "summary")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two seeds, one with a control, one with long names, one of images alone."""
    root = tmp_path_factory.mktemp("made") / "runs"
    for seed in range(2):
        make(root, COPIED, seed=seed)
        make(root, [None] * 8, control=True, seed=seed)
        make(root, [0] * 8, detector=LONG, seed=seed, options=("k=2", "images_a_prompt=4"))
    make(root, [0, 1], detector="alone", scored=False)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> Found:
    return read_runs(root)


@pytest.fixture(scope="module")
def once() -> Callable[..., Board]:
    """Numbers of a board know no width."""
    return board_once()


@contextlib.contextmanager
def terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """stdout is a terminal of so many columns; what it was sent is in the list at the
    end.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    found: list[str] = []

    def read() -> None:
        data = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(master, 65536):
                data += part
        found.append(COLOURS.sub("", data.decode()).replace("\r\n", "\n"))

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        yield found
    reader.join()
    os.close(master)


def fits(text: str, columns: int) -> None:
    assert text and "…" not in text
    long = [line for line in text.splitlines() if len(line) > columns]
    assert not long, long


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_every_table_fits(
    root: Path,
    found: Found,
    once: Callable[..., Board],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    monkeypatch.setattr("membench.cli.finished.read_runs", lambda roots, verified: found)
    monkeypatch.setattr("membench.boards.board.board", once)
    for by in VIEWS:
        for wide in ((), ("--wide",)):
            with terminal(columns, monkeypatch) as shown:
                assert main(["leaderboard", "--by", by, "--runs", str(root), *wide]) == 0
                assert width() == columns
            fits(shown[0], columns)
    for words in (["list"], ["show", "side"], ["show", "sd_webster"]):
        with terminal(columns, monkeypatch) as shown:
            assert main(words) == 0
        fits(shown[0], columns)


def test_an_audit_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan, which says how images are sampled, and its answer."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(noise):
        Image.fromarray(image).save(f"data/{i}.png")
    shutil.copytree(PIXELS / "a" / f"step-{RUNGS[0]:05d}", "model")
    words = ["audit", "--model", "model", "--data", "data", "--unconditional", "--quiet"]
    for more, told in (("--dry-run", "DDIM, 20 steps, guidance 1"), ("--offline", "not judged: ")):
        with terminal(80, monkeypatch) as shown:
            assert main([*words, "--budget", "40", more]) == 0
        assert told in shown[0]
        fits(shown[0], 80)


@pytest.mark.parametrize("columns", [40, 80, 100, 120])
def test_no_cell_is_cut(found: Found, once: Callable[..., Board], columns: int) -> None:
    """Every word and interval of every full table stands in it whole."""
    runs = found.runs
    for by in ("run", "seeds", "band", "difference"):
        made = once(runs, by)
        text = on_screen(made, wide=True, room=columns)
        flat = " ".join(text.split())
        for _, _, tables in tables_of(made):
            for _, body, _ in tables:
                for cell in body.to_numpy().ravel():
                    for word in [cell] if "[" in cell else cell.split():
                        assert word in flat, (by, word)


@pytest.mark.parametrize("columns", [80, 100])
def test_the_default_is_one_block_and_heads_what_is_the_same(
    found: Found, once: Callable[..., Board], columns: int
) -> None:
    runs = [run for run in found.runs if len(run.scores)]
    text = on_screen(once(runs, "seeds"), room=columns)
    model, control = text.split("CONTROL model")
    for part in (model, control):  # one block each
        assert len(re.findall("^detector ", part, re.M)) == 1, text
    assert re.search(r"^detector +AUROC +TPR@1%FPR +(on )?control +eval/ex *$", model, re.M)
    assert "(seeds " in model.split("\n")[0] and " N_G" not in text and "AMS" not in text
    assert ", data " not in text  # hashes only under --wide
    assert ", data " in on_screen(once(runs, "seeds"), wide=True, room=100)


def test_columns_are_chosen_by_the_board() -> None:
    """Whatever a table is called: small ones stay, with options behind the detector."""
    pair = pd.DataFrame({"detector": ["a", "b"], "options": ["k=2", ""], "a / b": ["1", "2"]})
    none = pd.DataFrame()
    assert shortened("mirror", pair, none).to_dict("list") == {
        "detector": ["a k=2", "b"],
        "a / b": ["1", "2"],
    }
    bands = pd.DataFrame({"attack": ["a"], "band": ["low"], "AMS in": ["1"]})
    assert list(shortened("attack", bands, none)) == ["attack", "band", "AMS in"]
    reported = ["paper", "model", "detector", "metric", "reported", "measured"]
    published = pd.DataFrame([["x"] * 7], columns=[*reported, "source"])
    assert list(shortened("published", published, none)) == reported
    images = pd.DataFrame({"detector": ["a"], "AMS copies %": ["1"], "N_G": ["2"], "sees": ["x"]})
    assert list(shortened("seeds", images, none)) == ["detector", "AMS copies %", "N_G"]


def test_a_run_ends_with_few_lines(root: Path, found: Found) -> None:
    runs = [run for run in found.runs if run.info["seed"] == 0]
    runs = [run for run in runs if not run.info["control"]]
    for room in (80, 100, None):
        text = run_end(runs, root, room)
        lines = text.splitlines()
        assert len(lines) <= LINES and lines[-1].startswith("next: membench "), text
        assert "files: 3 folders" in text and LONG in text
        talk = [line for line in lines if "membench leaderboard" not in line]
        fits("\n".join(talk[:-1]), room or 1000)  # a command is copied whole
    many = [make(root.parent / "many", COPIED, detector=f"d{i}") for i in range(20)]
    text = run_end(many, root.parent / "many", 80)
    assert len(text.splitlines()) == LINES and re.search(r"and \d+ more: membench lea", text)


def test_a_run_ends_with_a_table_that_fits_whatever_its_options_are(tmp_path: Path) -> None:
    """Values are cut as in boards, but where two settings would look alike."""
    long = ",".join(f"detector_{i}.images=0" for i in range(9))
    runs = tmp_path / "runs"
    one = make(runs, COPIED, detector="combined", options=(f"settings={long}",))
    table = run_end([one], runs, 80)
    assert "settings=detector_0.imag…" in table
    rows = [line for line in table.splitlines() if line.startswith(("combined settings", "det"))]
    assert len(rows) == 2 and max(map(len, rows)) <= 80
    other = make(runs, COPIED, detector="combined", options=(f"settings={long}1",))
    whole = run_end([one, other], runs, None)
    assert f"settings={long} " in whole and f"settings={long}1 " in whole


def test_the_verdict_is_of_a_detector_that_asks_the_model(tmp_path: Path) -> None:
    """Not of captions alone, though these tell the examples apart better."""
    asks = make(tmp_path / "runs", COPIED, detector="asks")
    alone = make(
        tmp_path / "runs",
        [],
        detector="captions",
        change=lambda scores: scores.assign(score=scores.label.astype(float)),
        extra={"phases": {"scores": {"forwards": 0, "seconds": 1.0}}},
    )
    lines = run_end([alone, asks], tmp_path / "runs", None).splitlines()
    assert lines[0].startswith("asks ") and "--detector asks" in lines[-1]
    assert [line.split()[0] for line in lines[4:6]] == ["captions", "asks"]
    [first, *_] = run_end([alone], tmp_path / "runs", None).splitlines()
    assert first.startswith("captions ")


def test_the_sentence_and_the_next_command_are_of_their_own_task(tmp_path: Path) -> None:
    """Of task t the control was asked, of task u not; and u's examples are images."""
    root = tmp_path / "runs"
    tells = {"change": lambda s: s.assign(score=s.label.astype(float))}
    runs = [make(root, [None] * 60, task="t", detector="d")]
    make(root, [None] * 60, task="t", detector="d", control=True)
    pictures = {"change": lambda s: tells["change"](s).assign(prompt=None)}
    runs.append(make(root, [None] * 70, task="u", detector="d", **pictures))
    first, *_, last = run_end(runs, root, None).splitlines()
    assert first.startswith("u: d tells memorized images from others"), first
    assert "--task u" in last


def test_one_partial_run_among_whole_ones_says_of_how_many(tmp_path: Path) -> None:
    whole = make(tmp_path / "runs", COPIED)
    extra = {"n_task_examples": 800, "status": "partial"}
    part = make(tmp_path / "runs", COPIED, task="u", extra=extra)
    text = run_end([whole, part], tmp_path / "runs", None)
    assert text.startswith("PARTIAL (8 of 800 examples; not comparable with whole runs): ")


def test_narrow_terminals_get_blocks_of_whole_columns() -> None:
    frame = pd.DataFrame({"detector": ["a_long_name", "b"], "AUROC": ["0.912 [0.884, 0.936]"] * 2})
    frame = frame.assign(**{"TPR": ["0.5", "0.6"], "note": ["many words that fold", ""]})
    text = laid_out("t", frame, 40)
    fits(text, 40)
    assert text.count("a_long_name") == 2 and text.count("0.912 [0.884, 0.936]") == 2
    assert laid_out("t", frame, None).count("a_long_name") == 1
    word = "x" * 60  # nothing is cut even where a word is longer than the terminal
    assert word in laid_out("t", pd.DataFrame({"detector": [word], "n": ["1"]}), 40)


def test_each_block_says_what_its_rows_are_of() -> None:
    """Also where the first column is none of the usual names, such as a rung."""
    frame = pd.DataFrame({"rung": ["7", "8"]} | {f"n{i}": ["0.123456789"] * 2 for i in range(6)})
    plain = COLOURS.sub("", laid_out("t", frame, 40))
    blocks = plain.split("\n", 1)[1].strip().split("\n\n")
    assert len(blocks) > 1 and all(block.startswith("rung") for block in blocks)
    assert all([line.split()[0] for line in b.splitlines()[2:]] == ["7", "8"] for b in blocks)


def test_what_stands_below_the_tables_is_folded(
    root: Path, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = found.runs
    with terminal(80, monkeypatch) as shown:
        print(run_table(runs[:1]))
        print(run_table(runs[:2]))
    fits("\n".join(line for line in shown[0].splitlines() if str(root) not in line), 80)


def test_all_tables_of_a_run_stand_under_verbose(found: Found) -> None:
    whole = run_table(found.runs[:1])
    assert "extraction" in whole and "percentiles" in whole


def test_a_table_that_goes_to_a_file_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although stdout is a terminal: laid out for no terminal's width."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    frame = pd.DataFrame({"detector": ["loss"], "AUROC": ["0.8"]})
    assert COLOURS.search(laid_out("t", frame, 80))
    assert "\x1b" not in laid_out("t", frame, None)
