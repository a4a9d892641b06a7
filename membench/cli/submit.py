"""``membench submit``: finished runs as the files of a pull request."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

HELP = "finished runs as a pull request to the community board"
DESCRIPTION = (
    "Check finished runs of one detector, and write the files of a pull request to the community"
    " board. Nothing is written where a rule is broken, and nothing is sent anywhere."
)
EXAMPLES = (
    "submit results/runs/*/mini/my_norm/* --source my_norm.py",
    "submit results/runs/cifar10/mini/loss/*",
)
WHERE = Path("results/community")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs of one detector"
    )
    parser.add_argument(
        "--source", type=Path, metavar="FILE.py", help="the plug-in file that made the runs"
    )
    parser.add_argument("--author", default="", metavar="NAME", help="who submits, for the card")
    parser.add_argument(
        "--output",
        type=Path,
        default=WHERE,
        metavar="DIR",
        help=f"where the detector's folder is written (default {WHERE})",
    )


def call(args: argparse.Namespace) -> int:
    """Prints the folder that it wrote, and on stderr what to do with it."""
    from membench.boards.board import board
    from membench.boards.papers import about, about_detectors
    from membench.boards.saved import write
    from membench.boards.source_file import docstring
    from membench.boards.submission import submission
    from membench.errors import UserError
    from membench.plain import say
    from membench.reports.cards import submission_card
    from membench.reports.output import emit
    from membench.runs.config_writer import config_of
    from membench.storage.files import atomic_folder

    given = submission(args.runs, args.source)
    name, source = given.detector, f"{given.detector}.py" if given.source is not None else ""
    folder = args.output / name
    if folder.exists() or folder.is_symlink():
        raise UserError(
            f"{folder} is there already; to submit again, remove it first (git rm -r), or choose"
            " another --output"
        )
    try:
        made, examples = board(given.runs, given.by), board(given.runs, "example")
    except ValueError as error:
        # Of labels or groups that no two runs of one setting have
        raise UserError(f"these runs make no board: {error}; delete the edited one") from None
    if given.source is not None:
        what = about(name, docstring(given.source))
    else:
        [what] = about_detectors([name])
    card = submission_card(made, what, given.runs, author=args.author, source=source)
    config = config_of([run.info for run in given.runs])

    def fill(partial: Path) -> None:
        write(made.frame, given.by, partial / "leaderboard.parquet")
        write(examples.frame, "example", partial / "scores.parquet")
        emit(config, partial / "runs.yaml")
        emit(card, partial / "README.md")
        if given.source is not None:
            (partial / source).write_bytes(given.source)

    atomic_folder(folder, fill)
    print(folder)
    branch = shlex.quote(f"community-{name}")
    for line in (
        f"{len(given.runs)} runs keep the rules; read {folder / 'README.md'}",
        f"next, in a clone of your fork, where the folder lies as {WHERE / name}:",
        f"  git switch -c {branch}",
        f"  git add {shlex.quote(str(WHERE / name))}",
        f"  git commit -m {shlex.quote(f'feat: {name} on the community board')}",
        f"  git push -u origin {branch}",
        "and open a pull request from that branch",
    ):
        say(line)
    return 0
