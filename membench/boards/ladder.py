"""What attacks extract against how much there is to extract: the share of copies among
plain unconditional images, rung by rung.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from membench.boards.attacks import is_attack
from membench.boards.base_rate import with_base
from membench.boards.collect import about, collect
from membench.boards.identity import BOARD
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.errors import UserError
from membench.runs.ladder import Rung

NO_BASE = (
    "the base rate is that of unconditional sampling, of which there is no run: add"
    " --detector random and --set random.extraction=unconditional"
)


def ladder(rungs: Sequence[Rung], option: str) -> pd.DataFrame:
    """One row a rung, attack, its options and model (``control``), over seeds: the
    columns of ``seeds.over_seeds``, with

    - ``swept``, ``value``: the task's option and its value at the rung;
    - ``base``, ``base_low``, ``base_high``: AMS of plain unconditional sampling of the
      rung's model, not its mirror;
    - ``copied_at_equal_n``, ``copied_at_equal_cost``: different training images among as
      many images as the smallest run of rung and model has, and among those that the
      cheapest run's evaluations pay for, preparation counted.

    Raises :class:`UserError` where no rung has unconditional sampling, two rungs are one
    model, or no run is of an attack.
    """
    runs = [run for rung in rungs for run in rung.runs if is_attack(run)]
    if not runs:
        raise UserError("no run is of an attack, such as random or side")
    frame = at_rungs(over_seeds(collect(runs), runs, Resampler()), rungs, option)
    frame = with_base(frame, ["value"])
    if frame.base.isna().all():
        raise UserError(NO_BASE)
    return frame.sort_values(["base", "control", "detector", "options"], ignore_index=True)


def at_rungs(frame: pd.DataFrame, rungs: Sequence[Rung], option: str) -> pd.DataFrame:
    """Adds ``swept``, the option, and ``value``, its value at each row's rung, to rows of
    boards. Raises :class:`UserError` where two rungs are one model.
    """
    value_of: dict[tuple[object, ...], str] = {}
    for rung in rungs:
        for run in rung.runs:
            place = tuple(about(run)[name] for name in BOARD)
            if value_of.setdefault(place, rung.value) != rung.value:
                raise UserError(
                    f"{option}={value_of[place]} and {option}={rung.value} are one model and one"
                    " set of examples: sweep an option that changes them, such as rung"
                )
    values = [value_of[tuple(row[name] for name in BOARD)] for _, row in frame.iterrows()]
    return frame.assign(swept=option, value=values)
