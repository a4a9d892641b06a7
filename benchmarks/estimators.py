"""How far Chao1 can be trusted: simulations in which it is known how many training
images can be copied at all.

    python benchmarks/estimators.py [--runs 2000]

Columns: images that can be copied (truth); copied in a run, on average; the bound
that Chao1 estimates, S + (n-1)/n f1² / (2 f2) of the expected S, f1 and f2; its mean;
how often its 95 % interval holds the bound, and the truth. Below, images of prompts:
Chao1 over images beside Chao2 over prompts, where the truth is what the same prompts
can give, and what all prompts of that kind can.
"""

from __future__ import annotations

import argparse

import numpy as np

from membench.metrics.unique import chao1, chao1_interval, chao2

IMAGES = 1000

# How likely an image is to copy each image; what is missing to 1 copies nothing.
WORLDS = {
    "100 images alike, 200 copies": np.full(100, 0.2 / 100),
    "1,000 images alike, 200 copies": np.full(1000, 0.2 / 1000),
    "100 images, halves 1 : 9": np.repeat([0.02 / 50, 0.18 / 50], 50),
    "200 images, geometric 0.97": 0.3 * 0.97 ** np.arange(200) * 0.03,
    "500 images, p ~ 1 / rank": 0.3 / np.arange(1, 501) / (1 / np.arange(1, 501)).sum(),
    "20 images, 10 of them rare": np.repeat([0.02, 0.0002], 10),
    "50 images, 1 copy": np.full(50, 1 / 50 / IMAGES),
}


def bound(p: np.ndarray, n: int) -> float:
    """What Chao1 estimates without bias in the limit: the formula at the expected
    counts.
    """
    seen, once = (1 - (1 - p) ** n).sum(), (n * p * (1 - p) ** (n - 1)).sum()
    twice = (n * (n - 1) / 2 * p**2 * (1 - p) ** (n - 2)).sum()
    return float(seen + (n - 1) / n * once**2 / (2 * twice))


def independent(
    p: np.ndarray, runs: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Mean copied, mean Chao1, and the shares of intervals that hold the bound and the
    truth, among runs that copied any.
    """
    limit, rows = bound(p, IMAGES), []
    for _ in range(runs):
        counts = rng.multinomial(IMAGES, np.append(p, max(0.0, 1 - p.sum())))[:-1]
        interval = chao1_interval(counts, IMAGES)
        if interval is not None:
            low, high = interval
            rows.append(
                (
                    (counts > 0).sum(),
                    chao1(counts, IMAGES),
                    low <= limit <= high,
                    low <= len(p) <= high,
                )
            )
    return tuple(np.mean(rows, axis=0).tolist())


def prompted(
    prompts: int, each: int, pictures: int, sure: float, runs: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Means of what the prompts can give, what a run copied, Chao1 and Chao2.

    A prompt's images show its one image with ``sure``.
    """
    rows = []
    for _ in range(runs):
        mine = rng.integers(pictures, size=prompts)
        times = rng.binomial(each, sure, size=prompts)
        counts = np.bincount(mine, times, minlength=pictures).astype(int)
        hits = np.bincount(mine[times > 0], minlength=pictures)
        seen = hits[hits > 0]
        rows.append(
            (
                len(set(mine.tolist())),
                len(seen),
                chao1(counts, prompts * each),
                chao2(seen, prompts),
            )
        )
    return tuple(np.mean(rows, axis=0).tolist())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    print(f"{IMAGES} independent images, {runs} runs")
    print(
        f"{'world':36}{'truth':>7}{'copied':>8}{'bound':>8}{'Chao1':>8}"
        f"{'holds bound':>13}{'holds truth':>13}"
    )
    for name, p in WORLDS.items():
        copied, estimate, holds_bound, holds_truth = independent(p, runs, rng)
        print(
            f"{name:36}{len(p):7}{copied:8.1f}{bound(p, IMAGES):8.1f}{estimate:8.1f}"
            f"{holds_bound:13.1%}{holds_truth:13.1%}"
        )
    print(f"\n100 prompts of one image each, out of 300; {runs} runs")
    print(
        f"{'images a prompt, share that copies':36}{'same':>7}{'all':>8}{'copied':>8}"
        f"{'Chao1':>8}{'Chao2':>8}"
    )
    for each, sure in ((1, 0.3), (10, 0.02), (10, 0.3), (10, 0.9)):
        same, copied, estimate, over_prompts = prompted(100, each, 300, sure, runs, rng)
        print(
            f"{f'{each}, {sure:g}':36}{same:7.1f}{300:8}{copied:8.1f}{estimate:8.1f}"
            f"{over_prompts:8.1f}"
        )


if __name__ == "__main__":
    main()
