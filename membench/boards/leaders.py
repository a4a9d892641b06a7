"""Who leads a board, as the paired differences say it: a sentence made from them, so
that no text claims more than they show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from membench.boards.differences import LEVEL, named
from membench.boards.identity import BOARD, differing
from membench.metrics.names import DETECTION


def leaders(rows: pd.DataFrame) -> str:
    """``cfg_norm and dcs lead: no significant difference between them (Holm p ≥
    0.67)``, of one board's rows of one metric.

    rows: of ``differences.differences``, at least one. The best is the setting of the
    highest mean; with it lead those that do not differ significantly from it
    (Holm-adjusted p at least LEVEL). p is rounded so that what is said of it holds.
    """
    pairs = {}
    for a, b, difference, p in zip(
        named(rows, "a"), named(rows, "b"), rows.difference, rows.p_holm, strict=True
    ):
        pairs[a, b], pairs[b, a] = (float(difference), float(p)), (-float(difference), float(p))
    names = list(dict.fromkeys(name for name, _ in pairs))
    ahead = {name: [found[0] for (one, _), found in pairs.items() if one == name] for name in names}
    top = max(names, key=lambda name: sum(ahead[name]) / len(ahead[name]))
    others = sorted(
        (other for one, other in pairs if one == top), key=lambda other: pairs[top, other][0]
    )
    tied = [other for other in others if pairs[top, other][1] >= LEVEL]
    among = [
        pairs[one, other][1]
        for one in (top, *tied)
        for other in (top, *tied)
        if (one, other) in pairs
    ]
    if not tied:
        text = (
            f"{top} leads: significantly better than {_joined(others)} (Holm p ≤"
            f" {_ceil(max(pairs[top, o][1] for o in others))})"
        )
    elif min(among) < LEVEL:  # two of them differ from each other, and neither from the best
        text = (
            f"{top} has the highest {DETECTION.get(rows.metric.iloc[0], rows.metric.iloc[0])}; not"
            " significantly lower "
        )
        text += (
            f"{'is' if len(tied) == 1 else 'are'} {_joined(tied)} (Holm p ≥"
            f" {_floor(min(pairs[top, o][1] for o in tied))})"
        )
    else:
        between = "between them" if len(tied) == 1 else "among them"
        who = (
            f"{_joined([top, *tied])} lead"
            if len(tied) < len(others)
            else f"none of {_joined([top, *tied])} leads"
        )
        text = f"{who}: no significant difference {between} (Holm p ≥ {_floor(min(among))})"
    apart = sorted(set(names) - {top, *others})
    return text + (
        f"; not compared with {top}, for want of a common seed: {_joined(apart)}" if apart else ""
    )


def leaders_lines(table: pd.DataFrame, metric: str = "auroc") -> Iterator[str]:
    """A line a board of a model (on a control there is nothing to lead in):
    ``sd_webster, AUROC: cfg_norm leads ...``; of several boards of a task, each with what
    tells it from the others: ``sd_webster (weights bc0393ff), AUROC: ...``.
    """
    rows = table[(table.metric == metric) & ~table.control.astype(bool)]
    boards = [part for _, part in rows.groupby(list(BOARD), dropna=False, sort=False)]
    firsts = [part.iloc[0].to_dict() for part in boards]
    for first, part in zip(firsts, boards, strict=True):
        alike = [of for of in firsts if of["task"] == first["task"]]
        which = f"{first['task']}{_apart(first, alike)}"
        yield f"{which}, {DETECTION.get(metric, metric)}: {leaders(part)}"


def _apart(first: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    """What tells a board from the others of its task, the weights alone where they do."""
    names = differing(alike)
    if len({of["weights"] for of in alike}) == len(alike) > 1:
        names = ["weights"]
    return f" ({', '.join(f'{name} {first[name]}' for name in names)})" if names else ""


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _floor(p: float) -> str:
    return _rounded(p, math.floor)


def _ceil(p: float) -> str:
    return _rounded(p, math.ceil)


def _rounded(p: float, way: Callable[[float], int]) -> str:
    """Two significant digits, rounded one way: ``0.67``, ``1``."""
    digits = 1 - math.floor(math.log10(p)) if p > 0 else 2
    text = f"{way(round(p * 10**digits, 6)) / 10**digits:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
