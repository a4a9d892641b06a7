"""What a page shows of one board: its plots, galleries and tables, made of its runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from membench.boards.identity import asked, marked
from membench.reports.board_plots import extraction_plots, histograms, roc, settings_of, spaces_of
from membench.reports.examples import Card, Examples, compared, wrong
from membench.reports.gallery import Gallery, measure_word, of_runs
from membench.reports.page import Table
from membench.reports.plots import Plot
from membench.reports.text import number
from membench.runs.finished import Run, evaluations, evaluations_per_example
from membench.runs.nearest import NEAREST, frame_of, stored_nearest

NO_DATE = "not stored"

SIDE = 128  # pixels; several boards with 192 would make a page of more than 10 MB

# False alarms and misses, each, and their pictures in pixels: the run's page has more
WRONG, WRONG_SIDE = 5, 96


@dataclass(frozen=True)
class Board:
    """Runs that compare, and their leaderboard as text.

    slug: names its files; letters, digits, dot, dash, underscore. tables: (title, frame
    of text, note). runs: positions among the runs of the page, all of one model; of a
    control board, of the control model. first: the figures above all others. links: the
    folder of a run of each row.
    """

    title: str
    slug: str
    rows: pd.DataFrame
    notes: Sequence[str] = ()
    tables: Sequence[tuple[str, pd.DataFrame, str]] = ()
    runs: Sequence[int] = ()
    control: bool = False
    first: Sequence[Plot] = ()
    links: Sequence[Path | None] = ()


@dataclass(frozen=True)
class Mistakes:
    """What the leading detector of a board has most wrong. note: why this one, and what
    the pictures are. link: to the page of its run, empty where it has none. groups: of
    ``examples.wrong``.
    """

    detector: str
    note: str
    link: str
    groups: Sequence[tuple[str, str, Sequence[Card]]]


@dataclass(frozen=True)
class Part:
    """A board as it is shown. scores: a histogram a detector. galleries: (intro,
    galleries, similarity or distance), one a space.
    examples: to be looked up.
    """

    board: Board
    detection: Sequence[Plot]
    scores: Sequence[Plot]
    extraction: Sequence[Plot]
    galleries: Sequence[tuple[str, list[Gallery], str]]
    absent: Sequence[str]
    about: Table
    links: Sequence[str] = ()
    kinds: Sequence[str] = ()
    examples: Examples | None = None
    mistakes: Mistakes | None = None

    @property
    def figures(self) -> dict[str, Sequence[Plot]]:
        """The files: name -> plots in it."""
        single = [*self.board.first, *self.detection]
        return (
            {self.file(plot): [plot] for plot in single}
            | ({self.file(self.scores[0]): self.scores} if self.scores else {})
            | {self.file(plot): [plot] for plot in self.extraction}
        )

    def file(self, plot: Plot) -> str:
        """The name of the file that holds one of the plots, without its ending; the
        histograms share one.
        """
        return f"{self.board.slug}-{plot.slug}"


def part_of(
    board: Board, runs: Sequence[Run], styles: Mapping[str, int], resamples: int, out: Path
) -> Part:
    settings = settings_of(runs)
    curve, scores, absent = roc(settings, styles), histograms(settings), []
    if curve is None:
        absent.append("No run of this board has scores of both labels: no ROC curves.")
    spaces = spaces_of(settings)
    if not spaces:
        absent.append("No run of this board has images.")
    plots, galleries = [], []
    frames: dict[str, pd.DataFrame] = {}
    stored: dict[str, Mapping[str, bytes]] = {}
    for i, (space, of) in enumerate(spaces):
        mine = extraction_plots(space, of, styles, resamples=resamples)
        plots += (
            [
                replace(plot, slug=f"{plot.slug}-{i}", title=f"{plot.title}, {space.id}")
                for plot in mine
            ]
            if len(spaces) > 1
            else mine
        )
        frames |= {name: frame_of(run) for name, run in of.items()}
        stored |= {name: stored_nearest(run) for name, run in of.items()}
        own = {name: frames[name] for name in of}
        most = NEAREST // 2 if board.control else NEAREST
        training = {id_: png for name in of for id_, png in stored[name].items()}
        galleries.append(
            (*of_runs(own, space, training, most=most, side=SIDE), measure_word(space))
        )
    links = [_link(folder, out) for folder in board.links]
    about, curves = _about(settings, out), [curve] if curve else []
    kinds = sorted({kind for run in runs for kind in run.scores.kind})
    looked_up = compared(settings)
    # The control model has memorized none of the examples, so that it misses none
    mistakes = None if board.control else _mistakes(settings, frames, stored, out)
    return Part(
        board,
        curves,
        scores,
        plots,
        galleries,
        absent,
        about,
        links,
        kinds,
        looked_up,
        mistakes,
    )


def _mistakes(
    settings: Mapping[str, Sequence[Run]],
    frames: Mapping[str, pd.DataFrame],
    stored: Mapping[str, Mapping[str, bytes]],
    out: Path,
) -> Mistakes | None:
    """What the setting with the highest AUROC has most wrong, by its lowest seed; None
    where none has an AUROC. One that asks the model nothing, such as the capital letters
    of a caption, counts only where no other has one.

    frames, stored: of ``frame_of`` and ``stored_nearest``, by name, of those with images.
    """
    reached = {
        name: (evaluations_per_example(runs[0]) > 0, auroc)
        for name, runs in settings.items()
        if not math.isnan(auroc := _auroc(runs))
    }
    if not reached:
        return None
    name = max(reached, key=lambda name: reached[name])
    run, *others = settings[name]
    frame = frames[name] if name in frames else frame_of(run)
    held = stored[name] if name in stored else stored_nearest(run)
    groups = wrong(run, frame, held, most=WRONG, side=WRONG_SIDE)
    asks, _ = reached[name]
    note = f"The highest AUROC of this board{' among detectors that ask the model' * asks}."
    if others:
        note += f" Of seed {run.info['seed']}."
    pictures = {what: None for _, _, cards in groups for card in cards for _, what in card.images}
    if pictures:
        note += f" Pictures: {', '.join(pictures)}."
    return Mistakes(name, note, _link(run.path, out), groups) if groups else None


def _auroc(runs: Sequence[Run]) -> float:
    """The mean over seeds; NaN where one has none."""
    found = []
    for run in runs:
        value = run.overall.value[run.overall.metric == "auroc"]
        found.append(float(value.iloc[0]) if len(value) else math.nan)
    return sum(found) / len(found)


def _link(folder: Path | None, out: Path) -> str:
    """From the page in ``out`` to that of a run; empty where it has none."""
    if folder is None or not (folder / "report.html").is_file():
        return ""
    to = os.path.relpath((folder / "report.html").resolve(), out.resolve())
    return quote(Path(to).as_posix())


def _about(settings: Mapping[str, Sequence[Run]], out: Path) -> Table:
    """Which runs these are, with a link to the page of each."""
    header = (
        "detector",
        "options",
        "seed",
        "status",
        "examples",
        "images",
        "evaluations",
        "seconds",
        "finished",
        "membench",
        "run",
    )
    rows = []
    for run in (run for of in settings.values() for run in of):
        info, made = run.info, run.info["membench"]
        commit = (made["commit"] or "unknown")[:8] + ("+dirty" if made["dirty"] else "")
        counts = (len(run.scores), len(run.samples), evaluations(run), info["seconds"])
        rows.append(
            [
                marked(info["detector"], info["status"]),
                asked(info),
                str(info["seed"]),
                info["status"],
                *map(number, counts),
                info.get("finished", NO_DATE),
                commit,
                info["key"],
            ]
        )
    return Table(
        "",
        header,
        rows,
        "Evaluations of the target model, a Jacobian-vector product counted as one; a guided step"
        " costs two.",
        [_link(run.path, out) for of in settings.values() for run in of],
    )
