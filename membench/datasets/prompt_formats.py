"""The rows of a prompts file, in whatever format it is: Parquet, JSON, CSV or plain text."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from membench.datasets.records import (
    SEPARATORS,
    addresses,
    header_of,
    is_coco,
    json_records,
    separator_of,
)
from membench.errors import UserError, reason
from membench.storage.reading import read_plain

# Characters of a prompt; text encoders read some 77 tokens, and the longest published
# prompt has 356 characters
LONGEST = 10_000
LONGEST_LINE = 100_000  # characters of a line of a text file, with its other columns
LONGEST_NEAR = 20  # characters of a name that is compared with one of ours

_HINTERSDORF = {
    "text": "Caption",
    "kind": "type",
    "url": "URL",
    "index": "Index",
    "similarity": "max_sscd",
}

# Columns of tables and keys of JSON, in any case; the first that is there is taken.
_TABLE = {
    "text": ("caption", "prompt", "text"),
    "kind": ("overfit_type", "kind"),
    "url": ("url", "urls"),
    "label": ("label", "memorized", "is_memorized", "memorised", "is_memorised"),
    **{name: (name,) for name in ("group", "source", "index")},
}
_KNOWN = frozenset(name for names in _TABLE.values() for name in names)

# Where it stands ("line 3") and its values, by the names of _TABLE
Row = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Format:
    """What a file holds. published: its kinds are those of KINDS, and it may repeat a
    prompt.
    """

    rows: Iterable[Row]
    published: bool = False


def format_of(path: Path) -> Format:
    """What the file holds, told by its first bytes.

    Raises UserError for what cannot be read at all.
    """
    data = read_plain(path, what="prompts file")
    if data.startswith(b"PAR1"):
        return Format(_parquet_rows(path, data), published=True)
    if path.suffix.lower() == ".parquet" and data:
        raise UserError(f"{path} is no Parquet file, or its beginning is damaged; fetch it again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise UserError(
            f"{path} is empty; it needs one prompt a line, or a CSV with a column 'prompt'"
        )
    # Splitlines would also split at U+2028 and others within a prompt
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for i, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{path}, line {i}: {len(line):,} characters in one line; a prompt may have"
                f" {LONGEST:,}"
            )
        if "\0" in line:
            raise UserError(
                f"{path}, line {i}: a NUL character; is it a text file? Save it as UTF-8"
            )
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json") or re.match(r'\s*\{\s*"', text):
        return _json_value(path, text) or _json_lines(path, lines)
    separator, columns = _csv_columns(path, text)
    if columns:
        published = columns is _HINTERSDORF
        return Format(_csv_rows(path, text, separator, columns, whole=published), published)
    if _is_page(text):
        raise UserError(f"{path} is a web page (HTML), not prompts; fetch the file itself")
    if _is_header(lines):
        raise UserError(
            f"{path}, line 1: {lines[0].strip()[:60]!r} is the header of a table, not a prompt;"
            " remove the line, or name the file .csv"
        )
    return Format((f"line {i}", {"text": line}) for i, line in enumerate(lines, 1) if line.strip())


def _is_page(text: str) -> bool:
    """Whether it is HTML, as a server sends in place of a file."""
    return text.lstrip()[:15].lower().startswith(("<!doctype html", "<html"))


def _is_header(lines: Sequence[str]) -> bool:
    """Whether the first line of a text is the header of a table: the name of a column of
    prompts, alone or, in a table whose rows have as many fields, beside others.
    """
    if lines[0].strip().lower() in _TABLE["text"]:
        return True
    for separator in SEPARATORS:
        rows = [line.count(separator) for line in lines if line.strip()]
        names = [name.strip().strip('"').lower() for name in lines[0].split(separator)]
        if {"prompt", "caption"} & {*names} and len(rows) > 1 and {*rows} == {len(names) - 1}:
            return True
    return False


def _listed(names: Sequence[str]) -> str:
    return (
        ", ".join(repr(name[:40]) for name in names[:20])
        + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        or "none"
    )


def _table_columns(names: Sequence[str], place: str) -> dict[str, str]:
    """The columns or keys to read, by what they are to us. place: of the table, for the
    error if it has no prompt, or two columns of one name.
    """
    lower = {name.lower(): name for name in reversed(names)}
    columns = {
        what: next((lower[o] for o in options if o in lower), "")
        for what, options in _TABLE.items()
    }
    if not columns["text"]:
        raise UserError(f"{place} has no column 'caption'; it has {_listed(names)}")
    _refuse_twice(_twice(names), place)
    _refuse_two_texts(names, place)
    return {what: name for what, name in columns.items() if name}


def _twice(names: Iterable[str]) -> list[str]:
    """The names that stand twice, those of our columns in whatever case: which of the
    two is meant is not for us to say.
    """
    counts = Counter(name.lower() if name.lower() in _KNOWN else name for name in names)
    return [name for name, count in counts.items() if count > 1]


def _refuse_twice(names: Sequence[str], place: str) -> None:
    if names:
        raise UserError(f"{place} has the column {names[0][:40]!r} twice; remove one")


def _refuse_two_texts(names: Iterable[str], place: str) -> None:
    """A caption beside a prompt is often another text: which of them the model is to be
    told is not for us to say.
    """
    texts = [name for name in names if name.strip().lower() in _TABLE["text"]]
    if len(texts) > 1:
        both = " and ".join(repr(name[:40]) for name in texts[:2])
        raise UserError(
            f"{place} has the columns {both}: remove or rename the one that is not the prompt"
        )


def _refuse_near_label(path: Path, names: Iterable[str]) -> None:
    """A column that is nearly called label would not be read, and its prompts take
    another label without a word. A file of Parquet is another's, who may mean another
    thing by it.
    """
    if {name.lower() for name in names} & {*_TABLE["label"]}:
        return
    for name in names:
        if difflib.SequenceMatcher(None, name.lower()[:LONGEST_NEAR], "label").ratio() > 0.7:
            raise UserError(
                f"{path} has a column {name[:40]!r} and none called 'label': call it label, or,"
                " if it does not say what is memorized, something else"
            )


def _parquet_rows(path: Path, data: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from membench.storage.tables import PARQUET_ERRORS

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = _table_columns(file.schema_arrow.names, str(path))
        # Only these columns: others hold arrays and lists that pandas wrote. Types are
        # checked a value at a time.
        values = {
            what: file.read(columns=[name]).column(0).to_pylist() for what, name in columns.items()
        }
    except PARQUET_ERRORS as error:
        raise UserError(f"{path} is damaged Parquet ({reason(error)}); fetch it again") from None
    if len({len(column) for column in values.values()}) > 1:
        raise UserError(f"{path} is damaged Parquet (columns of different lengths); fetch it again")
    for i, row in enumerate(zip(*values.values(), strict=True), 1):
        yield f"row {i}", dict(zip(values, row, strict=True))


def _json_value(path: Path, text: str) -> Format | None:
    """An array of captions or objects, or a dictionary of them; None for another text,
    such as JSON lines.
    """
    one_line = not text.lstrip().startswith("[") and len(text.strip().split("\n")) == 1
    in_lines = path.suffix.lower() in (".jsonl", ".ndjson")
    twice: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=partial(_object, twice))
    except (ValueError, RecursionError):
        return None
    if one_line and not is_coco(value) and (in_lines or _is_row(value)):
        return None  # one line of JSON lines, or none
    _refuse_twice(twice, str(path))
    rows: list[Row] = []
    for record in json_records(value):
        if record.error:
            raise UserError(f"{path}, {record.where}: {record.error}")
        columns = _table_columns(list(record.values), f"{path}, {record.where},")
        _refuse_near_label(path, record.values)
        rows.append((record.where, {w: record.values[name] for w, name in columns.items()}))
    return Format(rows, published=True)


def _is_row(value: object) -> bool:
    """Whether a JSON value is one prompt with what is told of it: neither columns nor a
    dictionary of captions, whose keys are file names.
    """
    if not isinstance(value, dict):
        return True
    lower = {str(name).lower(): told for name, told in value.items()}
    listed = any(isinstance(lower.get(name), list | dict) for name in _TABLE["text"])
    return bool(_KNOWN & set(lower)) and not listed


def _object(twice: list[str], pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, of whose keys those that stand twice are put into ``twice``."""
    twice += _twice(name for name, _ in pairs)
    return dict(pairs)


