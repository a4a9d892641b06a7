"""What captions alone give away: three scores of texts that no model is needed for, and the line that a detector has to beat.

Published prompt sets are told apart by how their captions are written: the memorized are LAION alt texts, the others often COCO captions
or sentences of a chat model. A detector that looks good on them may have learned the style (docs/captions.md). Higher = more memorized.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import MultinomialNB

from membench.comparison import BOARD
from membench.errors import UserError
from membench.groups import regrouped
from membench.hashing import json_hash
from membench.metrics.detection import check, unit
from membench.metrics.intervals import class_weights, percentiles, weighted_statistics
from membench.runs import Run
from membench.seeds import seed_of

FOLDS = 5
COLUMNS = ("captions_auroc", "captions_low", "captions_high", "captions_by")


def case_share(texts: Sequence[str]) -> np.ndarray:
    """The share of a text's characters, white space included, that are upper-case letters (``str.isupper``): float64 [n] in [0, 1].

    0 for an empty text. Of all characters, not of the letters: of the 500 memorized prompts against the 500 LAION captions of Hintersdorf
    et al. (2024) this one has AUROC 0.794 and a TPR of 0.026 at 1 % FPR; the share of the letters has 0.819 and 0.016.
    """
    return np.array([sum(map(str.isupper, text)) / max(1, len(text)) for text in texts], dtype=np.float64)


def length(texts: Sequence[str]) -> np.ndarray:
    """The number of characters, float64 [n]: a longer text says more of its one picture, and the more specific a caption, the easier its
    picture is memorized (Somepalli et al., NeurIPS 2023).

    The sign is fixed, and not fitted to any labels: an AUROC of 0.3 gives away as much as one of 0.7.
    """
    return np.array([len(text) for text in texts], dtype=np.float64)


def ngram_scores(texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Log-odds of "memorized", float64 [n], by naive Bayes on what other groups' texts look like.

    Multinomial naive Bayes (Laplace smoothing 1, equal priors) on counts of character trigrams of the lower-cased texts, of which only
    those of a fold's training texts count. No text is scored by a model that has seen its group (:func:`dealt`, into at most as many folds
    as the rarer label has groups). Unlabelled texts train nothing; they are scored by the model that has not seen their group, or, where
    no labelled text is of their group, by one of all labelled.

    labels: 1 memorized, 0 not, -1 unknown [n]; groups [n]: near-duplicates share one. The scores do not depend on the order of the rows.
    Raises :class:`UserError` where a label has fewer than 2 groups, which cannot be cross-validated, and ValueError for
    lengths that differ, other labels, or fewer than 2 folds.
    """
    label, group = np.asarray(labels, dtype=np.int64), np.asarray(groups).astype(str)
    if not len(texts) == len(label) == len(group):
        raise ValueError(f"{len(texts)} texts, {len(label)} labels and {len(group)} groups")
    if not set(label.tolist()) <= {-1, 0, 1} or folds < 2:
        raise ValueError(f"labels must be 1, 0 or -1, and folds at least 2; got {sorted(set(label.tolist()))} and {folds} folds")
    held = {value: len(set(group[label == value])) for value in (1, 0)}
    if min(held.values()) < 2:
        raise UserError(
            f"n-grams of captions need 2 groups of each label to be cross-validated; here are {held[1]} of memorized examples and "
            f"{held[0]} of others"
        )
    known = np.flatnonzero(label >= 0)
    counts = CountVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=True, dtype=np.int64)
    try:
        found = counts.fit_transform(texts)
    except ValueError:  # no text has three characters
        return np.zeros(len(texts))
    found.sort_indices()  # a sum's last bit depends on its order, and the vectorizer's is that of the texts
    scores = np.full(len(texts), np.nan)
    fold_of = dealt(label[known].tolist(), group[known].tolist(), min(folds, *held.values()), seed)
    fold = np.array([fold_of.get(name, -1) for name in group.tolist()])  # -1: of no labelled text
    for held_out in np.unique(fold):
        train = known[fold[known] != held_out]
        scores[fold == held_out] = _log_odds(found[train], label[train], found[fold == held_out])
    return scores


