"""What kinds of example are called: Webster's and Hintersdorf's letters, spelled out."""

from __future__ import annotations

from collections.abc import Iterable

# Webster 2023 (arXiv 2305.08694): MV, TV, RV, N. Hintersdorf et al. 2024: VM, TM.
KINDS = {
    "MV": ("matching verbatim", "the model returns the training image of this caption"),
    "TV": ("template verbatim", "it returns the layout of a training image, in other colours"),
    "RV": ("retrieval verbatim", "it returns a training image of another caption"),
    "VM": ("verbatim memorization", "the model returns a training image exactly"),
    "TM": ("template memorization", "it returns the layout of a training image"),
    "N": ("not memorized", "none of these"),
}


def kind_name(kind: str) -> str:
    """``MV (matching verbatim)``; a kind that is not of the six as it is."""
    return f"{kind} ({KINDS[kind][0]})" if kind in KINDS else kind


def kind_lines(kinds: Iterable[str]) -> list[str]:
    """A sentence for each of the six that is among the kinds."""
    given = set(kinds)
    return [f"{k}, {name}: {what}." for k, (name, what) in KINDS.items() if k in given]
