"""Leaderboards that were written as Parquet, read back: ``membench leaderboard --runs
BOARD.parquet``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from membench.boards.captions import COLUMNS as OF_CAPTIONS
from membench.boards.columns import column, to_arrow
from membench.boards.identity import BOARD
from membench.boards.views import TABLES, Column
from membench.errors import UserError
from membench.metrics.names import COPIES, DETECTION
from membench.storage.files import atomic_write
from membench.storage.hashing import table_hash
from membench.storage.tables import PARQUET_ERRORS, WRITTEN

# Boards that are read as they were written, and what they are of
PAIRS = {"mirror": "of mirror pairs", "worlds": "of several worlds"}

HASH = b"membench.hash"  # of a file's rows, in its metadata
_ENDS = ("", "_low", "_high")
_INTERVALS = (*DETECTION, *COPIES, "control_auroc", "excess_ams", "excess_ums")

_COSTS = (
    "forwards_per_example",
    "jvps_per_example",
    "n_g",
    "seconds",
    "sees",
    "commit",
    "scored",
    "of",
    "extract_only",
    "negatives",
)

# What the tables show, of any leaderboard and of one with a row a run.
COLUMNS = {
    *BOARD,
    "detector",
    "options",
    "status",
    *(f"{name}{end}" for name in _INTERVALS for end in _ENDS),
    *_COSTS,
}

OF_RUNS = {
    *(
        "seed",
        "n_ok",
        "unique_copies",
        "control_ams",
        "control_ums",
        "control_command",
        "best_p50",
        "best_p95",
        "settings",
    ),
    *(
        "equal_n",
        "copied_at_equal_n",
        "equal_cost",
        "copied_at_equal_cost",
        "equal_cost_capped",
        "unique_per_1000_evaluations",
    ),
    *(
        "forwards_per_image",
        "prepare_forwards",
        "backwards",
        "jvps",
        "surrogate_forwards",
        "surrogate_backwards",
    ),
    *("decodes_per_example", "encodes_per_example", *(f"chao1_estimate{end}" for end in _ENDS)),
}

_DIFFERENCE = ("difference", "low", "high", "p", "p_holm")
OF_DIFFERENCES = (*BOARD, "metric", "a", "a_options", "b", "b_options", *_DIFFERENCE, "n", "seeds")


def read_board(path: Path) -> pd.DataFrame:
    """A leaderboard of ``--format parquet``.

    Raises :class:`UserError` for a file that is missing, damaged or none.
    """
    frame = read_parquet(path, "membench leaderboard --by seeds --format parquet --output")
    needed = COLUMNS if "seeds" in frame else COLUMNS | OF_RUNS
    if set(OF_CAPTIONS) & set(frame):  # they come together
        needed = {*needed, *OF_CAPTIONS}
    if missing := sorted(needed - set(frame)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"{path} is not a leaderboard of this membench: it has no column"
            f" {', '.join(missing[:3])}{more}"
        )
    if frame.empty:
        raise UserError(f"{path} is a leaderboard without rows; make it again")
    known = {name: of for name in frame if (of := _known(name)) is not None}
    for name, of in known.items():
        if trouble := _trouble(of, frame[name]):
            raise UserError(
                f"{path} is damaged or edited: its column {name} {trouble}; make it again"
            )
    unset = [
        name
        for name, of in known.items()
        if of.kind in ("real", "count") and frame[name].isna().all()
    ]
    return frame.astype(dict.fromkeys(unset, float))


def read_attacks(path: Path) -> pd.DataFrame:
    """A board of attacks that was written as Parquet.

    Raises :class:`UserError` as :func:`read_board`, and for a board of detectors.
    """
    frame = read_board(path)
    if (pq.read_schema(path.absolute()).metadata or {}).get(b"membench.by") != b"attack":
        raise UserError(
            f"{path} is not a board of attacks; make it by membench leaderboard --by attack"
            " --format parquet --output FILE"
        )
    return frame


def write(frame: pd.DataFrame, by: str, path: Path) -> None:
    """Writes a board's rows as Parquet, a description with every column and the rows'
    hash, whole or not at all. Raises :class:`UserError`.
    """
    table = to_arrow(frame, by)
    notes = {**table.schema.metadata, HASH: table_hash(table).encode()}
    table = table.replace_schema_metadata(notes)
    atomic_write(path, lambda temporary: pq.write_table(table, temporary, **WRITTEN))


def _known(name: str) -> Column | None:
    """What a column of a stored file holds; None for one of another membench, which is
    not shown.
    """
    try:
        return column(name)
    except KeyError:
        return None


def read_parquet(path: Path, command: str) -> pd.DataFrame:
    """A Parquet file's columns as they are, whatever pandas has noted beside them.
    command: what makes it.

    Raises :class:`UserError` for a file that is missing or damaged, and for one of
    :func:`write` whose rows are not those that were written. A frame that somebody has
    stored by pandas says nothing of its rows, and is taken as it is.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; make it: {command} {path}")
    try:
        table = pq.ParquetFile(path.absolute(), page_checksum_verification=True).read()
        table.validate(full=True)
        frame = table.to_pandas(ignore_metadata=True)
    except PARQUET_ERRORS as error:
        raise UserError(
            f"{path} is damaged or not Parquet ({' '.join(str(error).split())[:120]}); make it"
            " again"
        ) from None
    notes = table.schema.metadata or {}
    if any(key.startswith(b"membench") for key in notes) and (
        notes.get(HASH) != table_hash(table).encode()
    ):
        raise UserError(
            f"{path} is damaged or edited: its rows are not those that were written; make it again"
        )
    return frame


