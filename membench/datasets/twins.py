"""Prompts that are the same but for case, white space or Unicode form: CLIP's tokenizer
reads the same tokens.
"""

from __future__ import annotations

import re
import unicodedata

BUT_FOR = "but for case, white space or Unicode form"

# What CLIP's tokenizer splits a prompt into before any merge, Radford et al. 2021: words,
# single digits, and what is neither. White space between two of them changes nothing.
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\w\s]|_)+")

# Marks that choose a glyph, and are no format characters
_SELECTORS = re.compile("[\u034f\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def plain(text: str) -> str:
    """The form that twins share: Unicode's NFKC and case folding, without invisible
    format characters and variation selectors, one space between two pieces of CLIP's
    tokenizer, so that "red, blue" and "red ,blue" have one form.
    """
    if text.isascii():  # the usual case, and faster
        return " ".join(_PIECES.findall(text.lower()))
    for _ in range(2):  # folding may undo the normal form, and the normal form bring new capitals
        text = unicodedata.normalize("NFKC", text.casefold())
    text = _SELECTORS.sub("", "".join(c for c in text if unicodedata.category(c) != "Cf"))
    return " ".join(_PIECES.findall(text))


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
