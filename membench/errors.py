"""What a user can do wrong: one line each, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST = 100  # characters of a name that are shown


class UserError(Exception):
    """Says in one line what is wrong and what to do; the command line prints it and
    exits with 2.
    """

    @property
    def lines(self) -> list[str]:
        """One, whatever the user's own words in it hold."""
        return [str(self)]


class UserErrors(UserError):
    """Several at once, each a line of its own."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        return [str(line) for line in self.args]


def told(error: BaseException) -> str:
    """An error's kind and its text, in one line; the kind alone where the text is lost:
    that of a plug-in's own class may fail in turn.
    """
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")


def reason(error: BaseException) -> str:
    """What a library says of a file, in one line that is not long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def listed(text: str, what: str, between: str = ",") -> list[str]:
    """The items of a list with commas between, without the blanks around them.

    what: names the list. Raises :class:`UserError` for an empty item.
    """
    items = [item.strip() for item in text.split(between)]
    if not all(items):
        raise UserError(f"{what} {text[:LONGEST]!r} has an empty item; leave it out")
    return items


def suggest(word: str, options: Iterable[str]) -> str:
    """``" Did you mean 'a' or 'b'?"``: up to three close names, nearest first; empty
    where none is close.
    """
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word[:LONGEST].lower(), by_lower, n=3)
    close = [repr(by_lower[c]) for c in near]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def unknown_name(kind: str, name: str, options: Iterable[str], hint: str) -> UserError:
    """The error for a name that is not there: ``unknown detector 'sied'.

    Did you mean 'side'? See: <hint>``.
    """
    return UserError(f"unknown {kind} {name[:LONGEST]!r}.{suggest(name, options)} See: {hint}")


def unknown_profile(profile: str, task: str, known: Sequence[str]) -> UserError:
    """The error for a profile that a task lacks; it names those that there are, since
    mini, the default, is not everybody's.
    """
    return UserError(
        f"unknown profile {profile[:LONGEST]!r}.{suggest(profile, known)} Task {task} has"
        f" {', '.join(known)}: --profile {known[0]}. See: membench show {task}"
    )
