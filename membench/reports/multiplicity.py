"""In the report of a run: the share of training images extracted at each
multiplicity, beside that of its control run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from membench.boards.control import control_command
from membench.boards.identity import pair_key
from membench.errors import UserError
from membench.metrics.multiplicity import COPIES, SHARE, multiplicity_of, natural
from membench.reports.page import Table
from membench.reports.plots import NEGATIVE, POSITIVE, Axis, Line, Plot
from membench.reports.text import interval, number
from membench.runs.finished import Run, load
from membench.runs.stored import is_finished, read_info

APART = 6.0  # points from the middle of a category to a series' marker
LABELLED = 8  # categories with a label, as far as they find room; the others are in the table


@dataclass(frozen=True)
class Series:
    """shares: of :func:`extracted`. images: how many the run made, without the failed."""

    control: bool
    shares: pd.DataFrame
    images: int

    @property
    def name(self) -> str:
        return "control" if self.control else "model"


def extracted(metrics: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of training image, in natural order: kind, n, value, low, high
    (shares in [0, 1]) and copies (an image).

    Empty for a run without such metrics: without images, of a task with one kind, or of
    an older membench.
    """
    shares = metrics[(metrics.metric == SHARE) & metrics.value.notna()]
    copies = metrics[metrics.metric == COPIES].set_index("subset").value
    frame = shares.assign(
        kind=shares.subset.str.removeprefix("kind="), copies=shares.subset.map(copies)
    )
    return frame[["kind", "n", "value", "low", "high", "copies"]].sort_values(
        "kind", key=lambda k: k.map(natural), ignore_index=True
    )


def siblings(path: Path, info: Mapping[str, Any]) -> list[Path]:
    """Finished runs beside this one that differ from it in control (and weights) alone;
    several if there are several such models.

    info: its run.json. A folder that cannot be read is none.
    """
    found = []
    for folder in sorted(
        p.parent
        for p in path.parent.glob("*/run.json")
        if p.parent != path and not p.parent.is_symlink()
    ):
        try:
            other = read_info(folder)
            same = other["control"] != info["control"] and pair_key(other) == pair_key(info)
            found += [folder] if same and is_finished(folder) else []
        # Of a run.json that holds other things
        except (UserError, KeyError, TypeError, AttributeError):
            continue
    return found


def multiplicity(run: Run, copy: str) -> tuple[list[Plot], list[Table]]:
    """The plot and the table of its numbers; nothing for a run that :func:`extracted`
    has nothing of. copy: what a copy is, in words.
    """
    own = Series(run.info["control"], extracted(run.metrics), run.n_ok)
    if own.shares.empty:
        return [], []
    other, absent, command = _other(run)
    series = sorted([own, *([other] if other else [])], key=lambda s: s.control)
    note = (
        "Of the training images shown so often, the share that some image of the run copies"
        f" ({copy}). "
    )
    note += "Bars: 95 % intervals (Wilson) over images."
    note += " The control model saw none of them." if any(s.control for s in series) else ""
    if "near" in set(own.shares.kind):
        note += (
            " Near-duplicates: each variant is an image, and an image that copies one often copies"
            " the others."
        )
    return [replace(share_plot(series), note=note, absent=absent, command=command)], [
        share_table(series)
    ]


