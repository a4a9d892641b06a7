"""A sample of malformed inputs: each is used, or refused in one line; none ends in a
traceback. One seed is fixed, one is another each time (MEMBENCH_FUZZ sets it).
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from malformed import Call, inputs
from malformed_boards import boards
from malformed_models import models
from malformed_pictures import folders
from malformed_words import words

from membench.cli.main import parser
from membench.errors import UserError

FIXED = 20
CHANGING = int(os.environ.get("MEMBENCH_FUZZ") or time.time_ns() // 1000 % 10**6)


KINDS: dict[str, Callable[[random.Random, Path], Iterator[tuple[str, Call]]]] = {
    "inputs": inputs,
    "models": models,
    "pictures": folders,
    "boards": boards,
}
# Inputs, and how many of them are refused: a picture of a folder is left out instead
LEAST = {"inputs": (400, 150), "models": (16, 6), "pictures": (50, 6), "boards": (6, 3)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["fixed", "changing"])
def test_malformed_inputs_are_used_or_refused_in_one_line(
    which: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = {"fixed": FIXED, "changing": CHANGING}[which]
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in" / "here").mkdir(parents=True)  # a word may be ".."
    monkeypatch.chdir(tmp_path / "in" / "here")
    faults, refused, count = [], 0, 0
    for name, call in KINDS[kind](random.Random(seed), tmp_path):
        count += 1
        try:
            call()
        except UserError as error:
            refused += 1
            told = capsys.readouterr().err.splitlines() or error.lines
            lines = [line for line in told if not line.startswith("membench: ")]
            if str(error) != "refused by the command line":
                lines = error.lines[1:]
            if lines or max(map(len, told)) > 3000:
                faults.append(f"{name}: more than a line: {told[0][:200]!r} {lines[:2]}")
        except BaseException as error:
            if type(error) is KeyboardInterrupt:
                raise
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        capsys.readouterr()
    assert not faults, f"MEMBENCH_FUZZ={seed}: {len(faults)} of {count}:\n" + "\n".join(faults)
    assert count >= LEAST[kind][0] and refused >= LEAST[kind][1]


def test_every_option_is_drawn(tmp_path: Path) -> None:
    """With a word of its own, of every command: what is added is drawn, too."""
    drawn = {name for name, _ in words(random.Random(0), tmp_path)}
    subs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert {*subs.choices} <= {name.split()[0] for name in drawn}
    for command, sub in subs.choices.items():
        for action in sub._actions:
            options = [*action.option_strings]
            if options and action.dest != "help":
                assert any(n.startswith(f"{command} {o} ") for n in drawn for o in options), options
