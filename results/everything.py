"""Makes every board of this folder anew, from nothing: trainings, runs, tables.

    python results/everything.py WORK [--data-root DATA] [--jobs N] [--only A,B] [--list]

What each is made of stands in everything.yaml. Commands run in WORK, which may be taken up
again: trained models and finished runs are found. One board is made after the other, or N
at a time, the longest first, each on a core of its own and with its output in WORK/logs. A
board's Parquet files replace those here once all of them are written; then tables, figures
and picture follow (tables.py, figures.py, picture.py).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import yaml

HERE = Path(__file__).resolve().parent
FOLLOW = ("tables.py", "figures.py", "picture.py")


@dataclass(frozen=True)
class Board:
    """Commands, and the files under WORK/boards that they write, without .parquet. after:
    the boards whose models it needs.
    """

    board: str
    what: str
    minutes: int  # of one core
    commands: tuple[str, ...]
    writes: tuple[str, ...]
    after: tuple[str, ...] = ()

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
    several = ("commands", "writes", "after")
    return [Board(**of | {k: tuple(of.get(k, ())) for k in several}) for of in told]


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


def free(waiting: Iterable[Board], running: Iterable[Board]) -> list[Board]:
    """Those that wait for no other one, the longest first."""
    open_ = {of.board for of in (*waiting, *running)}
    return sorted((of for of in waiting if not open_ & set(of.after)), key=lambda of: -of.minutes)


def minutes(boards: list[Board], jobs: int) -> int:
    """How long they take, ``jobs`` at a time."""
    waiting, running, now = list(boards), {}, 0
    while waiting or running:
        for of in free(waiting, running)[: jobs - len(running)]:
            waiting.remove(of)
            running[of] = now + of.minutes
        now = min(running.values())
        running = {of: end for of, end in running.items() if end > now}
    return now


def make(board: Board, work: Path, log: Path | None = None) -> None:
    """Runs the commands, and puts what they have written in place. log: where their output
    goes, of one core then; None: here.

    Raises SystemExit for a command that fails.
    """
    own = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for command in board.commands:
        with log.open("a", encoding="utf-8") if log else nullcontext() as out:
            print(f"$ {command}", file=out, flush=True)  # None: the terminal, here and below
            how = {"stdin": subprocess.DEVNULL, "env": own} if log else {}
            code = subprocess.run(
                board.argv(command), cwd=work, stdout=out, stderr=out, **how
            ).returncode
        if code:
            where = f" ({log})" if log else ""
            sys.exit(f"{board.board}: a command ended with {code}{where}; run again to go on")
    for name in board.writes:
        made = work / "boards" / f"{name}.parquet"
        for file in (made, made.with_suffix(".png"), made.with_suffix(".svg")):
            target = HERE / file.relative_to(work / "boards")
            if file == made or (file.exists() and target.exists()):  # plots that ship
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)


def make_all(boards: list[Board], work: Path, jobs: int) -> None:
    """Up to ``jobs`` at a time. After one that fails none is begun, and what runs may end.

    Raises SystemExit naming those that failed.
    """
    waiting, failed = list(boards), []
    running: dict[Future[float], Board] = {}

    def timed(of: Board) -> float:
        start = time.monotonic()
        make(of, work, work / "logs" / f"{of.board}.txt" if jobs > 1 else None)
        return (time.monotonic() - start) / 60

    with ThreadPoolExecutor(jobs) as pool:
        while running or (waiting and not failed):
            at_once = 0 if failed else jobs - len(running)
            # One at a time: in the order of the file
            for of in (free(waiting, running.values()) if jobs > 1 else waiting)[:at_once]:
                waiting.remove(of)
                running[pool.submit(timed, of)] = of
                print(f"{of.board}: begun", flush=True)
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                of = running.pop(done)
                if error := done.exception():
                    failed.append(str(error))
                else:
                    print(f"{of.board}: {done.result():.0f} min", flush=True)
    if failed:
        sys.exit("\n".join(failed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("work", type=Path, nargs="?", help="folder of models and runs")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--only", metavar="A,B", help="these boards alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="boards at a time")
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
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    hours = f"{minutes(boards, 1) / 60:.0f} hours of one core"
    several = f", {minutes(boards, args.jobs) / 60:.0f} on {args.jobs}" if args.jobs > 1 else ""
    print(f"in all some {hours}{several}", flush=True)
    if args.list:
        return
    if args.work is None:
        parser.error("WORK: a folder for models and runs")
    for name in ("boards/ablations", "logs"):
        (args.work / name).mkdir(parents=True, exist_ok=True)
    if args.data_root and not (args.work / "data").exists():
        (args.work / "data").symlink_to(args.data_root.resolve())
    make_all(boards, args.work, args.jobs)
    for script in FOLLOW:
        if code := subprocess.run([sys.executable, HERE / script]).returncode:
            sys.exit(f"{script} ended with {code}")


if __name__ == "__main__":
    main()
