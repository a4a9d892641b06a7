"""The rows of a board as the text that people read."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from typing import Any

import pandas as pd

from membench.boards.differences import LEVEL, named
from membench.boards.identity import DETERMINISTIC, marked
from membench.metrics.names import COPIES, DETECTION, INFO, RARE
from membench.reports.text import interval, number, supported
from membench.runs.finished import PER_EXAMPLE

BANDED = ("ams", "ums", "ums_nearest")


def bands_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(title, text, notes) of one board's rows of ``leaderboard.collect_bands``."""
    regions = [
        (
            f"copies (to {r.edge:g})"
            if not r.band
            else f"to the end of {r.band} ({r.edge:g})"
            if r.form == "cumulative"
            else r.band
        )
        for r in part.itertuples()
    ]
    named = [marked(name, status) for name, status in zip(part.detector, part.status, strict=True)]
    out = pd.DataFrame(
        {
            "detector": named,
            "options": part.options,
            "seed": part.seed.astype(str),
            "region": regions,
        }
    )
    for metric in BANDED:
        out[INFO[metric].title] = [
            interval(value, low, high, scale=100, digits=2)
            for value, low, high in zip(
                part[metric], part[f"{metric}_low"], part[f"{metric}_high"], strict=True
            )
        ]
    out["N_G"] = [f"{n:,}" for n in part.n]
    yield (
        "bands",
        out,
        [f"similarity: {part.space_id.iloc[0]}; 95 % intervals over groups; UMS depends on N_G"],
    )


CAPTIONS_WARN = 0.6  # AUROC beyond which a board says that its captions separate the examples

COSTS = {
    "prepare_forwards": "prep fwd",
    "backwards": "bwd",
    "jvps": "jvp",
    "surrogate_forwards": "surrogate fwd",
    "surrogate_backwards": "surrogate bwd",
}


def _detection_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns on scores that people read, as text."""
    out = _names(frame)
    for column, title in shown_detection(frame).items():
        out[title] = [
            supported(cell, column) if value == value else cell
            for cell, value in zip(_intervals(frame, column), frame.auroc, strict=True)
        ]
    if frame.control_auroc.notna().any():
        out["control AUROC"] = _intervals(frame, "control_auroc")
    # Of the images that a detector extracts and ranks
    if "precision_at_100" in frame and frame.precision_at_100.notna().any():
        out["precision@100 %"] = [number(100 * v, 1) for v in frame.precision_at_100]
    for what, title in PER_EXAMPLE.items():
        if what == "forwards" or frame[f"{what}_per_example"].gt(0).any():
            out[title] = frame[f"{what}_per_example"].map(number)
    out["seconds"] = [number(v) for v in frame.seconds]
    out["sees"] = frame.sees
    out["commit"] = frame.commit
    out["scored"] = _scored(frame)
    return out


def shown_detection(frame: pd.DataFrame) -> dict[str, str]:
    """Detection metrics and their titles; those of RARE where a row has them."""
    return DETECTION | {
        metric: title
        for metric, title in RARE.items()
        if metric in frame and frame[metric].notna().any()
    }


def unsupported(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each metric of RARE that no row has, though it has scores of both
    labels.
    """
    scored = frame[frame.auroc.notna()]
    for metric, title in RARE.items():
        if len(scored) and metric in scored and scored[metric].isna().all():
            yield (
                f"{title}: {supported('n/a', metric)[:-1]}; here are"
                f" {number(scored.negatives.max())})"
            )


def captions_lines(frame: pd.DataFrame) -> Iterator[str]:
    """What the captions of a board give away, from the columns of
    ``captions.with_captions``; nothing of an older board, or without.
    """
    found = frame[frame.captions_auroc.notna()] if "captions_auroc" in frame else frame[:0]
    for row in found.head(1).itertuples():
        reached = interval(row.captions_auroc, row.captions_low, row.captions_high)
        yield (
            f"captions alone reach AUROC {reached} ({row.captions_by}; the best of three controls,"
            " so a little optimistic): a detector below this line does no better than reading the"
            " captions"
        )
        if row.captions_auroc > CAPTIONS_WARN:
            yield (
                f"WARNING: captions alone exceed AUROC {CAPTIONS_WARN:g}, without any model: a high"
                " AUROC on these examples may show how their captions are written, and not what"
                " the model has memorized; compare with negatives of the same style"
            )


def _extraction_text(frame: pd.DataFrame, control: bool) -> pd.DataFrame:
    """The columns on extracted images that people read, as text.

    A column of costs that are all 0 is left out.
    """
    out = _names(frame)
    for column, title in COPIES.items():
        out[title] = _intervals(frame, column, percent=True)
    if not control:
        values = zip(frame.control_ams, frame.control_ums, strict=True)
        out["control AMS/UMS %"] = [
            "n/a" if pd.isna(a) else f"{100 * a:.1f} / {100 * u:.1f}" for a, u in values
        ]
        out["excess AMS %"] = _intervals(frame, "excess_ams", percent=True)
        out["excess UMS %"] = _intervals(frame, "excess_ums", percent=True)
    out["N_G"] = frame.n_g.map(number)
    out["copied"] = frame.unique_copies.map(number)
    # Of few copies its interval is far too narrow to be shown
    # (benchmarks/estimators.py).
    out["Chao1 estimate"] = [
        interval(
            r.chao1_estimate,
            *(
                (r.chao1_estimate_low, r.chao1_estimate_high)
                if pd.notna(r.unique_copies) and r.unique_copies >= 10
                else (nan, nan)
            ),
            digits=0,
        )
        for r in frame.itertuples()
    ]
    out["p50 / p95"] = [f"{r.best_p50:.2f} / {r.best_p95:.2f}" for r in frame.itertuples()]
    out[f"copied @N_G={number(frame.equal_n.iloc[0])}"] = [
        number(v, 1) for v in frame.copied_at_equal_n
    ]
    values = zip(frame.copied_at_equal_cost, frame.equal_cost_capped, strict=True)
    out[f"copied @{number(frame.equal_cost.iloc[0])} eval"] = [
        (">=" if capped else "") + number(v, 1) for v, capped in values
    ]
    out["per 1k eval"] = [number(v, 1) for v in frame.unique_per_1000_evaluations]
    out["fwd/img"] = [number(v) for v in frame.forwards_per_image]
    for column, title in COSTS.items():
        if frame[column].any():
            out[title] = frame[column].map(number)
    out["seconds"] = frame.seconds.map(number)
    out["scored"] = _scored(frame)
    return out


