"""Finished runs, read back from their folders.

Imports no torch: tables and reports are made anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench.errors import UserError, reason
from membench.metrics.table import owners
from membench.runs.check import check_tables
from membench.runs.check_info import check_info
from membench.runs.images import stored_images
from membench.runs.stored import read_info, read_run
from membench.storage.files import DamagedFile
from membench.storage.hashing import content_key
from membench.types import Band, Space

# What tables show of a score's cost
PER_EXAMPLE = {"forwards": "fwd/ex", "jvps": "jvp/ex", "decodes": "dec/ex", "encodes": "enc/ex"}


def spent(run: Run, what: str, *phases: str) -> int:
    """A cost of the phases named, or of all; what an older run did not count is 0."""
    return sum(
        int(cost.get(what, 0))
        for phase, cost in run.info["phases"].items()
        if not phases or phase in phases
    )


def evaluations(run: Run, *phases: str) -> int:
    """Passes over the target network: a Jacobian-vector product in forward mode is one,
    as a forward is.
    """
    return spent(run, "forwards", *phases) + spent(run, "jvps", *phases)


def per_example(run: Run, what: str) -> float:
    """What a score took of a cost; all that the run took, where a detector scores by
    its images, and what it took to learn, or to see its reference prompts. NaN for a
    run without scores.
    """
    access = run.info["access"]
    phases = ["scores"]
    if access["images"]:
        phases += ["prepare", "samples"]
    elif access["labels"] or access.get("references"):
        phases += ["prepare"]
    return spent(run, what, *phases) / len(run.scores) if len(run.scores) else float("nan")


def evaluations_per_example(run: Run) -> float:
    """Forwards and Jacobian-vector products of a score (:func:`per_example`)."""
    return per_example(run, "forwards") + per_example(run, "jvps")


MAKE_ONE = "Make one: membench run --detector cfg_norm --task sd_webster"
TABLES = ("scores", "samples", "matches", "metrics")
METRIC = ["metric", "band", "threshold", "subset", "n"]  # what a value of metrics.parquet is of

# How far two machines' similarities of one image may lie apart: rounding moves a pixel
# by one grey level
GREY_LEVEL = 0.01


@dataclass(frozen=True)
class Run:
    """A finished run, for notebooks: ``run.json`` as a dict and the four tables as
    pandas frames; the images stay on disk (:meth:`images`).
    """

    path: Path
    info: dict[str, Any]
    scores: pd.DataFrame
    samples: pd.DataFrame
    matches: pd.DataFrame
    metrics: pd.DataFrame
    # The training images that its report shows (runs.nearest.nearest_table); None: not read
    nearest: pd.DataFrame | None = None

    @property
    def space(self) -> Space:
        """How generated and training images were compared."""
        space = self.info["space"]
        return Space(**{**space, "bands": tuple(Band(**band) for band in space["bands"])})

    @property
    def scored(self) -> pd.DataFrame:
        """The scores that did not fail."""
        return self.scores[(self.scores.status == "ok") & self.scores.score.notna()]

    @property
    def drawn(self) -> pd.DataFrame:
        """The images that did not fail."""
        return self.samples[self.samples.status == "ok"]

    @property
    def overall(self) -> pd.DataFrame:
        """The metrics over all examples, of no band."""
        return self.metrics[(self.metrics.subset == "all") & self.metrics.band.isna()]

    @property
    def n_ok(self) -> int:
        """How many images did not fail."""
        return len(self.drawn)

    def images(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The PNG bytes of extracted images, by sample_id; one that the run has not stored
        is left out. Raises :class:`UserError` for a file that is missing or damaged.
        """
        return dict(stored_images(self.path, ids))

    def found(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(images that did not fail, their matches), the matches with ``generated``:
        the row of the image, 0 .. n - 1.
        """
        good = self.drawn.reset_index(drop=True)
        at = pd.Index(good.sample_id.astype(object)).get_indexer(
            self.matches.sample_id.astype(object)
        )
        return good, self.matches.assign(generated=at.astype(np.int32))[at >= 0]

    @property
    def examples(self) -> pd.DataFrame:
        """Columns id, group and kind of the examples: as the scores say or, of a run without
        any, its run.json.
        """
        columns = ["id", "group", "kind"]
        if len(self.scores):
            return self.scores[columns]
        given = self.info.get("owners", {})
        return pd.DataFrame([(name, *of) for name, of in given.items()], columns=columns)

    def groups(self, images: pd.DataFrame) -> np.ndarray:
        """The group of each row of ``samples``: of its prompt; an image of no example is
        its own.
        """
        return owners(images, self.examples)[0].to_numpy()


@dataclass(frozen=True)
class Found:
    """Runs, and a line for each folder that could not be read."""

    runs: list[Run]
    problems: list[str]


def load(path: Path, *, verified: bool = True) -> Run:
    """The tables of a run folder. verified: its images are read, so that damage to them
    shows, and not kept.

    Raises :class:`UserError` for a damaged or newer one, and for one that is not of one
    piece (``check``).
    """
    info = read_info(path)
    with _in_words(path):
        check_info(info, content_key)
    info, frames = read_run(path, TABLES, verified=verified)
    info = _as_text(info)
    run = Run(path, info, **{name: frames[name] for name in TABLES})
    with _in_words(path):
        check_tables(info, frames, run.space)
    return run


def _as_text(value: Any) -> Any:
    """A JSON value whose texts UTF-8 can hold: half a surrogate pair, as of a file name
    that is no text, becomes its escape.
    """
    if isinstance(value, dict):
        return {_as_text(name): _as_text(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_as_text(of) for of in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DamagedFile(
            f"{path} is damaged or edited: {error}; delete it and run again"
        ) from None


def read_runs(roots: Path | Sequence[Path], *, verified: bool = False) -> Found:
    """Every finished run under the folders, in order of path; one that stands there
    twice counts once.

    A folder that is damaged or edited, lacks a table, is of a newer schema or is
    reached by a link is left out and named; one whose run has not ended is left out.
    Two of one key with different numbers are both left out: a key names all that changes
    the output, so one of them is a changed file, or there is a bug. verified: of
    :func:`load`. Raises :class:`UserError` where there is no run at all.
    """
    roots = [roots] if isinstance(roots, Path) else list(roots)
    runs: dict[str, Run] = {}
    problems, unsure = [], set()
    for top, folder in [(root, folder) for root in roots for folder in _folders(root)]:
        try:
            if folder.resolve() != top.resolve() / folder.relative_to(top):
                raise UserError(
                    f"{folder} is reached by a link, which is not followed; name the folder that it"
                    " leads to by --runs"
                )
            if read_info(folder).get("status") == "running":
                continue
            run = load(folder, verified=verified)
        except UserError as error:
            problems.append(str(error))
            continue
        key = run.info["key"]
        if where := difference(runs[key], run) if key in runs else "":
            problems.append(
                f"{runs[key].path} and {run.path} are one run (key {key}) with different numbers"
                f" ({where}): a bug in membench or a changed file, please report it; neither is"
                " shown until one of them is moved away"
            )
            unsure.add(key)
        runs.setdefault(key, run)
    for key in unsure:
        del runs[key]
    if not runs and not problems:
        where = ", ".join(map(str, roots))
        raise UserError(f"no finished runs under {where}. {MAKE_ONE}")
    return Found(list(runs.values()), problems)


def _folders(root: Path) -> list[Path]:
    try:
        # TASK/PROFILE/DETECTOR/KEY; else part of such a folder, down to one run's own
        for depth in (4, 3, 2, 1, 0):
            if found := sorted(root.glob("*/" * depth + "run.json")):
                return [path.parent for path in found]
        return []
    except (OSError, ValueError) as error:  # what changes meanwhile; a NUL in a name
        raise UserError(f"cannot read {root}: {reason(error)}") from None


def difference(a: Run, b: Run) -> str:
    """Where two runs first differ in what they found, in a few words; empty where they
    do not.

    Scores and confidences count as equal within 1e-3 of each other's size, and best
    similarities within GREY_LEVEL: kernels of another machine round otherwise, and one
    pixel that falls on the other side of the threshold of ``edge`` is 1.3e-4 of a
    score. Metrics are compared where all of these are the same bits, of which they are
    functions; those that one of the runs lacks are left out, since a later membench may
    have more.
    """
    same = True
    for name, key, column, tolerance in (
        ("scores", "id", "score", 1e-6),
        ("samples", "sample_id", "confidence", 1e-6),
        ("matches", "sample_id", "similarity", GREY_LEVEL),
    ):
        one, other = (_numbers(run, name, key, column) for run in (a, b))
        if set(one.index) != set(other.index):
            return f"{name} of other {'examples' if name == 'scores' else 'images'}"
        other = other[one.index]
        if where := _apart(one, other, 0.0 if name == "matches" else 1e-3, tolerance):
            return f"{column} of {where}"
        same = same and bool(np.array_equal(one, other, equal_nan=True))
    if not same:
        return ""
    one, other = (_metrics(run) for run in (a, b))
    common = one.index.intersection(other.index)
    return _apart(one[common], other[common], 1e-9, 1e-12)


def _numbers(run: Run, name: str, key: str, column: str) -> pd.Series:
    frame = getattr(run, name)
    if name == "matches":
        frame = frame[frame["rank"] == 0]
    return frame.set_index(key)[column].astype(float)


def _metrics(run: Run) -> pd.Series:
    """The values by what they are of, such as ``ams high all 804``."""
    names = [
        " ".join(str(x) for x in row if not pd.isna(x))
        for row in run.metrics[METRIC].itertuples(index=False)
    ]
    return run.metrics.value.astype(float).set_axis(names)


def _apart(one: pd.Series, other: pd.Series, rtol: float, atol: float) -> str:
    """``name: 0.5 and 0.7`` of the first pair of numbers that differ; empty where none
    do.
    """
    apart = ~np.isclose(one, other, rtol=rtol, atol=atol, equal_nan=True)
    return (
        f"{one.index[apart][0]}: {one[apart].iloc[0]:.6g} and {other[apart].iloc[0]:.6g}"
        if apart.any()
        else ""
    )
