"""Approximate search by FAISS: inverted lists of product-quantised codes (IVF-PQ; Jégou
et al., PAMI 2011), with a measured recall.

``pip install 'membench[faiss]'``. On a GPU where FAISS sees one. The codes alone lie in
memory; what they return is compared exactly with the descriptors themselves.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.similarity.descriptors import Descriptors
from membench.similarity.reference import ExactSearch, reference_matches
from membench.storage import host
from membench.storage.cache import cache_root, check_proof, is_proved, prove
from membench.storage.files import CACHE, disk_errors, locked, replacing, write_json
from membench.storage.hashing import content_key
from membench.storage.reading import parse_json

VERSION = 2  # of what is built: raise it with every change of it
SAMPLE, COSINE = 256, 0.6  # queries of the recall, and how near each is to a row
POINTS = 64  # training vectors for each list
CHUNK = 1 << 12  # queries at once
BLOCK = 1 << 24  # bytes of an index that are read at once
ON_DISK = b"ilod"  # how FAISS marks lists that lie in a file of their own


@dataclass(frozen=True)
class IndexSettings:
    """lists: how many the vectors are sorted into; 0: 4 sqrt(n), at most n / 40.
    code: bytes of a vector; 0: at most 64 that divide its dimensions. probes: lists
    that a query looks into. candidates: compared exactly, of each query.
    """

    lists: int = 0
    code: int = 0
    probes: int = 32
    candidates: int = 256


class FaissSearch:
    """A :class:`membench.similarity.reference.Search` by an index of the descriptors.

    recall: the share of ``SAMPLE`` queries, each at a cosine of about ``COSINE`` to a
    row, whose exactly nearest row is among the candidates.
    """

    exact = False

    def __init__(self, index: Any, settings: IndexSettings, recall: float = float("nan")) -> None:
        self._index, self.settings, self.recall = index, settings, recall

    def candidates(self, queries: np.ndarray, floor: float | None) -> tuple[np.ndarray, np.ndarray]:
        """The ``candidates`` with the largest approximate cosine of each query.

        Where the lists that are looked into are empty, all lists are. Raises
        :class:`UserError` for an index that cannot be searched or finds nothing.
        """
        rows, columns = [], []
        k = min(self.settings.candidates, self._index.ntotal)
        for start in range(0, len(queries), CHUNK):
            part = np.ascontiguousarray(queries[start : start + CHUNK], dtype=np.float32)
            found = self._search(part, k, self.settings.probes)
            if len(lost := np.flatnonzero(found[:, 0] < 0)):
                found[lost] = self._search(part[lost], k, self._index.nlist)
            if (found[:, 0] < 0).any():
                raise UserError("the FAISS index finds nothing for a query; make it again")
            i, j = np.nonzero(found >= 0)
            rows.append(i + start)
            columns.append(found[i, j])
        return np.concatenate(rows), np.concatenate(columns)

    def _search(self, queries: np.ndarray, k: int, probes: int) -> np.ndarray:
        self._index.nprobe = min(probes, self._index.nlist)
        try:
            return self._index.search(queries, k)[1].astype(np.int64)
        except RuntimeError as error:
            raise UserError(
                f"the FAISS index cannot be searched ({_last_line(error)}); make it again"
            ) from None


def open_index(
    descriptors: Descriptors, settings: IndexSettings, file: Path | None, *, progress: bool = False
) -> FaissSearch:
    """The index of these descriptors: ``file``, else one that is built and kept in the
    cache; its recall is measured once.

    Raises :class:`UserError` where FAISS is not installed, and for an index of other
    descriptors, of another dimension, metric or kind, that is not trained, whose ids are
    not the rows' numbers, or larger than the free memory.
    """
    faiss = _faiss()
    key = content_key(
        {"descriptors": descriptors.hash, "version": VERSION}
        | {k: v for k, v in asdict(settings).items() if k in ("lists", "code")}
    )
    given = file
    if file is None:
        file = cache_root() / "indexes" / f"{key}.faiss"
        if not is_proved(file):
            with locked(file, progress):
                if not is_proved(file):
                    index = build(descriptors, settings, progress=progress)
                    with (
                        replacing(file, advice=CACHE, is_locked=True) as to,
                        disk_errors(file.parent, advice=CACHE),
                    ):
                        faiss.write_index(index, str(to))
                        prove(file, to)
        check_proof(file)
    search = FaissSearch(_read(faiss, file, descriptors), settings)
    search.recall = _remembered_recall(search, descriptors, file)
    if given is not None and search.recall < 0.05:
        raise UserError(
            f"reference_index={file} finds {search.recall:.0%} of the nearest descriptors of"
            f" {SAMPLE} queries: it is an index of other descriptors, or its probes are too few;"
            " leave it out, and one is built"
        )
    return search


def build(descriptors: Descriptors, settings: IndexSettings, *, progress: bool = False) -> Any:
    """Trained on ``POINTS`` rows for each list, spread evenly over the set."""
    faiss = _faiss()
    n, d = len(descriptors), descriptors.dimension
    lists = settings.lists or max(1, min(round(4 * n**0.5), n // 40))
    code = settings.code or next(c for c in range(min(64, d), 0, -1) if d % c == 0)
    if d % code:
        raise UserError(
            f"codes of {code} bytes do not divide descriptors of {d} dimensions; choose a"
            f" divisor of {d}"
        )
    if n < max(lists, 256):  # a byte of a code is one of 256 centroids
        raise UserError(
            f"{n} descriptors are too few for an index of {lists} lists; choose"
            " reference_search=exact"
        )
    # np: without polysemous training, which takes minutes and which nothing here uses
    index = faiss.index_factory(d, f"IVF{lists},PQ{code}np", faiss.METRIC_INNER_PRODUCT)
    sample = descriptors.rows(np.linspace(0, n - 1, min(n, POINTS * lists)).astype(np.int64))
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    worker = faiss.index_cpu_to_all_gpus(index) if _gpus(faiss) else index
    worker.train(sample.astype(np.float32))
    bar = tqdm(total=n, desc="index", unit="row", disable=not progress, delay=1)
    with bar:
        for _, block in descriptors.blocks():
            worker.add(np.ascontiguousarray(block))
            bar.update(len(block))
    return faiss.index_gpu_to_cpu(worker) if _gpus(faiss) else worker


def _read(faiss: Any, file: Path, descriptors: Descriptors) -> Any:
    if not file.is_file():
        raise UserError(f"reference_index={file} is not there; leave it out, and one is built")
    size, free = file.stat().st_size, host.free_memory()
    if size > free:
        raise UserError(
            f"the index {file} takes {size / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are"
            " free: choose reference_search=exact, which reads the descriptors block by block, or"
            " fewer bytes a code"
        )
    try:
        with open(file, "rb") as opened:
            inside = _Inside(opened)
            try:
                index = faiss.read_index(faiss.PyCallbackIOReader(inside, BLOCK))
            except RuntimeError:
                if not inside.leads_out:
                    raise
                raise UserError(
                    f"{file} keeps its lists in another file (OnDiskInvertedLists), which would be"
                    " mapped into memory and is no part of its hash; merge them into one index"
                ) from None
    except (RuntimeError, MemoryError) as error:
        raise UserError(
            f"{file} is no whole FAISS index ({_last_line(error)}); make it again"
        ) from None
    if not hasattr(index, "nprobe"):
        raise UserError(f"{file} is of class {type(index).__name__}, not an IVF index of FAISS")
    if index.d != descriptors.dimension:
        raise UserError(
            f"{file} is of {index.d} dimensions, the descriptors are of {descriptors.dimension}: it"
            " is an index of another descriptor"
        )
    if index.ntotal != len(descriptors):
        raise UserError(
            f"{file} holds {index.ntotal:,} vectors, and there are {len(descriptors):,}"
            " descriptors: it is an index of another set"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise UserError(f"{file} is not an index of the inner product; make it again")
    if not index.is_trained:
        raise UserError(f"{file} is not trained; make it again")
    if not _holds_each_row(faiss, index.invlists, len(descriptors)):
        raise UserError(
            f"{file}: its ids are not row numbers, each once (index.add gives them); make it again"
        )
    return faiss.index_cpu_to_all_gpus(index) if _gpus(faiss) else index


class _Inside:
    """Reads an index for FAISS up to the mark of lists that lie in another file: FAISS
    would map that file, and a shortened one ends the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.leads_out = file, False

    def __call__(self, size: int) -> bytes:
        data = self.file.read(size)
        if data == ON_DISK:  # FAISS reads each mark alone
            self.leads_out = True
            return b""
        return data


