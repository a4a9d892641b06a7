"""Every column of a leaderboard has a type and a description, which the Parquet file
and docs/columns.md hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from boards import COPIED, make
from conftest import ROOT

from membench.boards import published_table
from membench.boards.board import By, board
from membench.boards.columns import column, document, to_arrow
from membench.boards.other_tables import RUN_COLUMNS, TUNED
from membench.boards.other_tables import SWEPT as SWEPT_COLUMNS
from membench.boards.saved import write
from membench.boards.tuned import collect_tries
from membench.boards.views import BOARD_COLUMNS, TABLES
from membench.metrics.names import COPIES, DETECTION, INFO, METRICS, NUMBERS, RARE, SWEPT
from membench.runs.finished import Run, read_runs
from membench.runs.spec import Spec
from membench.runs.sweep import COLUMNS as SWEEP
from membench.runs.tuning import Try
from membench.storage.tables import SCHEMAS
from membench.storage.tables import TABLES as RUN_TABLES

TYPES = {"text": pa.string(), "flag": pa.bool_(), "whole": pa.int64(), "real": pa.float64()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("made") / "runs"
    for seed in range(2):
        make(root, COPIED, seed=seed)
        make(root, [0] * 8, detector="side", seed=seed, options=("k=2",))
    make(root, [None] * 8, control=True)
    make(root, [0, 1], detector="alone", scored=False)
    return read_runs(root).runs


@pytest.mark.parametrize(
    "by", [by for by in get_args(By) if by not in ("published", "mirror", "worlds")]
)
def test_each_column_is_described(runs: list[Run], tmp_path: Path, by: By) -> None:
    frame = board(runs, by).frame
    write(frame, by, tmp_path / "board.parquet")
    schema = pq.read_schema(tmp_path / "board.parquet")
    assert schema.names == list(frame) and schema.metadata[b"membench.by"].decode() == by
    for field in schema:
        of = column(field.name, by)
        assert field.metadata[b"description"].decode() == of.about and len(of.about) > 3
        assert field.metadata.get(b"unit", b"").decode() == of.unit
        assert field.type == TYPES.get(of.kind, field.type) and field.type in TYPES.values()
    found = pq.ParquetFile(tmp_path / "board.parquet").read().to_pandas()
    for name in frame:
        missing = frame[name].isna()
        assert (
            found[name].isna().tolist() == missing.tolist()
            and found[name][~missing].tolist() == frame[name][~missing].tolist()
        )


def test_the_table_of_published_numbers_is_described() -> None:
    frame = published_table.published_table(
        published_table.read(ROOT / "results" / "published.csv"), None
    )
    table = to_arrow(frame, "published")
    assert table.num_rows == len(frame) > 10 and all(
        field.metadata[b"description"] for field in table.schema
    )


STORED = [
    p
    for p in sorted((ROOT / "results").rglob("*.parquet"))
    if b"membench.by" in (pq.read_schema(p).metadata or {})
]


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_the_tables_of_the_repository_are_described(path: Path) -> None:
    assert len(STORED) >= 6
    schema = pq.read_schema(path)
    by = schema.metadata[b"membench.by"].decode()
    assert all(
        field.metadata[b"description"].decode() == column(field.name, by).about for field in schema
    )


def test_a_column_that_nothing_describes_is_refused(runs: list[Run], tmp_path: Path) -> None:
    frame = board(runs, "seeds").frame
    for name in ("new_number", "ams_seed", "reported_new_number", "band"):
        with pytest.raises(KeyError, match=name.removeprefix("reported_")):
            write(frame.assign(**{name: 1.0}), "seeds", tmp_path / "board.parquet")
    assert not (tmp_path / "board.parquet").exists()
    odd = frame.assign(ams_in_near=0.5, reported_auroc=np.nan, reported_ams_in_near=0.5)
    fields = to_arrow(odd, "seeds").schema
    assert fields.field("ams_in_near").metadata == {
        b"description": b"AMS in the band near",
        b"unit": b"share",
    }
    assert fields.field("reported_auroc").metadata == {
        b"description": b"published auroc of the same setting"
    }


def test_a_new_metric_is_in_the_table_by_itself() -> None:
    """All that the leaderboard shows of a metric comes from METRICS."""
    for name in (*DETECTION, *RARE, *COPIES, *NUMBERS):
        for end in ("", "_low", "_high", "_seeds"):
            assert f"{name}{end}" in BOARD_COLUMNS
    assert len({m.name for m in METRICS}) == len(METRICS) and all(m.low < m.high for m in METRICS)


def test_every_metric_of_a_run_is_known_and_in_its_range(runs: list[Run]) -> None:
    for run in runs:
        for row in run.metrics.itertuples():
            info = INFO[row.metric]
            assert pd.isna(row.value) or info.low <= row.value <= info.high, row
    assert {"ams", "ums_cumulative", "best_p50", "auroc", "tpr_at_fpr_0.01"} < set(SWEPT)
    assert not {"rarefaction", "chao1_estimate", "precision_at_10", "balanced_accuracy"} & set(
        SWEPT
    )


def test_the_document_is_made_from_the_table() -> None:
    text = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8")
    assert text == "\n".join(document()) + "\n", (
        "python -m membench.boards.columns > docs/columns.md"
    )
    assert all(f"| `{name}` |" in text for columns in TABLES.values() for name in columns)


def test_tables_that_are_no_boards_have_their_columns_described() -> None:
    """Each in the order of its file."""
    assert set(RUN_COLUMNS) == {*SCHEMAS, "nearest", "quality"}
    for name, (_, about) in RUN_COLUMNS.items():
        assert list(about) == RUN_TABLES[name].names
    assert list(SWEPT_COLUMNS) == [*SWEEP]
    refused = Try(Spec("loss", "cifar10"), 0, (), refused="too large")
    assert list(TUNED) == list(collect_tries([refused]).columns)


def test_percentiles_are_of_the_value_as_it_is():
    """Of a distance a high percentile is far: there is no order of its own."""
    for q in (50, 75, 90, 95, 99):
        assert INFO[f"best_p{q}"].about.endswith("as it is: of a distance, a high one is far")


SHIPPED = sorted((ROOT / "results").rglob("*.parquet"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_boards_describe_their_columns_as_the_code_does(file):
    schema = pq.read_schema(file)
    if (by := (schema.metadata or {}).get(b"membench.by")) is None:
        return
    for field in schema:
        told = (field.metadata or {}).get(b"description", b"").decode()
        try:
            wanted = column(field.name, by.decode()).about
        except KeyError:
            continue
        assert told == wanted, field.name
