"""Exact search beside the bare matrix product of the same sizes, float32.

    python benchmarks/search.py [--queries 2048] [--base 50000] [--rounds 3]

Normalised L2's top 50 of images of 3,072 values, as CIFAR-10 has them, and the nearest by
cosine among descriptors of 512 numbers, with the pairs within a floor. The base lies in a
memory-mapped file, as a training set's does. Prints CPU seconds, of search and product by
turns, and the median of the rounds' ratios: a product is the least that any exact search
takes. A few queries are compared with direct differences.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from membench.similarity.cosine import cosine
from membench.similarity.search import nearest

BLOCK = 8192


def product(a: np.ndarray, base: np.ndarray) -> None:
    """All products, and nothing else: not what converts the base."""
    for first in range(0, len(base), BLOCK):
        a @ base[first : first + BLOCK].T


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak() -> float:
    """MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def compared(
    what: str, search: Callable[[], object], queries: np.ndarray, base: np.ndarray, rounds: int
) -> None:
    before = peak()
    search()
    grown = peak() - before
    queries, base = (x.reshape(len(x), -1).astype(np.float32) for x in (queries, base))
    pairs = [(seconds(search), seconds(lambda: product(queries, base))) for _ in range(rounds)]
    ours, bare = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{what:<34} {ours:7.2f} s, product {bare:7.2f} s, ratio {ratio:.2f}, {grown:5.0f} MiB",
        flush=True,
    )


def bytes_of_images(file: Path, n: int, rng: np.random.Generator) -> np.ndarray:
    np.save(file, rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    return np.load(file, mmap_mode="r")


def check(queries: np.ndarray, base: np.ndarray) -> None:
    """A fast search that is wrong is worth nothing."""
    distance, position = nearest(queries, base, 50)
    for k in range(len(queries)):
        squares = ((base.astype(np.int32) - queries[k]) ** 2).reshape(len(base), -1).sum(axis=1)
        true = np.sqrt(squares) / 255
        order = np.argsort(true, kind="stable")[:50]
        assert np.array_equal(position[k], order)
        assert np.array_equal(distance[k], true[order].astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--base", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        base = bytes_of_images(Path(folder, "base.npy"), args.base, rng)
        queries = rng.integers(0, 256, (args.queries, 32, 32, 3), dtype=np.uint8)
        what = f"top 50 of {args.base:,} x 3,072"
        compared(what, lambda: nearest(queries, base, 50), queries, base, args.rounds)
        check(queries[:3], base)
        vectors = rng.normal(size=(args.base, 512)).astype(np.float32)
        asked = rng.normal(size=(args.queries, 512)).astype(np.float32)
        for floor in (None, 0.2):
            what = f"cosine, floor {floor}, {args.base:,} x 512"
            search = lambda f=floor: cosine(asked, vectors, floor=f)  # noqa: E731
            compared(what, search, asked, vectors, args.rounds)


if __name__ == "__main__":
    main()