def _holds_each_row(faiss: Any, lists: Any, n: int) -> bool:
    """Whether the ids in the lists are 0 ... n - 1, each once."""
    seen, count = np.zeros(n, bool), 0
    for i in range(lists.nlist if lists else 0):
        if not (size := lists.list_size(i)):
            continue
        pointer = lists.get_ids(i)
        ids = faiss.rev_swig_ptr(pointer, size)
        inside = bool(((ids >= 0) & (ids < n)).all())
        if inside:
            seen[ids] = True
        lists.release_ids(i, pointer)
        if not inside:
            return False
        count += size
    return count == n and bool(seen.all())


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


def _remembered_recall(search: FaissSearch, descriptors: Descriptors, file: Path) -> float:
    state = [file.stat().st_size, file.stat().st_mtime_ns]
    parts = {"of": descriptors.hash, "index": [str(file.resolve()), *state], "version": VERSION}
    note = cache_root() / "indexes" / f"recall-{content_key(parts | asdict(search.settings))}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none, or not ours
        return float(parse_json(note.read_bytes())["recall"])
    found = recall(search, descriptors)
    write_json(note, {"recall": found}, advice=CACHE)
    return found


def recall(search: FaissSearch, descriptors: Descriptors) -> float:
    """See :class:`FaissSearch`. Rows spread evenly over the set, each turned towards
    noise until its cosine is ``COSINE``; ties with the nearest count as found.
    """
    n = len(descriptors)
    rows = descriptors.rows(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    noise -= (noise * rows).sum(axis=1, keepdims=True) * rows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = COSINE * rows + (1 - COSINE**2) ** 0.5 * noise
    exact = reference_matches(queries, descriptors, ExactSearch(descriptors), None)
    approximate = reference_matches(queries, descriptors, search, None)
    gap = exact.similarity.to_numpy() - approximate.similarity.to_numpy()
    return float((gap <= 1e-6).mean())


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError(
            "reference_search=ivfpq needs FAISS: pip install 'membench[faiss]', or choose"
            " reference_search=exact"
        ) from None
    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or host.cores()))
    return faiss


def _gpus(faiss: Any) -> int:
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
