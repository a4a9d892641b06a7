"""``membench report``: a page about many runs, a Markdown file, and the plots as PNG
and SVG, or PDF, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from membench.boards.papers import about_detectors
from membench.plain import marked_down, plain
from membench.reports.board_parts import NO_DATE, Board, Part, part_of
from membench.reports.board_plots import settings_of
from membench.reports.drawing import KINDS, draw, noted
from membench.reports.kinds import kind_lines
from membench.reports.output import markdown
from membench.reports.page import Table, rendered
from membench.reports.plots import Plot
from membench.runs.finished import Run
from membench.storage.files import atomic_write

HOW_TO_READ = (
    (
        "A board holds runs that compare: same task, profile, model, data and examples. On a"
        " control board the model never saw the examples: what is found there is not memorization."
    ),
    (
        "In the first plot a filled dot is the model of the board, a hollow one the mirror or"
        " control model, which has not seen the memorized examples, on the same examples. What"
        " both reach is content."
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


def write_board(
    runs: Sequence[Run],
    boards: Sequence[Board],
    out: Path,
    *,
    plots: bool = True,
    pdf: bool = False,
    resamples: int = 1000,
    progress: bool = False,
    command: str = "",
) -> Path:
    """Writes ``report.html`` and ``report.md``, and with plots
    ``plots/<slug>-<plot>.png`` and ``.svg``, each whole or not at all.

    runs: as :func:`membench.runs.finished.load` reads them; images that were left out
    are read again, of the runs that show them. Training images are those that the runs
    have stored (``gallery.stored_nearest``). pdf: plots as PDF, too, which takes twice as
    long as the others together. resamples: of the bootstrap over groups
    (AMS against the threshold). command: that makes the page and its plots again
    (``again.again``); empty: it is not said. Returns the page's path. Raises UserError if
    the disk refuses; ValueError for a slug that is unsafe or taken, or a position that is
    not a run's.
    """
    _check(runs, boards)
    names = sorted(
        {name for board in boards for name in settings_of([runs[i] for i in board.runs])}
    )
    styles = {name: i for i, name in enumerate(names)}
    shown = tqdm(boards, desc="boards", unit="board", disable=not progress)
    kinds = [kind for kind in KINDS if plots and (pdf or kind != "pdf")]
    parts = [
        part_of(board, [runs[i] for i in board.runs], styles, resamples, out) for board in shown
    ]
    if plots:
        for part in tqdm(parts, desc="plots", unit="board", disable=not progress):
            for name, panels in part.figures.items():
                title = part.board.title + (" (CONTROL)" if part.board.control else "")
                for kind in kinds:
                    data = draw(panels, kind, heading=noted(title, panels))
                    atomic_write(
                        out / "plots" / f"{name}.{kind}",
                        lambda temporary, data=data: temporary.write_bytes(data),  # type: ignore[misc]
                    )
    text, page = to_markdown(parts, kinds, command), render(parts, kinds, command)
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


def _table(title: str, frame: pd.DataFrame, note: str = "", links: Sequence[str] = ()) -> Table:
    return Table(
        title,
        [str(name) for name in frame],
        [[str(cell) for cell in row] for row in frame.to_numpy().tolist()],
        note,
        links,
    )


# ---------------------------------------------------------------------------- renderers


def render(parts: Sequence[Part], kinds: Sequence[str], command: str = "") -> str:
    """The page as text, with links to the plots' files beside it, of these kinds.
    command: of :func:`write_board`.
    """
    shown = []
    for part in parts:
        name, _, where = part.board.title.partition(", ")
        large = [*part.detection, *part.extraction]
        shown.append(
            {
                "slug": part.board.slug,
                "name": name,
                "where": where,
                "control": part.board.control,
                "first": [(plot, _saved(part, plot, kinds)) for plot in part.board.first],
                "rows": _table("", part.board.rows, links=part.links),
                "notes": part.board.notes,
                "tables": [_table(*given) for given in part.board.tables],
                "absent": part.absent,
                "galleries": part.galleries,
                "about": part.about,
                "large": [(plot, _saved(part, plot, kinds)) for plot in large],
                "scores": part.scores,
                "scores_saved": _saved(part, part.scores[0], kinds) if part.scores else [],
                "examples": part.examples,
                "mistakes": part.mistakes,
            }
        )
    dates = sorted(row[-3] for part in parts for row in part.about.rows)
    dates = [date for date in dates if date != NO_DATE]
    of_examples = {kind for part in parts for kind in part.kinds}
    # Of a partial run the mark stands before the name
    names = sorted({row[0].split()[-1] for part in parts for row in part.about.rows})
    return rendered(
        "board.html",
        boards=shown,
        how_to_read=[*HOW_TO_READ, *kind_lines(of_examples)],
        control=CONTROL,
        command=command,
        again=_again(kinds),
        count=sum(len(part.about.rows) for part in parts),
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "",
        detectors=about_detectors(names),
    )


def _saved(part: Part, plot: Plot, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """The kind and place of each of the plot's files."""
    return [(kind.upper(), f"plots/{part.file(plot)}.{kind}") for kind in kinds]


def _again(kinds: Sequence[str]) -> str:
    """What the command does that stands below."""
    if not kinds:
        return "This page again, of the same runs:"
    pdf = "" if "pdf" in kinds else " (--pdf: as PDF, too)"
    return f"All figures again, of the same runs{pdf}:"


def to_markdown(parts: Sequence[Part], kinds: Sequence[str], command: str = "") -> str:
    """The tables, and links to the plots' files beside it, of these kinds. command: of
    :func:`write_board`.
    """
    lines = ["# membench report", *(f"- {line}" for line in HOW_TO_READ)]
    text = "\n".join([lines[0], "", *lines[1:]]) + "\n"
    if command:
        # Indented: a fence might end within a name of a folder
        text += f"\n{_again(kinds)}\n\n    {plain(command)}\n"
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
        for name, panels in part.figures.items() if kinds else ():
            title = (
                panels[0].title
                if len(panels) == 1 and panels[0].slug != "scores"
                else "Scores by kind"
            )
            title, note = (
                marked_down(title),
                " ".join(
                    [marked_down(panels[0].note)]
                    + [f"[{kind.upper()}](plots/{name}.{kind})" for kind in kinds]
                ).strip(),
            )
            text += f"\n### {title}\n\n![{title}](plots/{name}.png)\n\n{note}\n"
    return text
