"""The board of mirror pairs as text."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from membench.boards.identity import marked
from membench.metrics.multiplicity import natural
from membench.reports.text import interval, number


def mirror_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes) of one board's rows of ``boards.mirror``: all kinds
    together, best first, then each kind against the same kind.
    """
    settings = ["detector", "options"]
    every = part[part.kind == "all"].sort_values("mirrored", ascending=False)
    out = _names(every)
    out["AUROC mirrored"] = [
        interval(r.mirrored, r.mirrored_low, r.mirrored_high) for r in every.itertuples()
    ]
    out["a / b"] = [f"{r.auroc_a:.3f} / {r.auroc_b:.3f}" for r in every.itertuples()]
    out["TPR@1%"] = [number(value, 3) for value in every.mirrored_tpr]
    out["eval/ex"] = every.evaluations_per_example.map(number)
    seeds = sorted(set(every.seeds))
    alike = f"; options: {options[0]}" if len(options := every.options.unique()) == 1 else ""
    yield (
        "mirrored",
        out,
        [
            "AUROC of each half's examples against the other's, mean of the two models; what can"
            " be seen in an example without a model has 0.5. 95 % intervals over"
            f" {'groups and seeds' if seeds[-1] > 1 else 'groups'}, of this"
            f" world and its two trainings. Examples: {int(every.n.max()):,}; seeds:"
            f" {', '.join(map(str, seeds))}{alike if options[0] else ''}"
        ],
    )
    kinds = sorted(set(part.kind) - {"all"}, key=natural)
    if not kinds:
        return
    by_kind = part.set_index([*settings, "kind"]).mirrored
    out = _names(every)
    for kind in kinds:
        out[kind] = [
            f"{by_kind[key]:.3f}" if (key := (r.detector, r.options, kind)) in by_kind else "n/a"
            for r in every.itertuples()
        ]
    yield "by kind", out, ["AUROC mirrored, each kind against the same kind of the other half"]


def _names(rows: pd.DataFrame) -> pd.DataFrame:
    """Detector, and its options where they differ."""
    out = pd.DataFrame(
        {"detector": [marked(r.detector, r.status) for r in rows.itertuples()]}, index=rows.index
    )
    if rows.options.nunique() > 1:
        out["options"] = rows.options
    return out
