"""What a notebook shows of a run: a short name, a view, tables, plots and images."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from membench.boards.board import Board
from membench.plain import plain
from membench.reports.drawing import KINDS, draw, noted
from membench.reports.gallery import of_run
from membench.reports.plots import Plot
from membench.reports.run_plots import histogram_plot, run_roc
from membench.reports.screen import on_screen
from membench.reports.tables import tables_of
from membench.reports.text import interval
from membench.runs.finished import Run
from membench.runs.nearest import frame_of, stored_nearest

SHOWN = 12  # images of a gallery


class Figure:
    """A plot: shown by a notebook, saved by :meth:`save`."""

    def __init__(self, plot: Plot, heading: str) -> None:
        self._plot, self._heading = plot, heading

    def _repr_svg_(self) -> str:
        return self._drawn("svg").decode("utf-8")

    def save(self, path: str | Path) -> Path:
        """Writes a ``.png``, ``.svg`` or ``.pdf`` file; returns its path.

        Raises ValueError for another kind.
        """
        file = Path(path)
        kind = file.suffix.removeprefix(".")
        if kind not in KINDS:
            raise ValueError(f"{file}: a plot is saved as .{', .'.join(KINDS)}")
        file.write_bytes(self._drawn(kind))
        return file

    def _drawn(self, kind: str) -> bytes:
        return draw([self._plot], kind, heading=noted(self._heading, [self._plot]))

    def __repr__(self) -> str:
        return f"<plot: {self._heading}; .save('plot.svg')>"


class Page:
    """A piece of HTML, shown by a notebook."""

    def __init__(self, text: str, about: str) -> None:
        self._text, self._about = text, about

    def _repr_html_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<{self._about}>"


class Plots:
    """The plots of a result."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def roc(self) -> Figure:
        """True-positive rate over false-positive rate (log scale), all and each kind.

        Raises ValueError for a run without scores of both labels.
        """
        return Figure(run_roc(self._scored()), f"{_named(self._run)}: ROC")

    def scores(self) -> Figure:
        """How many examples have which score, by kind. Raises ValueError as above."""
        plot = histogram_plot(self._scored())
        return Figure(plot, f"{_named(self._run)}: scores")

    def _scored(self) -> pd.DataFrame:
        scores = self._run.scores
        good = scores[(scores.status == "ok") & (scores.label >= 0)]
        if good.label.nunique() < 2:
            raise ValueError("the run has no scores of both memorized and other examples")
        return good