def _names(frame: pd.DataFrame) -> pd.DataFrame:
    named = [
        marked(name, status) for name, status in zip(frame.detector, frame.status, strict=True)
    ]
    return pd.DataFrame(
        {"detector": named, "options": frame.options, "seed": frame.seed.astype(str)},
        index=frame.index,
    )


def _intervals(frame: pd.DataFrame, column: str, percent: bool = False) -> list[str]:
    scale, digits = (100, 1) if percent else (1, 3)
    return [
        interval(r[column], r[f"{column}_low"], r[f"{column}_high"], scale=scale, digits=digits)
        for _, r in frame.iterrows()
    ]


def _scored(frame: pd.DataFrame) -> list[str]:
    return [
        ("extraction only" if r.extract_only else f"{r.scored}/{r.of}{unlabelled(r)}")
        + ("" if r.status == "complete" else " PARTIAL")
        for r in frame.itertuples()
    ]


def unlabelled(row: Any) -> str:
    """How many of a row's scored examples have no label, in words; empty where all have
    one.
    """
    n = getattr(row, "unlabelled", 0)  # a stored board may be older than the column
    return f", {n:,.0f} unlabelled" if n > 0 else ""


def unlabelled_lines(frame: pd.DataFrame) -> Iterator[str]:
    """A line for a board with unlabelled examples, whose detection metrics leave them
    out.
    """
    if any(unlabelled(row) for row in frame[~frame.extract_only.astype(bool)].itertuples()):
        yield (
            "unlabelled: nothing says whether the example is memorized; detection metrics leave it"
            " out, and need examples of both labels"
        )


def alike_lines(frame: pd.DataFrame) -> Iterator[str]:
    """Names of rows that are called alike and are of several settings, such as of a
    plug-in's file that was edited between two runs.
    """
    if "settings" not in frame:  # a stored board of fewer columns
        return
    several = frame.groupby(["detector", "options"], sort=False).settings.nunique() > 1
    for detector, options in several[several].index:
        yield (
            f"rows of {f'{detector} {options}'.strip()} are of several settings (another version, a"
            " plug-in's edited file, options of the task), and are not averaged: leaderboard --by"
            " run --format json names the folder of each"
        )


def run_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes below it) of a board's rows: detection, then
    extraction; none for what no run did.
    """
    scored, extracted = part[~part.extract_only], part[part.ams_cumulative.notna()]
    control = bool(part.control.iloc[0])
    if len(scored):
        yield (
            "detection",
            _detection_text(scored),
            [
                *alike_lines(scored),
                *unlabelled_lines(scored),
                *unsupported(scored),
                *captions_lines(scored),
            ],
        )
    if len(extracted):
        yield "extraction", _extraction_text(extracted, control), list(_notes(extracted, control))


def _notes(frame: pd.DataFrame, control: bool) -> Iterator[str]:
    if frame.extract_only.all():  # else it stands below the scores
        yield from alike_lines(frame)
    if frame.chao1_estimate.notna().any():
        yield (
            "Chao1 estimate: a lower bound, estimated, of the images that more images of the same"
            " kind would copy in all; no count"
        )
    if control:
        return
    for command in sorted(set(frame.control_command.dropna())):
        yield (
            "control and excess are n/a: no run of these settings on one control model. Make it:"
            f" {command}"
        )
    if (frame.excess_ams.notna() & frame.excess_ums.isna()).any():
        yield (
            "excess UMS is n/a where the control run has another number of images, on which UMS"
            " depends"
        )
    if frame.equal_cost_capped.any():
        yield ">=: the cost would pay for more images than the run has"


def differences_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(title, text, notes) of each metric of one board's differences."""
    for metric in part.metric.unique():
        yield (f"differences in {metric}", *differences_table(part, metric))


def differences_table(table: pd.DataFrame, metric: str = "auroc") -> tuple[pd.DataFrame, list[str]]:
    """Text of one board's rows of a metric, and the notes below."""
    rows = table[table.metric == metric].sort_values("difference", ascending=False)
    out = pd.DataFrame(
        {
            "better": named(rows, "a"),
            "worse": named(rows, "b"),
            f"difference in {DETECTION.get(metric, metric)}": [
                interval(r.difference, r.low, r.high) for r in rows.itertuples()
            ],
            "p": [_p(value) for value in rows.p],
            "p (Holm)": [_p(value) for value in rows.p_holm],
            "significant": ["yes" if value < LEVEL else "no" for value in rows.p_holm],
            "n": [f"{n:,}" for n in rows.n],
            "seeds": [
                DETERMINISTIC if r.get("deterministic") else str(r.seeds)
                for _, r in rows.iterrows()
            ],
        }
    )
    note = (
        "paired on the same examples, groups and seeds resampled together; p adjusted by Holm"
        f" (1979) for {len(rows)} pairs; "
    )
    return out, [note + f"significant: adjusted p below {LEVEL:g}"]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
