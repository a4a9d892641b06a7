"""Does a prompt give back its *own* training image?

Metrics of generations whose prompt's ground truth is known.

A label of a prompt says that somebody's model, seed and sampler once returned its
image: of 487 prompts with a published score only 170 reached SSCD 0.5 (Hintersdorf et
al. 2024). A generation's label says what this run returned.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from membench.metrics.detection import unit
from membench.metrics.intervals import (
    group_weights,
    percentiles,
    share_intervals,
    weighted_auroc,
)
from membench.metrics.regions import in_region
from membench.metrics.rows import Metric
from membench.metrics.unique import Interval
from membench.types import Space

OWN_COPIES, RETURNED, AUROC = "own_copies", "prompts_returned", "auroc_of_generations"


def truth_table(
    samples: pd.DataFrame,
    owner: pd.Series,
    kind: pd.Series,
    space: Space,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Metric]:
    """Of the images with a ``truth_similarity``, all and of each kind of prompt, with
    95 % intervals over groups:

    ``own_copies``: the share that is a copy of their own prompt's image, in [0, 1];
    ``prompts_returned``: the share of prompts of which at least one draw is (it grows
    with the number of draws); ``auroc_of_generations``: whether the detector's
    confidence ranks those images above the others, where both are there and the
    confidences differ. threshold: of a copy.

    samples: columns condition, confidence, truth_similarity (missing: no ground truth);
    owner, kind: group and kind of each, by the same index. A copy is one by ``space``,
    and not by the stored label, which a leaderboard with another threshold would
    contradict. Nothing where no ground truth is known.
    """
    known, copy = samples[samples.truth_similarity.notna()], space.copy
    rows: list[Metric] = []
    if known.empty:
        return rows
    kinds = kind[known.index]
    parts = {"all": known}
    parts |= {f"kind={k}": known[kinds == k] for k in sorted(kinds.dropna().unique())}
    for subset, part in parts.items():
        groups = owner[part.index].to_numpy().astype(str)
        hits = in_region(part.truth_similarity.to_numpy(), space, copy)
        [found] = share_intervals(
            hits[:, None], groups, resamples=resamples, level=level, seed=seed
        )
        rows.append(_row(OWN_COPIES, copy, subset, float(hits.mean()), found, len(part)))
        prompts = pd.DataFrame(
            {"hit": hits, "group": groups, "condition": part.condition.to_numpy()}
        ).groupby("condition", sort=True)
        returned, of = prompts.hit.any().to_numpy(), prompts.group.first().to_numpy()
        [found] = share_intervals(
            returned[:, None], of, resamples=resamples, level=level, seed=seed
        )
        rows.append(_row(RETURNED, copy, subset, float(returned.mean()), found, len(returned)))
        confidence = part.confidence.to_numpy(dtype=float)
        if 0 < hits.sum() < len(hits) and len(np.unique(confidence)) > 1:
            value = unit(roc_auc_score(hits, confidence))
            found = _auroc_interval(confidence, hits, groups, resamples, level, seed)
            rows.append(_row(AUROC, copy, subset, value, found, len(part)))
    return rows


def _row(
    name: str, copy: float, subset: str, value: float, interval: Interval | None, n: int
) -> Metric:
    low, high = interval or (None, None)
    return Metric(name, None, copy, value, low, high, n, subset)


def _auroc_interval(
    confidence: np.ndarray,
    hits: np.ndarray,
    groups: np.ndarray,
    resamples: int,
    level: float,
    seed: int,
) -> Interval | None:
    """Groups hold images of both labels here, so they are drawn together; a resample
    without one of the labels has no AUROC.
    """
    found: list[np.ndarray] = []
    order = np.argsort(groups, kind="stable")  # the same interval in whatever order the rows stand
    confidence, hits, groups = confidence[order], hits[order], groups[order]
    for weights in group_weights(groups, resamples, seed):
        both = (weights[:, hits].sum(axis=1) > 0) & (weights[:, ~hits].sum(axis=1) > 0)
        if both.any():
            found.append(weighted_auroc(confidence, hits.astype(int), weights[both]))
    return percentiles(np.concatenate(found), level) if found else None
