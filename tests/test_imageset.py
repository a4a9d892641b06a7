"""Cached arrays: whole or absent, made once, never whole in memory; and what a killed
process, a second one and a full disk do.
"""

from __future__ import annotations

import errno
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from frames import names, open_path
from small_files import small_files

from membench.errors import UserError
from membench.features.loading import load_features
from membench.similarity.search import nearest
from membench.storage import files
from membench.storage.cache import cache_root, cached_array, cached_features
from membench.storage.files import DamagedFile

LINUX = pytest.mark.skipif(
    not hasattr(os, "posix_fallocate"), reason="this system reserves no room"
)
PARTS = {"files": "abc"}
ROWS = np.random.default_rng(0).integers(0, 256, (10, 4, 3), np.uint8)


def refuse() -> Iterator[np.ndarray]:
    raise AssertionError("made again")


def in_blocks(*sizes: int) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (ROWS[end - n : end] for n, end in zip(sizes, np.cumsum(sizes), strict=True))


def get(
    root: Path,
    blocks: Callable[[], Iterator[np.ndarray]],
    parts=PARTS,
    shape=ROWS.shape,
    dtype=np.uint8,
) -> np.ndarray:
    return cached_array("x", parts, shape, dtype, blocks, root=root)


def npy(root: Path) -> set[str]:
    return {n for n in names(root) if not n.endswith((".lock", ".sha256"))}


