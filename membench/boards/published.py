"""Published numbers beside measured ones: ``results/published.csv``, which people
review and edit, and the Parquet made from it.

One row a number. Columns:

- task, profile, model, data: what was attacked. profile is ``full``: nothing was ever
  published of a mini model. model: a hub id, or a plain name where the source gives no
  more. data: the training set, or the prompts and their negatives (``webster500 vs 500
  LAION``).
- detector, options: membench's names where it has the detector. options: a JSON object
  of what the source states. null: it leaves open what defines the score (how many draws
  or steps it averages; prediction: whether norms are of eps, as ours, or of v, which
  weighs steps otherwise); such a row is never the same setting. What is not named was not
  stated, and may be anything.
- metric, value: a name of METRICS. ``ams`` and ``ums`` are shares, not per cent.
  ``best_balanced_accuracy``: threshold chosen on the same examples, which membench's
  ``balanced_accuracy`` is not.
- band, band_from, band_to: of AMS and UMS; an end is empty where the source does not
  state it (SIDE: the lower end of "low", and all bands of the L2 distance). similarity:
  of AMS, UMS and ``best_p95``: how a :class:`membench.types.Space` id begins.
- n_generated, n_positive, n_negative: empty where unknown or not applicable.
- paper, source: who published the number, and where. note: what a reader must know to
  use it.
- evidence, best first: ``paper``, the paper's own text was read; ``code``, its code or
  stored output was read; ``computed``, by membench's authors from published files;
  ``third_party``, quoted by a review, a survey or a tracker, the original not read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from membench.errors import UserError
from membench.storage.files import DamagedFile, atomic_write
from membench.storage.tables import PARQUET_ERRORS

# Title, range
SIMILARITIES = {"cosine/sscd": ("SSCD", -1.0, 1.0), "normalised-l2": ("L2", 0.0, math.inf)}


METRICS = {
    "auroc": "AUROC",
    "tpr_at_fpr_0.01": "TPR@1%FPR",
    "best_balanced_accuracy": "best accuracy",
    "ams": "AMS",
    "ums": "UMS",
    "best_p95": "p95",
}

BANDED = ("ams", "ums")
BANDS = ("low", "mid", "high")


EVIDENCE = {
    "paper": "paper",
    "code": "code or data",
    "computed": "computed",
    "third_party": "third party",
}

NOT_MEASURED = "not measured here"

_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int64()

SCHEMA = pa.schema(
    dict.fromkeys(
        ("task", "profile", "model", "data", "detector", "options", "metric", "band"), _TEXT
    )
    | dict.fromkeys(("band_from", "band_to"), _REAL)
    | {"similarity": _TEXT, "value": _REAL}
    | dict.fromkeys(("n_generated", "n_positive", "n_negative"), _COUNT)
    | dict.fromkeys(("paper", "source", "evidence", "note"), _TEXT)
)

MAY_BE_EMPTY = (
    "band",
    "band_from",
    "band_to",
    "similarity",
    "n_generated",
    "n_positive",
    "n_negative",
    "note",
)

# What a number is of, and who says so: no two rows agree in all of it.
IDENTITY = (
    "task",
    "profile",
    "model",
    "data",
    "detector",
    "options",
    "paper",
    "source",
    "metric",
    "band",
)

SETTING = ("task", "model", "data", "detector", "options", "paper", "source", "evidence")


# ----------------------------------------------------------------------------- the file


def read(path: Path) -> pd.DataFrame:
    """The published numbers of a ``.csv`` or ``.parquet`` file, in the file's order:
    columns of SCHEMA.

    Text is never missing (empty instead); a missing band end is NaN, a missing count is
    ``pd.NA``. options are canonical JSON. Raises UserError naming the file, and the row
    (the first is 1), for columns missing or unknown, a value of the wrong type or out
    of range, and the same number twice from one source; DamagedFile for a file that
    cannot be read at all.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; give the .csv or .parquet of published numbers")
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        else:
            frame = (
                pq.ParquetFile(path.absolute(), page_checksum_verification=True)
                .read()
                .to_pandas(types_mapper=_NULLABLE.get)
            )
    # ValueError: pandas' parser errors, and text that is no UTF-8
    except PARQUET_ERRORS as error:
        raise DamagedFile(
            f"{path} cannot be read ({' '.join(str(error).split())}); get it again, or mend it"
        ) from error
    if wrong := [name for name in SCHEMA.names if name not in frame] + [
        name for name in frame if name not in SCHEMA.names
    ]:
        raise UserError(
            f"{path}: columns missing or unknown: {', '.join(map(str, wrong))}; the columns are"
            f" {', '.join(SCHEMA.names)}"
        )
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], int] = {}
    for number, record in enumerate(frame[SCHEMA.names].to_dict("records"), start=1):
        try:
            row = _checked({str(name): value for name, value in record.items()})
            identity = tuple(row[name] for name in IDENTITY)
            if identity in seen:
                raise ValueError(
                    f"the same number from the same source as row {seen[identity]}; delete one"
                )
        except ValueError as error:
            about = " ".join(
                str(record[name]) for name in ("paper", "detector", "metric", "band")
            ).strip()
            raise UserError(f"{path}, row {number} ({about}): {error}") from None
        seen[identity] = number
        rows.append(row)
    return _frame(rows)


