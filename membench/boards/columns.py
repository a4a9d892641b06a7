"""Columns of a leaderboard by name: which one is meant, its type in Parquet, and the
document of all.

``python -m membench.boards.columns > docs/columns.md`` makes the document.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

import pandas as pd
import pyarrow as pa

from membench.boards.other_tables import CLIMBED, RUN_COLUMNS, SWEPT, THRESHOLDS, TUNED
from membench.boards.quality import COLUMN
from membench.boards.views import BOARD_COLUMNS, TABLES, Column, real
from membench.metrics.names import INFO, METRICS
from membench.storage.tables import TABLES as STORED

# A count is a whole number in a row of one run, and a mean over seeds otherwise.
KINDS = {
    "text": "text",
    "flag": "true or false",
    "whole": "whole number",
    "real": "number",
    "count": "whole number of a run, or mean over seeds",
}

# Columns named after a task's bands, such as ams_in_high; and after a column of the
# view, such as reported_auroc.
IN_BAND = re.compile(r"(ams|ums|ums_nearest)_(in|to)_(.+)")
REPORTED = "reported_"


def column(name: str, by: str = "run") -> Column:
    """The column of a table of ``--by BY``.

    Raises KeyError for one that this module does not know.
    """
    known = next(
        columns
        for views, columns in TABLES.items()
        if (by if by != "leaders" else "difference") in re.split(", | and ", views)
    )
    if name in known:
        return known[name]
    if known is BOARD_COLUMNS and (found := IN_BAND.fullmatch(name)):
        metric, form, band = found.groups()
        where = "in the band" if form == "in" else "up to the far edge of the band"
        return real("share", f"{INFO[metric].title.removesuffix(' %')} {where} {band}")
    if known is BOARD_COLUMNS and (found := COLUMN.fullmatch(name)):
        mirror, metric, error, features = found.groups()
        of = f"standard error of {metric}" if error else f"{INFO[metric].about}, by {features}"
        return real("", of + (", on the control model" if mirror else ""))
    if known is BOARD_COLUMNS and name.startswith(REPORTED):
        return real(
            column(name.removeprefix(REPORTED)).unit,
            f"published {name.removeprefix(REPORTED)} of the same setting",
        )
    raise KeyError(f"{name} is not a column of membench.boards.columns")


def to_arrow(frame: pd.DataFrame, by: str) -> pa.Table:
    """The frame with a type and a description for every column.

    Raises KeyError for an unknown column.
    """
    fields = []
    for name in frame:
        about = column(str(name), by)
        kind = {
            "text": pa.string(),
            "flag": pa.bool_(),
            "whole": pa.int64(),
            "real": pa.float64(),
        }.get(about.kind)
        if kind is None:
            kind = (
                pa.float64()
                if pd.api.types.is_float_dtype(frame[name].dtype) or by not in ("run", "band")
                else pa.int64()
            )
        metadata = {"description": about.about, "unit": about.unit}
        fields.append(
            pa.field(
                str(name), kind, metadata={key: value for key, value in metadata.items() if value}
            )
        )
    schema = pa.schema(fields, metadata={"membench.by": by})
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(
        schema.metadata
    )


def document() -> Iterator[str]:
    """docs/columns.md, line by line."""
    yield "# Columns of a leaderboard"
    yield ""
    yield (
        "Made by `python -m membench.boards.columns > docs/columns.md`. `membench leaderboard --by"
        " BY --format parquet`"
    )
    yield "stores each description with its column; csv and json have the same columns."
    for views, columns in TABLES.items():
        yield ""
        yield f"## --by {views}"
        yield ""
        if columns is BOARD_COLUMNS:
            yield (
                "A table holds those that apply. Rows that agree in the first ten columns (`task`"
                " to `space`) may be"
            )
            yield (
                "compared. `..._low` and `..._high` are ends of 95 % intervals. Besides these there"
                " are `METRIC_in_BAND` and"
            )
            yield (
                "`METRIC_to_BAND` (share; of ams, ums and ums_nearest) for each band,"
                " `reported_METRIC`, a published number of the"
            )
            yield (
                "same setting, and with `--quality` `METRIC@FEATURES`, as docs/metrics.md names"
                " them."
            )
            yield ""
        yield "| column | type | unit | what it holds |"
        yield "| --- | --- | --- | --- |"
        for name, of in columns.items():
            yield (
                f"| `{name}` | {KINDS[of.kind]}{', may be missing' if of.empty else ''} | {of.unit}"
                f" | {of.about} |"
            )
    yield from _run_tables()
    for title, intro, about in (
        ("membench tune", "One row a try of a detector's options.", TUNED),
        (
            "membench ablate --sweep",
            "One row a point, seed, model, metric and band. Before these there is a column an"
            " option that is swept, called like it (`option_NAME` where that name is taken).",
            SWEPT,
        ),
        (
            "membench ablate --sweep TASK.OPTION",
            "One row a value of the task's option, attack, its options and model, with the columns"
            " of `--by seeds`; in `NAME-auroc.parquet` one of each kind of example, with those of"
            " `--by kind`. And, last:",
            CLIMBED,
        ),
        (
            "membench ablate",
            "One row a run, metric and region of thresholds. Before these the columns of `--by"
            " run` from `task` to `space`, `space_id`, `detector`, `options`, `settings`.",
            THRESHOLDS,
        ),
    ):
        yield from ("", f"## {title}", "", *_folded(intro), "")
        yield from _named(about)
    yield ""
    yield "## Metrics"
    yield ""
    yield "`metric` of `metrics.parquet`, and of a sweep."
    yield ""
    yield "| metric | what it is | range |"
    yield "| --- | --- | --- |"
    for info in METRICS:
        yield f"| `{info.name}` | {info.about} | {info.low:g} to {info.high:g} |"


def _run_tables() -> Iterator[str]:
    """The tables of a run's folder, a section each."""
    kinds = {"string": "text", "binary": "bytes"}
    for table, (row, about) in RUN_COLUMNS.items():
        yield from ("", f"## {table}.parquet of a run", "", *_folded(f"{_capital(row)}."), "")
        yield "| column | type | what it holds |"
        yield "| --- | --- | --- |"
        for of in STORED[table]:
            number = "whole number" if pa.types.is_integer(of.type) else "number"
            kind = kinds.get(str(of.type), number)
            missing = ", may be missing" if of.nullable else ""
            yield f"| `{of.name}` | {kind}{missing} | {about[of.name]} |"


def _named(about: Mapping[str, str]) -> Iterator[str]:
    yield "| column | what it holds |"
    yield "| --- | --- |"
    for name, what in about.items():
        yield f"| `{name}` | {what} |"


def _folded(text: str) -> list[str]:
    return textwrap.wrap(text, 88)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    print("\n".join(document()))
