"""Rows of tables as people keep them: CSV with any separator, JSON, JSON lines,
Parquet, each with its columns by lower-case names.

A row that cannot be read is a row with an error: whoever asks decides how many are too
many.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from membench.errors import UserError, reason
from membench.storage.reading import is_text, read_plain

# What a column is called; the first that is there is taken
NAMES = {
    "file": (
        *("file_name", "filename", "file", "image_file", "image_path", "path", "filepath"),
        *("image", "img", "image_id", "key"),
    ),
    "text": ("text", "caption", "prompt", "captions", "title", "description", "alt_text", "alt"),
    "label": ("label", "class", "class_label", "class_name", "target"),
    "url": ("url", "urls", "image_url"),
}
KNOWN = tuple(name for names in NAMES.values() for name in names)
SEPARATORS = ",;\t|"
HEADER = 1 << 20  # characters that a header is looked for in


@dataclass(frozen=True)
class Record:
    """where: "line 3". values: by lower-case column. error: why it cannot be read; ""
    where it can.
    """

    where: str
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def get(self, what: str) -> Any:
        """The value of the first column that goes by a name of ``NAMES[what]``; None
        where there is none.
        """
        return next((self.values[n] for n in NAMES[what] if n in self.values), None)

    def text(self, what: str) -> str:
        """The same as a stripped text; "" for none, for a NaN, and for what is no text."""
        return _written(self.get(what))

    def label(self) -> str:
        """The class; "" for a gap that a program has written as nan, and "3" of "3.0", as
        pandas writes whole numbers beside gaps.
        """
        text = self.text("label")
        whole = re.fullmatch(r"(-?[0-9]{1,9})\.0+", text)
        return "" if text in ("nan", "NaN") else whole[1] if whole else text

    def texts(self) -> list[str]:
        """The captions: one, or those of a list."""
        value = self.get("text")
        values = value if isinstance(value, list | tuple) else [value]
        return [text for v in values if (text := _written(v))]

    def urls(self) -> list[str]:
        """The addresses: one, a list, or a list as Python writes it (:func:`addresses`)."""
        value = self.get("url")
        if isinstance(value, list | tuple):
            return [str(v).strip() for v in value if str(v).strip()]
        if isinstance(value, str) and value.lstrip().startswith("["):
            return addresses(value)
        return [text] if (text := self.text("url")) else []


def _written(value: Any) -> str:
    """A text or a number as a stripped text; "" for anything else, whose form in Python
    nobody meant.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float) and (value.is_integer() or value != value):
        value = "" if value != value else int(value)  # what pandas makes of gaps
    return str(value).strip() if isinstance(value, str | int | float) else ""


