"""``python -m membench``."""

from __future__ import annotations

import sys


def start() -> int:
    """The exit code of the command line; of Ctrl-C while it is imported, too."""
    try:
        from membench.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("membench: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
