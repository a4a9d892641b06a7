"""Writes the tables of README.md and of the Markdown files here anew, from the Parquet
files: ``python results/tables.py``.

A block begins with ``<!-- membench ARGUMENTS -->``, a command line, and ends with
``<!-- end -->``; between the two stands what the command prints. A test fails where a
block is not what its command prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path

from membench.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "results/README.md")
BLOCK = re.compile(
    r"(<!-- membench (?P<command>[^>]+) -->\n)(?:(?!<!-- ).)*(<!-- end -->)", flags=re.S
)


def printed(command: str) -> str:
    """What ``membench COMMAND`` prints, run in the project's folder.

    Raises RuntimeError if it fails.
    """
    out, before = io.StringIO(), Path.cwd()
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(out):
            code = main(shlex.split(command))
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"membench {command} exited with {code}")
    return out.getvalue().strip()


def rewritten(text: str) -> str:
    """The text with every block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{printed(found['command'])}\n{found[3]}", text)


if __name__ == "__main__":
    for name in FILES:
        old = (ROOT / name).read_text(encoding="utf-8")
        new = rewritten(old)
        if new != old:
            (ROOT / name).write_text(new, encoding="utf-8")
        print(f"{name}: {'written anew' if new != old else 'as it was'}", file=sys.stderr)
