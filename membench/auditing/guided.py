"""SIDE as the attack of an audit, for a model that is asked nothing: a part of the budget
goes to plain images, which a surrogate is trained on, the rest to guided ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from membench.auditing import work
from membench.auditing.material import UNCONDITIONAL
from membench.errors import UserError
from membench.runs import contract
from membench.storage.cache import cache_root
from membench.storage.workspace import Workspace
from membench.types import Request

GUIDED = "side"  # what asks for a guided image; plain ones are unconditional images
# Plain images: SIDE's default at most, and at least ten clusters of its default size
MOST, LEAST = 1600, 160


def guided(
    make: Callable[[Sequence[str]], work.Asked], evaluations: int, budget: str, progress: bool
) -> tuple[work.Asked, list[Request], int]:
    """SIDE, prepared; its requests, plain images first; the evaluations that it takes.

    make: the detector with these options, on the model. evaluations: what it may take.
    Raises :class:`UserError` where that pays for too few images.
    """
    price = work.price(make(_options(LEAST, 1)), Request(UNCONDITIONAL, 0))
    each = price + 1  # and one for the features that are clustered
    plain = min(MOST, evaluations // 2 // each)
    if plain < LEAST:
        raise UserError(
            f"--budget {budget} pays for {plain:,} plain images; --attack side needs at least"
            f" {LEAST:,} to train a surrogate on, with their share {2 * LEAST * each:,} evaluations"
            " of each model: raise it"
        )
    asked = make(_options(plain, 1))
    taken = contract.preparation_forwards(asked.detector, asked.model, [])
    count = max(1, (evaluations - taken) // price)
    asked = make(_options(plain, count))
    contract.check(asked.detector, asked.model, [])
    kept = ("weights", "dtype", "sampling", "seed")
    identity = {name: asked.parts[name] for name in kept}
    workspace = Workspace(cache_root() / "audits" / "prepared", identity, progress=progress)
    contract.prepare(asked.detector, asked.model, [], workspace)
    return asked, contract.plan(asked.detector, []), taken + count * price


def _options(plain: int, count: int) -> tuple[str, ...]:
    return (f"synthetic={plain}", f"generations={count}", "count_synthetic=true")


def is_guided(request: Request) -> bool:
    """Whether SIDE's request is of a guided image."""
    return request.condition.id.startswith("cluster-")
