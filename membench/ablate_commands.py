"""``membench ablate``: a detector's options, or the thresholds of AMS and UMS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from membench import ablate, ablate_thresholds, registry
from membench.jobs import open_task
from membench.leaderboard import boards
from membench.options import describe_options
from membench.plain import plain
from membench.plots import draw
from membench.printing import table
from membench.runner import Run, Skipped, Spec, execute_all
from membench.tables import atomic_write

WHERE = Path("results/ablations")


def sweep_options(args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]) -> int:
    """A grid of one detector's options: a run a point, seed and model."""
    [spec] = specs
    detector = registry.detectors().load(spec.detector)
    points = ablate.grid(detector, spec, args.sweep)
    frame = ablate.sweep(spec, points, seeds, models, args.out, progress=not args.quiet)
    swept = ", ".join(points[0].values)
    print(table(f"{spec.detector} on {spec.task} ({spec.profile}): {swept}", ablate.summary(frame)))
    save = args.save or WHERE / "-".join([spec.task, spec.detector, *points[0].values])
    ablate.write(frame, save, {option.name: option.help for option in describe_options(detector.Options)})
    return 0


def sweep_thresholds(args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]) -> int:
    """AMS and UMS of several detectors over a grid of thresholds; runs that are finished are read, others are made first."""
    grid = args.thresholds or "auto"
    # Before any work: a typing mistake must not cost hours.
    ablate_thresholds.parse_grid(grid, open_task(specs[0]).info.space)
    runs: list[Run] = []
    skipped: list[Skipped] | None = [] if args.detector == "all" else None
    for control in models:
        for seed in seeds:
            runs += execute_all([replace(s, seed=seed, control=control) for s in specs], args.out, progress=not args.quiet, skipped=skipped)
    for line in dict.fromkeys(f"left out: {s.detector}: {s.reason}" for s in skipped or ()):
        print(f"membench: {line}", file=sys.stderr)
    for name in dict.fromkeys(run.info["detector"] for run in runs if not (run.samples.status == "ok").any()):
        print(f"membench: left out: {name} has no images", file=sys.stderr)
    swept = ablate_thresholds.sweep_thresholds(runs, grid)
    settings = ablate_thresholds.over_seeds(swept[swept.form == "cumulative"])
    save = args.save or WHERE / "-".join(
        [specs[0].task, "all" if skipped is not None else "-".join(s.detector for s in specs), "thresholds"]
    )
    write(swept, settings, save.with_suffix("") if save.suffix in (".parquet", ".png", ".svg") else save)
    for title, part in boards(settings):
        print(table(title, ablate_thresholds.summary(part)))
    for sentence in ablate_thresholds.sentences(ablate_thresholds.flips(settings)):
        print(plain(sentence))
    return 0


def write(swept: pd.DataFrame, settings: pd.DataFrame, save: Path) -> None:
    """``<save>.parquet``, and ``.png`` and ``.svg`` of each board, that of a control as ``<save>-control``; each whole or not there."""
    atomic_write(save.with_name(f"{save.name}.parquet"), lambda path: swept.to_parquet(path, index=False))
    pictures = []
    several = settings.control.nunique() > 1
    for title, part in boards(settings):
        name = save.name + ("-control" if part.control.iloc[0] and several else "")
        panels = [ablate_thresholds.plots_of(part, metric) for metric in ablate_thresholds.shown(part)]
        note = panels[0].note
        for kind in ("png", "svg"):
            picture = draw(panels, kind, heading=f"{title}; {note}" if note else title)
            atomic_write(save.with_name(f"{name}.{kind}"), lambda path, picture=picture: path.write_bytes(picture))  # type: ignore[misc]
            pictures.append(str(save.with_name(f"{name}.{kind}")))
    print(f"membench: {len(swept):,} rows written to {save}.parquet, plots to {', '.join(pictures)}", file=sys.stderr)
