"""Columns of a leaderboard by name: which one is meant, its type in Parquet, and the
document of all.

``python -m membench.boards.columns > docs/columns.md`` makes the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

from membench.boards.quality import COLUMN
from membench.boards.views import BOARD_COLUMNS, TABLES, Column, real
from membench.metrics.names import INFO, METRICS

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
    yield ""
    yield "## Metrics"
    yield ""
    yield "`metric` of `metrics.parquet`, which lies in a run's folder."
    yield ""
    yield "| metric | what it is | range |"
    yield "| --- | --- | --- |"
    for info in METRICS:
        yield f"| `{info.name}` | {info.about} | {info.low:g} to {info.high:g} |"


if __name__ == "__main__":
    print("\n".join(document()))
