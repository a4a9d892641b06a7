"""A table and its plots as files: what an ablation leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from membench.plain import say
from membench.reports.drawing import KINDS, draw
from membench.reports.plots import Plot
from membench.storage.files import atomic_write


def without_ending(save: Path) -> Path:
    """The name that the files share: save without the ending of one of them."""
    return (
        save.with_suffix("")
        if save.suffix in (".parquet", *(f".{kind}" for kind in KINDS))
        else save
    )


def write_files(
    frame: pd.DataFrame, save: Path, figures: Mapping[str, tuple[Sequence[Plot], str]]
) -> None:
    """``<save>.parquet`` with the frame, and ``<save><key>.png``, ``.svg`` and ``.pdf`` of
    each figure (panels and their heading), each whole or not there; says so on stderr.
    """
    save = without_ending(save)
    table = save.with_name(f"{save.name}.parquet")
    atomic_write(table, lambda path: frame.to_parquet(path, index=False))
    files = []
    for key, (panels, heading) in figures.items():
        for kind in KINDS:
            image = draw(panels, kind, heading=heading)
            file = save.with_name(f"{save.name}{key}.{kind}")
            atomic_write(file, lambda path, image=image: path.write_bytes(image))  # type: ignore[misc]
            files.append(str(file))
    say(f"{len(frame):,} rows written to {table}, plots to {', '.join(files)}")
