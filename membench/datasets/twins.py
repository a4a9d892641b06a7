"""Prompts that are the same but for case, white space or Unicode form: CLIP's tokenizer
reads the same tokens.
"""

from __future__ import annotations

import unicodedata

BUT_FOR = "but for case, white space or Unicode form"


def plain(text: str) -> str:
    """The form that twins share: Unicode's NFKC and case folding, without invisible
    format characters, each run of white space as one space, none at the ends.
    """
    if text.isascii():  # the usual case, and faster
        return " ".join(text.lower().split())
    for _ in range(2):  # folding may undo the normal form, and the normal form bring new capitals
        text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


class Labelled:
    """Prompts with the label 1 or 0, entered one by one."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], tuple[str, str]] = {}

    def enter(self, text: str, label: int, place: str) -> tuple[str, str] | None:
        """(text, place) of the first twin with the opposite label, or None.

        label: 1 or 0; a prompt of another label (unknown) contradicts none, and is not
        entered.
        """
        if label not in (0, 1):
            return None
        form = plain(text)
        self._first.setdefault((form, label), (text, place))
        return self._first.get((form, 1 - label))