def read_differences(
    path: Path, tasks: Sequence[str] | None = None, detectors: Sequence[str] | None = None
) -> pd.DataFrame:
    """Differences that were written as Parquet; tasks, detectors: only of these.

    Raises :class:`UserError` for a file that is missing, damaged or of another table.
    """
    frame = read_parquet(path, "membench leaderboard --by difference --format parquet --output")
    if missing := [name for name in OF_DIFFERENCES if name not in frame]:
        raise UserError(
            f"{path} holds no differences of this membench: it has no column {missing[0]}"
        )
    texts = frame[["task", "metric", "a", "a_options", "b", "b_options"]]
    odd = [
        name for name in _DIFFERENCE if frame[name].dtype.kind != "f" or frame[name].isna().any()
    ]
    odd += [name for name in texts if not texts[name].map(lambda cell: isinstance(cell, str)).all()]
    odd += [
        name for name in ("p", "p_holm") if name not in odd and not frame[name].between(0, 1).all()
    ]
    if odd or frame.empty or not pd.api.types.is_bool_dtype(frame.control.dtype):
        raise UserError(
            f"{path} is damaged or edited: its column {[*odd, 'control'][0]} holds what no"
            " difference has; make it again"
        )
    for what, asked, columns in (("task", tasks, ["task"]), ("detector", detectors, ["a", "b"])):
        there = set(frame[columns].to_numpy().ravel())
        if unknown := [name for name in asked or () if name not in there]:
            raise UserError(f"--{what} {unknown[0]}: there is no difference of it in {path}")
        for which in columns if asked is not None else ():
            frame = frame[frame[which].isin(asked)]
    if frame.empty:
        raise UserError(f"{path} holds no difference of those")
    return frame


def read_pairs(path: Path, by: str) -> pd.DataFrame:
    """A board of mirror pairs that was written as Parquet; by: one of PAIRS.

    Raises :class:`UserError` for a file that is missing, damaged or of another table.
    """
    columns = TABLES[by]
    frame = read_parquet(path, f"membench leaderboard --by {by} --format parquet --output")
    if missing := [name for name in columns if name not in frame]:
        raise UserError(f"{path} is not a board {PAIRS[by]}: it has no column {missing[0]}")
    for name, of in columns.items():
        if trouble := _trouble(of, frame[name]):
            raise UserError(
                f"{path} is damaged or edited: its column {name} {trouble}; make it again"
            )
    if frame.empty:
        raise UserError(f"{path} is a board without rows; make it again")
    return frame


def _trouble(of: Column, column: pd.Series) -> str:
    """What is odd about a column, in a few words; empty for one of the type that a
    leaderboard has.
    """
    missing = column.isna()
    if of.kind == "text":
        texts = column[~missing].map(lambda cell: isinstance(cell, str)).all()
        return (
            "" if texts and (of.empty or not missing.any()) else "holds something other than text"
        )
    if of.kind == "flag":
        return (
            ""
            if pd.api.types.is_bool_dtype(column.dtype) and not missing.any()
            else "holds something other than true and false"
        )
    if of.kind == "whole":
        fits = (
            pd.api.types.is_integer_dtype(column.dtype) and not missing.any() and column.ge(0).all()
        )
        return "" if fits else "holds something other than whole numbers"
    numbers = (
        pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    ) or missing.all()
    return "" if numbers else "holds something other than numbers"