def share_plot(series: Sequence[Series]) -> Plot:
    """Extracted share of each kind in per cent, with its interval; lines join kinds
    that differ in multiplicity.
    """
    kinds = sorted({kind for s in series for kind in s.shares.kind}, key=natural)
    place = {kind: i for i, kind in enumerate(kinds)}
    roomy, step = len(kinds) <= 5, math.ceil(len(kinds) / LABELLED)
    lines = []
    for s in series:
        aside = min(APART, 75 / len(kinds)) * (1 if s.control else -1) if len(series) > 1 else 0.0
        x = s.shares.kind.map(place).to_numpy(float)
        value, low, high = (100 * s.shares[end].to_numpy(float) for end in ("value", "low", "high"))
        # A colour and a shape each, for whoever cannot tell the colours apart.
        style, marker = (NEGATIVE, "s") if s.control else (POSITIVE, "o")
        ordered = s.shares.kind.map(multiplicity_of).notna().to_numpy()
        lines += (
            [Line("", x[ordered], value[ordered], style=style, width=0.8, aside=aside)]
            if ordered.sum() > 1
            else []
        )
        look: dict[str, Any] = {
            "style": style,
            "marker": marker,
            "hollow": s.control,
            "joined": False,
            "whiskers": True,
            "aside": aside,
        }
        lines.append(Line(f"{s.name}, {s.images:,} images", x, value, low, high, **look))
    at = [(float(i), _tick(kind, roomy) if i % step == 0 else "") for i, kind in enumerate(kinds)]
    x_axis = Axis(
        "" if roomy else "times shown in training",
        0,
        len(kinds) - 1,
        at=at,
        room=0.5 / max(1, len(kinds) - 1),
    )
    return Plot(
        "Extracted share by multiplicity",
        "multiplicity",
        x_axis,
        Axis("extracted, %", 0, 100),
        lines,
    )


def share_table(series: Sequence[Series]) -> Table:
    """The numbers of the plot, and how many images copy an image on average.

    A row a kind, columns a series.
    """
    kinds = sorted({kind for s in series for kind in s.shares.kind}, key=natural)
    by_kind = [s.shares.set_index("kind").reindex(kinds) for s in series]
    rows = []
    for kind in kinds:
        of = [shares.loc[kind] for shares in by_kind]
        cells = [interval(r.value, r.low, r.high, scale=100, digits=1) for r in of] + [
            number(r.copies, 3) for r in of
        ]
        rows.append([kind_label(kind), number(next(r.n for r in of if pd.notna(r.n))), *cells])
    header = [
        "images",
        "n",
        *(f"{s.name} %" for s in series),
        *(f"copies, {s.name}" for s in series),
    ]
    return Table(
        "Extracted share in numbers",
        header,
        rows,
        "Copies: the run's images that copy an image, mean over the images.",
    )


def kind_label(kind: str) -> str:
    """``shown 64x``, ``near-duplicates``, or the kind itself."""
    times = multiplicity_of(kind)
    return {"near": "near-duplicates"}.get(kind, kind) if times is None else f"shown {times}x"


def _tick(kind: str, roomy: bool) -> str:
    """The label, on two lines where there is room; a name is cut."""
    times = multiplicity_of(kind)
    if not roomy:
        return kind[:6] if times is None else f"{times}x"
    return (
        {"near": "near-\nduplicates"}.get(kind, kind[:10]) if times is None else f"shown\n{times}x"
    )


def _other(run: Run) -> tuple[Series | None, str, str]:
    """The run on the other model; or in words why there is none, and the command that
    adds it.
    """
    info, folders = run.info, siblings(run.path, run.info)
    name = "model" if info["control"] else "control model"
    command = control_command(info)
    command = command.removesuffix(" --control") if info["control"] else command
    if not folders:
        return (
            None,
            (
                f"Without the {name}: no finished run of these settings on it lies beside this one."
                " Add it, into the same --runs:"
            ),
            command,
        )
    if len(folders) > 1:
        return (
            None,
            (
                f"Without the {name}: {len(folders)} runs of these settings on different ones lie"
                " beside this one."
            ),
            "",
        )
    try:
        there = load(folders[0], verified=False)
    except UserError as error:
        return None, f"Without the {name}: its run cannot be read ({error})", ""
    shares = extracted(there.metrics)
    if shares.empty:
        return (
            None,
            (
                f"Without the {name}: its run {folders[0].name} has no such numbers. To have them,"
                " delete it and run:"
            ),
            command,
        )
    return Series(there.info["control"], shares, there.n_ok), "", ""
