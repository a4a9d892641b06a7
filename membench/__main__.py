"""``python -m membench``."""

from __future__ import annotations

from membench.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
