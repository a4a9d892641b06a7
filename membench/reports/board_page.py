"""``membench report``: a page about many runs, a Markdown file, and the plots as PNG
and SVG.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from tqdm.auto import tqdm

from membench.boards.identity import asked, marked
from membench.boards.papers import about_detectors
from membench.plain import marked_down
from membench.reports.board_plots import extraction_plots, histograms, roc, settings_of, spaces_of
from membench.reports.drawing import draw
from membench.reports.examples import Examples, compared
from membench.reports.gallery import Gallery, measure_word, of_runs
from membench.reports.kinds import kind_lines
from membench.reports.output import markdown
from membench.reports.page import Table, rendered
from membench.reports.plots import Plot
from membench.reports.text import number
from membench.runs.finished import Run, evaluations
from membench.runs.nearest import NEAREST, frame_of, stored_nearest
from membench.storage.files import atomic_write

NO_DATE = "not stored"
SIDE = 128  # pixels; several boards with 192 would make a page of more than 10 MB

HOW_TO_READ = (
    (
        "A board holds runs that compare: same task, profile, model, data and examples. On a"
        " control board the model never saw the examples: what is found there is not memorization."
    ),
    (
        "In the first plot a filled dot is the model, a hollow one the mirror or control model,"
        " which has not seen the memorized examples. What both reach is content."
    ),
    (
        "A higher score says: memorized. Brackets are 95 % intervals; n/a: the data cannot support"
        " the number."
    ),
    (
        "AMS: the share of images whose nearest training image is a copy. UMS: different training"
        " images copied, over the number of images; it falls as that number grows, so compare it"
        " at equal N_G."
    ),
    "A detector has one colour and one pattern of dashes on the whole page.",
)

CONTROL = "A model that never saw the examples: what is found here is not memorization."


@dataclass(frozen=True)
class Board:
    """Runs that compare, and their leaderboard as text.

    slug: names its files; letters, digits, dot, dash, underscore. tables: (title, frame
    of text, note). runs: positions among the runs of the page, all of one model; of a
    control board, of the control model. dots: what each detector reaches. links: the
    folder of a run of each row.
    """

    title: str
    slug: str
    rows: pd.DataFrame
    notes: Sequence[str] = ()
    tables: Sequence[tuple[str, pd.DataFrame, str]] = ()
    runs: Sequence[int] = ()
    control: bool = False
    dots: Plot | None = None
    links: Sequence[Path | None] = ()
    attacks: Plot | None = None


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
        own = f"{self.board.slug}-"
        scores = {f"{own}scores": self.scores} if self.scores else {}
        first = [plot for plot in (self.board.dots, self.board.attacks) if plot]
        return (
            {own + plot.slug: [plot] for plot in first}
            | {own + plot.slug: [plot] for plot in self.detection}
            | scores
            | {own + plot.slug: [plot] for plot in self.extraction}
        )


def write_board(
    runs: Sequence[Run],
    boards: Sequence[Board],
    out: Path,
    *,
    plots: bool = True,
    resamples: int = 1000,
    progress: bool = False,
) -> Path:
    """Writes ``report.html`` and ``report.md``, and with plots
    ``plots/<slug>-<plot>.png`` and ``.svg``, each whole or not at all.

    runs: as :func:`membench.runs.finished.load` reads them; images that were left out
    are read again, of the runs that show them. Training images are those that the runs
    have stored (``gallery.stored_nearest``). resamples: of the bootstrap over groups
    (AMS against the threshold). Returns the page's path. Raises UserError if the disk
    refuses; ValueError for a slug that is unsafe or taken, or a position that is not a
    run's.
    """
    _check(runs, boards)
    names = sorted(
        {name for board in boards for name in settings_of([runs[i] for i in board.runs])}
    )
    styles = {name: i for i, name in enumerate(names)}
    shown = tqdm(boards, desc="boards", unit="board", disable=not progress)
    parts = [_part(board, [runs[i] for i in board.runs], styles, resamples, out) for board in shown]
    if plots:
        for part in tqdm(parts, desc="plots", unit="board", disable=not progress):
            for name, panels in part.figures.items():
                for kind in ("png", "svg"):
                    data = draw(
                        panels,
                        kind,
                        heading=part.board.title + (" (CONTROL)" if part.board.control else ""),
                    )
                    atomic_write(
                        out / "plots" / f"{name}.{kind}",
                        lambda temporary, data=data: temporary.write_bytes(data),  # type: ignore[misc]
                    )
    text, page = to_markdown(parts, plots), render(parts)
    atomic_write(out / "report.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    atomic_write(
        out / "report.html", lambda temporary: temporary.write_text(page, encoding="utf-8")
    )
    return out / "report.html"


def _check(runs: Sequence[Run], boards: Sequence[Board]) -> None:
    slugs = [board.slug for board in boards]
    for board in boards:
        if (
            not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", board.slug)
            or slugs.count(board.slug) > 1
        ):
            raise ValueError(f"the slug {board.slug!r} is taken, or not safe in a file name")
        if not all(0 <= i < len(runs) for i in board.runs):
            raise ValueError(
                f"board {board.slug}: positions {list(board.runs)} of {len(runs)} runs"
            )


def _part(
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


def _table(title: str, frame: pd.DataFrame, note: str = "", links: Sequence[str] = ()) -> Table:
    return Table(
        title,
        [str(name) for name in frame],
        [[str(cell) for cell in row] for row in frame.to_numpy().tolist()],
        note,
        links,
    )


# ---------------------------------------------------------------------------- renderers


def render(parts: Sequence[Part]) -> str:
    """The page as text."""
    shown = []
    for part in parts:
        name, _, where = part.board.title.partition(", ")
        shown.append(
            {
                "slug": part.board.slug,
                "name": name,
                "where": where,
                "control": part.board.control,
                "first": [plot for plot in (part.board.dots, part.board.attacks) if plot],
                "rows": _table("", part.board.rows, links=part.links),
                "notes": part.board.notes,
                "tables": [_table(*given) for given in part.board.tables],
                "absent": part.absent,
                "galleries": part.galleries,
                "about": part.about,
                "large": [*part.detection, *part.extraction],
                "scores": part.scores,
                "examples": part.examples,
            }
        )
    dates = sorted(row[-3] for part in parts for row in part.about.rows)
    dates = [date for date in dates if date != NO_DATE]
    kinds = {kind for part in parts for kind in part.kinds}
    names = sorted({row[0].split()[0] for part in parts for row in part.about.rows})
    return rendered(
        "board.html",
        boards=shown,
        how_to_read=[*HOW_TO_READ, *kind_lines(kinds)],
        control=CONTROL,
        count=sum(len(part.about.rows) for part in parts),
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "",
        detectors=about_detectors(names),
    )


def to_markdown(parts: Sequence[Part], plots: bool = True) -> str:
    """The tables, and links to the plots' files beside it."""
    lines = ["# membench report", *(f"- {line}" for line in HOW_TO_READ)]
    text = "\n".join([lines[0], "", *lines[1:]]) + "\n"
    for part in parts:
        board = part.board
        control = " (CONTROL)" if board.control else ""
        text += f"\n## {marked_down(board.title)}{control}\n\n{markdown(board.rows)}\n"
        text += "".join(
            f"\n{marked_down(note)}\n"
            for note in ([CONTROL] if board.control else []) + list(board.notes)
        )
        for title, frame, note in board.tables:
            text += f"\n### {title}\n\n{markdown(frame)}\n" + (
                f"\n{marked_down(note)}\n" if note else ""
            )
        text += "".join(f"\n{why}\n" for why in part.absent)
        for name, panels in part.figures.items() if plots else ():
            title = (
                panels[0].title
                if len(panels) == 1 and panels[0].slug != "scores"
                else "Scores by kind"
            )
            title, note = (
                marked_down(title),
                f"{marked_down(panels[0].note)} [SVG](plots/{name}.svg)".strip(),
            )
            text += f"\n### {title}\n\n![{title}](plots/{name}.png)\n\n{note}\n"
    return text
