"""Lines of a terminal: how long they may be, and folding between words. Imports nothing
that a command such as ``list`` would wait for.
"""

from __future__ import annotations

import os
import sys
import textwrap


def width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    if not sys.stdout.isatty():
        return None
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # a terminal of a notebook or an editor, without a size
        found = 0
    return found or 80


def folded(text: str, room: int | None) -> list[str]:
    """The lines of a text, folded between words; one where ``room`` is None. A word
    that is longer than a line stands on a line of its own, whole.
    """
    if room is None:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def entry(name: str, text: str, room: int | None, indent: int) -> str:
    """A line ``name  text`` whose text begins at ``indent`` and is folded there; below
    the name where that is longer, or the terminal too narrow for both.
    """
    beside = len(name) < indent and (room is None or room >= indent + 30)
    at = indent if beside else 6
    lines = folded(text, None if room is None else max(room - at, 20)) if text else []
    if beside and lines:
        return "\n".join([name.ljust(at) + lines[0], *(" " * at + line for line in lines[1:])])
    return "\n".join([name.rstrip(), *(" " * at + line for line in lines)])
