"""What a page shows of one board: its plots, galleries and tables, made of its runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from membench.boards.identity import asked, marked
from membench.reports.board_plots import extraction_plots, histograms, roc, settings_of, spaces_of
from membench.reports.examples import Examples, compared
from membench.reports.gallery import Gallery, measure_word, of_runs
from membench.reports.page import Table
from membench.reports.plots import Plot
from membench.reports.text import number
from membench.runs.finished import Run, evaluations
from membench.runs.nearest import NEAREST, frame_of, stored_nearest

NO_DATE = "not stored"

SIDE = 128  # pixels; several boards with 192 would make a page of more than 10 MB


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
        frames = {name: frame_of(run) for name, run in of.items()}
        most = NEAREST // 2 if board.control else NEAREST
        training = {name: png for run in of.values() for name, png in stored_nearest(run).items()}
        galleries.append(
            (*of_runs(frames, space, training, most=most, side=SIDE), measure_word(space))
        )
    links = [_link(folder, out) for folder in board.links]
    about, curves = _about(settings, out), [curve] if curve else []
    kinds = sorted({kind for run in runs for kind in run.scores.kind})
    looked_up = compared(settings)
    return Part(board, curves, scores, plots, galleries, absent, about, links, kinds, looked_up)


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
