"""How a broken rule is said, and the rules that detectors and tasks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from membench.errors import UserError
from membench.options import parse_options


class Broken(AssertionError):
    """A rule that the class does not keep, in one line."""


def require(kept: bool, rule: str) -> None:
    """Raises :class:`Broken` with ``rule`` where it is not kept."""
    if not kept:
        raise Broken(rule)


def options_of(kind: type, given: Mapping[str, Any] | None, owner: str) -> Any:
    """The options object, read as from the command line, so that the same ranges hold."""
    words = [
        f"{k}={','.join(map(str, v)) if isinstance(v, tuple | list) else v}"
        for k, v in (given or {}).items()
    ]
    return parse_options(kind, words, owner=owner)


def one_line(error: UserError, name: str) -> None:
    """A refusal is one line that says something."""
    text = str(error)
    require(bool(text.strip()) and "\n" not in text, f"a refusal is one line; {name} says {text!r}")


def check_fields(options: type, name: str) -> None:
    """Every option has a default and a line of help."""
    for field in dataclasses.fields(options):
        has = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        require(has, f"option {field.name} of {name} has no default")
        told = bool(field.metadata.get("help"))
        require(told, f"option {field.name} of {name} has no metadata={{'help': ...}}")
