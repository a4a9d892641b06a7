"""The images of an audit, and what each was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from membench.auditing import work
from membench.auditing.found import Audit
from membench.auditing.guided import is_guided
from membench.auditing.judge import GUIDED
from membench.auditing.plan import Images
from membench.types import Request


def extracted(
    found: Audit, attacks: Sequence[work.Asked], images: Images, progress: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """A row an image, with ``asked`` (:mod:`membench.auditing.judge`), ``random``,
    ``condition`` and ``draw``, and the images ``uint8`` [n, side, side, 3].

    attacks: on the model and, where there is one, on the mirror. Adds the conditions to
    ``found.prompts``. Raises :class:`UserError` where every image has failed.
    """
    m = found.material
    own, unseen = images.own, images.unseen
    stored = work.extract(attacks[0], [*own, *unseen], "extract", progress)
    random = {(r.condition.id, r.draw) for r in images.random}
    top = {(r.condition.id, r.draw) for r in images.top}
    rows: list[dict[str, Any]] = []
    parts: list[np.ndarray] = []
    kind = {"text": "top", "class": "class", "unconditional": "unconditional"}
    first = kind[found.model.kind] if m.prompts else "unconditional"

    def take(source: work.Images, requests: Sequence[Request], asked: str) -> None:
        made, pictures = work.pixels(source, requests)
        if failed := len(requests) - len(made):
            found.not_judged.append(f"{failed:,} images that failed")
        parts.append(pictures)
        for r in made:
            name = (r.condition.id, r.draw)
            own_group = GUIDED if is_guided(r) else first if name in top else "random"
            found.prompts[r.condition.id] = r.condition
            rows.append(
                {
                    "asked": asked or own_group,
                    "random": not asked and name in random,
                    "condition": r.condition.id,
                    "draw": r.draw,
                }
            )

    take(stored, own, "")
    if unseen:
        take(stored, unseen, "unseen")
    if images.mirror:
        seen = work.extract(attacks[1], images.mirror, "mirror", progress)
        take(seen, images.mirror, "mirror")
    return pd.DataFrame(rows), np.concatenate(parts)
