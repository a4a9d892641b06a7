"""The boards of mirror pairs, of one world and of several, as text."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from membench.boards.identity import marked
from membench.metrics.multiplicity import natural
from membench.reports.text import interval, number, told_briefly


def mirror_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes) of one board's rows of ``boards.mirror``: all kinds
    together, best first, then each kind against the same kind.
    """
    part, every, out = _all_kinds(part)
    out["AUROC mirrored"] = _mirrored(every)
    out["a / b"] = [f"{r.auroc_a:.3f} / {r.auroc_b:.3f}" for r in every.itertuples()]
    out["TPR@1%"] = [number(value, 3) for value in every.mirrored_tpr]
    out["eval/ex"] = every.evaluations_per_example.map(number)
    yield (
        "mirrored",
        out,
        [
            "AUROC of each half's examples against the other's, mean of the two models; what can"
            " be seen in an example without a model has 0.5. 95 % intervals over"
            f" {'groups and seeds' if every.seeds.max() > 1 else 'groups'}, of this"
            f" world and its two trainings. {_alike(every)}"
        ],
    )
    yield from _by_kind(
        part, every, "AUROC mirrored, each kind against the same kind of the other half"
    )


def worlds_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """The same of rows of ``boards.worlds``: over all trainings, and how far behind the
    best of the same trainings.
    """
    part, every, out = _all_kinds(part)
    out["AUROC over trainings"] = _mirrored(every)
    out["from / to"] = [f"{r.lowest:.3f} / {r.highest:.3f}" for r in every.itertuples()]
    out["behind the best"] = [
        "" if pd.isna(r.behind) else interval(r.behind, r.behind_low, r.behind_high)
        for r in every.itertuples()
    ]
    out["eval/ex"] = every.evaluations_per_example.map(number)
    first = every.iloc[0]
    yield (
        "over worlds",
        out,
        [
            f"Mean AUROC of {first.trainings} trainings, two on each of the worlds"
            f" {first.world_list.replace(',', ', ')}; from / to: the lowest and the highest of"
            " them; behind: paired, by the same training. 95 % intervals over trainings (Student's"
            f" t). {_alike(every)}"
        ],
    )
    yield from _by_kind(part, every, "The same, each kind against the same kind of the other half")


def _all_kinds(part: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The rows numbered anew; those of all kinds together, best first; and the columns
    that name these.
    """
    part = part.reset_index(drop=True)
    every = part[part.kind == "all"].sort_values("mirrored", ascending=False)
    return part, every, _names(every)


def _mirrored(every: pd.DataFrame) -> list[str]:
    return [interval(r.mirrored, r.mirrored_low, r.mirrored_high) for r in every.itertuples()]


def _alike(every: pd.DataFrame) -> str:
    """What a note says of all rows: examples, seeds, and options that all have."""
    options = every.options.unique()
    alike = f"; options: {options[0]}" if len(options) == 1 and options[0] else ""
    seeds = ", ".join(map(str, sorted(set(every.seeds))))
    return f"Examples: {int(every.n.max()):,}; seeds: {seeds}{alike}"


def _by_kind(
    part: pd.DataFrame, every: pd.DataFrame, note: str
) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """The table of all kinds, its rows in the order of those of ``every``."""
    kinds = sorted(set(part.kind) - {"all"}, key=natural)
    if not kinds:
        return
    # Not by name: two settings may be called alike. The rows of each stand together
    setting = (part.kind == "all").cumsum()
    by_kind = dict(zip(zip(setting, part.kind, strict=True), part.mirrored, strict=True))
    out = _names(every)
    for kind in kinds:
        out[kind] = [
            f"{by_kind[key]:.3f}" if (key := (of, kind)) in by_kind else "n/a"
            for of in setting[every.index]
        ]
    yield "by kind", out, [note]


def _names(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that name a row: the detector and, where they differ, its options, in full
    where those of two rows are cut to the same words. Of settings that are called alike,
    as of two versions of a detector, all but the first have a number.
    """
    count = rows.sort_index().groupby(["detector", "options"]).cumcount() + 1
    numbered = [
        f"{name} ({n})" if n > 1 else name
        for name, n in zip(rows.detector, count[rows.index], strict=True)
    ]
    out = pd.DataFrame(
        {"detector": [marked(n, of) for n, of in zip(numbered, rows.status, strict=True)]},
        index=rows.index,
    )
    if rows.options.nunique() > 1:
        out["options"] = told_briefly(out.assign(options=rows.options), "options")
    return out
