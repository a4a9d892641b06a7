"""The next generation of prompts, as ``side_prompts`` breeds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bred(
    prompts: Sequence[str],
    fitness: Sequence[float],
    words: Sequence[str],
    rng: np.random.RandomState,
    *,
    elite: float,
    crossover: float,
    mutation: float,
) -> list[str]:
    """As many prompts: the fittest ``elite`` share as they are, then children.

    A child's parents win tournaments of two. With probability ``crossover`` the child
    is the first words of one and the last words of the other, else it is one of them;
    then each of its words is replaced with probability ``mutation`` by one of
    ``words``. fitness: of each prompt, higher is better; a NaN is the worst.
    """
    rank = np.argsort(-np.nan_to_num(np.asarray(fitness, dtype=float), nan=-np.inf), kind="stable")
    place = np.empty(len(rank), dtype=int)
    place[rank] = np.arange(len(rank))

    def parent() -> list[str]:
        one, other = rng.randint(len(prompts), size=2)
        return prompts[one if place[one] <= place[other] else other].split()

    made = [prompts[i] for i in rank[: round(elite * len(prompts))]]
    while len(made) < len(prompts):
        child = parent()
        if rng.random_sample() < crossover:
            second = parent()
            child = child[: rng.randint(1, len(child) + 1)] + second[rng.randint(len(second) + 1) :]
        child = [
            words[rng.randint(len(words))] if rng.random_sample() < mutation else word
            for word in child
        ]
        made.append(" ".join(child))
    return made
