"""What a user can do wrong: one line each, exit code 2, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Says in one line what is wrong and what to do; the command line prints it and exits with 2."""
