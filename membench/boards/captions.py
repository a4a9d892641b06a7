"""What captions alone give away: three scores of texts that no model is needed for, and
the line that a detector has to beat.

Published prompt sets are told apart by how their captions are written: the memorized
are LAION alt texts, the others often COCO captions or sentences of a chat model. A
detector that looks good on them may have learned the style (docs/captions.md). Higher =
more memorized.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from membench.boards.groups import regrouped
from membench.boards.identity import BOARD
from membench.errors import UserError
from membench.metrics.captions import case_share, length, ngram_scores
from membench.metrics.detection import check, unit
from membench.metrics.intervals import class_weights, percentiles, weighted_auroc
from membench.metrics.separation import auroc_bound
from membench.runs.finished import Run
from membench.runs.images import stored_images
from membench.storage.hashing import json_hash

COLUMNS = ("captions_auroc", "captions_low", "captions_high", "captions_by")


# --------------------------------------------------------------------- the line to beat


@dataclass(frozen=True)
class Reached:
    """AUROC of a score of captions. low, high: of the 95 % interval over groups; NaN
    for fewer than 2 groups in a class.
    """

    by: str
    auroc: float
    low: float
    high: float


CONTROLS: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {  # by the names of their detectors
    "caption_case": lambda rows: case_share(rows.prompt.tolist()),
    "caption_length": lambda rows: length(rows.prompt.tolist()),
    "caption_ngrams": lambda rows: ngram_scores(
        rows.prompt.tolist(), rows.label.to_numpy(), rows.group.to_numpy()
    ),
}

_KEPT = 64
_found: OrderedDict[str, tuple[Reached, ...]] = OrderedDict()


def reached(
    scores: pd.DataFrame, groups: pd.Series | None = None, *, resamples: int = 1000, seed: int = 0
) -> tuple[Reached, ...]:
    """What each of CONTROLS reaches on the prompts of a run's stored scores; nothing
    where there are not prompts of both labels.

    scores: columns id, prompt, label, group; whether the run's own detector failed on a
    row has no influence. groups: what the intervals resample, indexed as scores;
    default: the stored ones, by which ``caption_ngrams`` is cross-validated in any
    case. It is left out where a label has one group. The numbers are those that the
    detectors of these names get. Kept for the next call.
    """
    rows = scores.assign(drawn=scores["group"] if groups is None else groups)
    rows = rows[rows.prompt.notna()].sort_values("id")
    if not {0, 1} <= set(rows.label):
        return ()
    key = json_hash(
        [*(rows[name].tolist() for name in ("prompt", "label", "group", "drawn")), resamples, seed]
    )
    if key not in _found:
        _found[key] = _reached(rows, resamples, seed)
        while len(_found) > _KEPT:
            _found.popitem(last=False)
    return _found[key]


def _reached(rows: pd.DataFrame, resamples: int, seed: int) -> tuple[Reached, ...]:
    labelled = (rows.label >= 0).to_numpy()
    _, labels, groups = check(
        np.zeros(labelled.sum()), rows.label[labelled].to_numpy(), rows.drawn[labelled].to_numpy()
    )
    values = {}
    for name, score in CONTROLS.items():
        try:
            values[name] = score(rows)[labelled]
        except UserError:  # too few groups; the other two need none
            continue
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for weights in class_weights(labels, groups, resamples, seed):
        for name, score in values.items():
            drawn[name].append(weighted_auroc(score, labels, weights))
    ends = {
        name: auroc_bound(percentiles(np.concatenate(parts), 0.95), labels, groups, 0.95)
        if parts
        else (np.nan, np.nan)
        for name, parts in drawn.items()
    }
    return tuple(
        Reached(name, unit(roc_auc_score(labels, score)), *ends[name])
        for name, score in values.items()
    )


def best(found: Sequence[Reached]) -> Reached | None:
    """The one of the highest AUROC, of equal ones the first."""
    return max(found, key=lambda r: r.auroc, default=None)


def line_columns(line: Reached) -> pd.DataFrame:
    """COLUMNS, one row."""
    return pd.DataFrame([(line.auroc, line.low, line.high, line.by)], columns=list(COLUMNS))


def with_captions(frame: pd.DataFrame, runs: Sequence[Run], groups: str = "task") -> pd.DataFrame:
    """Adds COLUMNS to rows of ``leaderboard.collect``: what the best of CONTROLS
    reaches on the prompts of the row's board, the same in all its rows; missing where
    the board has none, or none of both labels.

    All runs of a board score the same examples, so any of them will do. groups: what
    intervals resample (``groups.regrouped``); by images, those that the first run with
    images has generated.
    """
    known = {str(run.path): run for run in runs}
    found = dict.fromkeys(COLUMNS[:3], np.nan) | {COLUMNS[3]: None}
    frame = frame.assign(**found)
    frame[COLUMNS[3]] = frame[COLUMNS[3]].astype(object)
    for _, part in frame.groupby(list(BOARD), dropna=False):
        of_board = [known[path] for path in part.sort_values(["detector", "settings", "seed"]).run]
        usable = [
            run
            for run in of_board
            if len(run.scores) and ("image" not in groups or len(run.samples))
        ]
        line = None
        if usable:
            of = usable[0]
            read = partial(stored_images, of.path)
            line = best(reached(of.scores, regrouped(of.scores, of.samples, groups, read)))
        if line is not None:
            frame.loc[part.index, list(COLUMNS)] = [line.auroc, line.low, line.high, line.by]
    return frame
