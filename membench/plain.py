"""Text of unknown origin, made harmless for where it is shown: a terminal, Markdown, or
a spreadsheet.

Prompts, kinds, options, names and paths come out of files that anybody may have
written. A page escapes HTML by itself (``report.rendered``); JSON and Parquet are data
and keep every character.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

JOINERS = "\u200c\u200d"  # scripts and emoji need them, and they move nothing

# Controls, formats such as right-to-left overrides, surrogates, line separators
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_ASCII = re.compile(r"[ -~]*")

# What begins a link, an image, code, emphasis, mathematics or a strike; an interval
# such as "[0.1, 0.2]" and "[n/a]" do not.
_INTERVAL = r"\[(?:-?[\d.,]+(?: %)?, -?[\d.,]+(?: %)?[\])]|n/a\])(?![(\[:])"
_MARKS = re.compile(rf"[\\`*~$|]|(?!{_INTERVAL})\[|(?<![^\W_])_|_(?![^\W_])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#|\w+;)")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(?=:)|\bwww(?=\.)")
_BLOCK = re.compile(r"^(\s*)(>|#{1,6}(?=\s|$)|[-+](?=\s))|^(\s*\d+)([.)](?=\s))")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def plain(text: object) -> str:
    """The text on one line, in which every control, direction and separator character
    is written as an escape: ``\\x1b``, ``\\u202e``.

    So it cannot colour, move or clear a terminal, hide or reorder what stands beside
    it, or begin a line of its own.
    """
    shown = str(text)
    if _ASCII.fullmatch(shown):
        return shown
    return "".join(
        _escape(c) if c not in JOINERS and unicodedata.category(c) in _HIDDEN else c for c in shown
    )


def _escape(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def marked_down(text: object) -> str:
    """:func:`plain` text whose characters mean themselves in GitHub's Markdown, in a
    table or a paragraph: no link, image, HTML or code.

    Numbers, intervals and names such as cfg_norm stay as they are.
    """
    shown = _ENTITY.sub("&amp;", plain(text))
    shown = _TAG.sub("&lt;", _MARKS.sub(lambda found: "\\" + found[0], shown))
    shown = _ADDRESS.sub(
        lambda found: found[0] + ("&#8203;" if found[0].lower() == "www" else "\\"), shown
    )
    return _BLOCK.sub(lambda found: f"{found[1] or found[3] or ''}\\{found[2] or found[4]}", shown)


def for_spreadsheet(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame for CSV: its text :func:`plain`, and with an apostrophe in front where a
    spreadsheet would take it for a formula.

    Numbers, also negative ones, are left alone.
    """
    texts = {
        name: frame[name].astype(object).map(_cell)
        for name, kind in frame.dtypes.items()
        if kind.kind not in "biuf"
    }
    return frame.assign(**texts).rename(columns=_cell)


def _cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    # Programs skip white space of any kind in front
    starts = cell.startswith(FORMULA) or cell.lstrip().startswith(FORMULA)
    return f"'{plain(cell)}" if starts else plain(cell)


def say(text: object) -> None:
    """A line of talk on stderr."""
    print(f"membench: {plain(text)}", file=sys.stderr)
