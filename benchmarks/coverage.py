"""How often the 95 % intervals hold the truth: worlds with known truth, clustered
groups and several seeds.

``python benchmarks/coverage.py [--worlds 1000] [--resamples 1000]`` prints a row a
world. An example's score is separation x label + group effect + example effect + noise
of (seed, example) + effect of the seed on all memorized examples, all normal; groups
hold 1 to 6 examples. The truth is the expectation over groups and seeds in an endless
population, which has a closed form (average precision: a quadrature).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from membench.metrics.intervals import draws, percentiles, share_intervals, weighted_statistics
from membench.metrics.levels import two_level_interval
from membench.metrics.names import INFO
from membench.metrics.trainings import over_trainings

TPR = "tpr_at_fpr_0.01"


@dataclass(frozen=True)
class World:
    """Spreads (standard deviations) of the effects. groups: of each class."""

    name: str
    groups: int = 60
    seeds: int = 3
    separation: float = 1.5
    group: float = 1.0
    example: float = 0.5
    noise: float = 0.5
    seed: float = 0.0


WORLDS = (
    World("one seed, clustered", seeds=1),
    World("one seed, few groups", seeds=1, groups=20),
    World("one seed, no clusters", seeds=1, group=0.0, example=1.0),
    World("three seeds, noise of examples", noise=1.0),
    World("three seeds, noise of examples only", group=0.0, example=0.0, noise=1.0),
    World("three seeds that move all examples", seed=0.3),
    World("three seeds, little else", group=0.3, example=0.3, noise=0.3, seed=0.5, groups=100),
    World("five seeds that move all examples", seeds=5, seed=0.3),
)


def draw(
    world: World, rng: np.random.Generator, detectors: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [detectors, seeds, n], labels [n], groups int [n], sorted.

    Detectors share the effects of groups and examples by half.
    """
    sizes = rng.integers(1, 7, size=2 * world.groups)
    groups = np.repeat(np.arange(2 * world.groups), sizes)
    labels = (groups >= world.groups).astype(int)
    n = len(groups)

    def effects(spread: float, count: int) -> np.ndarray:
        own, shared = rng.normal(size=(detectors, 1, count)), rng.normal(size=(1, 1, count))
        return spread * (np.sqrt(0.5) * own + np.sqrt(0.5) * shared if detectors > 1 else own)

    scores = (
        world.separation * labels
        + effects(world.group, 2 * world.groups)[..., groups]
        + effects(world.example, n)
    )
    scores = scores + world.noise * rng.normal(size=(detectors, world.seeds, n))
    return (
        scores + labels * world.seed * rng.normal(size=(detectors, world.seeds, 1)),
        labels,
        groups,
    )


def truths(world: World) -> dict[str, float]:
    """The expectation of each metric over groups and seeds, with as many memorized
    examples as others.
    """
    # Of one example's score
    spread = float(np.sqrt(world.group**2 + world.example**2 + world.noise**2))
    both = float(np.hypot(spread, world.seed))
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)  # of the seed's effect
    thresholds = np.linspace(-9 * both, world.separation + 9 * both, 20001)
    fpr = ndtr(-thresholds / spread)
    tpr = ndtr((world.separation + world.seed * nodes[:, None] - thresholds) / spread)
    precision = np.divide(tpr, tpr + fpr, out=np.ones_like(tpr), where=tpr + fpr > 0)
    area = ((precision[:, 1:] + precision[:, :-1]) / 2 * -np.diff(tpr, axis=1)).sum(axis=1)
    return {
        "auroc": float(ndtr(world.separation / np.hypot(spread, both))),
        TPR: float(ndtr((world.separation + spread * ndtri(0.01)) / both)),
        "average_precision": float(area @ weights / weights.sum()),
    }