def _json_lines(path: Path, lines: list[str]) -> Format:
    rows: list[Row] = []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        twice: list[str] = []
        try:
            value = json.loads(line, object_pairs_hook=partial(_object, twice))
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise UserError(
                f"{path}, line {i}: damaged JSON ({reason}); it needs one object a line"
            ) from None
        if not isinstance(value, dict):
            raise UserError(
                f"{path}, line {i}: not a JSON object with a key 'caption'; it needs one a line"
            )
        _refuse_twice(twice, f"{path}, line {i},")
        columns = _table_columns(list(value), f"{path}, line {i},")
        _refuse_near_label(path, value)
        rows.append((f"line {i}", {what: value[name] for what, name in columns.items()}))
    return Format(rows, published=True)


def _csv_columns(path: Path, text: str) -> tuple[str, dict[str, str]]:
    """(separator, columns by what they are to us) of a CSV by its header; ("", {}) for
    text. Raises UserError for a missing column and for one that stands twice.
    """
    split = {separator: header_of(text, separator) for separator in SEPARATORS}
    # Saved again by a spreadsheet or pandas, it has other separators
    for separator, names in split.items():
        if set(_HINTERSDORF.values()) <= set(names):
            return separator, _HINTERSDORF
    theirs = split[";"]
    if len(set(theirs) & set(_HINTERSDORF.values())) > 1:
        if missing := [name for name in ("Caption", "URL", "Index") if name not in theirs]:
            raise UserError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has {_listed(theirs)}"
            )
        return ";", _HINTERSDORF
    separator = separator_of(text, _KNOWN)
    names = split[separator]
    hits = _KNOWN & {name.lower() for name in names}
    if path.suffix.lower() not in (".csv", ".tsv") and len(hits) < 2:
        return "", {}
    lower = [name.lower() for name in names]
    columns = {
        what: names[lower.index(option)]
        for what, options in _TABLE.items()
        for option in [next((o for o in options if o in lower), "")]
        if option
    }
    if "text" not in columns:
        raise UserError(f"{path} has no column 'prompt'; it has {_listed(names)}")
    if repeated := [name for name in columns.values() if lower.count(name.lower()) > 1]:
        raise UserError(f"{path} has the column {repeated[0]!r} twice")
    _refuse_two_texts(names, str(path))
    _refuse_near_label(path, names)
    return separator, columns


def _csv_rows(
    path: Path, text: str, separator: str, columns: Mapping[str, str], *, whole: bool
) -> Iterator[Row]:
    """whole: a row with fewer fields than the header is refused; a file of one's own
    may leave out the last ones, and hold empty rows, as spreadsheets write them.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = next(
            [name.strip() for name in fields]
            for fields in reader
            if any(name.strip() for name in fields)
        )
        places = {what: header.index(name) for what, name in columns.items() if name in header}
        for fields in reader:
            where = f"line {reader.line_num}"
            if not whole and not any(value.strip() for value in fields):
                continue
            if len(fields) > len(header) or (whole and 0 < len(fields) < len(header)):
                advice = f"quote a prompt that holds {separator!r}"
                raise UserError(
                    f"{path}, {where}: {len(fields)} fields, where the header has {len(header)};"
                    f" {advice}"
                )
            if not fields and whole:
                raise UserError(f"{path}, {where}: an empty row; remove it")
            if fields:
                row = {w: fields[i] if i < len(fields) else None for w, i in places.items()}
                urls: list[str | None] = [*addresses(row.get("url"))]
                for url in urls or [row.get("url")]:
                    yield where, {**row, "url": url}
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: damaged CSV ({reason(error)})") from None
