"""The ladder as a table and as plots: AMS and different images of attacks against the
base rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from membench.boards.identity import marked
from membench.reports.attack_tables import attack_names, short_names
from membench.reports.plot_files import write_files
from membench.reports.plots import CHANCE, MARKERS, RUN_INKS, Axis, Line, Plot
from membench.reports.text import interval, number

AMS = ("ams_cumulative", 100.0, "AMS (% that are copies)", "ams")


def write(frame: pd.DataFrame, save: Path) -> None:
    """``<save>.parquet``, ``.png``, ``.svg`` and ``.pdf``, each whole or not there."""
    write_files(frame, save, {"": (plots(frame), title(frame))})


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """What the command prints: a row a rung, attack and model, in text."""
    names = (frame.detector + " " + frame.options).map(_names(frame))
    option = frame.swept.iloc[0]
    return pd.DataFrame(
        [
            {
                option: row.value,
                "base %": number(100 * row.base, 1),
                "attack": marked(name, row.status),
                "model": "mirror" if row.control else "model",
                "AMS %": interval(
                    row.ams_cumulative,
                    row.ams_cumulative_low,
                    row.ams_cumulative_high,
                    scale=100,
                    digits=1,
                ),
                f"@{row.equal_n:,.0f} img": number(row.copied_at_equal_n, 1),
                "@cost": (">=" if row.equal_cost_capped else "")
                + number(row.copied_at_equal_cost, 1),
                "N_G": number(row.n_g),
                "seeds": str(row.seeds),
            }
            for name, (_, row) in zip(names, frame.iterrows(), strict=True)
        ]
    ).fillna("")


def legend(frame: pd.DataFrame) -> list[str]:
    """A line for each name of the summary: the options that it stands for."""
    return [
        f"{name}: {key.partition(' ')[2] or 'its defaults'}" for key, name in _names(frame).items()
    ]


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """A short name for each attack and its options, by a row's detector and options."""
    settings = frame.drop_duplicates(["detector", "options"]).reset_index(drop=True)
    names = short_names(settings.assign(status="complete"))  # a rung may be partial, another not
    return dict(zip(settings.detector + " " + settings.options, names, strict=True))


def plots(frame: pd.DataFrame) -> list[Plot]:
    """AMS, different images at equal N_G, and at equal cost, against the base rate; the
    mirror hollow. The dotted line of AMS is the base rate itself.
    """
    names, _ = attack_names(frame)
    frame = frame.assign(name=names)[frame.base.notna().to_numpy()]
    panels = [
        AMS,
        ("copied_at_equal_n", 1.0, "different training images,\nat equal N_G", "equal-n"),
        ("copied_at_equal_cost", 1.0, "different training images,\nat equal evaluations", "cost"),
    ]
    return [_panel(frame, *panel) for panel in panels]


def page_plot(frame: pd.DataFrame) -> Plot | None:
    """AMS of attacks against the base rate, for a page: all models of one task at once,
    the mirror or control model hollow.

    frame: rows of ``boards.attacks`` with ``boards.base_rate.with_base``. None where no
    attack stands beside unconditional sampling of its model.
    """
    names, alike = attack_names(frame)
    frame = frame.assign(name=names)[frame.base.notna().to_numpy()]
    if frame.name.nunique() < 2:
        return None
    ends = ("", "_low", "_high")
    unseen = frame[frame.control_ams.notna()].assign(control=True)
    unseen[[f"ams_cumulative{end}" for end in ends]] = unseen[[f"control_ams{end}" for end in ends]]
    both = pd.concat([frame, unseen]) if len(unseen) else frame
    plot = _panel(both, *AMS)
    note = (
        "A point an attack and model, with its 95 % interval; the dotted line is the base rate"
        " itself. Hollow: the same attack on the mirror or control model, which has not seen"
        f" these training images.{f' All: {alike}.' if alike else ''}"
    )
    return replace(plot, title="Attacks against the base rate", slug="attacks", note=note)


def base_axis(bases: Sequence[float]) -> Axis:
    """Base rates in %, on a logarithmic axis that is linear from 0 on to the least."""
    least = min((b for b in bases if b > 0), default=1.0)
    return Axis(
        "base rate: copies among plain unconditional images (%)",
        min(bases),
        max(*bases, least),
        log=True,
        linear=0.0 if min(bases) > 0 else least,
        at=[(b, f"{b:.1f}") for b in bases],
        room=0.06,
    )


def whiskered(
    name: str,
    place: tuple[int, int],
    unseen: bool,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
) -> Line:
    """A line with intervals; thin and hollow of the model that has not seen the examples.
    place: which of how many names that have the model's and perhaps that one's line.
    """
    i, n = place
    return Line(
        name,
        x,
        y,
        low,
        high,
        style=i % RUN_INKS + (RUN_INKS if unseen else 0),
        marker=MARKERS[i % len(MARKERS)],
        hollow=unseen,
        whiskers=True,
        width=1.2 if unseen else 2.0,
        aside=3.0 * (i - (n - 1) / 2),
    )


def _panel(frame: pd.DataFrame, column: str, scale: float, label: str, slug: str) -> Plot:
    bases = np.unique(100 * frame.base.to_numpy(dtype=float))
    x = base_axis(bases.tolist())
    lines = _lines(frame, column, scale)
    tops = [float(np.nanmax(v)) for line in lines for v in (line.y, line.high) if v is not None]
    if slug == "ams":
        lines.append(Line("base rate", bases, bases, style=CHANCE))
    y = Axis(label, 0.0, 1.05 * max([1.0, *tops]))
    return Plot(label.partition(" (")[0].replace("\n", " "), slug, x, y, lines)


def _lines(frame: pd.DataFrame, column: str, scale: float) -> list[Line]:
    lines = []
    names = list(dict.fromkeys(frame.name))
    for i, name in enumerate(names):
        for control in (True, False):
            rows = frame[(frame.name == name) & (frame.control.astype(bool) == control)]
            rows = rows.sort_values("base")
            if rows.empty:
                continue
            ends = {
                end: scale * rows[f"{column}_{end}"].to_numpy(dtype=float)
                for end in ("low", "high")
                if f"{column}_{end}" in rows
            }
            lines.append(
                whiskered(
                    f"{name}, mirror" if control else name,
                    (i, len(names)),
                    control,
                    100 * rows.base.to_numpy(dtype=float),
                    scale * rows[column].to_numpy(dtype=float),
                    ends.get("low"),
                    ends.get("high"),
                )
            )
    return lines


def title(frame: pd.DataFrame) -> str:
    """What was run, and what the whiskers are, on two lines."""
    first = frame.iloc[0]
    _, alike = attack_names(frame)
    most = int(frame.seeds.max())
    seeds = f"{most} seed{'s' * (most > 1)}"
    return (
        f"attacks on {first.task}, {first.profile} profile, {first.swept}"
        f" {', '.join(dict.fromkeys(frame.value))}{f'; all: {alike}' if alike else ''}\n"
        f"{seeds}; whiskers: 95 % intervals over images and seeds; hollow: the mirror model"
    )
