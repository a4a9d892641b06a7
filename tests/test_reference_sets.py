"""Reference sets of descriptors: exact search against the plain cosine, an index's
recall and lower bound, and files that do not do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from membench.errors import UserError
from membench.similarity import descriptors as module
from membench.similarity.cosine import cosine
from membench.similarity.descriptors import read_descriptors
from membench.similarity.reference import ExactSearch, reference_matches
from membench.storage import host


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "BLOCK", 700)


def vectors(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """In clumps, as descriptors of real images are."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((40, d))[rng.integers(0, 40, n)] + rng.standard_normal((n, d))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def saved(file: Path, known: np.ndarray) -> Path:
    np.save(file, known)
    return file


@pytest.mark.parametrize("floor", [None, 0.5])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exact_search_is_the_plain_cosine(tmp_path: Path, floor: float | None, kind: Any) -> None:
    known = vectors(3000).astype(kind)
    known[2100] = known[5]  # the nearest may be two, in two blocks
    queries = np.concatenate([3 * vectors(50, seed=1), 2 * known[5:6].astype(np.float32)])
    read = read_descriptors(saved(tmp_path / "a.npy", known))
    got = reference_matches(queries, read, ExactSearch(read), floor)
    wanted = cosine(queries, known.astype(np.float32), floor=floor)
    pd.testing.assert_frame_equal(got, wanted, rtol=0, atol=1e-6)
    assert (got.generated == 50).sum() >= 1 and got[got.generated == 50].training.iloc[0] == 5
    assert len(got) == 51 if floor is None else len(got) > 200


def test_lengths_that_are_not_quite_1_lose_no_match(tmp_path: Path) -> None:
    """Neither the nearest row, if another is longer, nor a short one above the floor."""
    cosines, lengths = np.array([0.602, 0.6, 0.5015, 0.4985]), np.array([0.996, 1.004] * 2)
    known = np.zeros((4, 8))
    known[:, 0], known[:, 1] = cosines * lengths, np.sqrt(1 - cosines**2) * lengths
    read = read_descriptors(saved(tmp_path / "a.npy", known.astype(np.float32)))
    query = np.eye(1, 8)
    nearest = reference_matches(query, read, ExactSearch(read), None)
    assert nearest.training.tolist() == [0]
    near = reference_matches(query, read, ExactSearch(read), 0.5)
    assert near.training.tolist() == [0, 1, 2]


def test_layouts_give_the_same_set(tmp_path: Path) -> None:
    known, ids = vectors(1500), [f"laion/{i}" for i in range(1500)]
    (tmp_path / "parts").mkdir()
    for i in range(3):
        part = slice(500 * i, 500 * (i + 1))
        saved(tmp_path / "parts" / f"{i}.npy", known[part])
        (tmp_path / "parts" / f"{i}.ids.txt").write_text("\n".join(ids[part]))
    column = pa.FixedSizeListArray.from_arrays(pa.array(known.ravel()), 32)
    pq.write_table(pa.table({"id": ids, "descriptor": column}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"id": ids, "descriptor": [row.tolist() for row in known]}), tmp_path / "b.parquet"
    )
    queries = vectors(20, seed=2)
    for path in ("parts", "a.parquet", "b.parquet"):
        read = read_descriptors(tmp_path / path)
        assert (len(read), read.dimension, read.ids[777]) == (1500, 32, "laion/777")
        assert np.array_equal(read.rows(np.array([1400, 3])), known[[1400, 3]].astype(float))
        found = reference_matches(queries, read, ExactSearch(read), None)
        assert found.training.tolist() == cosine(queries, known, floor=None).training.tolist()
    bare = read_descriptors(saved(tmp_path / "bare.npy", known))
    assert bare.ids[-1] == "1499" and bare.features == ""
    (tmp_path / "bare.json").write_text(json.dumps({"features": "sscd/x"}))
    assert read_descriptors(tmp_path / "bare.npy").features == "sscd/x"


