"""Time and memory of a reference set of descriptors: exact search in blocks, and a
FAISS index of it, with its recall.

    python benchmarks/reference.py --rows 10000000        # 10 GB of float16, 512 dimensions

CPU seconds of this process, so that a busy machine does not change them; memory is the
most that the process has held beyond what it held before, the memory-mapped file
included as far as it was read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from membench.similarity.descriptors import BLOCK, Descriptors, read_descriptors
from membench.similarity.faiss_index import COSINE, IndexSettings, build, open_index
from membench.similarity.reference import ExactSearch, reference_matches
from membench.storage import host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--clumps", type=int, default=1000, help="directions the rows gather round")
    parser.add_argument("--lists", type=int, default=0, help="of the index; 0: its default")
    parser.add_argument("--probes", type=int, nargs="+", default=[8, 32, 128])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEMBENCH_CACHE"] = str(Path(folder) / "cache")
        file = made(Path(folder) / "set.npy", args.rows, args.dimensions, args.clumps)
        report(measured("read and check", lambda: read_descriptors(file)), args, Path(folder))


def made(file: Path, rows: int, d: int, clumps: int) -> Path:
    """Unit vectors float16 round ``clumps`` directions, at a cosine of about 0.7."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clumps, d), dtype=np.float32)
    out = np.lib.format.open_memmap(file, "w+", np.float16, (rows, d))
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        part = centres[rng.integers(0, clumps, n)] + rng.standard_normal((n, d), dtype=np.float32)
        out[start : start + n] = part / np.linalg.norm(part, axis=1, keepdims=True)
    out.flush()
    return file


def report(known: Descriptors, args: argparse.Namespace, folder: Path) -> None:
    rows = known.rows(np.linspace(0, len(known) - 1, args.queries).astype(np.int64))
    noise = np.random.default_rng(1).standard_normal(rows.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = COSINE * rows + (1 - COSINE**2) ** 0.5 * noise
    print(
        f"{len(known):,} x {known.dimension} descriptors, {len(queries):,} queries, "
        f"{host.cores()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    measured("exact search", lambda: reference_matches(queries, known, ExactSearch(known), 0.5))
    index = measured("build IVF-PQ", lambda: build(known, IndexSettings(lists=args.lists)))
    file = folder / "set.faiss"
    faiss.write_index(index, str(file))
    size = file.stat().st_size / len(known)
    print(f"  {index.nlist} lists, {index.code_size} bytes a code, {size:.0f} a row in all")
    del index
    for probes in args.probes:
        search = open_index(known, IndexSettings(lists=args.lists, probes=probes), file)
        what = f"IVF-PQ, {probes} probes: recall {search.recall:.3f}"
        measured(what, lambda search=search: reference_matches(queries, known, search, 0.5))  # type: ignore[misc]


def measured(what: str, act: Callable[[], Any]) -> Any:
    before, start = host.peak_memory_mb(), time.process_time()
    found = act()
    seconds = time.process_time() - start
    print(f"{what}: {seconds:.1f} CPU s, {host.peak_memory_mb() - before} MiB more", flush=True)
    return found


if __name__ == "__main__":
    main()
