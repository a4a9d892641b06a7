"""Writes the tables of README.md and of the Markdown files here anew, from the Parquet
files: ``python results/tables.py``.

A block begins with ``<!-- membench ARGUMENTS -->``, a command line, and ends with
``<!-- end -->``; between the two stands what the command prints. ``<!-- mirrored FILE
TASK [DETECTORS] -->`` is a table of one task of a board of ``leaderboard --by mirror``,
``<!-- ladder FILE -->`` what ``ablate`` prints of attacks on the rungs of a task,
``<!-- swept FILE -->`` of an option of a detector, ``<!-- commands BOARD -->`` what
everything.yaml makes a board of, ``<!-- table SCRIPT FILE -->`` what the script of that
name in benchmarks/ prints of its own file, ``<!-- promised TASK FILE -->`` what tuning
promised of a task and what came of it on a board of each world. A test fails where a
block is not what its first line says.

Boards that an earlier commit made get today's descriptions of their columns: rows, and the
hash of them, stay.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import everything
import pandas as pd
import pyarrow.parquet as pq

from membench import registry
from membench.boards.columns import column
from membench.boards.saved import HASH, write
from membench.cli.main import main
from membench.metrics.trainings import over_trainings
from membench.options import detector_options
from membench.reports import sweep
from membench.reports.ladder import legend, summary
from membench.reports.output import markdown
from membench.reports.text import interval, number

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "README.md",
    "results/mirror_development.md",
    "results/worlds.md",
    "results/celeba_worlds.md",
    "results/worlds_sd_webster.md",
    "results/sd_webster_full.md",
    "results/cifar10_pair.md",
    "results/labels.md",
    "results/attacks.md",
    "results/ladder.md",
    "results/surrogates.md",
    "results/quality.md",
    "results/perturbed_labels.md",
    "docs/audit.md",
    "docs/design/mini-world.md",
    "docs/design/mirror-pairs.md",
    "docs/design/side.md",
    "docs/scale.md",
)
PROMISED = (
    "detector",
    "development world, defaults (PARTIAL)",
    "best of at most 6 tries (PARTIAL)",
    "worlds 1 and 2, defaults",
    "as tuned",
    "gain",
)
BLOCK = re.compile(
    r"(<!-- (?P<what>commands|membench|mirrored|ladder|promised|swept|table)"
    r" (?P<given>[^>]+) -->\n)"
    r"(?:(?!<!-- ).)*(<!-- end -->)",
    flags=re.S,
)


def printed(command: str) -> str:
    """What ``membench COMMAND`` prints, run in the project's folder.

    Raises RuntimeError if it fails.
    """
    out, before = io.StringIO(), Path.cwd()
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(out):
            code = main(shlex.split(command))
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"membench {command} exited with {code}")
    return out.getvalue().strip()


def mirrored(given: str) -> str:
    """A table in Markdown of "FILE TASK [DETECTORS]": mirrored AUROC of each detector, or
    of those alone, over all examples with its interval and of each kind, and
    evaluations an example. Of a detector with several settings the one with fewest
    options is its defaults; of what tuning chose (tuned_TASK.parquet) AUROC alone is
    shown.

    Raises ValueError for a detector that the board lacks.
    """
    file, task, *chosen = given.split()
    board = pd.read_parquet(ROOT / file)
    board = board[board.task == task]
    if chosen:
        names = chosen[0].split(",")
        if missing := sorted(set(names) - set(board.detector)):
            raise ValueError(f"{file} has no {', '.join(missing)} on {task}")
        board = board[board.detector.isin(names)]
    every = board[board.kind == "all"]
    every = every.iloc[every.options.str.split().str.len().argsort(kind="stable")]
    whole = every.drop_duplicates("detector").sort_values("mirrored", ascending=False)
    tuned = _tuned(every[every.duplicated("detector")], task)
    kinds = [kind for kind in board.kind.unique() if kind != "all"]
    kinds.sort(key=lambda kind: (not kind.startswith("x"), len(kind), kind))

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = []
    for row in whole.itertuples():
        own = board[(board.detector == row.detector) & (board.options == row.options)]
        of = own.set_index("kind").mirrored
        rows.append(
            {
                "detector": row.detector,
                "AUROC, mirrored": interval(row.mirrored, row.mirrored_low, row.mirrored_high),
                **({"tuned": shown(tuned.get(row.detector))} if tuned else {}),
                **{kind: f"{of[kind]:.2f}" for kind in kinds},
                "evaluations": number(row.evaluations_per_example),
            }
        )
    return markdown(pd.DataFrame(rows))


def _tuned(rows: pd.DataFrame, task: str) -> dict[str, float]:
    """By detector the mirrored AUROC of the setting that tuning chose."""
    if rows.empty:
        return {}
    tried = pd.read_parquet(ROOT / "results" / f"tuned_{task}.parquet")
    chosen = {
        (row.detector, parsed(row.detector, row.options))
        for row in tried[tried.chosen].itertuples()
    }
    return {
        row.detector: row.mirrored
        for row in rows.itertuples()
        if (row.detector, parsed(row.detector, row.options)) in chosen
    }


def promised(given: str) -> str:
    """A row a tuned detector of "TASK FILE": its AUROC on the development world with its
    defaults and as the best try has it, then over the trainings of FILE, a board of each
    world; the gain there by the same training, with its interval.
    """
    task, file = given.split()
    tried = pd.read_parquet(ROOT / "results" / f"tuned_{task}.parquet")
    board = pd.read_parquet(ROOT / file)
    board = board[board.kind == "all"].sort_values("examples")
    found: dict[object, pd.Series] = {
        (name, parsed(name, options)): of[["auroc_a", "auroc_b"]].stack()
        for (name, options), of in board.groupby(["detector", "options"])
        if name in set(tried.detector)
    }
    rows = []
    for name, of in tried.groupby("detector", sort=False):
        [default], [best] = of[of.number == 0].itertuples(), of[of.chosen].itertuples()
        row = dict.fromkeys(PROMISED, "") | {"detector": name}
        row[PROMISED[1]] = f"{default.auroc:.3f}"
        row[PROMISED[2]] = f"{best.auroc:.3f}" if best.number else "the defaults"
        if (key := (name, parsed(name, default.options))) not in found:
            rows.append(row | {PROMISED[3]: "not run"})
            continue
        here = found[key].to_numpy()
        row |= {PROMISED[3]: f"{here.mean():.3f}", PROMISED[4]: "the defaults"}
        if best.number:
            tuned = found[name, parsed(name, best.options)].to_numpy()
            low, high = over_trainings(tuned - here)
            row[PROMISED[4]] = f"{tuned.mean():.3f}"
            row["gain"] = f"{(tuned - here).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append(row)
    return markdown(pd.DataFrame(rows)).replace("\\[", "[")  # which no address follows


def parsed(detector: str, options: str) -> object:
    """A detector's options from a board's words: settings are one where these are."""
    cls = registry.detectors().load(detector)
    return detector_options(detector, cls, options.split(), None, "mini")


def climbed(file: str) -> str:
    """A row a rung, attack and model, of a file of ``membench ablate``."""
    frame = pd.read_parquet(ROOT / file)
    return "\n".join([markdown(summary(frame)), "", *(f"- {line}" for line in legend(frame))])


def swept(file: str) -> str:
    """A row a value of the options that a file of ``membench ablate`` sweeps."""
    return markdown(sweep.summary(pd.read_parquet(ROOT / file)).drop(columns="status"))


def tabulated(given: str) -> str:
    """What benchmarks/SCRIPT.py prints of its file, of "SCRIPT FILE"."""
    name, file = given.split()
    return markdown(script(name).tabulated(pd.read_parquet(ROOT / file)))


def script(name: str) -> Any:
    """The module benchmarks/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(board: str) -> str:
    """What a board is made of."""
    [found] = (of for of in everything.read() if of.board == board)
    return found.shown()


