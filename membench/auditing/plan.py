"""How an audit spends its budget: what is screened, and which images are generated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from membench.auditing.material import UNCONDITIONAL, Material
from membench.errors import UserError
from membench.seeds import seed_of
from membench.types import Condition, Request

SCREEN = 1 / 3  # of the budget, at most
RANDOM, NEW = 0.12, 0.2  # of the images, for random and for unseen captions
MOST_IMAGES = 1_000_000  # of an audit, whatever its budget: they are compared in memory
MOST_CONTROL = 400  # captions of each
UNSEEN = 300  # unseen captions that are made


@dataclass(frozen=True)
class Images:
    """The images of an audit. top, random, unseen: requests to the model; a request of
    ``random`` may be one of ``top``. mirror: requests to the mirror.
    """

    top: list[Request]
    random: list[Request] = field(default_factory=list)
    unseen: list[Request] = field(default_factory=list)
    mirror: list[Request] = field(default_factory=list)

    @property
    def own(self) -> list[Request]:
        """Those of ``top`` and ``random``, each once."""
        return list(dict.fromkeys([*self.top, *self.random]))

    def __len__(self) -> int:
        return len(self.own) + len(self.unseen) + len(self.mirror)


def screened(
    conditions: Sequence[Condition], unseen: Sequence[Condition], count: int
) -> tuple[list[Condition], list[Condition]]:
    """(unseen captions, captions) that ``count`` scores pay for: of unseen ones an eighth
    and 20 at least, but no more than half.
    """
    control = list(unseen[: min(max(20, count // 8), count // 2)])
    return control, list(conditions[: count - len(control)])


def by_duplicates(material: Material, seed: int) -> list[Condition]:
    """What there is to ask, the captions of images that the data repeat most first;
    ties in an order that only the seed and the captions decide.
    """
    return sorted(
        material.prompts,
        key=lambda c: (-_copies(material, c), seed_of("order", seed, c.id)),
    )


def _copies(material: Material, condition: Condition) -> int:
    return max((material.copies[i] for i in material.prompts[condition]), default=0)


def ranked(material: Material, scores: Mapping[str, float], seed: int) -> list[Condition]:
    """The order in which captions are asked: in turn the next by score and the next by
    copies in the data; of each training image one caption first, then the others.
    """
    duplicated = [c for c in by_duplicates(material, seed) if _copies(material, c) > 1]
    by_score = sorted(
        (c for c in material.prompts if c.id in scores and scores[c.id] == scores[c.id]),
        key=lambda c: (-scores[c.id], c.id),
    )
    # Of captions that are duplicated alike, the higher score first
    place = {c.id: i for i, c in enumerate(by_score)}
    duplicated.sort(key=lambda c: (-_copies(material, c), place.get(c.id, len(place))))
    queues = [iter(by_score), iter(duplicated)]
    first: dict[str, Condition] = {}
    later: dict[str, Condition] = {}
    covered: set[int] = set()
    while queues:
        for queue in list(queues):
            found = _take(queue, material, covered, first, later)
            if not found:
                queues.remove(queue)
    unranked = iter(by_duplicates(material, seed))
    while _take(unranked, material, covered, first, later):
        pass
    return list({**first, **{k: c for k, c in later.items() if k not in first}}.values())


def _take(
    queue: Iterator[Condition],
    material: Material,
    covered: set[int],
    first: dict[str, Condition],
    later: dict[str, Condition],
) -> bool:
    """Moves the next caption of a queue whose images nobody asks for yet to ``first``,
    and those before it to ``later``; False at its end.
    """
    for condition in queue:
        if condition.id in first:
            continue
        images = material.prompts[condition]
        if covered.issuperset(images):
            later.setdefault(condition.id, condition)
            continue
        covered.update(images)
        first[condition.id] = condition
        return True
    return False


def images_of_prompts(
    order: Sequence[Condition],
    unseen: Sequence[Condition],
    count: int,
    draws: int,
    seed: int,
    *,
    mirror: bool,
) -> Images:
    """Shares ``count`` images out. order: of :func:`ranked`. Raises ValueError for
    fewer than one image.
    """
    if count < 1:
        raise ValueError("no image")
    control = min(MOST_CONTROL, round(RANDOM * count))
    pool = sorted(order, key=lambda c: c.id)
    chosen = random.Random(seed_of("random captions", seed)).sample(pool, min(control, len(pool)))
    made = list(unseen[: min(MOST_CONTROL, round(NEW * count))])
    # A caption of the top costs its draws and, of a mirror, one image
    left = count - len(made) - len(chosen) * (2 if mirror else 1)
    each = draws + (1 if mirror else 0)
    top = list(order[: max(1, left // each)])
    if len(top) == len(order):  # all of them: the rest is for further images of each
        draws = max(draws, (left - len(top) * (1 if mirror else 0)) // len(top))
    at_random = [Request(c, 0) for c in chosen]
    # Every caption once, then again
    requests = [Request(c, k) for k in range(draws) for c in top]
    asked = list(dict.fromkeys([*(Request(c, 0) for c in top), *at_random]))
    found = Images(requests, at_random, [Request(c, 0) for c in made], asked if mirror else [])
    return found if len(found) <= max(count, 1) else _cut(found, count)


def _cut(images: Images, count: int) -> Images:
    """The first ``count`` images; of so few there is no control."""
    return Images(images.top[:count])


def images_of_classes(conditions: Sequence[Condition], count: int, *, mirror: bool) -> Images:
    """``count`` images of classes in turn, half of them by the mirror where there is
    one. conditions: none for the unconditional model.
    """
    told = list(conditions) or [UNCONDITIONAL]
    own = max(1, count // 2) if mirror else count
    requests = [Request(told[k % len(told)], k // len(told)) for k in range(own)]
    return Images(requests, mirror=requests[: count - own] if mirror else [])


def paid(evaluations: int, price: int, budget: str) -> int:
    """How many images the evaluations pay for, up to ``MOST_IMAGES``.

    Raises :class:`UserError` where that is none.
    """
    if evaluations < price:
        raise UserError(
            f"--budget {budget} pays for no image: it is worth {evaluations:,} evaluations of the"
            f" model, and one image takes {price:,}; raise it"
        )
    return min(evaluations // price, MOST_IMAGES)
