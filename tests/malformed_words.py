"""Malformed words of the command line: for every option of every command, as the
parsers declare them, so that a new option is drawn from the day that it is there.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from boards import make

from membench.cli.main import main, parser
from membench.errors import UserError

Call = Callable[[], object]
WORDS = [
    *("", " ", ",", "0", "-1", "1.5", "nan", "inf", "-inf", "1e400", "1e308", "-1e308", "none"),
    *("9" * 25, "9" * 5000, "x" * 5000, "\x1b[31m", "\u202e", "²", "٣", "=", "a=b", "..", "-0.0"),
    *("a\0b", "\udcff", "1,,2", "1,1", "1_0", "0x10", "true", "10" * 9, "$(id)", "{}", " 1 "),
    *("/dev/null", "/dev/null/x", "/proc/self/mem", "a\nb", "~", "%s", "1:2:3", "é", "\ufeff1"),
    *("meta", "mkldnn", "cpu:5", "float64", "complex64"),
]
SKIPPED = {"help", "push_to_hub"}  # the latter with the one word that asks no network


def command(*words: str) -> None:
    """Raises UserError for what the command line refuses, AssertionError for an end
    that is neither.
    """
    if (code := main(list(words))) == 2:
        raise UserError("refused by the command line")
    assert code in (0, 3), f"exit code {code}"


def options() -> dict[str, list[argparse.Action]]:
    """The options of every command."""
    subs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: [a for a in sub._actions if a.option_strings and a.dest not in SKIPPED]
        for name, sub in subs.choices.items()
    }


def started(folder: Path) -> dict[str, list[str]]:
    """A command each that ends at once, whatever option is added: on stored runs, on
    captions alone, or at a name that is none.
    """
    runs = str(make(folder / "kept", [0, 1, None, 0]).path.parents[3])
    cheap = ["--detector", "caption_length", "--task", "sd_webster", "--limit", "2", "--quiet"]
    cheap += ["--runs", str(folder / "runs")]
    none = str(folder / "none")
    return {
        "run": ["run", *cheap],
        "reference": ["reference", *cheap, "--seeds", "0"],
        "ablate": ["ablate", *cheap, "--thresholds", "0:1:3", "--output", str(folder / "made")],
        "tune": ["tune", *cheap, "--tries", "2", "--output", str(folder / "tries.parquet")],
        "audit": ["audit", "--model", none, "--data", none, "--output", str(folder / "audit")],
        "leaderboard": ["leaderboard", "--runs", runs],
        "report": ["report", "--runs", runs, "--output", str(folder / "page")],
        "train": ["train", "cifar10", "--part", "none", "--quiet"],
        "download": ["download", "sd_webster", "--offline"],
        "show": ["show", "caption_length"],
        "submit": ["submit", none, "--output", str(folder / "community")],
    }


def words(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    """Every option of every command, with a malformed word where it takes one."""
    before = started(folder)
    for name, found in options().items():
        start = before.get(name, [name])
        for action in found:
            option, word = rng.choice(action.option_strings), rng.choice(WORDS)
            given = [option] if action.nargs == 0 else [f"{option}={word}"]
            yield f"{name} {option} {word[:20]!r}", lambda w=[*start, *given]: command(*w)
        for word in rng.sample(WORDS, 2):
            yield f"{name} {word[:20]!r}", lambda w=[name, word]: command(*w)
    for word in rng.sample(WORDS, 3):
        given = [f"--push-to-hub={word}", "--dry-run", "--output", str(folder / "upload")]
        yield (
            f"leaderboard --push-to-hub {word[:20]!r}",
            lambda w=[*before["leaderboard"], *given]: command(*w),
        )