def addresses(value: Any) -> list[str]:
    """The texts of a list as Python writes it, as MemBench's table holds them (Hong et
    al. 2024); [] for anything else. Literals only: nothing is executed.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("[") or len(value) > 1 << 20:
        return []
    try:
        found = ast.literal_eval(value.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
    return [v.strip() for v in found if isinstance(v, str) and v.strip()]


def column(name: object) -> str:
    """A column's name as ``NAMES`` writes it."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def read_records(path: Path) -> list[Record]:
    """The rows of a table, told by what the file holds.

    Parquet; JSON: an array of objects, an object of columns, COCO's captions, or a
    dictionary from file names to captions (a text, a list of them, an object); JSON
    lines; CSV whose header says which of comma, semicolon, tab and bar separates it. A
    byte order mark is skipped.

    Raises :class:`UserError`, in one line, for a file that is missing, empty, not UTF-8
    or damaged as a whole.
    """
    data = read_plain(path)
    if data.startswith(b"PAR1"):
        return _parquet(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise UserError(f"{path} is empty")
    if text.lstrip()[0] in "[{":
        return _json(path, text)
    try:
        return list(csv_records(text))
    except csv.Error as error:
        raise UserError(f"{path} is damaged CSV: its header ({reason(error)})") from None


def header_of(text: str, separator: str) -> list[str]:
    """The names in the first row of a CSV that is not blank, whose quoted ones may hold
    line ends; none of what is no CSV.
    """
    try:
        for fields in csv.reader(io.StringIO(text[:HEADER], newline=""), delimiter=separator):
            if any(name.strip() for name in fields):
                return [name.strip() for name in fields]
    except csv.Error:  # a quote that does not end, a text of another kind
        pass
    return []


def separator_of(text: str, known: Iterable[str] = ()) -> str:
    """The separator of a CSV: the one that finds most of the known column names in its
    header, then most columns; a tie: the first of ``SEPARATORS``.
    """
    names = set(known or KNOWN)

    def fits(separator: str) -> tuple[int, int]:
        found = [column(name) for name in header_of(text, separator)]
        return len(names & set(found)), len(found)

    return max(SEPARATORS, key=fits)


def csv_records(text: str) -> Iterator[Record]:
    """The rows of a CSV with a header; blank lines are none, and a line ends as it does
    on any system. A row that cannot be read may have swallowed the lines after it, by a
    quote that does not end: each of them is one. Raises csv.Error for a damaged header,
    without which no row means anything.
    """
    taken: list[str] = []  # lines of this row

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    def lost(why: str) -> Iterator[Record]:
        for number, line in enumerate(taken, reader.line_num - len(taken) + 1):
            if line.strip():
                yield Record(f"line {number}", error=why)

    separator = separator_of(text)
    reader = csv.reader(lines(), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if header is None:
                raise
            yield from lost(f"damaged CSV ({reason(error)})")
            continue
        where = f"line {reader.line_num}"
        if not any(value.strip() for value in fields):
            continue
        if header is None:
            header = [column(name) for name in fields]
        elif len(fields) > len(header):
            yield from lost(f"{len(fields)} fields, where the header has {len(header)}")
        else:
            yield Record(where, _first(header, fields))


def _first(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Values by name; of a name that stands twice the first."""
    found: dict[str, Any] = {}
    for name, value in zip(names, values, strict=False):
        found.setdefault(name, value)
    return found


def _json(path: Path, text: str) -> list[Record]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return list(_json_lines(path, text))
    return json_records(value)


def json_records(value: Any) -> list[Record]:
    """The rows of a JSON array or object (:func:`read_records`); none of a number."""
    if isinstance(value, dict):
        value = _unfolded(value)
    rows = value if isinstance(value, list) else []
    return [_object(f"row {i}", row) for i, row in enumerate(rows, 1)]


def _unfolded(value: dict[str, Any]) -> list[Any]:
    """The rows of a JSON object."""
    if is_coco(value):
        names = {
            row["id"]: row.get("file_name")
            for row in value["images"]
            if isinstance(row, Mapping) and _is_id(row.get("id"))
        }
        return [
            {
                "file_name": names.get(row["image_id"]) if _is_id(row.get("image_id")) else None,
                "text": row.get("caption"),
            }
            if isinstance(row, Mapping)
            else row
            for row in value["annotations"]
        ]
    lower = {column(name): rows for name, rows in value.items()}
    known = {name for what in ("file", "text") for name in NAMES[what]}
    if set(lower) & known:
        numbered = [rows for rows in lower.values() if isinstance(rows, Mapping)]
        if len(numbered) == len(lower) and len({tuple(rows) for rows in numbered}) == 1:
            lower = {name: list(rows.values()) for name, rows in lower.items()}  # of pandas
        lists = [rows for rows in lower.values() if isinstance(rows, list)]
        if len(lists) == len(lower) and len({len(rows) for rows in lists}) == 1:
            return [dict(zip(lower, row, strict=True)) for row in zip(*lists, strict=True)]
        return [value]  # one row
    return [
        {"file_name": name, **row} if isinstance(row, Mapping) else {"file_name": name, "text": row}
        for name, row in value.items()
    ]


def is_coco(value: Any) -> bool:
    """Whether a JSON value is laid out as COCO's captions: images, and notes on them."""
    return isinstance(value, dict) and all(
        isinstance(value.get(name), list) for name in ("images", "annotations")
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int)


def _object(where: str, row: Any) -> Record:
    if isinstance(row, str):  # an array of captions
        row = {"text": row}
    if not isinstance(row, Mapping):
        return Record(where, error="no object")
    lower = {column(name): value for name, value in row.items()}
    for what in ("file", "text"):
        name = next((n for n in NAMES[what] if n in lower), "")
        if name and not _is_text(lower[name], lists=what == "text"):
            return Record(where, error=f"{name} is no text")
    values = _first([column(name) for name in row], list(row.values()))
    if half := next((n for n in KNOWN if n in lower and not _is_whole(lower[n])), ""):
        why = f"{half} holds half a surrogate pair, which is not a text"
        return Record(where, values, why)
    return Record(where, values)


def _is_whole(value: Any) -> bool:
    """Whether a value, or a list of them, holds no half of a surrogate pair."""
    values = value if isinstance(value, list | tuple) else [value]
    return all(is_text(v) for v in values if isinstance(v, str))


def _is_text(value: Any, *, lists: bool) -> bool:
    """Whether a value is a text, a number or nothing, or a list of these."""
    if lists and isinstance(value, list | tuple):
        return all(_is_text(v, lists=False) for v in value)
    return value is None or isinstance(value, str | bytes | int | float)


def _json_lines(path: Path, text: str) -> Iterator[Record]:
    good = 0
    rows = []
    # Not splitlines: it would also split at U+2028 within a caption
    for i, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_object(f"line {i}", json.loads(line)))
            good += 1
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            rows.append(Record(f"line {i}", error=f"damaged JSON ({reason})"))
    if not good:
        raise UserError(f"{path} is neither JSON nor JSON lines: {rows[0].where}, {rows[0].error}")
    yield from rows


def _parquet(path: Path, data: bytes) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from membench.storage.tables import PARQUET_ERRORS

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [n for n in file.schema_arrow.names if column(n) in KNOWN]
        rows = file.read(columns=names).to_pylist()
    except PARQUET_ERRORS as error:
        raise UserError(f"{path} is damaged Parquet ({reason(error)}); fetch it again") from None
    return [_object(f"row {i}", row) for i, row in enumerate(rows, 1)]