@dataclass(frozen=True, repr=False)
class Result(Run):
    """A finished run, with what a notebook shows of it.

    ``scores``, ``samples``, ``matches`` and ``metrics`` are pandas frames; ``info`` is
    run.json; ``path`` the folder. ``images(ids)`` reads PNG bytes by ``sample_id``.
    """

    @classmethod
    def of(cls, run: Run) -> Result:
        return cls(**{field.name: getattr(run, field.name) for field in fields(Run)})

    def __repr__(self) -> str:
        return f"<membench run: {_named(self)}, {self._headline()}, {self.path}>"

    def _headline(self) -> str:
        row = self.overall[self.overall.metric == "auroc"]
        if len(row) and pd.notna(row["value"].iloc[0]):
            return f"AUROC {interval(*row[['value', 'low', 'high']].iloc[0])}"
        return f"{len(self.scores)} scores, {len(self.samples)} images"

    def _repr_html_(self) -> str:
        title = html.escape(f"{_named(self)}: {self._headline()}")
        body = self.table().to_html(index=False, escape=True, border=0)
        return f"<b>{title}</b>{body}<code>{html.escape(plain(self.path))}</code>"

    def table(self) -> pd.DataFrame:
        """The metrics over all examples, a row each: metric, value, low, high, n. The
        rarefaction curve, which has many n, is in ``metrics``.
        """
        whole = self.overall[self.overall.metric != "rarefaction"]
        return whole[["metric", "value", "low", "high", "n"]].reset_index(drop=True)

    @property
    def plot(self) -> Plots:
        """``.plot.roc()`` and ``.plot.scores()``."""
        return Plots(self)

    def top(self, n: int = 10) -> Page:
        """The n examples of the highest score, with their images: extracted ones for
        captions; an image that is itself the example is in the task, not in the run.
        """
        good = self.scores[self.scores.status == "ok"]
        first = good.sort_values("score", ascending=False, kind="stable").head(n)
        drawn = self.samples[(self.samples.status == "ok") & self.samples.condition.isin(first.id)]
        drawn = drawn.sort_values("draw").drop_duplicates("condition")
        images = self.images(drawn.sample_id)
        by_id = {r.condition: images.get(r.sample_id) for r in drawn.itertuples()}
        rows = "".join(
            f"<tr><td>{_image(by_id.get(r.id))}</td><td>{html.escape(plain(_words(r)))}</td>"
            f"<td>{r.score:.4g}</td><td>{html.escape(plain(r.kind))}</td></tr>"
            for r in first.itertuples()
        )
        head = "<tr><th></th><th>example</th><th>score</th><th>kind</th></tr>"
        return Page(f"<table>{head}{rows}</table>", f"{len(first)} examples of the highest score")

    def gallery(self, n: int = SHOWN) -> Page:
        """Extracted images beside their nearest training images, nearest first, then
        near misses and failures; at most n of each. Raises ValueError for a run without
        images.
        """
        frame = frame_of(self)
        if frame.empty:
            raise ValueError("the run has no images to show")
        intro, galleries = of_run(frame, self.space, stored_nearest(self))
        parts = [f"<p>{html.escape(intro)}</p>"]
        for shown in galleries:
            pairs = "".join(map(_pair, shown.pairs[:n]))
            parts.append(
                f"<h4>{html.escape(shown.title)}</h4><p>{html.escape(shown.note)}</p>{pairs}"
            )
        return Page("".join(parts), f"gallery of {len(frame)} images")


class Leaderboard:
    """A board: ``frame`` holds its numbers; a notebook shows its tables."""

    def __init__(self, made: Board) -> None:
        self.board = made

    @property
    def frame(self) -> pd.DataFrame:
        return self.board.frame

    def __repr__(self) -> str:
        return on_screen(self.board, room=100).rstrip()

    def _repr_html_(self) -> str:
        parts = []
        for title, _, tables in tables_of(self.board):
            for what, body, notes in tables:
                heading = html.escape(f"{title}: {what}" if title else what)
                below = "".join(f"<p>{html.escape(plain(note))}</p>" for note in notes)
                parts.append(f"<h4>{heading}</h4>{body.to_html(index=False, border=0)}{below}")
        return "".join(parts)


def _named(run: Run) -> str:
    info = run.info
    control = ", control model" if info["control"] else ""
    partial = "" if info["status"] == "complete" else ", PARTIAL"
    profile = f"{info['profile']}, seed {info['seed']}"
    return plain(f"{info['detector']} on {info['task']} ({profile}{control}{partial})")


def _words(row: Any) -> str:
    """What an example is called: its prompt; of an image, which has none, its id. A frame
    may hold a missing prompt as NaN.
    """
    return row.prompt if isinstance(row.prompt, str) and row.prompt else str(row.id)


def _image(png: bytes | None) -> str:
    if not isinstance(png, bytes):
        return ""
    return f'<img width="96" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _pair(pair: dict[str, Any]) -> str:
    images = "".join(
        f'<img width="96" alt="{alt}" src="data:image/png;base64,{pair[alt]}">'
        for alt in ("generated", "training")
        if pair[alt]
    )
    words = html.escape(plain(f"{pair['similarity']:.3f} {pair['prompt']}"))
    style = "display:inline-block;margin:4px;max-width:200px;font-size:80%"
    return f'<div style="{style}">{images}<br>{words}</div>'
