"""The caption in a file beside an image, of the image's own name."""

from __future__ import annotations

from pathlib import Path

from membench.datasets.items import Bad
from membench.datasets.records import NAMES, column, json_records
from membench.errors import UserError, reason
from membench.storage.reading import parse_json, read_plain


def caption_beside(image: Path, name: str, bad: list[Bad]) -> list[str]:
    """The caption in the ``.txt`` or the ``.json`` of the same name; one that cannot be
    read is named in ``bad``, and its image has none.
    """
    note = image.with_suffix(".txt")
    if note.is_file():
        try:
            return [text] if (text := note.read_text(encoding="utf-8-sig").strip()) else []
        except (OSError, UnicodeDecodeError) as error:
            bad.append(Bad(f"{name}, its {note.suffix}", reason(error)))
            return []
    note = image.with_suffix(".json")
    if note.is_file():
        try:
            return _noted(note)
        except UserError as error:
            bad.append(Bad(f"{name}, its {note.suffix}", str(error)))
            return []
    return []


def _noted(note: Path) -> list[str]:
    """The captions of an object with a key of a caption; none of anything else, such as
    the boxes that a labelling tool notes beside an image.
    """
    try:
        value = parse_json(read_plain(note).decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"damaged JSON ({reason(error)})") from None
    if not isinstance(value, dict) or not {column(key) for key in value} & set(NAMES["text"]):
        return []
    [record] = json_records([value])
    if record.error and not record.values:
        raise UserError(record.error)
    return record.texts()
