"""Runs on both models of a mirror pair as one row: what a detector reaches where
nothing but memorization can separate the examples (docs/design/mirror-pairs.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.collect import about
from membench.boards.identity import asked, given, hash_without, passed, status_of
from membench.errors import UserError
from membench.metrics.mirror import RESAMPLES, is_mirrored, mirrored_over_seeds
from membench.runs.finished import Run, evaluations_per_example

# What differs between the runs on the two models: who was asked, and what each has seen
HALVES = ("weights", "data", "prompts")
MAKE_THEM = "run each detector on task T with --set T.half=a and with --set T.half=b"
NO_MIRROR = (
    "the runs on both halves are no mirror pair: they have no examples that one model memorized"
    " and the other did not; of prompts of one's own the labels are the same for both, and with"
    " --limit there may be too few"
)

# Of either model alone: for sentences and plots, no columns of the stored board
OF_ONE = tuple(
    f"{name}_{half}{end}"
    for half in "ab"
    for name, end in (("auroc", "_low"), ("auroc", "_high"), ("tpr", ""))
)


def collect_mirror(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a detector, its options and kind of example ("all" first), for each pair
    of models whose runs are there; over the seeds that both have.

    Columns: those of ``collect.about`` without the seed (weights: both models'),
    ``kind``, ``mirrored`` with ``_low`` and ``_high``, ``auroc_a``, ``auroc_b``,
    ``mirrored_tpr``, ``n``, ``seeds`` and ``evaluations_per_example``. Raises
    :class:`UserError` where no pair is there.
    """
    return mirror_rows(runs).drop(columns=list(OF_ONE))


def mirror_rows(runs: Sequence[Run], *, resamples: int = RESAMPLES) -> pd.DataFrame:
    """The same with the columns ``OF_ONE``: the ends of each model's own interval, and
    its TPR at 1 % FPR. resamples: of the groups; 0: every end is NaN.
    """
    rows: list[dict[str, Any]] = []
    for pairs in pairs_of(runs):
        a, b = pairs[0]
        of_pairs = [run for pair in pairs for run in pair]
        evaluated = [evaluations_per_example(run) for run in of_pairs]
        one, two = about(a), about(b)
        row = one | {
            **{name: f"{one[name]}|{two[name]}" for name in HALVES},
            "options": asked(a.info),
            "seeds": len(pairs),
            "status": status_of(run.info["status"] for run in of_pairs),
            "evaluations_per_example": float(np.mean(evaluated)),
        }
        del row["seed"], row["run"], row["settings"]
        both = [(one.scores, two.scores) for one, two in pairs]
        found = mirrored_over_seeds(both, resamples=resamples)
        for r in found.itertuples():
            rows.append(
                row
                | {"kind": r.kind, "mirrored": r.mirrored, "mirrored_low": r.low}
                | {"mirrored_high": r.high, "mirrored_tpr": r.tpr, "n": r.n}
                | {"auroc_a": r.a, "auroc_a_low": r.a_low, "auroc_a_high": r.a_high}
                | {"auroc_b": r.b, "auroc_b_low": r.b_low, "auroc_b_high": r.b_high}
                | {"tpr_a": r.tpr_a, "tpr_b": r.tpr_b}
            )
    if not rows:
        if any(True for _, same in _settings(runs) for _ in _halves(same)):
            raise UserError(NO_MIRROR)
        raise UserError(f"no detector has runs on both models of a mirror pair; {MAKE_THEM}")
    return pd.DataFrame(rows)


def paired(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """(those that a board of mirror pairs shows, the others), each in their order."""
    shown = {run.path for pairs in pairs_of(runs) for pair in pairs for run in pair}
    return [r for r in runs if r.path in shown], [r for r in runs if r.path not in shown]


def pairs_of(runs: Sequence[Run]) -> Iterator[list[tuple[Run, Run]]]:
    """The pairs of each setting that has some, a pair a seed."""
    for _, same in _settings(runs):
        if pairs := [(a, b) for a, b in _halves(same) if is_mirrored(a.scores, b.scores)]:
            yield pairs


def _settings(runs: Sequence[Run]) -> Iterator[tuple[str, Iterator[Run]]]:
    """Scored runs on models, not on controls, by all that a pair has in common."""
    scored = (r for r in runs if not r.info["key_parts"]["control"] and len(r.scores))
    return groupby(sorted(scored, key=_setting), key=_setting)


def setting(info: Mapping[str, Any]) -> str:
    """All that both runs of a pair have in common, but the seed. info: a run's
    run.json.
    """
    options = " ".join(sorted(passed(info, "half")))
    return hash_without(info["key_parts"], "seed", *HALVES) + options


def _setting(run: Run) -> str:
    return setting(run.info)


def _halves(runs: Iterable[Run]) -> Iterable[tuple[Run, Run]]:
    """The two runs of each seed, the half that comes first in their examples first,
    whatever they have scored.
    """
    for _, of_seed in groupby(sorted(runs, key=_seed), key=_seed):
        # Of runs on the same model, as of another commit, the last that was read
        models = {run.info["key_parts"]["hashes"]["weights"]: run for run in of_seed}
        halves = sorted(models.values(), key=half_of)
        # Two models of one half, as of a folder that was trained again, are no pair
        if len(halves) == 2 and half_of(halves[0]) != half_of(halves[1]):
            yield halves[0], halves[1]


def _seed(run: Run) -> int:
    return int(run.info["seed"])


def half_of(run: Run) -> str:
    """The half that a run's model has seen; ``a`` where the options do not say it: it
    is the default of every task.
    """
    return half_in(run.info)


def half_in(info: Mapping[str, Any]) -> str:
    """The same of a run's run.json."""
    return given(info, "half") or "a"
