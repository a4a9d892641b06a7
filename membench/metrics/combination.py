"""A logistic regression over several scores, no example scored by what its own group
has taught.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from membench.errors import UserError
from membench.metrics.captions import FOLDS, dealt


def cross_fitted(
    raw: np.ndarray,
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    folds: int = FOLDS,
    strength: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The combined score of each row [n], and what all rows teach: :func:`regression`.

    raw [n, k]: a column a score, not finite where it has failed: such a row teaches
    nothing and is scored NaN. labels: 1 memorized, 0 not, -1 unknown. The groups are
    dealt into folds (:func:`membench.metrics.captions.dealt`), and a fold is scored by
    the others; a row of a group that teaches nothing by all. Raises :class:`UserError`
    where fewer than 2 groups of a label are left to learn from.
    """
    whole = np.isfinite(raw).all(axis=1)
    label, group = np.asarray(labels), np.asarray(groups)
    known = np.flatnonzero(whole & (label >= 0))
    most = refuse_few(label[known].tolist(), group[known].tolist(), int((~whole).sum()))
    taught = dealt(label[known].tolist(), group[known].tolist(), min(folds, most))
    fold = np.array([taught.get(name, -1) for name in group.tolist()])
    scores = np.full(len(raw), np.nan)
    for out in np.unique(fold[whole]):
        train, told = known[fold[known] != out], whole & (fold == out)
        scores[told] = combined(raw[told], regression(raw[train], label[train], strength))
    return scores, regression(raw[known], label[known], strength)


def refuse_few(labels: Sequence[int], groups: Sequence[str], failed: int = 0) -> int:
    """Groups of the rarer label. Raises :class:`UserError` for fewer than 2."""
    pairs = list(zip(labels, groups, strict=True))
    held = [len({group for label, group in pairs if label == of}) for of in (1, 0)]
    if min(held) < 2:
        raise UserError(
            f"a combination needs 2 groups of each label to learn from; here are {held[0]} of "
            f"memorized examples and {held[1]} of others"
            + (f", without the {failed} examples on which a detector has failed" if failed else "")
        )
    return min(held)


def regression(raw: np.ndarray, labels: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """[3, k]: of each score its mean, its spread and its weight once standardised.

    The weights are those of a logistic regression with L2 regularisation (strength: its
    inverse) in which both labels weigh alike. A score that is the same everywhere has
    spread 1.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    return np.stack([mean, spread, model.fit((raw - mean) / spread, labels).coef_[0]])


def combined(raw: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """sum_k weight_k (raw_k - mean_k) / spread_k of each row; NaN where a score has
    failed.
    """
    mean, spread, weight = learned
    return np.where(np.isfinite(raw).all(axis=1), ((raw - mean) / spread) @ weight, np.nan)


def as_text(learned: np.ndarray, names: Sequence[str]) -> str:
    """``NAME:MEAN:SPREAD:WEIGHT,...``, which :func:`from_text` reads."""
    rows = zip(names, learned.T.tolist(), strict=True)
    return ",".join(":".join([name, *(f"{value:.9g}" for value in row)]) for name, row in rows)


def from_text(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """[3, k] of ``NAME:MEAN:SPREAD:WEIGHT``, one of each name.

    Raises ValueError for another.
    """
    words = {text.partition(":")[0]: text.split(":")[1:] for text in texts}
    try:
        rows = np.array([[float(value) for value in words[name]] for name in names])
    except (KeyError, ValueError):
        rows = np.empty(0)
    if rows.shape != (len(texts), 3) or not np.isfinite(rows).all() or rows[:, 1].min() <= 0:
        known = ", ".join(names)
        raise ValueError(f"weights must be DETECTOR:MEAN:SPREAD:WEIGHT, one of each of {known}")
    return rows.T