def rewritten(text: str) -> str:
    """The text with every block made anew."""
    made = {
        "commands": commands,
        "membench": printed,
        "mirrored": mirrored,
        "ladder": climbed,
        "promised": promised,
        "swept": swept,
        "table": tabulated,
    }
    return BLOCK.sub(
        lambda found: f"{found[1]}{made[found['what']](found['given'])}\n{found[4]}", text
    )


def described(file: Path) -> bool:
    """Whether the columns of a board were described otherwise; they are described now."""
    schema = pq.read_schema(file)
    by = (schema.metadata or {}).get(b"membench.by", b"").decode()
    if not by or all(
        of.metadata[b"description"].decode() == column(of.name, by).about for of in schema
    ):
        return False
    before = schema.metadata[HASH]
    write(pq.read_table(file).to_pandas(), by, file)
    assert pq.read_schema(file).metadata[HASH] == before, f"{file}: other rows than before"
    return True


if __name__ == "__main__":
    for board in sorted((ROOT / "results").rglob("*.parquet")):
        if described(board):
            print(f"{board.relative_to(ROOT)}: described anew", file=sys.stderr)
    for name in FILES:
        old = (ROOT / name).read_text(encoding="utf-8")
        new = rewritten(old)
        if new != old:
            (ROOT / name).write_text(new, encoding="utf-8")
        print(f"{name}: {'written anew' if new != old else 'as it was'}", file=sys.stderr)
