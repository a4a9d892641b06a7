"""The memory of a run does not grow with the bytes of its images, and what is stored does
not depend on how it was held.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frames import samples, scores
from pandas.testing import assert_frame_equal
from scripts import script

import membench
from membench import api
from membench.reports import examples
from membench.runs import images, matching
from membench.runs.folder import RunFolder
from membench.runs.images import Samples, stored_images
from membench.runs.shards import SHARD
from membench.storage.files import DamagedFile
from membench.storage.streams import check_pages

memory = script("benchmarks/memory.py")

N = 12 * SHARD


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little room that images of a test are many."""
    monkeypatch.setattr(images, "MEMORY", 100_000)
    monkeypatch.setattr(images, "GROUP_BYTES", 100_000)
    monkeypatch.setattr(matching, "DECODED", 32)


def made(root: Path, monkeypatch: pytest.MonkeyPatch, side: int, n: int = N) -> tuple[int, int]:
    """A run of n images: the most that Python held while it was made and read, and the
    bytes of its images.
    """
    monkeypatch.setattr(memory, "IMAGES", n)
    monkeypatch.setattr(memory, "SIDE", side)
    monkeypatch.setattr(api, "write_pages", lambda runs: None)
    gc.collect()
    tracemalloc.start()
    try:
        run = membench.run(memory.Noise, memory.StandIn, out=root, batch_size=64, progress=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sizes = [len(png) for png in run.images(run.samples.sample_id).values()]
    assert len(sizes) == n and len(run.scores) == n // memory.DRAWS
    return peak, sum(sizes)


def test_a_runs_memory_does_not_grow_with_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little: None
) -> None:
    # Noise of fewer pixels is near to more training images: its matches would take more
    # than the images of the large run
    made(tmp_path / "imports", monkeypatch, 16, SHARD)
    small, few = made(tmp_path / "small", monkeypatch, 16)
    large, many = made(tmp_path / "large", monkeypatch, 48)
    # A shard of them, decoded and as PNG, and not all twelve
    assert large - small < 0.4 * (many - few), f"{large - small:,} for {many - few:,}"


def test_a_page_of_examples_holds_those_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_ROWS", 50)
    monkeypatch.setattr(examples, "MOST_THUMBS", 0)
    ids = [f"{i:04d}" for i in range(3000)]
    known = scores(*ids)
    run = SimpleNamespace(scores=known, scored=known, space=memory.StandIn.info.space)
    frame = pd.DataFrame({"condition": ids, "sample_id": ids, "training_id": "t", "folder": ""})
    frame = frame.assign(similarity=np.linspace(0, 1, 3000), copied=False)
    examples.examples(run, frame, {})  # imports
    tracemalloc.start()
    try:
        page = examples.examples(run, frame, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page.rows) == 50 and page.rows[7][5].text == f"{frame.similarity[2992]:.3f}"
    assert "50 of 3,000 examples" in page.note
    assert peak < 6_000_000, f"{peak:,}"  # of a frame each: 33 MB