def dealt(labels: Sequence[int], groups: Sequence[str], folds: int, seed: int = 0) -> dict[str, int]:
    """The fold, 0 .. folds - 1, of each group: the largest group first, equal ones in the order of hash(seed, group), each to the fold
    that has the smallest share of what is of its label yet.

    labels: 0 or 1 [n]; groups [n]. As scikit-learn's ``StratifiedGroupKFold``, which takes 200 times as long for 10,000 groups.
    """
    counts: dict[str, list[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, [0, 0])[label] += 1
    total = [max(1, sum(c[label] for c in counts.values())) for label in (0, 1)]
    rows, found = [[0, 0] for _ in range(folds)], {}
    for group in sorted(counts, key=lambda g: (-sum(counts[g]), seed_of("fold", seed, g))):
        c = counts[group]
        found[group] = min(range(folds), key=lambda f: sum(c[label] * rows[f][label] / total[label] for label in (0, 1)))
        for label in (0, 1):
            rows[found[group]][label] += c[label]
    return found


def _log_odds(train: csr_matrix, labels: np.ndarray, of: csr_matrix) -> np.ndarray:
    """log P(text | memorized) - log P(text | not) of the rows ``of``, without the multinomial coefficient, which is the same."""
    there = np.flatnonzero(train.sum(axis=0))  # a trigram that no training text has would tell short from long by smoothing alone
    fitted = MultinomialNB().fit(train[:, there], labels)
    return np.asarray(of[:, there] @ (fitted.feature_log_prob_[1] - fitted.feature_log_prob_[0]))


# ------------------------------------------------------------------------------------------- the line to beat


@dataclass(frozen=True)
class Reached:
    """AUROC of a score of captions. low, high: of the 95 % interval over groups; NaN for fewer than 2 groups in a class."""

    by: str
    auroc: float
    low: float
    high: float


CONTROLS: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {  # by the names of their detectors
    "caption_case": lambda rows: case_share(rows.prompt.tolist()),
    "caption_length": lambda rows: length(rows.prompt.tolist()),
    "caption_ngrams": lambda rows: ngram_scores(rows.prompt.tolist(), rows.label.to_numpy(), rows.group.to_numpy()),
}
_KEPT = 64
_found: OrderedDict[str, tuple[Reached, ...]] = OrderedDict()


def reached(scores: pd.DataFrame, groups: pd.Series | None = None, *, resamples: int = 1000, seed: int = 0) -> tuple[Reached, ...]:
    """What each of CONTROLS reaches on the prompts of a run's stored scores; nothing where there are not prompts of both labels.

    scores: columns id, prompt, label, group; whether the run's own detector failed on a row has no influence. groups: what the
    intervals resample, indexed as scores; default: the stored ones, by which ``caption_ngrams`` is cross-validated in any case. It is
    left out where a label has one group. The numbers are those that the detectors of these names get. Kept for the next call.
    """
    rows = scores.assign(drawn=scores["group"] if groups is None else groups)
    rows = rows[rows.prompt.notna()].sort_values("id")
    if not {0, 1} <= set(rows.label):
        return ()
    key = json_hash([*(rows[name].tolist() for name in ("prompt", "label", "group", "drawn")), resamples, seed])
    if key not in _found:
        _found[key] = _reached(rows, resamples, seed)
        while len(_found) > _KEPT:
            _found.popitem(last=False)
    return _found[key]


def _reached(rows: pd.DataFrame, resamples: int, seed: int) -> tuple[Reached, ...]:
    labelled = (rows.label >= 0).to_numpy()
    _, labels, groups = check(np.zeros(labelled.sum()), rows.label[labelled].to_numpy(), rows.drawn[labelled].to_numpy())
    values = {}
    for name, score in CONTROLS.items():
        try:
            values[name] = score(rows)[labelled]
        except UserError:  # too few groups; the other two need none
            continue
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for weights in class_weights(labels, groups, resamples, seed):
        for name, score in values.items():
            drawn[name].append(weighted_statistics(score, labels, weights, ())["auroc"])
    ends = {name: percentiles(np.concatenate(parts), 0.95) if parts else (np.nan, np.nan) for name, parts in drawn.items()}
    return tuple(Reached(name, unit(roc_auc_score(labels, score)), *ends[name]) for name, score in values.items())


def best(found: Sequence[Reached]) -> Reached | None:
    """The one of the highest AUROC, of equal ones the first."""
    return max(found, key=lambda r: r.auroc, default=None)


def line_columns(line: Reached) -> pd.DataFrame:
    """COLUMNS, one row."""
    return pd.DataFrame([(line.auroc, line.low, line.high, line.by)], columns=list(COLUMNS))


def with_captions(frame: pd.DataFrame, runs: Sequence[Run], groups: str = "task") -> pd.DataFrame:
    """Adds COLUMNS to rows of ``leaderboard.collect``: what the best of CONTROLS reaches on the prompts of the row's board, the same in
    all its rows; missing where the board has none, or none of both labels.

    All runs of a board score the same examples, so any of them will do. groups: what intervals resample (``groups.regrouped``); by
    images, those that the first run with images has drawn.
    """
    known = {str(run.path): run for run in runs}
    found = dict.fromkeys(COLUMNS[:3], np.nan) | {COLUMNS[3]: None}
    frame = frame.assign(**found)
    frame[COLUMNS[3]] = frame[COLUMNS[3]].astype(object)
    for _, part in frame.groupby(list(BOARD), dropna=False):
        of_board = [known[path] for path in part.sort_values(["detector", "settings", "seed"]).run]
        usable = [run for run in of_board if len(run.scores) and ("image" not in groups or len(run.samples))]
        line = best(reached(usable[0].scores, regrouped(usable[0].scores, usable[0].samples, groups))) if usable else None
        if line is not None:
            frame.loc[part.index, list(COLUMNS)] = [line.auroc, line.low, line.high, line.by]
    return frame
