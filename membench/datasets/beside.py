"""The caption in a file beside an image, of the image's own name."""

from __future__ import annotations

from pathlib import Path

from membench.datasets.inside import NOTE_BYTES, bytes_inside, is_inside
from membench.datasets.items import Bad
from membench.datasets.records import NAMES, column, json_records
from membench.errors import UserError, reason
from membench.storage.reading import parse_json


def caption_beside(root: Path, image: Path, name: str, bad: list[Bad]) -> list[str]:
    """The caption in the ``.txt`` or the ``.json`` of the same name; one that cannot be
    read is named in ``bad``, and its image has none. A link out of the folder is none.
    """
    note = image.with_suffix(".txt")
    if note.is_file() and is_inside(root, note):
        try:
            text = bytes_inside(root, note, NOTE_BYTES, "a caption").decode("utf-8-sig").strip()
            return [text] if text else []
        except (UserError, UnicodeDecodeError) as error:
            bad.append(Bad(f"{name}, its {note.suffix}", reason(error)))
            return []
    note = image.with_suffix(".json")
    if note.is_file() and is_inside(root, note):
        try:
            return _noted(root, note)
        except UserError as error:
            bad.append(Bad(f"{name}, its {note.suffix}", str(error)))
            return []
    return []


def _noted(root: Path, note: Path) -> list[str]:
    """The captions of an object with a key of a caption; none of anything else, such as
    the boxes that a labelling tool notes beside an image, with the image in them.
    """
    if note.stat().st_size > NOTE_BYTES:
        return []
    try:
        value = parse_json(bytes_inside(root, note, NOTE_BYTES, "a caption").decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"damaged JSON ({reason(error)})") from None
    if not isinstance(value, dict) or not {column(key) for key in value} & set(NAMES["text"]):
        return []
    [record] = json_records([value])
    if record.error and not record.values:
        raise UserError(record.error)
    return record.texts()
