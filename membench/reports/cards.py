"""A leaderboard for other places: the card of a data set on the hub, of a submission to
the community board, and a piece of Markdown for a model card.
"""

from __future__ import annotations

from collections.abc import Sequence

from membench.boards.board import Board
from membench.boards.columns import KINDS, column
from membench.boards.papers import About
from membench.plain import marked_down
from membench.reports.output import markdown
from membench.reports.short import notes_of, short_titles, shortened, told_apart
from membench.reports.tables import tables_of
from membench.runs.finished import Run
from membench.types import sees

FILES = ("leaderboard.parquet", "runs.yaml", "README.md")


def snippet(board: Board) -> str:
    """Markdown of the short tables, for a model card: what was measured and what it
    means.
    """
    titles = short_titles(board)
    parts = ["## Memorization\n"]
    for title, frame, tables in tables_of(board, wide=False):
        for _, body, below in list(tables)[:1]:
            text = shortened(board.by, body, frame)
            notes = notes_of(text, below)
            text, same = told_apart(text)
            head = ", ".join(filter(None, [titles.get(title, ""), same]))
            parts.append(f"{marked_down(head)}\n\n{markdown(text)}\n")
            parts += [f"{marked_down(note)}\n" for note in notes]
    parts.append("Measured by membench; higher AUROC: training images leave more of a trace.\n")
    return "\n".join(parts)


def data_card(board: Board, command: str) -> str:
    """README.md of a data set repository: what it is, how it was made, its columns.

    command: that makes the runs again.
    """
    rows = []
    for name in board.frame.columns:
        of = column(str(name), board.by)
        rows.append(f"| `{name}` | {KINDS[of.kind]} | {of.unit} | {of.about} |")
    lines = [
        "---",
        "license: apache-2.0",
        "tags: [membench, memorization, diffusion]",
        "configs:",
        "  - config_name: default",
        "    data_files: leaderboard.parquet",
        "---",
        "",
        "# A membench leaderboard",
        "",
        snippet(board),
        "## How it was made",
        "",
        f"`{command}` makes the runs, `membench leaderboard --by {board.by}` the table. Rows that"
        " agree in the first ten columns may be compared.",
        "",
        "## Columns",
        "",
        "| column | type | unit | what it holds |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    return "\n".join(lines)


def submission_card(
    board: Board, about: About, runs: Sequence[Run], *, author: str, source: str
) -> str:
    """README.md of a submission: who, what and how, and the command that makes it again.

    author: who submits; empty: it is not said. source: the name of the plug-in file
    beside it; empty of a detector that ships.
    """
    infos = [run.info for run in runs]
    commits = sorted({info["membench"]["commit"] for info in infos})
    paper = ", ".join(filter(None, [about.paper, f"arXiv {about.arxiv}" if about.arxiv else ""]))
    facts = {
        "Submitted by": author or "the author of the pull request",
        "Measures": about.name or "see the source",
        "Paper": paper or "none named",
        "Sees": ", ".join(sees(infos[0]["access"])).replace("_", " "),
        "Version": str(infos[0]["key_parts"]["detector_version"]),
        "Source": source or "ships with membench",
        "Commit": ", ".join(commits),
        "Made on": ", ".join(sorted({info["device"] for info in infos})),
    }
    plugin = f" --plugin {source}" if source else ""
    at = f"commit `{commits[0]}`" if len(commits) == 1 else "the commit of each run"
    lines = [
        f"# {marked_down(about.detector)}",
        "",
        *(f"- {what}: {marked_down(value)}" for what, value in facts.items()),
        "",
        snippet(board),
        "## How to make it again",
        "",
        f"Install a clone of membench (`pip install -e .`) at {at}, and in a copy of this folder"
        " outside of it:",
        "",
        "```",
        f"membench run --config runs.yaml{plugin}",
        "```",
        "",
        f"`leaderboard.parquet` is `membench leaderboard --by {board.by}` of these runs,"
        " `scores.parquet` `--by example`: the score of every example. What their columns hold:"
        " docs/columns.md.",
        "",
        "| run | seed | commit | finished | seconds |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {marked_down(run.path)} | {info['seed']} | {info['membench']['commit'][:8]} |"
            f" {marked_down(info.get('finished', ''))} | {info['seconds']:,.0f} |"
            for run, info in zip(runs, infos, strict=True)
        ),
        "",
    ]
    return "\n".join(lines)
