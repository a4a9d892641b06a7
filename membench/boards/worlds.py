"""Mirror pairs of several worlds as one row: what a detector reaches on new images and
new trainings (docs/design/mirror-pairs.md, "Units").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.collect import about
from membench.boards.identity import asked, given, hash_without, marked, passed, status_of
from membench.boards.mirror import HALVES, mirror_rows, pairs_of
from membench.boards.views import IDENTITY
from membench.errors import UserError
from membench.metrics.trainings import over_trainings
from membench.runs.finished import Run
from membench.storage.hashing import json_hash

Pairs = Sequence[tuple[Run, Run]]  # of one world, a pair a seed

DEVELOPMENT = 0  # the world on which options may be chosen
# What two worlds cannot have in common: their images, and where their models lie
OF_WORLD = ("half", "world", "models")
MAKE_THEM = (
    "run the detectors on both models of worlds 1 and 2: membench train TASK --world N --output"
    " FOLDER, then membench run --set TASK.world=N --set TASK.models=FOLDER --set TASK.half=a"
    " and half=b"
)


def collect_worlds(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a detector, its options and kind of example ("all" first), over the
    worlds of which both models were asked; the development world is none of them.

    Columns: of ``views.WORLD_COLUMNS``. ``mirrored`` is the mean AUROC of all trainings,
    two a world, with an interval over trainings; ``behind`` the same of the paired
    difference to the setting of the same worlds with the highest mean, missing for that
    one. The hashes are of the worlds' own. Raises :class:`UserError` for fewer than two
    worlds, for two pairs of models of one world, for two sets of examples of it, and for
    worlds whose models were trained by two recipes.
    """
    found = [_rows(worlds) for worlds in _by_setting(runs) if len(worlds) > 1]
    if not found:
        raise UserError(
            "no detector has runs on both models of two worlds beside the development world;"
            f" {MAKE_THEM}"
        )
    frame = pd.concat(found, ignore_index=True)
    # All that tells tables apart: no row is behind one of another table
    groups = frame.groupby([*IDENTITY, "kind"], sort=False)
    behind = pd.concat([_behind(rows) for _, rows in groups])
    return frame.join(behind).drop(columns="aurocs")


def left_out(runs: Sequence[Run]) -> list[str]:
    """A line on the settings that were asked on one world alone, if there are some."""
    alone = []
    for worlds in _by_setting(runs):
        [(number, pairs), *more] = worlds.items()
        if not more:
            info = pairs[0][0].info
            name = marked(f"{info['detector']} {asked(info)}".strip(), info["status"])
            alone.append(f"{name} (world {number})")
    return [f"left out, of one world alone: {', '.join(sorted(alone))}"] if alone else []


def _by_setting(runs: Sequence[Run]) -> list[dict[int, Pairs]]:
    """Of each setting its pairs, a pair a seed, by the number of their world."""
    held: dict[str, dict[int, Pairs]] = {}
    for pairs in pairs_of(runs):
        a = pairs[0][0]
        if (number := world_of(a)) == DEVELOPMENT:
            continue
        of_setting = held.setdefault(_setting(a.info), {})
        if number in of_setting:
            other = of_setting[number][0][0]
            asked_of, was_asked = (run.info["key_parts"]["hashes"]["weights"] for run in (a, other))
            twice = "pairs of models" if asked_of != was_asked else "sets of examples"
            raise UserError(
                f"{a.info['detector']}: world {number} has two {twice}, as in {other.path} and"
                f" {a.path}: name the runs of one"
            )
        of_setting[number] = pairs
    return list(held.values())


def world_of(run: Run) -> int:
    """The number of a run's world. Raises :class:`UserError` for a world without one."""
    number = given(run.info, "world")
    try:
        return int(number) if number else DEVELOPMENT
    except ValueError:
        raise UserError(
            f"{run.path} is of world {number}, which is no number: leave its task out (--task)"
        ) from None


def _setting(info: Mapping[str, Any]) -> str:
    """All that two worlds' runs have in common, but the seed: whether all examples were
    asked about, too, but not which, since each world has its own.
    """
    key = hash_without(info["key_parts"], "seed", "examples", *HALVES)
    is_whole = info["n_examples"] == info["n_task_examples"]
    return json_hash([key, sorted(passed(info, *OF_WORLD)), is_whole])


def _rows(worlds: Mapping[int, Pairs]) -> pd.DataFrame:
    """A setting's rows, a kind each that every world has; ``aurocs``: of the trainings,
    in the worlds' order.
    """
    numbers = sorted(worlds)
    _refuse_recipes([worlds[n][0][0] for n in numbers])
    frames = [
        # Its intervals are over trainings
        mirror_rows([r for pair in worlds[n] for r in pair], resamples=0).set_index("kind")
        for n in numbers
    ]
    first = about(worlds[numbers[0]][0][0])
    row = {name: first[name] for name in IDENTITY}
    row |= {
        name: json_hash([frame[name].iloc[0] for frame in frames])[:8]
        for name in ("data", "prompts", "examples", "weights")
    }
    row |= {
        "detector": first["detector"],
        "options": first["options"],
        "space_id": first["space_id"],
        "status": status_of(frame.status.iloc[0] for frame in frames),
        "world_list": ",".join(map(str, numbers)),
        "trainings": 2 * len(numbers),
    }
    rows = []
    for kind in frames[0].index:
        if not all(kind in frame.index for frame in frames):
            continue
        aurocs = np.array([frame.loc[kind, ["auroc_a", "auroc_b"]] for frame in frames], float)
        low, high = over_trainings(aurocs.ravel(), logit=True)
        rows.append(
            row
            | {"kind": kind, "aurocs": aurocs.ravel()}
            | {"mirrored": aurocs.mean(), "mirrored_low": low, "mirrored_high": high}
            | {"lowest": aurocs.min(), "highest": aurocs.max()}
            | {"mirrored_tpr": np.mean([frame.mirrored_tpr[kind] for frame in frames])}
            | {"n": int(sum(frame.n[kind] for frame in frames))}
            | {
                name: of(frame[name].iloc[0] for frame in frames)
                for name, of in (("seeds", min), ("evaluations_per_example", _mean))
            }
        )
    return pd.DataFrame(rows)


def _refuse_recipes(runs: Sequence[Run]) -> None:
    """Raises :class:`UserError` where models of two worlds were not trained alike, by
    what their training.json says: their spread would be of the recipes.
    """
    every = [(run, run.info.get("provenance", {}).get("recipe")) for run in runs]
    told = [(run, recipe) for run, recipe in every if recipe]
    for run, recipe in told[1:]:
        first, own = told[0]
        for name in sorted({*recipe, *own}):
            values = [str(of.get(name, "not said"))[:40] for of in (own, recipe)]
            if values[0] != values[1]:
                raise UserError(
                    f"the models of {first.path} and {run.path} were not trained by one recipe:"
                    f" {name} is {values[0]} and {values[1]}; name the runs of one"
                )


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _behind(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of one kind and the same trainings: how far each is behind the best, by
    the same training.
    """
    best = rows.loc[rows.mirrored.idxmax()]
    out = pd.DataFrame(np.nan, index=rows.index, columns=["behind", "behind_low", "behind_high"])
    for i, aurocs in rows.aurocs.drop(best.name).items():
        less = best.aurocs - aurocs
        out.loc[i] = less.mean(), *over_trainings(less)
    return out
