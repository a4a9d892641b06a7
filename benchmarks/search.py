"""Exact search at the size of CIFAR-10: 10,000 queries, 50,000 training images of 3,072
values, top 50, in one run.

Prints the time as a ratio to a bare blocked matrix product of the same shapes (the
least that any exact search takes), and the peak memory. ``python benchmarks/search.py
[--queries N] [--base N]``; the base lies in a memory-mapped file, as a training set's
does.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from membench.similarity.search import nearest

DIMENSIONS = (32, 32, 3)
BLOCK = 8192


def product(queries: np.ndarray, base: np.ndarray) -> float:
    """Seconds of the bare products, float32, in blocks of the same size."""
    start = time.perf_counter()
    for row in range(0, len(queries), 1024):
        a = queries[row : row + 1024].reshape(-1, 3072).astype(np.float32)
        for first in range(0, len(base), BLOCK):
            a @ base[first : first + BLOCK].reshape(-1, 3072).astype(np.float32).T
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--base", type=int, default=50_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "base.npy"
        np.save(file, rng.integers(0, 256, (args.base, *DIMENSIONS), dtype=np.uint8))
        base = np.load(file, mmap_mode="r")
        queries = rng.integers(0, 256, (args.queries, *DIMENSIONS), dtype=np.uint8)
        start = time.perf_counter()
        distance, position = nearest(queries, base, 50)
        ours = time.perf_counter() - start
        bare = product(queries, base)
        some = rng.integers(0, args.queries, 3)
        for k in some:  # against direct differences: a fast search that is wrong is worth nothing
            true = (
                np.sqrt(
                    ((base.astype(np.int32) - queries[k]) ** 2).reshape(len(base), -1).sum(axis=1)
                )
                / 255
            )
            assert np.allclose(distance[k], np.sort(true)[:50], rtol=1e-6) and np.allclose(
                true[position[k]], distance[k], rtol=1e-6
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"top 50 of {args.base:,} for {args.queries:,} queries: {ours:.1f} s, bare product"
        f" {bare:.1f} s, ratio {ours / bare:.2f}"
    )
    print(
        f"peak memory {peak:.2f} GB (of it the queries {queries.nbytes / 2**30:.2f}, the base"
        f" {base.nbytes / 2**30:.2f})"
    )


if __name__ == "__main__":
    main()