def test_notes_of_a_folder(tmp_path: Path) -> None:
    for name in "ab":
        saved(tmp_path / f"{name}.npy", vectors(9))

    def noted(name: str, told: str) -> str:
        (tmp_path / f"{name}.json").write_text(told)
        return read_descriptors(tmp_path).features

    assert noted("b", '{"features": "sscd"}') == "sscd"
    assert noted("descriptors", '{"features": "sscd"}') == "sscd"
    with pytest.raises(UserError, match=r"descriptors.json says features sscd, .*b.json clip;"):
        noted("b", '{"features": "clip"}')
    for odd in ('{"features": ""}', '{"features": " "}', '{"features": 1}', "{}", "[" * 100_000):
        with pytest.raises(UserError, match=r"b\.json does not say") as raised:
            noted("b", odd)
        assert len(str(raised.value)) < 400


def poke(known: np.ndarray, row: int, value: float) -> np.ndarray:
    known[row] *= value
    return known


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (poke(vectors(900), 801, 3.0), "row 801 is of length 3, not 1"),
        (poke(vectors(900), 801, float("nan")), "row 801 holds NaN or infinity"),
        (poke(vectors(900), 2, 0.0), "row 2 is of length 0"),
        (vectors(9).astype(np.float64), "float64"),
        (vectors(9)[0], r"of shape \[32\]"),
        (vectors(9)[:0], r"of shape \[0, 32\]"),
    ],
)
def test_descriptors_that_do_not_do(tmp_path: Path, known: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_descriptors(saved(tmp_path / "a.npy", known))


def test_files_that_do_not_do(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.npy", vectors(9))
    (tmp_path / "a.ids.txt").write_text("one\ntwo")
    with pytest.raises(UserError, match="has 2 lines for 9 descriptors"):
        read_descriptors(file)
    (tmp_path / "a.ids.txt").write_text("\n".join("abcdefgha"))
    with pytest.raises(UserError, match="1 ids stand there twice"):
        read_descriptors(file)
    (tmp_path / "a.ids.txt").unlink()
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"no whole \.npy file"):
        read_descriptors(file)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no whole Parquet file"):
        read_descriptors(tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no column descriptor"):
        read_descriptors(tmp_path / "a.parquet")
    for name in ("id", "descriptor"):
        both = pa.table({"id": ["a"], "descriptor": [[1.0]]})
        pq.write_table(both.append_column(name, both[name]), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=f"has the column {name} twice"):
            read_descriptors(tmp_path / "a.parquet")
    rows = [[1.0, 0.0], [1.0]]
    pq.write_table(pa.table({"id": ["a", "b"], "descriptor": rows}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has not 2 numbers"):
        read_descriptors(tmp_path / "a.parquet")
    for path in (tmp_path / "no.npy", tmp_path / "cache"):
        with pytest.raises(UserError, match="descriptors"):
            read_descriptors(path)
    (tmp_path / "two").mkdir()
    saved(tmp_path / "two" / "a.npy", vectors(9))
    saved(tmp_path / "two" / "b.npy", vectors(9, 16))
    with pytest.raises(UserError, match=r"of 16 dimensions, a\.npy of 32"):
        read_descriptors(tmp_path / "two")


def test_rows_are_those_of_the_files_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    first, second = vectors(9), vectors(5, seed=1)
    saved(tmp_path / "two" / "a.npy", first)
    saved(tmp_path / "two" / "b.npy", second)
    read, whole = read_descriptors(tmp_path / "two"), np.concatenate([first, second])
    at = np.array([13, 9, 8, 0, 9])
    assert np.array_equal(read.rows(at), whole[at])
    for outside in (-1, 14):
        with pytest.raises(IndexError):
            read.rows(np.array([outside]))


# ---------------------------------------------------------------------------------- FAISS


@pytest.fixture
def index(tmp_path: Path) -> Any:
    pytest.importorskip("faiss")
    from membench.similarity import faiss_index

    read = read_descriptors(saved(tmp_path / "a.npy", vectors(4000)))
    return faiss_index, read


def test_an_index_finds_most_and_never_too_much(index: Any) -> None:
    """Its pairs are among the exact ones, with the same cosines; more probes find more."""
    faiss_index, read = index
    queries = vectors(60, seed=1)
    exact = reference_matches(queries, read, ExactSearch(read), 0.5)
    known = exact.set_index(["generated", "training"]).similarity
    recalls = []
    for probes in (1, 4, 64):
        settings = faiss_index.IndexSettings(lists=64, code=16, probes=probes, candidates=200)
        search = faiss_index.open_index(read, settings, None)
        recalls.append(search.recall)
        found = reference_matches(queries, read, search, 0.5)
        pairs = found[found.similarity >= 0.5].set_index(["generated", "training"]).similarity
        assert set(pairs.index) <= set(known.index) and 0 < len(pairs) <= len(known)
        assert np.array_equal(pairs, known[pairs.index])
        nearest, best = (f[f["rank"] == 0].similarity.to_numpy() for f in (found, exact))
        assert len(nearest) == len(queries) and (nearest <= best).all()
    assert recalls == sorted(recalls) and recalls[0] < 0.97 < recalls[2]


def test_a_query_whose_lists_are_empty_looks_into_all(index: Any) -> None:
    faiss_index, _ = index

    class Sparse:
        """The last of eight lists alone holds vectors; the second query's is that one."""

        ntotal, nlist, nprobe = 5, 8, 1

        def search(self, queries: np.ndarray, k: int) -> Any:
            empty = (queries[:, 0] == 0) & (self.nprobe < self.nlist)
            return None, np.where(empty[:, None], -1, np.arange(k))

    search = faiss_index.FaissSearch(Sparse(), faiss_index.IndexSettings(probes=2, candidates=3))
    rows, columns = search.candidates(np.array([[0.0], [1.0]]), None)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1] and columns.tolist() == [0, 1, 2] * 2
    # Nothing anywhere
    search._search = lambda queries, k, probes: np.full((len(queries), k), -1)
    with pytest.raises(UserError, match="finds nothing for a query"):
        search.candidates(np.array([[0.0]]), None)


def test_recall_is_the_share_of_nearest_rows_that_come_back(index: Any) -> None:
    faiss_index, read = index

    class Half:
        """Sees the first half of the set only."""

        def candidates(self, queries: np.ndarray, floor: float | None) -> Any:
            gamma = queries @ read.rows(np.arange(2000)).T.astype(np.float32)
            return np.arange(len(queries)), gamma.argmax(axis=1)

    assert 0.4 < faiss_index.recall(Half(), read) < 0.6
    assert faiss_index.recall(ExactSearch(read), read) == 1


def test_an_index_that_does_not_do(index: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import faiss

    faiss_index, read = index
    settings = faiss_index.IndexSettings(lists=16, code=16, candidates=3, probes=2)
    built = faiss_index.build(read, settings)
    file = tmp_path / "own.faiss"
    faiss.write_index(built, str(file))
    assert faiss_index.open_index(read, settings, file).recall > 0.3
    other = read_descriptors(saved(tmp_path / "other.npy", vectors(4000, seed=9)))
    fewer = read_descriptors(saved(tmp_path / "fewer.npy", vectors(3999)))
    wide = read_descriptors(saved(tmp_path / "wide.npy", vectors(4000, 64)))
    for known, words in (
        (other, "an index of other descriptors"),
        (fewer, "4,000 vectors, and there are 3,999"),
        (wide, "of 32 dimensions, the descriptors are of 64"),
    ):
        with pytest.raises(UserError, match=words):
            faiss_index.open_index(known, settings, file)
    with monkeypatch.context() as patched:
        patched.setattr(host, "free_memory", lambda: 1000)
        with pytest.raises(UserError, match=r"GB of memory are free.*reference_search=exact"):
            faiss_index.open_index(read, settings, file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="no whole FAISS index"):
        faiss_index.open_index(read, settings, file)
    with pytest.raises(UserError, match="do not divide"):
        faiss_index.build(read, faiss_index.IndexSettings(code=7))
    with pytest.raises(UserError, match="too few for an index"):
        faiss_index.build(read, faiss_index.IndexSettings(lists=5000))


@pytest.mark.parametrize("there", [True, False])
def test_an_index_whose_lists_are_in_another_file(index: Any, tmp_path: Path, there: bool) -> None:
    """It is refused before that file is opened."""
    import faiss

    faiss_index, read = index
    settings = faiss_index.IndexSettings(lists=16, code=16, candidates=3, probes=2)
    built = faiss_index.build(read, settings)
    lists = faiss.OnDiskInvertedLists(built.nlist, built.code_size, str(tmp_path / "lists"))
    every = faiss.InvertedListsPtrVector()
    every.push_back(built.invlists)
    lists.merge_from_multiple(every.data(), every.size())
    built.replace_invlists(lists)
    faiss.write_index(built, str(tmp_path / "own.faiss"))
    if not there:
        (tmp_path / "lists").unlink()
    with pytest.raises(UserError, match="keeps its lists in another file"):
        faiss_index.open_index(read, settings, tmp_path / "own.faiss")


def test_an_index_whose_ids_are_not_row_numbers(index: Any, tmp_path: Path) -> None:
    import faiss

    faiss_index, read = index
    known, rows = vectors(4000), np.arange(4000)
    file, settings = tmp_path / "ids.faiss", faiss_index.IndexSettings(probes=4, candidates=3)
    empty = faiss.index_factory(32, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    empty.ntotal = len(known)
    faiss.write_index(empty, str(file))
    with pytest.raises(UserError, match="not trained"):
        faiss_index.open_index(read, settings, file)
    empty.ntotal = 0
    empty.train(known)
    for ids, does in (
        (rows[::-1], False),  # row numbers, but of other rows
        (rows + 100_000, False),
        (np.where(rows % 2, rows + 100_000, rows), False),
        (-rows - 2, False),
        (rows // 2, False),
        (rows, True),
    ):
        empty.reset()
        empty.add_with_ids(known, ids)
        faiss.write_index(empty, str(file))
        if does:
            assert faiss_index.open_index(read, settings, file).recall > 0.5
            continue
        with pytest.raises(UserError, match=r"ids are not row numbers|of other descriptors"):
            faiss_index.open_index(read, settings, file)


def test_an_index_that_cannot_be_searched(index: Any) -> None:
    import faiss

    faiss_index, read = index
    broken = faiss.index_factory(32, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    search = faiss_index.FaissSearch(broken, faiss_index.IndexSettings())
    broken.ntotal = len(read)
    with pytest.raises(UserError, match="cannot be searched"):
        search.candidates(vectors(3), None)
    broken.ntotal = 0
    broken.train(vectors(4000))
    broken.ntotal = len(read)
    with pytest.raises(UserError, match="finds nothing"):
        search.candidates(vectors(3), None)


def test_another_index_is_another_reference_set(
    index: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Of a file by its bytes, wherever it lies; of a built one by how it is built."""
    import faiss

    from membench.tasks.sd_webster.options import SdWebsterOptions
    from membench.tasks.sd_webster.reference import read_reference

    faiss_index, _ = index
    monkeypatch.setattr(faiss_index, "SAMPLE", 16)
    file = tmp_path / "own.faiss"

    class Features:
        id = "some"

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return vectors(len(images))

    def key(given: Path | None) -> str:
        options = {"reference": str(tmp_path / "a.npy"), "reference_search": "ivfpq"}
        options["reference_index"] = str(given or "")
        return read_reference(SdWebsterOptions(**options), Features()).training.hash

    def written(factory: str) -> Path:
        made = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
        made.train(vectors(4000))
        made.add(vectors(4000))
        faiss.write_index(made, str(file))
        return file

    first = key(written("IVF4,Flat"))
    assert key(file.rename(tmp_path / "moved.faiss")) == first
    assert key(written("IVF8,Flat")) != first
    monkeypatch.setattr(faiss_index, "build", lambda *a, **k: faiss.read_index(str(file)))
    built = key(None)
    assert built not in (first, key(file))
    monkeypatch.setattr(faiss_index, "VERSION", faiss_index.VERSION + 1)
    assert key(None) != built


@pytest.mark.parametrize("position", [-1, 9])
def test_no_row_beyond_the_set(tmp_path: Path, position: int) -> None:
    read = read_descriptors(saved(tmp_path / "a.npy", vectors(9)))
    with pytest.raises(IndexError, match="not among 9 descriptors"):
        read.rows(np.array([0, position]))


def test_without_faiss_one_line_says_how_to_get_it(monkeypatch: Any, tmp_path: Path) -> None:
    import sys

    from membench.similarity import faiss_index

    monkeypatch.setitem(sys.modules, "faiss", None)
    read = read_descriptors(saved(tmp_path / "a.npy", vectors(9)))
    with pytest.raises(UserError, match=r"pip install 'membench\[faiss\]'"):
        faiss_index.open_index(read, faiss_index.IndexSettings(), None)
