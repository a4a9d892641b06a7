"""What a change of thresholds costs: every extraction metric of one run again, from its
stored matches alone.

    python benchmarks/thresholds.py [--images 50000] [--matches 600000] [--groups 20000]

``rescored`` is what ``membench leaderboard --band ... --copy ...`` does with a run
between reading it and printing. The matches are synthetic: cosine similarities (SSCD's
bands), heavy-tailed in how often a training image is met, with a nearest of each image
and the others in order. Prints CPU seconds of each part, and the same over one pass
over the matches (``in_region`` and a count), so that machines compare.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from membench.boards.rescore import rescored
from membench.metrics import extraction, intervals, regions
from membench.metrics.table import long_form
from membench.runs.finished import Run
from membench.similarity.search import matches_frame
from membench.types import Band, Space

SSCD = Space(
    "sscd",
    True,
    (Band("low", 0.4, 0.5), Band("mid", 0.5, 0.6), Band("high", 0.6, 1.0)),
    copy=0.5,
    floor=0.3,
    source="synthetic",
)


def synthetic(
    images: int, pairs: int, groups: int, training: int = 50_000, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """A frame of ``pairs`` matches of ``images`` images, and the group of each image:
    str [images].
    """
    rng = np.random.default_rng(seed)
    generated = np.concatenate([np.arange(images), rng.integers(images, size=2 * pairs)])
    met = (training * rng.random(len(generated)) ** 4).astype(int)
    # No pair twice
    first = np.sort(np.unique(generated * training + met, return_index=True)[1])[:pairs]
    frame = matches_frame(
        generated[first],
        met[first],
        0.3 + 0.7 * rng.beta(1.2, 5, size=pairs),
        higher_is_closer=True,
    )
    return frame, np.char.add("prompt ", rng.integers(groups, size=images).astype(str))


def run_of(frame: pd.DataFrame, group: np.ndarray) -> Run:
    """A run of prompts, one image a prompt, with these matches and nothing scored yet
    but a label.
    """
    ids = pd.Series([f"c{i}" for i in range(len(group))])
    scores = pd.DataFrame(
        {"id": ids, "label": -1, "kind": "N", "group": group, "status": "ok", "similarity": np.nan}
    )
    samples = pd.DataFrame(
        {
            "sample_id": ids + "/0",
            "condition": ids,
            "prompt": "a mug",
            "status": "ok",
            "confidence": 0.0,
        }
    )
    samples["confidence"] = np.random.default_rng(1).random(len(samples))
    matches = frame.assign(sample_id=samples.sample_id.to_numpy()[frame["generated"]]).drop(
        columns="generated"
    )
    phases = {"samples": {"forwards": 50 * len(samples)}}
    info = {"seed": 0, "space": asdict(SSCD), "phases": phases, "access": {"images": False}}
    metrics = long_form([]).astype({"metric": str})
    return Run(Path("synthetic"), info, scores, samples, matches, metrics)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of the fastest of the repeats."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def measure(images: int, pairs: int, groups: int) -> dict[str, float]:
    """CPU seconds by part: one pass, single metrics at the threshold of a copy, the
    bootstrap of AMS, and all metrics.
    """
    frame, group = synthetic(images, pairs, groups)
    values = frame["similarity"].to_numpy()
    best = extraction.nearest_matches(frame, images)["similarity"].to_numpy()
    hits = np.stack([best >= x for x in np.linspace(0.4, 0.7, 7)], axis=1)
    sizes = np.linspace(1, images, 50).round().astype(int)
    run, bands = (
        run_of(frame, group),
        (Band("far", 0.35, 0.45), Band("close", 0.45, 0.7), Band("same", 0.7, 1.0)),
    )
    parts: dict[str, Callable[[], object]] = {
        "one pass over the matches": lambda: int(regions.in_region(values, SSCD, SSCD.copy).sum()),
        "nearest_matches": lambda: extraction.nearest_matches(frame, images),
        "ams": lambda: extraction.ams(frame, images, SSCD, SSCD.copy),
        "ums": lambda: extraction.ums(frame, images, SSCD, SSCD.copy),
        "ums_nearest": lambda: extraction.ums_nearest(frame, images, SSCD, SSCD.copy),
        "ums_intervals": lambda: extraction.ums_intervals(frame, images, SSCD, SSCD.copy, group),
        "share_intervals of 7 regions": lambda: intervals.share_intervals(hits, group),
        "rarefaction at 50 sizes": lambda: extraction.rarefaction(frame, images, SSCD, sizes),
        "extraction_metrics, no groups": lambda: extraction.extraction_metrics(frame, images, SSCD),
        "extraction_metrics": lambda: extraction.extraction_metrics(
            frame, images, SSCD, groups=group
        ),
        "rescored": lambda: rescored(run, bands, 0.55),
    }
    return {name: seconds(work) for name, work in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--matches", type=int, default=600_000)
    parser.add_argument("--groups", type=int, default=20_000)
    args = parser.parse_args()
    found = measure(args.images, args.matches, args.groups)
    one = found["one pass over the matches"]
    for name, took in found.items():
        print(f"{name:32} {took:8.4f} s {took / one:10.1f} x")


if __name__ == "__main__":
    main()