def test_examples_without_images_take_no_room_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored examples of which none was extracted, before the one that was."""
    monkeypatch.setattr(examples, "MOST_THUMBS", 3)
    monkeypatch.setattr(examples, "extracted", lambda frame, side: list(frame.sample_id))
    ids = [f"{i:04d}" for i in range(10)]
    known = scores(*ids)
    run = SimpleNamespace(scores=known, scored=known, space=memory.StandIn.info.space)
    last = run.scores.sort_values("score").id.iloc[0]
    drawn = {"condition": [last], "sample_id": "a", "training_id": "t", "folder": ""}
    page = examples.examples(run, pd.DataFrame(drawn).assign(similarity=0.5, copied=False), {})
    assert page.rows[-1][7].images == [("a", "generated")]
    assert "further down" not in page.note


def noisy(n: int) -> pd.DataFrame:
    """Rows whose images take about 1 kB each and tell them apart."""
    rng = np.random.default_rng(0)
    frame = samples(*(f"{i:03d}/0" for i in rng.permutation(n)))
    return frame.assign(image=[rng.bytes(int(k)) for k in rng.integers(500, 1500, n)])


def stored(root: Path, parts: list[pd.DataFrame]) -> Path:
    """samples.parquet of a run whose shards are these, written from the last to the
    first.
    """
    with RunFolder.open(root, "t", "mini", "d", "0" * 16, {}) as folder:
        for i, part in reversed(list(enumerate(parts))):
            folder.write_shard("samples", 99_990 + i, part)
        read = folder.read_samples()
        assert read.rows.sample_id.tolist() == pd.concat(parts).sample_id.tolist()
        folder.finish({}, read, {"status": "complete"})
        return folder.path / "samples.parquet"


def test_what_is_stored_depends_on_no_shard_and_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = noisy(300)
    monkeypatch.setattr(images, "GROUP_BYTES", 20_000)
    whole = stored(tmp_path / "whole", [frame])
    table = pq.read_table(whole)
    expected = frame.sort_values("sample_id")
    assert table["sample_id"].to_pylist() == expected.sample_id.tolist()
    assert table["image"].to_pylist() == expected.image.tolist()
    sizes = [pq.ParquetFile(whole).metadata.row_group(i).num_rows for i in range(3)]
    assert all(10 < size < 41 for size in sizes)
    monkeypatch.setattr(images, "MEMORY", 5_000)
    parts = [frame[i : i + 17] for i in range(0, 300, 17)]
    assert stored(tmp_path / "parts", parts).read_bytes() == whole.read_bytes()
    assert not list(tmp_path.rglob("tmp*"))  # what was held on disk


def test_rows_of_many_shards_are_in_one_piece() -> None:
    """A row of thousands of pieces is found by a search of all: scoring was quadratic."""
    frame = noisy(60)
    frame["prompt"] = [None, *(f"prompt {i}" for i in range(59))]
    parts = [frame[i : i + 7] for i in range(0, 60, 7)]
    held = Samples.of(parts).rows
    assert_frame_equal(held, frame.drop(columns="image")[held.columns], check_dtype=False)
    table = pa.Table.from_pandas(held)
    assert {table[name].num_chunks for name in ("sample_id", "condition", "prompt")} == {1}


def test_images_that_nobody_asks_for_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "GROUP_BYTES", 20_000)
    frame = noisy(300).sort_values("sample_id", ignore_index=True)
    path = stored(tmp_path, [frame])
    column = pq.ParquetFile(path).metadata.row_group(0).column(frame.columns.get_loc("image"))
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    last = frame.iloc[[299, 250]]
    asked = dict(stored_images(path.parent, last.sample_id))
    assert asked == dict(zip(last.sample_id, last.image, strict=True))
    for read in (
        lambda: list(stored_images(path.parent, frame.sample_id[:1])),
        lambda: check_pages(path, "samples", "image"),
    ):
        with pytest.raises(DamagedFile, match=r"samples\.parquet is damaged"):
            read()


def test_reading_holds_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "GROUP_BYTES", 200_000)
    frame = noisy(80)
    rng = np.random.default_rng(1)
    path = stored(tmp_path, [frame.assign(image=[rng.bytes(50_000) for _ in range(80)])])
    held: list[int] = []  # by Arrow, which tracemalloc does not see
    before = pa.total_allocated_bytes()
    plain = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, *args: object, **given: object) -> Iterator[object]:
        for batch in plain(file, *args, **given):
            held.append(pa.total_allocated_bytes() - before)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    check_pages(path, "samples", "image")
    assert len(held) >= 16 and max(held) < 1_500_000, held
    assert len(dict(stored_images(path.parent, frame.sample_id))) == 80
    assert max(held) < 1_500_000, held


def test_an_image_that_is_not_there_stays_so(tmp_path: Path) -> None:
    frame = noisy(3)
    frame["image"] = [None, *frame.image[1:]]
    held = Samples.of([frame[:2], frame[2:]])
    assert len(held.images) == 3 and held.images[0] == b""
    [table] = held.groups()
    assert table["image"].null_count == 1
    path = stored(tmp_path, [frame])
    assert len(dict(stored_images(path.parent, frame.sample_id))) == 2
