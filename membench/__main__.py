"""``python -m membench``."""

from membench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
