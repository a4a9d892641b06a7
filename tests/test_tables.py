"""Files that are whole or absent, and disks that misbehave."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frames import names, open_path, rows, scores, tables
from small_files import small_files

from membench.errors import UserError
from membench.storage.files import DamagedFile, write_json
from membench.storage.images import png_bytes, png_image
from membench.storage.tables import SCHEMAS, read_table, write_table

# ------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_table_round_trip(tmp_path: Path, name: str) -> None:
    frame, path = tables("a", "b")[name], tmp_path / "sub" / f"{name}.parquet"
    write_table(path, frame, name)
    assert rows(read_table(path, name)) == rows(frame[SCHEMAS[name].names])
    written = pq.read_table(path)
    assert written.schema.equals(SCHEMAS[name]) and written.schema.metadata == {
        b"schema_version": b"1"
    }
    write_table(tmp_path / "again.parquet", written, name)  # Arrow tables are taken too
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_empty_table(tmp_path: Path, name: str) -> None:
    for frame in (pd.DataFrame({c: [] for c in SCHEMAS[name].names}), tables("a")[name].iloc[:0]):
        write_table(tmp_path / "x.parquet", frame, name)
        assert len(read_table(tmp_path / "x.parquet", name)) == 0


def test_failed_row_is_null_and_infinity_stays(tmp_path: Path) -> None:
    frame = scores("a", "b", "c").assign(
        score=[np.nan, np.inf, 1.0], error=pd.Series(["bad", None, None])
    )
    write_table(tmp_path / "x.parquet", frame, "scores")
    assert pq.read_table(tmp_path / "x.parquet")["score"].null_count == 1
    back = read_table(tmp_path / "x.parquet", "scores")
    assert (
        np.isnan(back.score[0])
        and np.isinf(back.score[1])
        and back.error[0] == "bad"
        and back.error.isna()[1]
    )


def test_wrong_columns_and_nulls_are_refused(tmp_path: Path) -> None:
    for bad in (
        scores("a").drop(columns="kind"),
        scores("a").assign(extra=1),
        scores("a").assign(kind=None),
    ):
        with pytest.raises(ValueError, match=r"kind|extra"):
            write_table(tmp_path / "x.parquet", bad, "scores")
    assert names(tmp_path) == set()


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    newer = pa.Table.from_pandas(scores("a"), schema=SCHEMAS["scores"]).replace_schema_metadata(
        {"schema_version": "5"}
    )
    pq.write_table(newer, tmp_path / "x.parquet")
    with pytest.raises(
        UserError,
        match=(
            r"x\.parquet was written by a newer membench \(schema 5, this one reads 1\); update"
            r" membench"
        ),
    ):
        read_table(tmp_path / "x.parquet", "scores")


def test_a_table_without_one_of_its_columns_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", scores("a"), "scores")
    table = pq.read_table(tmp_path / "x.parquet")
    for drop in ("png_bits", "similarity", "nearest", "kind"):
        pq.write_table(table.drop_columns([drop]), tmp_path / "x.parquet")
        with pytest.raises(UserError, match=r"x\.parquet is not a scores table"):
            read_table(tmp_path / "x.parquet", "scores")


def test_another_table_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", scores("a"), "scores")
    with pytest.raises(UserError, match=r"x\.parquet is not a samples table"):
        read_table(tmp_path / "x.parquet", "samples")


@pytest.mark.parametrize("length", [0, 3, 100, -20, -1])
def test_truncated_table_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "scores.parquet"
    write_table(path, scores("a", "b"), "scores")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match=r"scores\.parquet is damaged") as error:
        read_table(path, "scores")
    assert "\n" not in str(error.value)


def test_a_flipped_byte_is_never_read_as_data(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_table(path, scores(*(f"{i:04}" for i in range(500))), "scores")
    sound, data = read_table(path, "scores"), path.read_bytes()
    told = 0
    for at in range(0, len(data), 13):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            # Some bytes, as those of statistics, carry no data
            assert read_table(path, "scores").equals(sound), at
        except UserError:
            told += 1
    assert told > 0.8 * len(data) / 13


def test_missing_table_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores\.parquet is not there; membench run makes it"):
        read_table(tmp_path / "scores.parquet", "scores")


def test_png_round_trip() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = png_bytes(image)
    assert (
        data == png_bytes(image.copy())
        and np.array_equal(png_image(data), image)
        and png_image(data).dtype == np.uint8
    )
    chunks, at = [], 8
    while at < len(data):
        chunks.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}  # no time, no text
    for bad in (image.astype(np.float32), image[..., 0], np.zeros((5, 7, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            png_bytes(bad)


# -------------------------------------------------------------------- disks that refuse


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_disk_refusal_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError) as error:
        write_json(path, {"new": 2})
    message = str(error.value)
    assert (
        str(tmp_path) in message
        and os.strerror(code) in message
        and "is kept" in message
        and "\n" not in message
    )
    assert json.loads(path.read_text()) == {"old": 1} and names(tmp_path) == {"x.json"}


def test_a_write_that_fails_half_way_leaves_the_old_table(tmp_path: Path) -> None:
    """A real short write: the process may not make files above 50 kB, as if the disk
    were full.
    """
    write_table(tmp_path / "x.parquet", scores("old"), "scores")
    noise = [np.random.default_rng(i).bytes(100).hex() for i in range(5000)]
    with small_files(50_000), pytest.raises(UserError, match="cannot write in"):
        write_table(tmp_path / "x.parquet", scores(*noise), "scores")
    assert list(read_table(tmp_path / "x.parquet", "scores").id) == ["old"] and names(tmp_path) == {
        "x.parquet"
    }


def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        done.append(open_path(descriptor).name)
        fsync(descriptor)

    def seen_replace(old: Path, new: Path) -> None:
        done.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_json(tmp_path / "x.json", {})
    assert done[0].startswith(".x.json.") and done[0].endswith(f"-{os.getpid()}.partial")
    assert done[1:] == ["replace", tmp_path.name]
