"""SIDE as the attack of an audit, for a model that is asked nothing: a part of the budget
goes to plain images, which a surrogate is trained on, the rest to guided ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from membench.auditing import work
from membench.auditing.material import UNCONDITIONAL
from membench.auditing.plan import MOST_IMAGES
from membench.errors import UserError
from membench.runs import contract
from membench.storage.cache import cache_root
from membench.storage.workspace import Workspace
from membench.types import Request

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
    # Of a surrogate that asks the model while it learns (LoRA), and of a plain image
    least, more = (_prepared(make(_options(n, 1))) for n in (LEAST, LEAST + 1))
    each = more - least
    training = least - LEAST * each
    plain = min(MOST, (evaluations // 2 - training) // each)
    if plain < LEAST:
        raise UserError(
            f"--budget {budget} pays for {max(plain, 0):,} plain images; --attack side needs at"
            f" least {LEAST:,} to train a surrogate on, with their share {2 * least:,} evaluations"
            " of each model: raise it"
        )
    taken = training + plain * each
    count = min((evaluations - taken) // price, MOST_IMAGES - plain)
    asked = make(_options(plain, count))
    contract.check(asked.detector, asked.model, [])
    kept = ("weights", "dtype", "sampling", "seed")
    identity = {name: asked.parts[name] for name in kept}
    workspace = Workspace(cache_root() / "audits" / "prepared", identity, progress=progress)
    contract.prepare(asked.detector, asked.model, [], workspace)
    return asked, contract.plan(asked.detector, []), taken + count * price


def _prepared(asked: work.Asked) -> int:
    return contract.preparation_forwards(asked.detector, asked.model, [])


def _options(plain: int, count: int) -> tuple[str, ...]:
    return (f"synthetic={plain}", f"generations={count}", "count_synthetic=true")


def is_guided(request: Request) -> bool:
    """Whether SIDE's request is of a guided image."""
    return request.condition.id.startswith("cluster-")
