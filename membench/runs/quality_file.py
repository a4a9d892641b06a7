"""``quality.parquet`` of a finished run, read back.

Imports no torch, executes nothing of the folder and opens no connection.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from membench.metrics.names import INFO
from membench.metrics.quality import SEPARATOR
from membench.runs.finished import Run
from membench.storage.files import DamagedFile, check_own
from membench.storage.tables import TABLES, read_notes, read_table

FILE = "quality.parquet"


def read_quality(run: Run) -> pd.DataFrame:
    """Columns metric (with its features behind ``@``), value, error, n and reference; no
    rows for a run that was not asked for any.

    Raises :class:`UserError` for a file that is a link, damaged, newer, of another run or
    holds what membench does not write.
    """
    path = run.path / FILE
    check_own(path)
    if not path.exists():
        return TABLES["quality"].empty_table().to_pandas()
    frame = read_table(path, "quality")
    if (owner := read_notes(path).get("run")) != run.info["key"]:
        raise DamagedFile(
            f"{path} is a table of another run, of key {owner}; delete it and run again with"
            " --quality"
        )
    if trouble := _trouble(frame, run):
        raise DamagedFile(
            f"{path} is damaged or edited: it {trouble}; delete it and run again with --quality"
        )
    return frame


def _trouble(frame: pd.DataFrame, run: Run) -> str:
    """What is odd, in a few words; empty for a table that a run writes."""
    if frame.metric.duplicated().any():
        return "holds a metric twice"
    good = run.n_ok
    for row in frame.itertuples():
        name, _, features = row.metric.partition(SEPARATOR)
        if name not in INFO or INFO[name].board != "quality" or not features:
            return f"holds {row.metric[:60]!r}, which is no metric of quality"
        if not (np.isfinite(row.value) and INFO[name].low <= row.value <= INFO[name].high):
            return f"holds {name} out of its range"
        if not (pd.isna(row.error) or 0 <= row.error < np.inf):
            return f"holds an error of {name} that is none"
        if not (0 < row.n <= good and row.reference > 0):
            return f"counts images for {name} that the run does not have"
    return ""
