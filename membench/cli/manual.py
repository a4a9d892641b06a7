"""docs/cli.md: every command with its options, read from the parsers.

``python -m membench.cli.manual > docs/cli.md`` makes the document.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from membench.cli.main import COMMANDS, parser

HEAD = """# Every command and option

Made by `python -m membench.cli.manual > docs/cli.md`, from what `membench COMMAND
--help` says. By use, with an example each: [commands.md](commands.md)."""


def document() -> Iterator[str]:
    """The lines of docs/cli.md."""
    yield from HEAD.split("\n")
    subs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, sub in subs.choices.items():
        yield from ("", f"## membench {name}", "", _text(sub.description or ""), "")
        for group in sub._action_groups:
            rows = [row for action in group._group_actions if (row := _row(action))]
            if rows:
                title = (group.title or "").capitalize()
                yield from (f"**{title}**", "", "| option | what it does |", "| --- | --- |")
                yield from (*rows, "")
        yield "```"
        yield from (f"membench {line}" for line in COMMANDS[name].EXAMPLES)
        yield "```"


def _row(action: argparse.Action) -> str:
    """A line of the table; empty for ``--help`` and for what is not shown."""
    if action.help in (None, argparse.SUPPRESS) and not action.choices:
        return ""
    if isinstance(action, argparse._HelpAction):
        return ""
    words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    value = str(action.metavar or action.dest.upper())
    takes = f" {value}" if action.option_strings and action.nargs != 0 else ""
    told = _text(action.help or "") % {"default": action.default}
    if action.choices:
        told = "; ".join(filter(None, (told, "one of " + ", ".join(map(str, action.choices)))))
    if action.default not in (None, False, argparse.SUPPRESS, [], (), "") and "default" not in told:
        told += f" (default {action.default})"
    return f"| `{words}{takes}` | {told} |"


def _text(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    print("\n".join(document()))
