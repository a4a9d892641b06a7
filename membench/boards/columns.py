"""The columns of a leaderboard: type, unit and what each holds.

Written into Parquet files and docs/columns.md.

``python -m membench.boards.columns > docs/columns.md`` makes the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa

from membench.boards.quality import COLUMN
from membench.metrics.names import COPIES, DETECTION, INFO, METRICS, NUMBERS, RARE

Kind = Literal["text", "flag", "whole", "real", "count"]
# A count is a whole number in a row of one run, and a mean over seeds otherwise.
KINDS = {
    "text": "text",
    "flag": "true or false",
    "whole": "whole number",
    "real": "number",
    "count": "whole number of a run, or mean over seeds",
}


@dataclass(frozen=True)
class Column:
    """A column. unit: empty for one without. empty: whether a value may be missing."""

    kind: Kind
    unit: str
    about: str
    empty: bool = False


def _text(about: str, empty: bool = False) -> Column:
    return Column("text", "", about, empty)


def _real(unit: str, about: str) -> Column:
    return Column("real", unit, about, True)


def _count(unit: str, about: str) -> Column:
    return Column("count", unit, about, True)


def _interval(name: str, unit: str, about: str) -> dict[str, Column]:
    ends = {"low": "lower end of the 95 % interval", "high": "upper end of the 95 % interval"}
    return {name: _real(unit, about)} | {
        f"{name}_{end}": _real(unit, f"{text} of {name}") for end, text in ends.items()
    }


IDENTITY = {
    "task": _text("task"),
    "task_version": Column("whole", "", "version of the task: it changes where its numbers would"),
    "profile": _text("mini, or full: the published model and data"),
    "control": Column("flag", "", "whether the model is the control, which never saw the examples"),
    "data": _text("hash of the training images"),
    "prompts": _text("hash of the prompts"),
    "examples": _text("hash of the example ids"),
    "weights": _text("hash of the model's weights"),
    "dtype": _text("precision of the network"),
    "space": _text("hash of the similarity, its bands and its copy threshold"),
}
SETTING = {
    "detector": _text("detector"),
    "options": _text("what was asked for beside the defaults: preset, budget, key=value"),
    "settings": _text("hash of all that changes the numbers, but the seed", empty=True),
    "space_id": _text("similarity, by name", empty=True),
    "status": _text("complete, or partial: not every example was run, or some have failed"),
}
OF_SEEDS = {
    "seeds": Column("whole", "seeds", "how many seeds the row is a mean of"),
    "seed_list": _text("these seeds", empty=True),
    "deterministic": Column(
        "flag", "", "whether each of several seeds gives every example the same score"
    ),
}
OF_RUN = {
    "seed": Column("whole", "", "seed of the run"),
    "run": _text("folder of the run", empty=True),
}
ABOUT = {
    "model": _text(
        "model: a hub id or folder; shipped: the one that comes with membench", empty=True
    ),
    "data_name": _text("name of the data or prompt sets", empty=True),
    "bands": _text("bands of similarity: JSON of name: [from, to]", empty=True),
    "resolved": _text("options that the run resolved to: JSON", empty=True),
    "extract_only": Column("flag", "", "whether images were extracted and no example was scored"),
    "budget": _count(
        "evaluations", "the most evaluations that preparation and extraction were allowed"
    ),
    "sees": _text("what the detector sees beside the model's outputs"),
    "pair": _text("hash that a run shares with the same run on the control model", empty=True),
    "pair_settings": _text("the same without the seed", empty=True),
    "control_command": _text("command that makes the missing control run", empty=True),
    "commit": _text("commits of membench that made the runs"),
    "dirty": Column("flag", "", "whether membench had uncommitted changes"),
}
COUNTS = {
    "of": Column("whole", "examples", "examples of the task"),
    "scored": _count("examples", "examples with a score"),
    "positives": _count("examples", "memorized examples with a score"),
    "negatives": _count("examples", "examples that are not memorized, with a score"),
    "unlabelled": _count(
        "examples", "examples with a score of which nothing says whether they are memorized"
    ),
    "n_g": _count("images", "images extracted (N_G)"),
    "n_ok": _count("images", "those that did not fail: what AMS and UMS are shares of"),
    "unique_copies": _count(
        "training images", "different training images that are the nearest of a copy"
    ),
}
COSTS = {
    **{
        f"{what}_per_example": _real("an example", f"{text} of scoring")
        for what, text in (
            ("forwards", "evaluations of the network"),
            ("jvps", "Jacobian-vector products"),
            ("decodes", "decoder passes"),
            ("encodes", "encoder passes"),
        )
    },
    "forwards_per_image": _real("evaluations", "evaluations of the network an extracted image"),
    "prepare_forwards": _count("evaluations", "evaluations of the network in preparation"),
    "sample_forwards": _count("evaluations", "evaluations of the network for extracting images"),
    "sample_evaluations": _count(
        "evaluations", "the same, a Jacobian-vector product counted as one"
    ),
    "backwards": _count("passes", "backward passes"),
    "jvps": _count("products", "Jacobian-vector products"),
    "surrogate_forwards": _count(
        "evaluations", "evaluations of networks that the detector trains itself"
    ),
    "surrogate_backwards": _count("passes", "backward passes of these"),
    "seconds": _real("s", "wall-clock time, all sessions"),
}
EQUAL_TERMS = {
    "equal_n": _count("images", "smallest number of images among the board's runs"),
    "copied_at_equal_n": _real(
        "training images", "different training images copied by that many images (rarefaction)"
    ),
    "equal_cost": _count("evaluations", "cost of the cheapest run of the board"),
    "images_at_equal_cost": _count("images", "how many images this cost pays for"),
    "copied_at_equal_cost": _real(
        "training images", "different training images copied by these (rarefaction)"
    ),
    "equal_cost_capped": Column(
        "flag", "", "whether the cost pays for more images than the run has: a lower bound"
    ),
}
CAPTIONS = {
    "captions_auroc": _real(
        "", "AUROC of the best of three scores of captions alone, on the board's prompts"
    ),
    "captions_low": _real("", "lower end of its 95 % interval"),
    "captions_high": _real("", "upper end of its 95 % interval"),
    "captions_by": _text("the control detector that reaches it", empty=True),
}
CONTROL = {
    "control_weights": _text("hash of the control model's weights", empty=True),
    "control_status": _text("status of the run on the control model", empty=True),
    "control_seeds": Column("whole", "seeds", "how many seeds the control has"),
    **_interval("control_auroc", "", "AUROC on the control model"),
    **_interval("control_ams", "share", "AMS of copies on the control model"),
    **_interval("control_ums", "share", "UMS of copies on the control model"),
    **_interval("excess_ams", "share", "AMS of copies less that of the control"),
    **_interval("excess_ums", "share", "UMS of copies less that of the control"),
}


def _of_metrics() -> dict[str, Column]:
    found: dict[str, Column] = {}
    for name in (*DETECTION, *RARE, *COPIES, *NUMBERS):
        info = INFO[name]
        found |= _interval(name, "share" if info.title.endswith("%") else "", info.about)
        found[f"{name}_seeds"] = Column("whole", "seeds", f"how many seeds have {name}")
    return found


METRIC_COLUMNS = _of_metrics()
# Columns named after a task's bands, such as ams_in_high; and after a column of this
# table, such as reported_auroc.
IN_BAND = re.compile(r"(ams|ums|ums_nearest)_(in|to)_(.+)")
REPORTED = "reported_"

BOARD_COLUMNS: dict[str, Column] = {
    **IDENTITY,
    **SETTING,
    "kind": _text(
        "kind of memorized example, against negatives of that kind, or against all where it has"
        " none; all: every kind"
    ),
    "source": _text("source of the examples that are not memorized; all: every source"),
    **OF_RUN,
    **OF_SEEDS,
    **METRIC_COLUMNS,
    **CONTROL,
    **CAPTIONS,
    **COUNTS,
    **EQUAL_TERMS,
    **COSTS,
    **ABOUT,
    "reported_source": _text("which paper reports the number beside it", empty=True),
}
BAND_COLUMNS = {
    **IDENTITY,
    **SETTING,
    **OF_RUN,
    "band": _text("band of similarity; empty: copies"),
    "form": _text("banded: in the band; cumulative: up to its far edge"),
    "edge": _real("similarity or distance", "that edge, of a cumulative row"),
    "n": Column("whole", "images", "images that did not fail"),
    **{
        k: v
        for name in ("ams", "ums", "ums_nearest")
        for k, v in _interval(name, "share", INFO[name].about).items()
    },
}
DIFFERENCE_COLUMNS = {
    **IDENTITY,
    "metric": _text("metric that is compared"),
    "a": _text("the better detector"),
    "a_options": _text("its options"),
    "b": _text("the other detector"),
    "b_options": _text("its options"),
    "difference": _real("", "metric of a less that of b, means over seeds"),
    "low": _real("", "lower end of the 95 % interval over groups and seeds"),
    "high": _real("", "upper end of the 95 % interval over groups and seeds"),
    "p": _real("", "two-sided p of no difference"),
    "p_holm": _real("", "p adjusted by Holm for all pairs of the board and metric"),
    "n": Column("whole", "examples", "examples that both have scored"),
    "seeds": Column("whole", "seeds", "seeds that both have"),
    "a_status": _text("status of the runs of a"),
    "b_status": _text("status of the runs of b"),
    "deterministic": Column("flag", "", "whether each of several seeds gives both the same scores"),
}
PUBLISHED_COLUMNS = {
    "paper": _text("who published the number"),
    "model": _text("model"),
    "data": _text("training set, or prompts and their negatives"),
    "detector": _text("detector"),
    "options": _text("what the source states; ?: it leaves it open"),
    "metric": _text("metrics of the cell"),
    "reported": _text("published numbers"),
    "measured": _text("numbers of the runs of the same setting"),
    "verdict": _text(
        "reproduced, not reproduced, or cannot be judged and why; empty: no run of the detector",
        empty=True,
    ),
    "source": _text("where it was published"),
    "evidence": _text("what was read: paper, code or data, computed, third party"),
    "note": _text("what a reader must know"),
}
MIRROR_COLUMNS = {
    **IDENTITY,
    "detector": SETTING["detector"],
    "options": SETTING["options"],
    "space_id": SETTING["space_id"],
    "status": SETTING["status"],
    "kind": _text(
        "kind of example, of one half against the same kind of the other; all: every kind"
    ),
    **_interval("mirrored", "", "mean AUROC of the two models of a mirror pair"),
    "auroc_a": _real("", "AUROC of the model of half a, whose images are the memorized ones"),
    "auroc_b": _real("", "AUROC of the model of half b, whose images are the memorized ones"),
    "mirrored_tpr": _real("", "TPR at 1 % FPR, mean of the two models"),
    "n": Column("whole", "examples", "examples of both halves that every run has scored"),
    "seeds": Column("whole", "seeds", "seeds that both models have"),
    "evaluations_per_example": _real("evaluations", "forwards and JVPs of an example, mean"),
}
EXAMPLE_COLUMNS = {
    **IDENTITY,
    "detector": SETTING["detector"],
    "options": SETTING["options"],
    "seed": OF_RUN["seed"],
    "status": SETTING["status"],
    "run": OF_RUN["run"],
    "example": _text("id of the example"),
    "kind": _text("how the example was planted, or what published it"),
    "group": _text("near-duplicate examples, which are resampled together"),
    "source": _text("where the example is from: a half, a prompt set"),
    "prompt": _text("caption", empty=True),
    "label": Column("whole", "", "1 memorized, 0 not, -1 nothing says"),
    "score": _real("", "higher is more memorized; missing where it failed"),
    "png_bits": _real("bits", "size of the PNG of the example or of its extracted images"),
    "score_status": _text("ok, or failed"),
}
TABLES = {
    "mirror": MIRROR_COLUMNS,
    "run, seeds, attack, kind, source and summary": BOARD_COLUMNS,
    "band": BAND_COLUMNS,
    "example": EXAMPLE_COLUMNS,
    "difference": DIFFERENCE_COLUMNS,
    "published": PUBLISHED_COLUMNS,
}


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
        return _real("share", f"{INFO[metric].title.removesuffix(' %')} {where} {band}")
    if known is BOARD_COLUMNS and (found := COLUMN.fullmatch(name)):
        mirror, metric, error, features = found.groups()
        of = f"standard error of {metric}" if error else f"{INFO[metric].about}, by {features}"
        return _real("", of + (", on the control model" if mirror else ""))
    if known is BOARD_COLUMNS and name.startswith(REPORTED):
        return _real(
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
