"""Leaderboards that were written as Parquet, read back: ``membench leaderboard --runs results/leaderboard.parquet``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from membench.boards.identity import BOARD
from membench.errors import UserError
from membench.metrics.names import COPIES, DETECTION

_ENDS = ("", "_low", "_high")


_INTERVALS = (*DETECTION, *COPIES, "control_auroc", "excess_ams", "excess_ums")


_COSTS = ("forwards_per_example", "jvps_per_example", "n_g", "seconds", "sees", "commit", "scored", "of", "extract_only", "negatives")


# What the tables show, of any leaderboard and of one with a row a run.
COLUMNS = {*BOARD, "detector", "options", "status", *(f"{name}{end}" for name in _INTERVALS for end in _ENDS), *_COSTS}


OF_RUNS = {
    *("seed", "n_ok", "unique_copies", "control_ams", "control_ums", "control_command", "best_p50", "best_p95", "settings"),
    *("equal_n", "copied_at_equal_n", "equal_cost", "copied_at_equal_cost", "equal_cost_capped", "unique_per_1000_evaluations"),
    *("forwards_per_image", "prepare_forwards", "backwards", "jvps", "surrogate_forwards", "surrogate_backwards"),
    *("decodes_per_example", "encodes_per_example", *(f"chao1_estimate{end}" for end in _ENDS)),
}


def read_board(path: Path) -> pd.DataFrame:
    """A leaderboard of ``--format parquet``. Raises :class:`UserError` for a file that is missing, damaged or none."""
    frame = read_parquet(path, "membench leaderboard --seeds --format parquet --out")
    if missing := sorted((COLUMNS if "seeds" in frame else COLUMNS | OF_RUNS) - set(frame)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{path} is not a leaderboard of this membench: it has no column {', '.join(missing[:3])}{more}")
    if frame.empty:
        raise UserError(f"{path} is a leaderboard without rows; make it again")
    for name in frame:
        if trouble := _trouble(name, frame[name]):
            raise UserError(f"{path} is damaged or edited: its column {name} {trouble}; make it again")
    return frame.assign(**{name: frame[name].astype(float) for name in frame if _kind(name) == "real" and frame[name].isna().all()})


def read_parquet(path: Path, command: str) -> pd.DataFrame:
    """A Parquet file's columns as they are, whatever pandas has noted beside them. command: what makes it.

    Raises :class:`UserError` for a file that is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; make it: {command} {path}")
    try:
        return pq.ParquetFile(path).read().to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged or not Parquet ({' '.join(str(error).split())[:120]}); make it again") from None


TEXT = ("task", "profile", "data", "prompts", "examples", "weights", "dtype", "space", "detector", "options", "status", "sees", "commit")


TEXT_OR_NONE = (
    *("settings", "space_id", "model", "data_name", "resolved", "bands", "pair", "pair_settings", "captions_by", "seed_list", "run"),
    *("control_weights", "control_status", "control_command", "kind", "source", "reported_source"),
)


FLAGS = ("control", "extract_only", "dirty", "equal_cost_capped", "deterministic")


WHOLE = ("task_version", "seeds", "seed", "of")


def _kind(name: str) -> str:
    if name in TEXT or name in TEXT_OR_NONE:
        return "text"
    return "flag" if name in FLAGS else "whole" if name in WHOLE else "real"


def _trouble(name: str, column: pd.Series) -> str:
    """What is odd about a column, in a few words; empty for one of the type that a leaderboard has."""
    missing, kind = column.isna(), _kind(name)
    if kind == "text":
        texts = column[~missing].map(lambda cell: isinstance(cell, str)).all()
        return "" if texts and not (name in TEXT and missing.any()) else "holds something other than text"
    if kind == "flag":
        return "" if pd.api.types.is_bool_dtype(column.dtype) and not missing.any() else "holds something other than true and false"
    if kind == "whole":
        fits = pd.api.types.is_integer_dtype(column.dtype) and not missing.any() and column.ge(0).all()
        return "" if fits else "holds something other than whole numbers"
    numbers = (pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)) or missing.all()
    return "" if numbers else "holds something other than numbers"
