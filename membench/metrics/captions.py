"""Three scores of captions that need no model: share of capitals, length, character
n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from membench.errors import UserError
from membench.seeds import seed_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS = 5


def case_share(texts: Sequence[str]) -> np.ndarray:
    """The share of a text's characters, white space included, that are upper-case
    letters (``str.isupper``): float64 [n] in [0, 1].

    0 for an empty text. Of all characters, not of the letters: of the 500 memorized
    prompts against the 500 LAION captions of Hintersdorf et al. (2024) this one has
    AUROC 0.794 and a TPR of 0.026 at 1 % FPR; the share of the letters has 0.819 and
    0.016.
    """
    return np.array(
        [sum(map(str.isupper, text)) / max(1, len(text)) for text in texts], dtype=np.float64
    )


def length(texts: Sequence[str]) -> np.ndarray:
    """The number of characters, float64 [n]: a longer text says more of its one
    image, and the more specific a caption, the easier its image is memorized
    (Somepalli et al., NeurIPS 2023).

    The sign is fixed, and not fitted to any labels: an AUROC of 0.3 gives away as much
    as one of 0.7.
    """
    return np.array([len(text) for text in texts], dtype=np.float64)


def ngram_scores(
    texts: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """Log-odds of "memorized", float64 [n], by naive Bayes on what other groups' texts
    look like.

    Multinomial naive Bayes (Laplace smoothing 1, equal priors) on counts of character
    trigrams of the lower-cased texts, of which only those of a fold's training texts
    count. No text is scored by a model that has seen its group (:func:`dealt`, into at
    most as many folds as the rarer label has groups). Unlabelled texts train nothing;
    they are scored by the model that has not seen their group, or, where no labelled
    text is of their group, by one of all labelled.

    labels: 1 memorized, 0 not, -1 unknown [n]; groups [n]: near-duplicates share one.
    The scores do not depend on the order of the rows. Raises :class:`UserError` where a
    label has fewer than 2 groups, which cannot be cross-validated, and ValueError for
    lengths that differ, other labels, or fewer than 2 folds.
    """
    label, group = np.asarray(labels, dtype=np.int64), np.asarray(groups).astype(str)
    if not len(texts) == len(label) == len(group):
        raise ValueError(f"{len(texts)} texts, {len(label)} labels and {len(group)} groups")
    if not set(label.tolist()) <= {-1, 0, 1} or folds < 2:
        raise ValueError(
            f"labels must be 1, 0 or -1, and folds at least 2; got {sorted(set(label.tolist()))}"
            f" and {folds} folds"
        )
    held = {value: len(set(group[label == value])) for value in (1, 0)}
    if min(held.values()) < 2:
        raise UserError(
            "n-grams of captions need 2 groups of each label to be cross-validated; here are"
            f" {held[1]} of memorized examples and {held[0]} of others"
        )
    known = np.flatnonzero(label >= 0)
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=True, dtype=np.int64)
    try:
        found = counts.fit_transform(texts)
    except ValueError:  # no text has three characters
        return np.zeros(len(texts))
    # A sum's last bit depends on its order, and the vectorizer's is that of the texts
    found.sort_indices()
    scores = np.full(len(texts), np.nan)
    fold_of = dealt(label[known].tolist(), group[known].tolist(), min(folds, *held.values()), seed)
    fold = np.array([fold_of.get(name, -1) for name in group.tolist()])  # -1: of no labelled text
    for held_out in np.unique(fold):
        train = known[fold[known] != held_out]
        scores[fold == held_out] = _log_odds(found[train], label[train], found[fold == held_out])
    return scores


def dealt(
    labels: Sequence[int], groups: Sequence[str], folds: int, seed: int = 0
) -> dict[str, int]:
    """The fold, 0 .. folds - 1, of each group: the largest group first, equal ones in
    the order of hash(seed, group), each to the fold that has the smallest share of what
    is of its label yet.

    labels: 0 or 1 [n]; groups [n]. As scikit-learn's ``StratifiedGroupKFold``, which
    takes 200 times as long for 10,000 groups.
    """
    counts: dict[str, list[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, [0, 0])[label] += 1
    total = [max(1, sum(c[label] for c in counts.values())) for label in (0, 1)]
    rows, found = [[0, 0] for _ in range(folds)], {}
    for group in sorted(counts, key=lambda g: (-sum(counts[g]), seed_of("fold", seed, g))):
        c = counts[group]
        found[group] = min(
            range(folds),
            key=lambda f: sum(c[label] * rows[f][label] / total[label] for label in (0, 1)),
        )
        for label in (0, 1):
            rows[found[group]][label] += c[label]
    return found


def _log_odds(train: csr_matrix, labels: np.ndarray, of: csr_matrix) -> np.ndarray:
    """log P(text | memorized) - log P(text | not) of the rows ``of``, without the
    multinomial coefficient, which is the same.
    """
    # A trigram that no training text has would tell short from long by smoothing alone
    there = np.flatnonzero(train.sum(axis=0))
    if not len(there):  # texts of fewer than three characters teach nothing
        return np.zeros(of.shape[0])
    from sklearn.naive_bayes import MultinomialNB

    fitted = MultinomialNB().fit(train[:, there], labels)
    return np.asarray(of[:, there] @ (fitted.feature_log_prob_[1] - fitted.feature_log_prob_[0]))
