"""The plots of a board: runs of several detectors, options and seeds on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.identity import asked, hash_without, marked, status_of
from membench.metrics.extraction import copy_counts
from membench.metrics.thresholds import curves, grid_of, threshold
from membench.metrics.unique import rarefied
from membench.reports.gallery import ROUNDING, copy_words, measure_word
from membench.reports.plots import Axis, Line, Plot
from membench.reports.run_plots import histogram_plot, roc_plot
from membench.runs.finished import Run, evaluations
from membench.types import Space

# Of each name the runs that differ in their seed only, lowest seed first
Settings = Mapping[str, Sequence[Run]]
POINTS = 80  # of a line of unique images against cost
EDGES = 41  # thresholds of AMS and UMS


def settings_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by detector and options, sorted by name; each by seed.

    Names tell apart what differs: by a hash if nothing else does.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(hash_without(run.info["key_parts"], "seed"), []).append(run)
    names = {key: _name(of) for key, of in found.items()}
    taken = list(names.values())
    named = {
        name if taken.count(name) == 1 else f"{name} ({key[:6]})": found[key]
        for key, name in names.items()
    }
    return {
        name: sorted(named[name], key=lambda run: (run.info["seed"], run.info["key"]))
        for name in sorted(named)
    }


def _name(runs: Sequence[Run]) -> str:
    return marked(
        f"{runs[0].info['detector']} {asked(runs[0].info)}".strip(),
        status_of(run.info["status"] for run in runs),
    )


# ------------------------------------------------------------------------------- scores


def scored(run: Run, labelled: bool = False) -> pd.DataFrame:
    """The scores that did not fail; labelled: of examples that have a label."""
    good = run.scored
    return good[good.label >= 0] if labelled else good


def roc(settings: Settings, styles: Mapping[str, int]) -> Plot | None:
    """ROC curves, a line a setting, the mean over its seeds at each FPR; None if no run
    has scores of both labels.
    """
    parts = {name: [scored(run, labelled=True) for run in runs] for name, runs in settings.items()}
    both = {
        name: kept
        for name, of in parts.items()
        if (kept := [part for part in of if part.label.nunique() == 2])
    }
    if not both:
        return None
    plot = roc_plot(both, styles)
    several = any(len(of) > 1 for of in both.values())
    note = f"{plot.note} Seeds: the mean of their TPR at each FPR." if several else plot.note
    return replace(plot, note=note)


def histograms(settings: Settings) -> list[Plot]:
    """The scores by kind, a plot a setting, of its lowest seed; none of a setting
    without scores.
    """
    return [
        histogram_plot(good, name)
        for name, runs in settings.items()
        if len(good := scored(runs[0]))
    ]


# ------------------------------------------------------------------------------- images


def spaces_of(settings: Settings) -> list[tuple[Space, dict[str, Run]]]:
    """The lowest seed's run of each setting that has images, by the space in which it
    is measured: runs of two do not compare.
    """
    found: dict[Space, dict[str, Run]] = {}
    for name, (run, *_) in settings.items():
        if run.n_ok:
            found.setdefault(run.space, {})[name] = run
    return sorted(found.items(), key=lambda item: item[0].id)


def extraction_plots(
    space: Space, runs: Mapping[str, Run], styles: Mapping[str, int], *, resamples: int = 1000
) -> list[Plot]:
    """AMS and UMS against the threshold, and different training images against cost.
    runs: of one space, at least one, with images.

    Runs whose lines would lie upon each other are one line, in the style of the first:
    in AMS and UMS those with the same images, against cost those that paid the same for
    them too.
    """
    images = _same_images(runs)
    paid = {
        name: (images[name], evaluations(run, "prepare"), evaluations(run, "samples"))
        for name, run in runs.items()
    }
    plots = []
    for of, same in (
        (images, "made the same images"),
        (paid, "made the same images at the same cost"),
    ):
        drawn, note = _once(of, same)
        one = {name: runs[members[0]] for name, members in drawn.items()}
        style = {name: styles[members[0]] for name, members in drawn.items()}
        made = (
            threshold_plots(space, one, style, resamples=resamples)
            if of is images
            else [cost_plot(space, one, style)]
        )
        plots += [replace(plot, note=f"{plot.note} {note}".strip()) for plot in made]
    return plots


def _same_images(runs: Mapping[str, Run]) -> dict[str, int]:
    """A number for each run, the same for runs with the same images up to rounding:
    generated for the same, of the same nearest images.
    """
    kinds: list[pd.DataFrame] = []
    found = {}
    for name, run in runs.items():
        frame = run.found()[1]
        frame = (
            frame[frame["rank"] == 0]
            .sort_values("sample_id")[["sample_id", "training", "similarity"]]
            .reset_index(drop=True)
        )
        alike = (i for i, kind in enumerate(kinds) if _alike(frame, kind))
        found[name] = next(alike, len(kinds))
        if found[name] == len(kinds):
            kinds.append(frame)
    return found


def _alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    same = ["sample_id", "training"]
    return one[same].equals(other[same]) and bool(
        np.allclose(one.similarity, other.similarity, rtol=0, atol=ROUNDING)
    )


def _once(kinds: Mapping[str, Any], same: str) -> tuple[dict[str, list[str]], str]:
    """Names of one kind under one name, and a note that says which."""
    found: dict[Any, list[str]] = {}
    for name, kind in kinds.items():
        found.setdefault(kind, []).append(name)
    drawn = {
        of[0] if len(of) == 1 else f"{of[0]} and {len(of) - 1} more": of for of in found.values()
    }
    merged = [f"{name}: {', '.join(of)}." for name, of in drawn.items() if len(of) > 1]
    return drawn, " ".join([f"One line for runs that {same}.", *merged]) if merged else ""


def threshold_plots(
    space: Space, runs: Mapping[str, Run], styles: Mapping[str, int], *, resamples: int = 1000
) -> list[Plot]:
    """Cumulative AMS and UMS of each run with their intervals, in per cent of the
    images; UMS at the smallest number of images.
    """
    edges, parts = grid_of(space, EDGES), {name: run.found() for name, run in runs.items()}
    least = min(len(good) for good, _ in parts.values())
    lines: dict[str, list[Line]] = {"ams": [], "ums": []}
    for name, (good, matches) in parts.items():
        groups, seed = runs[name].groups(good), runs[name].info["seed"]
        more = len(good) > least
        frame = curves(
            matches,
            len(good),
            space,
            edges,
            groups=groups,
            at=least if more else None,
            bands=False,
            resamples=resamples,
            seed=seed,
        )
        for of, metric in (("ams", "ams"), ("ums", "ums_equal_n" if more else "ums")):
            part = frame[frame.metric == metric]
            value, low, high = (
                100 * part[column].to_numpy(float) for column in ("value", "low", "high")
            )
            lines[of].append(
                Line(name, threshold(part).to_numpy(float), value, low, high, styles[name])
            )
    x = Axis(
        f"{measure_word(space)} {'at least' if space.higher_is_closer else 'at most'}",
        *_shown(space, edges, lines["ams"]),
    )
    marks = [(space.copy, "copy")]
    word = f"{measure_word(space).capitalize()}: {space.id}."
    share = (
        "Share of the generated images whose nearest training image lies within the threshold."
        " Bands: 95 % intervals over groups. "
    )
    distinct = (
        "Different training images within the threshold, per 100 generated images, at N_G ="
        f" {least:,}. "
    )
    if any(len(good) > least for good, _ in parts.values()):
        distinct += (
            f"Of runs with more images: as expected for {least:,} of theirs, without an interval;"
            " UMS falls as N_G grows. "
        )
    return [
        Plot(
            "AMS against the threshold",
            "ams",
            x,
            _percent(lines["ams"], "AMS, %"),
            lines["ams"],
            marks=marks,
            note=share + word,
        ),
        Plot(
            "UMS against the threshold",
            "ums",
            x,
            _percent(lines["ums"], "UMS, %"),
            lines["ums"],
            marks=marks,
            note=distinct + word,
        ),
    ]


def _shown(space: Space, edges: np.ndarray, lines: Sequence[Line]) -> tuple[float, float]:
    """The thresholds to draw: from the last at which no run has found anything, or the
    last before the copy threshold, to the floor.
    """
    any_found = ~np.isclose([line.y for line in lines], 0).all(axis=0)
    needed = np.flatnonzero(any_found | (edges == space.copy))
    if not any_found.any():
        return float(edges[0]), float(edges[-1])
    if space.higher_is_closer:
        return float(edges[0]), float(edges[min(needed[-1] + 1, len(edges) - 1)])
    return float(edges[max(needed[0] - 1, 0)]), float(edges[-1])


def _percent(lines: Sequence[Line], label: str) -> Axis:
    """From 0 to what the lines and their intervals reach."""
    reach = [values for line in lines for values in (line.y, line.high) if values is not None]
    return Axis(label, 0, max(1.0, 1.05 * float(np.nanmax(np.concatenate(reach)))))


def cost_plot(space: Space, runs: Mapping[str, Run], styles: Mapping[str, int]) -> Plot:
    """Expected different training images that are copied (nearest, within
    ``space.copy``) against target evaluations spent.

    Preparation first, then images at the run's mean price. Exact rarefaction: of n
    images generated, over all choices of n.
    """
    lines = []
    for name, run in runs.items():
        good, matches = run.found()
        n = np.unique(
            np.concatenate([np.linspace(0, len(good), POINTS), np.geomspace(1, len(good), POINTS)])
            .round()
            .astype(int)
        )
        value = rarefied(copy_counts(matches, len(good), space), len(good), n)
        cost = evaluations(run, "prepare") + n * evaluations(run, "samples") / len(run.samples)
        lines.append(Line(name, cost.astype(float), value, style=styles[name]))
    ends = [float(line.x[-1]) for line in lines]
    log = min(ends) > 0 and max(ends) > 10 * min(ends)
    first = min(float(line.x[line.x > 0][0]) for line in lines) if log else 0.0
    x = Axis("target evaluations" + (" (log)" if log else ""), first, max(1.0, *ends), log)
    y = Axis(
        "training images copied", 0, max(5.0, 1.05 * max(float(line.y.max()) for line in lines))
    )
    note = (
        f"Expected number of different training images copied ({copy_words(space)}), over all"
        " choices of so many of the run's images. "
    )
    note += "Evaluations: preparation first, then so many an image."
    note = note if any(line.y.any() for line in lines) else "No image of these runs is a copy."
    return Plot("Unique training images against cost", "cost", x, y, lines, note=note)
