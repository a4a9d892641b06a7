"""Images that are compared in blocks: the numbers of all at once, in bounded memory."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from membench.detectors.random_sampling import RandomSampling
from membench.detectors.side import Side
from membench.errors import UserError
from membench.runs.images import Extracted, Samples
from membench.runs.shards import sample_rows
from membench.similarity import search
from membench.similarity.l2 import tiled_l2_between
from membench.similarity.squares import squared_distances
from membench.storage import pixels
from membench.storage.pixels import Chosen, Pixels
from membench.types import Condition, Sample

SAMPLING = {"steps": 2, "guidance": 1.0, "examples": "images"}
DETECTORS: dict[str, Callable[[], RandomSampling | Side]] = {
    "random": lambda: RandomSampling(
        RandomSampling.Options(threshold=0.47), seed=0, sampling=SAMPLING
    ),
    "side": lambda: Side(Side.Options(neighbours=7), seed=0, sampling=SAMPLING),
}


def noise(seed: int, n: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """So little room that images of a test lie on disk, in this folder."""
    monkeypatch.setattr(pixels, "MEMORY", 100_000)
    monkeypatch.setattr(search, "BLOCK", 128)
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def extracted(images: np.ndarray, failed: int = 0) -> Extracted:
    """Of three conditions in turn; the first ones have failed."""
    drawn = [
        Sample(Condition(f"c{i % 3}"), i, image, math.nan if i < failed else 0.0)
        for i, image in enumerate(images)
    ]
    return Extracted(Samples.of([pd.DataFrame(sample_rows(drawn))]))


def examples(images: np.ndarray) -> list[Condition]:
    return [Condition(f"e{i}", image=image) for i, image in enumerate(images)]


def test_pixels_are_the_array_on_disk_and_in_memory(little: Path) -> None:
    for n in (3, 500):  # 768 bytes each
        images = noise(0, n)
        held = Pixels(iter(images))
        assert (len(held), held.shape, held.ndim, held.dtype) == (n, images.shape, 4, np.uint8)
        for part in (slice(None), slice(1, 3), slice(n - 2, n + 5), slice(n, n)):
            assert np.array_equal(held[part], images[part])
        blocks = list(held.blocks())
        assert np.array_equal(np.concatenate(blocks), images)
        assert max(block.nbytes for block in blocks) <= 100_000
    assert little.is_dir() and not list(little.iterdir())  # the file has no name
    assert len(Pixels([])) == 0 and list(Pixels([]).blocks()) == []


def test_images_of_two_sizes_are_no_rows(little: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[8, 8, 3\] beside \[16, 16, 3\]"):
        Pixels([*noise(0, 2), *noise(0, 1, 8)])


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write in .*cache: Not a directory.*MEMBENCH_CAC"):
        Pixels(noise(0, 1))


# Room for less than the images, and for no multiple of what is written at once
FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from membench.errors import UserError
from membench.runs import images
from membench.storage import pixels

pixels.MEMORY = images.MEMORY = 1000
resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, 100_001))

def fill(kind):
    some = np.zeros((16, 16, 3), np.uint8)
    if kind == "pixels":
        return pixels.Pixels(some for _ in range(1000))
    held = images.Images(Path(sys.argv[2]))
    for _ in range(1000):
        held.append(some.tobytes())

try:
    fill(sys.argv[1])
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(("kind", "way_out"), [("pixels", "MEMBENCH_CACHE"), ("images", "--runs")])
def test_a_full_disk_is_one_line(tmp_path: Path, kind: str, way_out: str) -> None:
    """Also where a file is closed that still has something to write."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, kind, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"MEMBENCH_CACHE": str(tmp_path)},
        check=True,
    )
    assert done.stderr == "" and not list(tmp_path.iterdir())
    assert "File too large" in done.stdout and way_out in done.stdout


def test_chosen_rows_are_those_of_the_array() -> None:
    images, rows = noise(0, 20), np.array([3, 0, 17, 17, 4])
    chosen = Chosen(images, rows)
    assert (len(chosen), chosen.shape, chosen.ndim) == (5, (5, 16, 16, 3), 4)
    assert np.array_equal(chosen[1:4], images[rows][1:4])


def test_nearest_is_the_same_of_blocks(little: Path) -> None:
    queries, base = noise(1, 9), noise(2, 500)
    base[400] = base[7] = queries[3]  # a tie: the lower position, in another block
    for ours, whole in zip(
        search.nearest(queries, Pixels(base), 5),
        search.nearest(queries, base, 5, block=500),
        strict=True,
    ):
        assert np.array_equal(ours, whole)


def test_squares_take_the_memory_of_a_block() -> None:
    base = np.random.default_rng(0).integers(0, 256, (5000, 3072), dtype=np.uint8)
    squared_distances(base[:2], base[:2])
    tracemalloc.start()
    try:
        found = squared_distances(base[:2], base)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * base.size * 4, f"{peak:,}"  # all of it in float32
    apart = base[:2, None].astype(np.int32) - base
    assert np.array_equal(found, (apart**2).sum(axis=2))


def test_scores_by_images_are_those_of_all_at_once(little: Path) -> None:
    own, drawn = noise(1, 5), noise(2, 600)
    drawn[550] = own[0]
    order = [i for c in range(3) for i in range(2, 600) if i % 3 == c]  # two have failed
    good = drawn[order]
    found = extracted(drawn, failed=2)

    distance = tiled_l2_between(own, good)
    close = (distance <= 0.47).sum(axis=1)
    assert close.min() > 0 and close.max() < len(good)  # the threshold tells them apart
    density = close + 0.5 / (1 + distance.min(axis=1))
    assert DETECTORS["random"]().score(None, examples(own), found) == density.tolist()

    near = search.nearest(own, good, 7, block=len(good))[0].astype(np.float64)
    ratio = -near[:, 0] / near.mean(axis=1)
    assert DETECTORS["side"]().score(None, examples(own), found) == ratio.tolist()


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_nothing_extracted_scores_nothing(name: str, little: Path) -> None:
    detector = DETECTORS[name]()
    for found in ({}, extracted(noise(0, 2), failed=2)):
        assert np.isnan(detector.score(None, examples(noise(1, 2)), found)).all()


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_memory_of_scores_by_images_does_not_grow_with_them(name: str, little: Path) -> None:
    def peak(n: int) -> int:
        found, detector = extracted(noise(0, n, 32)), DETECTORS[name]()
        gc.collect()
        tracemalloc.start()
        try:
            detector.score(None, examples(noise(1, 4, 32)), found)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports
    few, many = peak(200), peak(1600)
    assert many - few < 0.2 * 1400 * 32 * 32 * 3, f"{many - few:,}"


def test_a_condition_of_many_images_is_read_one_by_one() -> None:
    images = noise(0, 12)
    found = extracted(images)
    assert list(found) == ["c0", "c1", "c2"] and len(found) == 3 and found["none"] == []
    of = found["c1"]
    assert [s.draw for s in of] == [1, 4, 7, 10] == [s.draw for s in of[:]]
    assert of[-1].draw == 10 and np.array_equal(of[2].image, images[7])
    assert of[0].condition == Condition("c1") and of[0] is not of[0]