def ordered(published: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`read` in the order of the file in the repository: by IDENTITY,
    numbers within a text by their size.
    """

    def natural(text: str) -> str:
        return re.sub(r"\d+", lambda digits: digits.group().zfill(6), text)

    keys = []
    for record in published.to_dict("records"):
        band = BANDS.index(record["band"]) if record["band"] else -1
        keys.append(
            (
                *(natural(record[name]) for name in IDENTITY[:-2]),
                list(METRICS).index(record["metric"]),
                band,
            )
        )
    return published.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)


def build(csv: Path, parquet: Path) -> None:
    """Makes the Parquet from the CSV, atomically, in the order of :func:`ordered`.

    Raises UserError as :func:`read` does.
    """
    made = pa.Table.from_pandas(
        ordered(read(csv)), schema=SCHEMA, preserve_index=False
    ).replace_schema_metadata(None)
    atomic_write(
        parquet,
        lambda temporary: pq.write_table(
            made, temporary, compression="zstd", write_page_checksum=True
        ),
    )


_NULLABLE = {_COUNT: pd.Int64Dtype()}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas(types_mapper=_NULLABLE.get)


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the right types. Raises ValueError for what is wrong with it."""
    row: dict[str, Any] = {}
    for field in SCHEMA:
        value = record[field.name]
        missing = pd.isna(value) or value == ""
        if missing and field.name not in MAY_BE_EMPTY:
            raise ValueError(f"{field.name} is empty")
        if field.type == _TEXT:
            row[field.name] = "" if missing else str(value)
            if row[field.name] != row[field.name].strip():
                raise ValueError(f"{field.name} begins or ends with a space")
        else:
            row[field.name] = (
                None if missing else _number(field.name, value, whole=field.type == _COUNT)
            )
    row["options"] = _canonical(row["options"])
    for name, allowed in (("profile", ("full",)), ("metric", METRICS), ("evidence", EVIDENCE)):
        if row[name] not in allowed:
            raise ValueError(f"{name} is {row[name]!r}; it must be one of {', '.join(allowed)}")
    banded, ends = row["metric"] in BANDED, (row["band_from"], row["band_to"])
    if row["band"] not in (BANDS if banded else ("",)) or (not banded and ends != (None, None)):
        raise ValueError(
            f"{row['metric']} needs "
            + (f"a band, one of {', '.join(BANDS)}" if banded else "no band")
        )
    if None not in ends and ends[0] >= ends[1]:
        raise ValueError(f"the band from {ends[0]:g} to {ends[1]:g} is empty")
    similar = banded or row["metric"] == "best_p95"
    if row["similarity"] not in (SIMILARITIES if similar else ("",)):
        raise ValueError(
            f"{row['metric']} needs "
            + (f"a similarity, one of {', '.join(SIMILARITIES)}" if similar else "no similarity")
        )
    # UMS can exceed 1 by its definition; no published one does, and a value above 1 is
    # a percentage by mistake.
    low, high = SIMILARITIES[row["similarity"]][1:] if row["metric"] == "best_p95" else (0.0, 1.0)
    if not low <= row["value"] <= high:
        raise ValueError(
            f"value {row['value']:g} is outside [{low:g}, {high:g}]"
            + ("; write a share, not per cent" if high == 1 else "")
        )
    return row


def _number(name: str, value: Any, *, whole: bool) -> float | int:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}, not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value}, not a finite number")
    if whole and (number < 1 or number != int(number)):
        raise ValueError(f"{name} is {value}, not a whole number above 0")
    return int(number) if whole else number


def _canonical(text: str) -> str:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        options = json.loads(text, parse_constant=refuse)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ValueError(f"options {text!r} is no JSON object; write {{}} where nothing is stated")
    return json.dumps(options, sort_keys=True, ensure_ascii=False)
