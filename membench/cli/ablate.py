"""``membench ablate``: a detector's options, or the thresholds of AMS and UMS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from membench import registry
from membench.boards.identity import boards
from membench.boards.thresholds import flips, over_seeds, parse_grid, sweep_thresholds
from membench.options import describe_options
from membench.plain import plain
from membench.reports.output import table
from membench.reports.thresholds import sentences, summary, write
from membench.runs.execute import Skipped, execute_all
from membench.runs.finished import Run
from membench.runs.job import open_task
from membench.runs.spec import Spec
from membench.runs.sweep import grid, sweep

WHERE = Path("results/ablations")


def ablate_options(args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]) -> int:
    """A grid of one detector's options: a run a point, seed and model."""
    [spec] = specs
    detector = registry.detectors().load(spec.detector)
    points = grid(detector, spec, args.sweep)
    frame = sweep(spec, points, seeds, models, args.out, progress=not args.quiet)
    swept = ", ".join(points[0].values)
    print(table(f"{spec.detector} on {spec.task} ({spec.profile}): {swept}", summary(frame)))
    save = args.save or WHERE / "-".join([spec.task, spec.detector, *points[0].values])
    write(frame, save, {option.name: option.help for option in describe_options(detector.Options)})
    return 0


def ablate_thresholds(args: argparse.Namespace, specs: Sequence[Spec], seeds: Sequence[int], models: Sequence[bool]) -> int:
    """AMS and UMS of several detectors over a grid of thresholds; runs that are finished are read, others are made first."""
    grid = args.thresholds or "auto"
    # Before any work: a typing mistake must not cost hours.
    parse_grid(grid, open_task(specs[0]).info.space)
    runs: list[Run] = []
    skipped: list[Skipped] | None = [] if args.detector == "all" else None
    for control in models:
        for seed in seeds:
            runs += execute_all([replace(s, seed=seed, control=control) for s in specs], args.out, progress=not args.quiet, skipped=skipped)
    for line in dict.fromkeys(f"left out: {s.detector}: {s.reason}" for s in skipped or ()):
        print(f"membench: {line}", file=sys.stderr)
    for name in dict.fromkeys(run.info["detector"] for run in runs if not (run.samples.status == "ok").any()):
        print(f"membench: left out: {name} has no images", file=sys.stderr)
    swept = sweep_thresholds(runs, grid)
    settings = over_seeds(swept[swept.form == "cumulative"])
    save = args.save or WHERE / "-".join(
        [specs[0].task, "all" if skipped is not None else "-".join(s.detector for s in specs), "thresholds"]
    )
    write(swept, settings, save.with_suffix("") if save.suffix in (".parquet", ".png", ".svg") else save)
    for title, part in boards(settings):
        print(table(title, summary(part)))
    for sentence in sentences(flips(settings)):
        print(plain(sentence))
    return 0
