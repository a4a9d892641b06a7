"""Both models of a mirror pair together: AUROC of each on the other's images, and their
mean (docs/design/mirror-pairs.md).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from membench.metrics.intervals import class_weights, percentiles, weighted_statistics
from membench.metrics.multiplicity import natural


def mirrored_auroc(
    a: pd.DataFrame, b: pd.DataFrame, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """AUROC of one half's images against the other's, for both models: overall and per
    kind against the same kind.

    a, b: the scores (columns id, score, label, kind, group, status) of the two runs:
    the same examples, whose labels are exchanged. An example whose label is 0 in both
    (held out) is left out, as is one that failed in either. Returns columns ``kind``
    ("all" first), ``mirrored`` with ``low`` and ``high``, ``a``, ``b`` and ``n``
    (examples). Both models share each resample of the groups, drawn within each half.
    Raises ValueError for other examples or labels.
    """
    if set(a.id) != set(b.id) or a.id.duplicated().any() or b.id.duplicated().any():
        raise ValueError("the two runs scored other examples")
    both = a.merge(b[["id", "score", "label", "status"]], on="id", suffixes=("", "_b"))
    if ((both.label == 1) & (both.label_b == 1)).any():
        raise ValueError(
            "an example is memorized by both models, so they are no mirror of each other"
        )
    both = both[
        (both.label != both.label_b) & (both.status == "ok") & (both.status_b == "ok")
    ].sort_values("id")
    rows = []
    for kind in ("all", *sorted(both.kind.unique(), key=natural)):
        part = both if kind == "all" else both[both.kind == kind]
        labels, groups = part.label.to_numpy(), part.group.to_numpy().astype(str)
        if set(labels) != {0, 1}:
            continue
        once = np.ones((1, len(part)), dtype=np.int64)
        one, two = (_aurocs(part, labels, once)[i][0] for i in (0, 1))
        drawn = [
            np.mean(_aurocs(part, labels, weights), axis=0)
            for weights in class_weights(labels, groups, resamples, seed)
        ]
        low, high = percentiles(np.concatenate(drawn), level) if drawn else (np.nan, np.nan)
        rows.append(
            {
                "kind": kind,
                "mirrored": (one + two) / 2,
                "low": low,
                "high": high,
                "a": one,
                "b": two,
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def _aurocs(
    part: pd.DataFrame, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each model, [r] each, under each row of weights [r, n]."""
    return (
        weighted_statistics(part.score.to_numpy(dtype=float), labels, weights)["auroc"],
        weighted_statistics(part.score_b.to_numpy(dtype=float), 1 - labels, weights)["auroc"],
    )