@pytest.fixture
def in_child() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Runs a function in a forked process; gives its id."""
    children: list[int] = []

    def start(work: Callable[[], object]) -> int:
        child = os.fork()
        if not child:
            try:
                work()
            finally:
                os._exit(1)
        children.append(child)
        return child

    yield start
    for child in children:
        os.waitpid(child, 0)


# ---------------------------------------------------------------------------- the cache


def test_cache_root(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    for value, expected in (
        ("", "/somewhere/.cache/membench"),
        ("/scratch", "/scratch"),
        ("~/c", "/somewhere/c"),
    ):
        monkeypatch.setenv("MEMBENCH_CACHE", value)
        assert cache_root() == Path(expected)
    monkeypatch.delenv("MEMBENCH_CACHE")
    assert cache_root() == Path("/somewhere/.cache/membench")


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 3, 1), (1,) * 10])
def test_an_array_is_made_once_and_read_only(sizes, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    made = cached_array("x", PARTS, ROWS.shape, np.uint8, in_blocks(*sizes))
    again = cached_array("x", dict(PARTS), ROWS.shape, "uint8", refuse)
    for array in (made, again):
        assert (
            isinstance(array, np.memmap) and array.dtype == np.uint8 and np.array_equal(array, ROWS)
        )
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    (file,) = npy(tmp_path / "cache")
    assert file.startswith("x-") and file.endswith(".npy")
    assert np.array_equal(np.load(tmp_path / "cache" / file), ROWS)  # as anybody's .npy


def test_whatever_differs_gives_another_file(tmp_path) -> None:
    get(tmp_path, in_blocks(10))
    get(tmp_path, in_blocks(10), parts={"files": "abd"})
    get(tmp_path, in_blocks(9), shape=(9, 4, 3))
    get(tmp_path, lambda: iter([ROWS.view(np.int8)]), dtype=np.int8)
    get(tmp_path, lambda: iter([ROWS.astype(">u2")]), dtype=">u2")
    assert len(npy(tmp_path)) == 5
    assert np.array_equal(get(tmp_path, refuse, dtype=">u2"), ROWS) and np.array_equal(
        get(tmp_path, refuse), ROWS
    )


def test_rows_that_are_not_contiguous(tmp_path) -> None:
    assert np.array_equal(get(tmp_path, lambda: iter([ROWS[::-1]])), ROWS[::-1])


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        (in_blocks(4, 5), "make up 9 rows of 10"),
        (lambda: iter(()), "make up 0 rows of 10"),
        (lambda: iter([ROWS, ROWS[:1]]), r"uint8 \[1, 4, 3\] at row 10"),
        (lambda: iter([ROWS[:6], ROWS[:6]]), r"uint8 \[6, 4, 3\] at row 6"),
        (lambda: iter([ROWS[:0], ROWS]), r"uint8 \[0, 4, 3\] at row 0"),
        (lambda: iter([ROWS.reshape(10, 12)]), r"\[10, 12\]"),
        (lambda: iter([ROWS.astype(np.float32)]), "float32"),
    ],
)
def test_blocks_that_do_not_add_up(blocks, why, tmp_path) -> None:
    with pytest.raises(ValueError, match=why):
        get(tmp_path, blocks)
    assert npy(tmp_path) == set()
    assert np.array_equal(get(tmp_path, in_blocks(10)), ROWS)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((0, 3), "u1"), ((3, 0), "u1"), ((), "u1"), ((2,), object)]
)
def test_what_cannot_be_kept(shape, dtype, tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        get(tmp_path, refuse, shape=shape, dtype=dtype)


def test_memory_holds_one_block_at_a_time(tmp_path) -> None:
    mebi, asked = 1 << 20, []

    def blocks() -> Iterator[np.ndarray]:
        for i in range(24):
            asked.append(tracemalloc.get_traced_memory()[0])
            yield np.full((1, mebi), i, np.uint8)

    tracemalloc.start()
    try:
        array = get(tmp_path, blocks, shape=(24, mebi))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * mebi and max(asked) < 2.5 * mebi
    assert array[:, ::4096].tolist() == [[i] * 256 for i in range(24)]


# ---------------------------------------------------------------------------- accidents


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path, in_child) -> None:
    def dying() -> Iterator[np.ndarray]:
        yield ROWS[:6]
        os.kill(os.getpid(), signal.SIGKILL)

    child = in_child(lambda: get(tmp_path, dying))
    while not (state := os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)):
        pass
    assert state.si_status == signal.SIGKILL
    (leftover,) = npy(tmp_path)
    # It died half way
    assert leftover.endswith(".partial") and (tmp_path / leftover).stat().st_size > 6 * 12
    assert np.array_equal(get(tmp_path, in_blocks(10)), ROWS)
    assert [Path(n).suffix for n in npy(tmp_path)] == [".npy"]  # and the leftover is gone


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.EIO, "the source's"), UserError("a bad image")]
)
def test_what_the_blocks_raise_passes_through(error, tmp_path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield ROWS[:6]
        raise error

    with pytest.raises(type(error)) as raised:
        get(tmp_path, failing)
    assert raised.value is error and npy(tmp_path) == set()
    assert np.array_equal(get(tmp_path, in_blocks(10)), ROWS)


def test_a_second_process_waits_for_the_first(tmp_path, in_child, capsys) -> None:
    told, tell = os.pipe()
    go, release = os.pipe()

    def slow() -> Iterator[np.ndarray]:
        yield ROWS[:6]
        os.write(tell, b"x")
        os.read(go, 1)
        yield ROWS[6:]

    in_child(lambda: get(tmp_path, slow))
    os.read(told, 1)
    acquire = files.FileLock.acquire

    def acquire_and_release(lock, timeout: float = -1) -> object:
        if timeout:
            os.write(release, b"x")  # only now, when we are about to wait, may the other go on
        return acquire(lock, timeout=timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.FileLock, "acquire", acquire_and_release)
        assert np.array_equal(
            cached_array("x", PARTS, ROWS.shape, np.uint8, refuse, root=tmp_path, progress=True),
            ROWS,
        )
    assert "waiting for another process, which is making" in capsys.readouterr().err
    for end in (told, tell, go, release):
        os.close(end)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:5],
        lambda b: b[:60],
        lambda b: b[:-1],
        lambda b: b + b"x",
        lambda b: b"PK" + b,
    ],
)
def test_a_damaged_file_is_named(damage, tmp_path) -> None:
    get(tmp_path, in_blocks(10))
    (file,) = (tmp_path / n for n in npy(tmp_path))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        DamagedFile, match=rf"damaged.*delete it and run again.*{file.name}"
    ) as error:
        get(tmp_path, refuse)
    assert "\n" not in str(error.value)
    file.unlink()
    assert np.array_equal(get(tmp_path, in_blocks(10)), ROWS)


def test_a_file_of_another_shape_is_damaged(tmp_path) -> None:
    get(tmp_path, in_blocks(10))
    (file,) = (tmp_path / n for n in npy(tmp_path))
    np.save(file, ROWS.reshape(10, 12))
    with pytest.raises(DamagedFile, match=r"uint8 \[10, 12\], not uint8 \[10, 4, 3\]"):
        get(tmp_path, refuse)


@LINUX
def test_a_full_disk_says_so_before_the_work(tmp_path) -> None:
    """A real refusal: the process may not make files above 50 kB."""
    with (
        small_files(50_000),
        pytest.raises(
            UserError,
            match=(
                r"cannot write x-\w+.npy \(0.1 GB\) in .*: File too large; mend it, or set"
                r" MEMBENCH_CACHE"
            ),
        ),
    ):
        get(tmp_path, refuse, shape=(100_000, 1000))
    assert npy(tmp_path) == set()


@pytest.mark.parametrize("call", [pytest.param("posix_fallocate", marks=LINUX), "fsync", "replace"])
def test_a_disk_that_refuses_later(call, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match="No space left on device; mend it"):
            get(tmp_path, in_blocks(10))
    assert npy(tmp_path) == set() and np.array_equal(get(tmp_path, in_blocks(10)), ROWS)


def test_a_cache_that_is_no_folder(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write x-.*File exists"):
        get(tmp_path / "file", refuse)


def test_the_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(open_path(fd).suffix), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("replace"), replace(old, new)))
    get(tmp_path, in_blocks(10))
    assert done == [".partial", "replace", ""] * 2  # its proof, then the array


# ----------------------------------------------------------------------------- features


@pytest.mark.parametrize("dim", [75, None])
@pytest.mark.parametrize("block", [1, 4, 256])
def test_features_of_a_memory_map(dim, block, tmp_path) -> None:
    base = np.random.default_rng(1).integers(0, 256, (9, 5, 5, 3), np.uint8)
    images = cached_array("base", {}, base.shape, np.uint8, lambda: iter([base]), root=tmp_path)
    pixels = load_features("pixels")
    features = cached_features(images, pixels.id, pixels, dim, "key", block, root=tmp_path)
    assert isinstance(features, np.memmap) and features.dtype == np.float32
    np.testing.assert_allclose(features, base.reshape(9, 75) / 127.5 - 1, atol=1e-6)
    distances, positions = nearest(features[[7, 2]], features, 1)  # what they are for
    assert positions.tolist() == [[7], [2]] and not distances.any()


def test_features_are_computed_once_for_each_encoder_and_image_set(tmp_path) -> None:
    images, calls = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3), []

    def encode(batch: np.ndarray) -> np.ndarray:
        assert batch.flags.writeable
        calls.append(len(batch))
        return batch.reshape(len(batch), 12)[:, :2].astype(np.float32)

    for encoder, key in (("e", "k"), ("e", "k"), ("f", "k"), ("e", "l")):
        assert (
            cached_features(images, encoder, encode, 2, key, 2, root=tmp_path).tolist()
            == images.reshape(5, 12)[:, :2].tolist()
        )
    assert calls == [2, 2, 1] * 3
    for block in (0, -1):
        with pytest.raises(ValueError, match="must be at least 1"):
            cached_features(images, "e", encode, 2, "k", block, root=tmp_path)
    for wrong in (
        lambda b: np.zeros((len(b) + 1, 2), "f4"),
        lambda b: np.zeros((len(b), 3), "f4"),
        lambda b: np.zeros((len(b), 2)),
    ):
        with pytest.raises(ValueError, match=r"vectors for|a block"):
            cached_features(images, "wrong", wrong, 2, "k", 2, root=tmp_path)
