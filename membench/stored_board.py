"""Leaderboards that were written as Parquet, read back: ``membench leaderboard --runs results/leaderboard.parquet``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from membench.comparison import BOARD
from membench.errors import UserError
from membench.printing import COPIES, DETECTION

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
    if not path.is_file():
        raise UserError(f"{path} is not there; make it: membench leaderboard --seeds --format parquet --out {path}")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise UserError(f"{path} is damaged or no Parquet ({' '.join(str(error).split())[:120]}); make it again") from None
    if missing := sorted((COLUMNS if "seeds" in frame else COLUMNS | OF_RUNS) - set(frame)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{path} is no leaderboard of this membench: it has no column {', '.join(missing[:3])}{more}")
    return frame
