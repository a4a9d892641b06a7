"""Makes every board of this folder anew, from nothing: trainings, runs, tables.

    python results/everything.py WORK [--data-root DATA] [--only A,B] [--list]

What each is made of stands in everything.yaml. Commands run one after the other in WORK,
which may be taken up again: trained models and finished runs are found. A board's Parquet
files replace those here once all of them are written; then tables, figures and picture
follow (tables.py, figures.py, picture.py). Several can work in one WORK, each with boards
of its own (--only): worlds_sd_webster_images needs the models of worlds_sd_webster, rates
those of worlds and celeba_worlds, cifar10_pair_attacks those of cifar10_pair.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import yaml

HERE = Path(__file__).resolve().parent
FOLLOW = ("tables.py", "figures.py", "picture.py")


@dataclass(frozen=True)
class Board:
    """Commands, and the files under WORK/boards that they write, without .parquet."""

    board: str
    what: str
    minutes: int  # of one core
    commands: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def needs_data(self) -> bool:
        return any("{data}" in command for command in self.commands)

    def argv(self, command: str) -> list[str]:
        """A command's words, with this Python; its folders are WORK's own."""
        places = {"here": HERE, "scripts": HERE.parent / "benchmarks", "boards": "boards"}
        first, *words = [w.format(**places, data="data") for w in shlex.split(command)]
        if first == "membench":
            return [sys.executable, "-m", "membench", *words]
        return [sys.executable, *words] if first == "python" else [first, *words]

    def shown(self) -> str:
        """The commands in Markdown, folded at 88 characters."""
        places = {"here": "REPO/results", "scripts": "REPO/benchmarks", "boards": "boards"}
        lines = []
        for command in self.commands:
            *parts, line = re.split(r" (?=--)", command.format(**places, data="data"))[::-1]
            while parts:
                part = parts.pop()
                if len(line) - line.rfind("\n") + len(part) < 86:
                    line += f" {part}"
                else:
                    line += f" \\\n    {part}"
            lines.append(line)
        return "\n".join(["```", *lines, "```"])


def read(file: Path = HERE / "everything.yaml") -> list[Board]:
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    return [Board(**of | {k: tuple(of[k]) for k in ("commands", "writes")}) for of in told]


def chosen(boards: list[Board], only: str | None, data: Path | None) -> list[Board]:
    """In their order; those that --only names, else all that can be made. Raises
    ValueError for a name that is no board's, and a board that needs data that are not there.
    """
    if only is None:
        return [of for of in boards if data or not of.needs_data]
    names = only.split(",")
    if unknown := set(names) - {of.board for of in boards}:
        raise ValueError(f"--only {', '.join(sorted(unknown))}: no such board; --list names them")
    found = [of for of in boards if of.board in names]
    if without := [of.board for of in found if of.needs_data and not data]:
        raise ValueError(f"{', '.join(without)}: give --data-root, the folder of CIFAR-10")
    return found


def make(board: Board, work: Path) -> None:
    for command in board.commands:
        print(f"$ {command}", flush=True)
        if code := subprocess.run(board.argv(command), cwd=work).returncode:
            sys.exit(f"{board.board}: the command ended with {code}; this one goes on from there")
    for name in board.writes:
        made = work / "boards" / f"{name}.parquet"
        for file in (made, made.with_suffix(".png"), made.with_suffix(".svg")):
            target = HERE / file.relative_to(work / "boards")
            if file == made or (file.exists() and target.exists()):  # plots that ship
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("work", type=Path, nargs="?", help="folder of models and runs")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--only", metavar="A,B", help="these boards alone")
    parser.add_argument("--list", action="store_true", help="name the boards and their cost")
    args = parser.parse_args()
    every = read()
    try:
        boards = chosen(every, args.only, args.data_root)
    except ValueError as error:
        parser.error(str(error))
    for of in boards:
        told = f"{of.board:24} {of.minutes:4} min  {of.what}"
        print(fill(told, 80, subsequent_indent=" " * 35))
    if left := [of.board for of in every if of not in boards and not args.only]:
        print(f"left out, for want of --data-root: {', '.join(left)}")
    print(f"in all some {sum(of.minutes for of in boards) / 60:.0f} hours of one core", flush=True)
    if args.list:
        return
    if args.work is None:
        parser.error("WORK: a folder for models and runs")
    (args.work / "boards" / "ablations").mkdir(parents=True, exist_ok=True)
    if args.data_root and not (args.work / "data").exists():
        (args.work / "data").symlink_to(args.data_root.resolve())
    for of in boards:
        start = time.monotonic()
        make(of, args.work)
        print(f"{of.board}: {(time.monotonic() - start) / 60:.0f} min", flush=True)
    for script in FOLLOW:
        if code := subprocess.run([sys.executable, HERE / script]).returncode:
            sys.exit(f"{script} ended with {code}")


if __name__ == "__main__":
    main()
