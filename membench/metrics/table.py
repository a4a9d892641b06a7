"""The metrics table of one run, from its stored scores, samples and matches.

No network evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from membench.metrics.complexity import complexity_table
from membench.metrics.extraction import extraction_metrics
from membench.metrics.intervals import detection_table
from membench.metrics.multiplicity import multiplicity_table
from membench.metrics.rows import Metric
from membench.metrics.truth import truth_table
from membench.types import Space


def run_metrics(
    scores: pd.DataFrame,
    samples: pd.DataFrame,
    matches: pd.DataFrame,
    space: Space,
    *,
    evaluations: int,
    examples: pd.DataFrame | None = None,
    training_kinds: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """``metrics.parquet``: detection (overall, per kind, per source of negatives),
    complexity and extraction (overall, per kind; and how many of each kind of training
    image).

    samples: those that did not fail. evaluations: of the target network, that the
    samples cost (forwards and JVPs), preparation included. examples: columns id, group,
    kind; default: those of the scores, of which an extraction alone has none. A sample
    of no known example is a group of its own, or, of a prompt, one with those of that
    prompt; "kind=" then has no row of it. training_kinds: of each
    unique training image, for the extracted share against multiplicity
    (``multiplicity_table``). Detection is left out where one class has no scored
    example; unlabelled examples take no part in it.
    """
    rows: list[Metric] = []
    labelled = scores[(scores.label >= 0) & (scores.status == "ok")]
    if labelled.label.nunique() == 2:
        rows += detection_table(labelled, resamples=resamples, seed=seed)
    rows += complexity_table(scores, resamples=resamples, seed=seed)
    rows += extraction_table(
        samples,
        matches,
        space,
        scores if examples is None else examples,
        evaluations=evaluations,
        resamples=resamples,
        seed=seed,
    )
    if len(samples):
        rows += multiplicity_table(
            matches[matches.sample_id.isin(samples.sample_id)], space, training_kinds
        )
    return long_form(rows)


def long_form(rows: Sequence[Metric]) -> pd.DataFrame:
    """The rows as ``metrics.parquet`` holds them."""
    columns = ["name", "band", "threshold", "subset", "value", "low", "high", "n"]
    return pd.DataFrame([asdict(row) for row in rows], columns=columns).rename(
        columns={"name": "metric"}
    )


def extraction_table(
    samples: pd.DataFrame,
    matches: pd.DataFrame,
    space: Space,
    examples: pd.DataFrame,
    *,
    evaluations: int,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Metric]:
    """``extraction_metrics`` of all images, and AMS and UMS of those of each kind of
    example. Arguments as of :func:`run_metrics`.
    """
    rows: list[Metric] = []
    if len(samples):
        owner, kind = owners(samples, examples)
        if "truth_similarity" in samples:
            rows += truth_table(samples, owner, kind, space, resamples=resamples, seed=seed)
        at = pd.Index(samples.sample_id.astype(object)).get_indexer(
            matches.sample_id.astype(object)
        )
        for subset in ["all", *(f"kind={k}" for k in sorted(kind.dropna().unique()))]:
            chosen = (
                np.ones(len(samples), dtype=bool)
                if subset == "all"
                else (kind == subset.removeprefix("kind=")).to_numpy()
            )
            part = samples[chosen]
            inside = (at >= 0) & chosen[at]
            found = matches[inside].assign(
                generated=(np.cumsum(chosen) - 1)[at[inside]].astype(np.int32)
            )
            whole = subset == "all"
            rows += [
                Metric(**{**asdict(metric), "subset": subset})
                for metric in extraction_metrics(
                    found,
                    len(part),
                    space,
                    confidence=part.confidence.to_numpy() if whole else None,
                    evaluations=evaluations if whole and evaluations else None,
                    groups=owner[part.index].to_numpy(),
                    resamples=resamples,
                    seed=seed,
                )
                if whole or metric.name.startswith(("ams", "ums"))
            ]
    return rows


def owners(samples: pd.DataFrame, examples: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The group and the kind of each sample; a kind that nothing tells is missing."""
    unconditional = samples.prompt.isna() & ~samples.condition.str.startswith("class/")
    known = examples.set_index("id").astype(object)
    group, kind = (samples.condition.map(known[name]).astype(object) for name in ("group", "kind"))
    group = group.fillna(samples.sample_id.where(samples.prompt.isna(), samples.condition))
    return group, kind.where(kind.notna() | ~unconditional, "unconditional")