def times(world: World, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each group of each class is drawn: int [2, resamples + 1, groups], the
    first row once each. Of use in every such world.
    """
    drawn = [
        np.concatenate(list(draws(world.groups, resamples, np.random.default_rng([seed, label]))))
        for label in (0, 1)
    ]
    return np.concatenate([np.ones((2, 1, world.groups), dtype=int), drawn], axis=1)


def aurocs(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """AUROC, [r], of scores without ties under each row of :func:`times`: from the wins
    between groups, faster than of examples.
    """
    wins = scores[labels == 1][:, None] > scores[labels == 0]
    first = [np.flatnonzero(np.diff(groups[labels == label], prepend=-1)) for label in (1, 0)]
    wins = np.add.reduceat(np.add.reduceat(wins.astype(float), first[0], axis=0), first[1], axis=1)
    sizes = np.bincount(groups).reshape(2, -1)
    pairs = (drawn[1] @ sizes[1]) * (drawn[0] @ sizes[0])
    return ((drawn[1].astype(float) @ wins) * drawn[0]).sum(axis=1) / pairs


def simulated(
    world: World, worlds: int, resamples: int, detectors: int = 1
) -> Iterator[np.ndarray]:
    """AUROCs [detectors, seeds, 1 + resamples] of each simulated world: of all
    examples, then of each resample.
    """
    drawn = times(world, resamples)
    for i in range(worlds):
        scores, labels, groups = draw(world, np.random.default_rng([2, i]), detectors)
        yield np.array([[aurocs(seed, labels, groups, drawn) for seed in of] for of in scores])


def auroc(world: World, worlds: int, resamples: int) -> float:
    """Share of worlds whose interval of AUROC holds the truth."""
    truth = truths(world)["auroc"]
    found = (
        two_level_interval(of[:, 0], of[:, 1:], logit=True, seed=i)
        for i, [of] in enumerate(simulated(world, worlds, resamples))
    )
    return float(np.mean([low <= truth <= high for low, high in found]))


def difference(world: World, worlds: int, resamples: int) -> float:
    """The same of the paired difference of two detectors' AUROC, whose truth is 0."""
    held = 0
    for i, of in enumerate(simulated(world, worlds, resamples, detectors=2)):
        apart = of[0] - of[1]
        low, high = two_level_interval(apart[:, 0], apart[:, 1:], seed=i, range_=(-1.0, 1.0))
        held += low <= 0 <= high
    return held / worlds


def naive(world: World, worlds: int, resamples: int) -> float:
    """What a bootstrap of single examples, as if independent, of the first seed alone
    would give for AUROC.
    """
    truth, held = truths(world)["auroc"], 0
    for i in range(worlds):
        scores, labels, _ = draw(world, np.random.default_rng([2, i]))
        rng, wins = (
            np.random.default_rng([5, i]),
            scores[0, 0, labels == 1][:, None] > scores[0, 0, labels == 0],
        )
        positive, negative = (
            np.concatenate(list(draws(count, resamples, rng))) for count in wins.shape
        )
        values = ((positive.astype(float) @ wins) * negative).sum(axis=1) / wins.size
        low, high = percentiles(values, 0.95)
        held += low <= truth <= high
    return held / worlds


def others(world: World, worlds: int, resamples: int) -> dict[str, float]:
    """The same of TPR at 1 % FPR and average precision, by name. Slow."""
    truth, drawn = truths(world), times(world, resamples)
    held = dict.fromkeys((TPR, "average_precision"), 0)
    for i in range(worlds):
        [scores], labels, groups = draw(world, np.random.default_rng([2, i]))
        weights = drawn.swapaxes(0, 1).reshape(resamples + 1, -1)[:, groups]
        found = [weighted_statistics(of, labels, weights) for of in scores]
        for name in held:
            values = np.stack([of[name] for of in found])
            low, high = two_level_interval(
                values[:, 0], values[:, 1:], logit=INFO[name].scale == "logit", seed=i
            )
            held[name] += low <= truth[name] <= high
    return {name: count / worlds for name, count in held.items()}


def share(
    rate: float, cluster: float, groups: int, worlds: int, resamples: int
) -> tuple[float, float]:
    """Coverage of AMS's interval over clustered groups, and its mean width. cluster: 0
    independent images, 1 all of a group alike.
    """
    held, width = 0, 0.0
    for i in range(worlds):
        rng = np.random.default_rng([4, i])
        sizes = rng.integers(1, 7, size=groups)
        member = np.repeat(np.arange(groups), sizes)
        together, alone = rng.random(groups) < rate, rng.random(len(member)) < rate
        hit = np.where(rng.random(groups)[member] < cluster, together[member], alone)
        [(low, high)] = share_intervals(hit[:, None], member, resamples=resamples, seed=i)  # type: ignore[misc]
        held, width = held + (low <= rate <= high), width + high - low
    return held / worlds, width / worlds


# Of a mirror pair's example: spread of what both models see in it, and of what one does
PAIRS = {
    "trainings alike": (1.0, 0.7, 0.7, 0.0),
    "trainings differ": (1.0, 0.7, 0.7, 0.3),
    "near 1": (3.0, 0.7, 0.7, 0.3),
    "content alone": (0.0, 1.0, 0.0, 0.0),
    "mostly content": (0.5, 1.0, 0.1, 0.1),
}


def trainings(
    separation: float, content: float, noise: float, training: float, pairs: int, worlds: int
) -> tuple[float, float]:
    """Coverage of the interval over the trainings of so many mirror pairs, of 60 images a
    half, and its mean width. training: what moves all that a model has seen.
    """
    spread = np.sqrt(2 * (content**2 + noise**2) + training**2)
    truth, held, width = ndtr(separation / spread), 0, 0.0
    for i in range(worlds):
        rng, found = np.random.default_rng([6, i]), []
        for _ in range(pairs):
            seen, of_both = np.repeat([True, False], 60), content * rng.normal(size=120)
            for own in (seen, ~seen):
                gain = separation + training * rng.normal()
                scores = of_both + gain * own + noise * rng.normal(size=120)
                found.append((scores[own][:, None] > scores[~own]).mean())
        low, high = over_trainings(found, logit=True)
        held, width = held + (low <= truth <= high), width + high - low
    return held / worlds, width / worlds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", action="store_true", help="of means over trainings alone")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    if args.trainings:
        for name, world in PAIRS.items():
            for pairs in (2, 3, 5):
                covered, width = trainings(*world, pairs, args.worlds)
                print(f"{name:<18} {pairs} worlds: {covered:.3f}, mean width {width:.3f}")
        return
    few = -(-args.worlds // 4)  # of the slow ones
    error, larger = (1.96 * (0.05 * 0.95 / n) ** 0.5 for n in (args.worlds, few))
    print(
        f"coverage of 95 % intervals, {args.worlds} worlds each (+-{error:.3f}); of TPR and average"
        f" precision {few} (+-{larger:.3f})"
    )
    for world in WORLDS:
        found = {
            "AUROC": auroc(world, args.worlds, args.resamples),
            "difference": difference(world, args.worlds, args.resamples),
            "groups and seeds ignored": naive(world, few, args.resamples),
        }
        found |= others(world, few, args.resamples)
        print(
            f"{world.name:<40}" + "  ".join(f"{name} {value:.3f}" for name, value in found.items()),
            flush=True,
        )
    for rate in (0.02, 0.1, 0.3):
        for cluster in (0.0, 0.9):
            covered, width = share(rate, cluster, 100, args.worlds, args.resamples)
            print(
                f"AMS {rate:.2f}, clustered {cluster:.1f}, 100 groups: {covered:.3f}, mean width"
                f" {width:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
