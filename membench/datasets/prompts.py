"""Prompts from files: the formats in which memorized prompts were published, a CSV of
one's own, and plain text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from membench.datasets.records import SEPARATORS, addresses, json_records, separator_of
from membench.datasets.twins import BUT_FOR, Labelled
from membench.errors import UserError, reason
from membench.storage.reading import read_plain
from membench.types import Condition, Example

UNLABELLED = -1


# The label that a published kind stands for
KINDS = {"MV": 1, "TV": 1, "RV": 1, "VM": 1, "TM": 1, "N": 0}


# Characters of a prompt; text encoders read some 77 tokens, and the longest published
# prompt has 356 characters
LONGEST = 10_000


LONGEST_LINE = 100_000  # characters of a line of a text file, with its other columns

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
    **{name: (name,) for name in ("label", "group", "source", "index")},
}


_LABELS = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0", "": ""}


_DEFAULT_KIND = {1: "memorized", 0: "N", UNLABELLED: "unlabelled"}

# Where it stands ("line 3") and its values, by the names of _TABLE
Row = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """One row of a prompts file.

    label: 1 memorized, 0 not, -1 unknown (UNLABELLED). kind: Webster's (2023, arXiv
    2305.08694) MV, TV and RV (matching, template, retrieval verbatim) and N (none of
    them); Hintersdorf's (2024, arXiv 2406.02366) VM and TM, which are verbatim and
    template by another rule (VM where max_sscd >= 0.7) and so are kept apart; else what
    the file says, "memorized", "N" or "unlabelled". source: the file or set. group: the
    file's, or "". url, index: of its training image, the index being LAION's; ""
    where unknown. similarity: the largest SSCD between the image and generations that
    the set's authors report (max_sscd); None where they do not. where: the row of the
    file that it was read from, such as "line 3".
    """

    text: str
    label: int
    kind: str
    source: str
    group: str = ""
    url: str = ""
    index: str = ""
    similarity: float | None = None
    where: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """Source and row, for messages."""
        return ", ".join(filter(None, (self.source, self.where)))


@dataclass(frozen=True)
class _Format:
    """What a file holds. published: its kinds are those of KINDS, and it may repeat a
    prompt.
    """

    rows: Iterable[Row]
    published: bool = False


def example_id(prompt: str) -> str:
    """16 hex digits of SHA-256: the same prompt has the same id, and so the same noise,
    in every file.
    """
    return hashlib.sha256(f"prompt\x1f{prompt}".encode()).hexdigest()[:16]


def read_prompts(path: Path) -> list[Example]:
    """Examples of a prompts file of any format: :func:`to_examples` of
    :func:`read_prompt_file`, which say what is refused.
    """
    return to_examples(read_prompt_file(path))


def read_prompt_file(
    path: str | Path, *, label: int = UNLABELLED, source: str = "", first: int | None = None
) -> list[Prompt]:
    """The prompts of a file, one a row, in its order.

    The format is told by what the file holds:

    - Parquet as Webster publishes it: caption, and if there index, url, overfit_type.
      Other columns are not read.
    - JSON lines as Wen et al. (2024) do: caption, index, url; they may have the other
      columns of the Parquet files. Lists of prompts that are not memorized are
      published with the same three keys, so the format says nothing about the label.
    - CSV as Hintersdorf et al. do: separated by ";", with Caption, URL, Index, and if
      there type, max_sscd.
    - CSV of one's own (".csv", ".tsv"; separated by commas, semicolons, tabs or bars):
      prompt, caption or text in any case, and if there label (1, 1.0, True, 0 ...),
      kind, group, source, url, index. ``urls`` may be a list as Python writes it, as in
      MemBench (Hong et al. 2024): a row an address.
    - JSON: an array of captions or of objects, or a dictionary to them.
    - Anything else is text with a prompt a line; blank lines are skipped.

    A row's label is that of its column ``label``, else that of its kind, if that is one
    of KINDS: 1, and 0 for N ("not memorized *by Webster's rule*"). label (1, 0 or -1,
    unlabelled) is given to rows without either. source: of rows that do not say;
    default the file's name. first: read so many rows, and none that follow; None: all.

    Published files repeat captions (34 of COCO's 10,000): such rows are all returned,
    since each may have an image of its own. Raises :class:`UserError`, one line, for a
    file that is missing, empty, damaged or not UTF-8, a missing column,
    a row with too many fields, an empty prompt or one of more than LONGEST
    characters, NUL characters, another label than 0 or 1, another published kind than
    those of KINDS, a repeated prompt in text and in a CSV of one's own, and in any file
    one with two labels, and two with the labels 1 and 0 that are the same but for case,
    white space or Unicode form (:mod:`membench.datasets.twins`). ValueError for another
    ``label``.
    """
    if label not in (0, 1, UNLABELLED):
        raise ValueError(f"label is {label}, but must be 1, 0 or {UNLABELLED}")
    path = Path(path)
    found = _format(path)
    prompts: list[Prompt] = []
    seen: dict[str, tuple[str, int]] = {}
    labelled = Labelled()
    for where, row in itertools.islice(found.rows, first):
        try:
            prompt = _prompt(row, label, source or path.name, found.published, where)
        except _BadRow as error:
            raise UserError(f"{path}, {where}: {error}") from None
        before, its_label = seen.setdefault(prompt.text, (where, prompt.label))
        if before != where and not found.published:
            raise UserError(
                f"{path}, {where}: the prompt of {before} again; remove one ({prompt.text[:60]!r})"
            )
        if its_label != prompt.label:
            raise UserError(
                f"{path}, {where}: the prompt of {before} again, with another label; remove one"
                f" ({prompt.text[:60]!r})"
            )
        if twin := labelled.enter(prompt.text, prompt.label, where):
            both = f"{prompt.text[:60]!r} and {twin[0][:60]!r}"
            raise UserError(
                f"{path}, {where}: the prompt of {twin[1]} {BUT_FOR}, with another label; remove"
                f" one ({both})"
            )
        prompts.append(prompt)
    if not prompts:
        raise UserError(
            f"{path} has a header and no prompt"
            if path.suffix.lower() == ".csv"
            else f"{path} holds no prompt"
        )
    return prompts


def to_examples(prompts: Iterable[Prompt]) -> list[Example]:
    """An example for each different text, in the order of the first row that has it,
    which also gives kind, group and source.

    A row without a label is extracted from and scored, but takes no part in detection
    metrics. Those without a group are grouped with one another, by near-duplicate text
    and label (:func:`membench.similarity.near_duplicates.text_groups`, ``by_label``).
    Raises :class:`UserError` for a text with two labels, for two texts with the labels
    1 and 0 that are the same but for case, white space or Unicode form, and for a group
    that holds memorized and other prompts, which intervals cannot resample.
    """
    rows: dict[str, Prompt] = {}
    labels: dict[str, int] = {}
    labelled = Labelled()
    for row in prompts:
        first = rows.setdefault(row.text, row)
        if first.label != row.label:
            both = f"label {first.label} in {first.place} and {row.label} in {row.place}"
            raise UserError(f"the prompt {row.text[:60]!r} has {both}; remove one")
        if twin := labelled.enter(row.text, row.label, row.place):
            both = (
                f"label {1 - row.label} in {twin[1]} ({twin[0][:60]!r}) and {row.label} in"
                f" {row.place}"
            )
            raise UserError(f"the prompt {row.text[:60]!r} has, {BUT_FOR}, {both}; remove one")
        if (
            row.group
            and row.label != UNLABELLED
            and labels.setdefault(row.group, row.label) != row.label
        ):
            advice = "give those of each label a group of their own"
            raise UserError(
                f"{row.source}: group {row.group!r} holds memorized and other prompts; {advice}"
            )
    return _grouped(
        [
            Example(Condition(example_id(r.text), r.text), r.label, r.kind, r.group, r.source)
            for r in rows.values()
        ]
    )


def _grouped(examples: list[Example]) -> list[Example]:
    """The examples, in their order, those without a group in one by text and label."""
    alone = [i for i, example in enumerate(examples) if not example.group]
    if not alone:
        return examples
    # Imports scikit-learn and pandas
    from membench.similarity.near_duplicates import by_label, text_groups

    texts = [examples[i].condition.prompt or "" for i in alone]
    groups = by_label(text_groups(texts), [examples[i].memorized for i in alone])
    found = dict(zip(alone, groups, strict=True))
    return [
        replace(example, group=found.get(i, example.group)) for i, example in enumerate(examples)
    ]


class _BadRow(Exception):
    """What is wrong with a row; its reader knows where the row stands."""


def _prompt(
    row: Mapping[str, Any], otherwise: int, source: str, published: bool, where: str
) -> Prompt:
    text = row["text"]
    if text is not None and not isinstance(text, str):
        raise _BadRow(f"the prompt is not text but {type(text).__name__}")
    text = (text or "").strip()
    if not text:
        raise _BadRow("the prompt is empty")
    if len(text) > LONGEST:  # not echoed
        raise _BadRow(f"the prompt has {len(text):,} characters; it may have {LONGEST:,}")
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise _BadRow(
            "the prompt holds a NUL character or half a surrogate pair, which is not a text"
        )
    kind, told = _string(row.get("kind")), _string(row.get("label"))
    label = _LABELS.get(told.lower(), told)
    if published and kind and not label and kind not in KINDS:
        raise _BadRow(f"kind {kind[:20]!r}; it must be one of {', '.join(KINDS)}, or empty")
    if label not in ("", "0", "1"):
        raise _BadRow(f"label {label[:20]!r}; write 1 (memorized), 0 (not) or nothing")
    value = int(label) if label else KINDS.get(kind, otherwise)
    similarity = _string(row.get("similarity"))
    try:
        number = float(similarity) if similarity else None
    except ValueError:
        raise _BadRow(f"max_sscd {similarity[:20]!r} is not a number") from None
    url, index, group = (_string(row.get(name)) for name in ("url", "index", "group"))
    return Prompt(
        text,
        value,
        kind or _DEFAULT_KIND[value],
        _string(row.get("source")) or source,
        group,
        url,
        index,
        number,
        where,
    )


def _string(value: Any) -> str:
    """A value of any column but the prompt: "" where it is missing; whole numbers
    without ".0", which pandas adds to ones with gaps.
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool | float) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _format(path: Path) -> _Format:
    """What the file holds, told by its first bytes.

    Raises UserError for what cannot be read at all.
    """
    data = read_plain(path, what="prompts file")
    if data.startswith(b"PAR1"):
        return _Format(_parquet_rows(path, data), published=True)
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
    separator, columns = _csv_columns(path, lines[0])
    if columns:
        published = columns is _HINTERSDORF
        return _Format(_csv_rows(path, text, separator, columns, whole=published), published)
    return _Format((f"line {i}", {"text": line}) for i, line in enumerate(lines, 1) if line.strip())


def _listed(names: Sequence[str]) -> str:
    return (
        ", ".join(repr(name[:40]) for name in names[:20])
        + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        or "none"
    )


def _table_columns(names: Sequence[str], place: str) -> dict[str, str]:
    """The columns or keys to read, by what they are to us. place: of the table, for the
    error if it has no prompt.
    """
    lower = {name.lower(): name for name in reversed(names)}
    columns = {
        what: next((lower[o] for o in options if o in lower), "")
        for what, options in _TABLE.items()
    }
    if not columns["text"]:
        raise UserError(f"{place} has no column 'caption'; it has {_listed(names)}")
    return {what: name for what, name in columns.items() if name}


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


def _json_value(path: Path, text: str) -> _Format | None:
    """An array of captions or objects, or a dictionary of them; None for another text,
    such as JSON lines.
    """
    if not text.lstrip().startswith("[") and len(text.strip().split("\n")) == 1:
        return None  # one line of JSON lines, or none
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    rows: list[Row] = []
    for record in json_records(value):
        columns = _table_columns(list(record.values), f"{path}, {record.where},")
        rows.append((record.where, {w: record.values[name] for w, name in columns.items()}))
    return _Format(rows, published=True)


def _json_lines(path: Path, lines: list[str]) -> _Format:
    rows: list[Row] = []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise UserError(
                f"{path}, line {i}: damaged JSON ({reason}); it needs one object a line"
            ) from None
        if not isinstance(value, dict):
            raise UserError(
                f"{path}, line {i}: not a JSON object with a key 'caption'; it needs one a line"
            )
        columns = _table_columns(list(value), f"{path}, line {i},")
        rows.append((f"line {i}", {what: value[name] for what, name in columns.items()}))
    return _Format(rows, published=True)


def _csv_columns(path: Path, header: str) -> tuple[str, dict[str, str]]:
    """(separator, columns by what they are to us) of a CSV with this first line; ("",
    {}) for text. Raises UserError for a missing column and for one that stands twice.
    """
    split = {
        separator: [name.strip() for name in next(csv.reader([header], delimiter=separator))]
        for separator in SEPARATORS
    }
    theirs = split[";"]
    if len(set(theirs) & set(_HINTERSDORF.values())) > 1:
        if missing := [name for name in ("Caption", "URL", "Index") if name not in theirs]:
            raise UserError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has {_listed(theirs)}"
            )
        return ";", _HINTERSDORF
    known = {name for names in _TABLE.values() for name in names}
    separator = separator_of(header, known)
    names = split[separator]
    hits = known & {name.lower() for name in names}
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
    return separator, columns


def _csv_rows(
    path: Path, text: str, separator: str, columns: Mapping[str, str], *, whole: bool
) -> Iterator[Row]:
    """whole: a row with fewer fields than the header is refused; a file of one's own
    may leave out the last ones.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        places = {what: header.index(name) for what, name in columns.items() if name in header}
        for fields in reader:
            where = f"line {reader.line_num}"
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
