"""The rows of a board as the text that people read."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan

import pandas as pd

from membench.costs import PER_EXAMPLE
from membench.printing import COPIES, DETECTION, RARE, interval, marked, number, supported

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
            supported(cell, column) if value == value else cell for cell, value in zip(_intervals(frame, column), frame.auroc, strict=True)
        ]
    if frame.control_auroc.notna().any():
        out["control AUROC"] = _intervals(frame, "control_auroc")
    for what, title in PER_EXAMPLE.items():
        if what == "forwards" or frame[f"{what}_per_example"].gt(0).any():
            out[title] = frame[f"{what}_per_example"].map(number)
    out["seconds"] = [number(v) for v in frame.seconds]
    out["sees"] = frame.sees
    out["commit"] = frame.commit
    out["coverage"] = _coverage(frame)
    return out


def shown_detection(frame: pd.DataFrame) -> dict[str, str]:
    """Detection metrics and their titles; those of RARE where a row has them."""
    return DETECTION | {metric: title for metric, title in RARE.items() if metric in frame and frame[metric].notna().any()}


def unsupported(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each metric of RARE that no row has, though it has scores of both labels."""
    scored = frame[frame.auroc.notna()]
    for metric, title in RARE.items():
        if len(scored) and metric in scored and scored[metric].isna().all():
            yield f"{title}: {supported('n/a', metric)[:-1]}; here are {int(scored.negatives.max()):,})"


def captions_lines(frame: pd.DataFrame) -> Iterator[str]:
    """What the captions of a board give away, from the columns of ``captions.with_captions``; nothing of an older board, or without."""
    found = frame[frame.captions_auroc.notna()] if "captions_auroc" in frame else frame[:0]
    for row in found.head(1).itertuples():
        reached = interval(row.captions_auroc, row.captions_low, row.captions_high)
        yield (
            f"captions alone reach AUROC {reached} ({row.captions_by}; the best of three controls, so a little optimistic): "
            "a detector below this line does no better than reading the captions"
        )
        if row.captions_auroc > CAPTIONS_WARN:
            yield (
                f"WARNING: captions alone exceed AUROC {CAPTIONS_WARN:g}, without any model: a high AUROC on these examples may show how "
                "their captions are written, and not what the model has memorized; compare with negatives of the same style"
            )


def _extraction_text(frame: pd.DataFrame, control: bool) -> pd.DataFrame:
    """The columns on extracted images that people read, as text. A column of costs that are all 0 is left out."""
    out = _names(frame)
    for column, title in COPIES.items():
        out[title] = _intervals(frame, column, percent=True)
    if not control:
        values = zip(frame.control_ams, frame.control_ums, strict=True)
        out["control AMS/UMS %"] = ["n/a" if pd.isna(a) else f"{100 * a:.1f} / {100 * u:.1f}" for a, u in values]
        out["excess AMS %"] = _intervals(frame, "excess_ams", percent=True)
        out["excess UMS %"] = _intervals(frame, "excess_ums", percent=True)
    out["N_G"] = frame.n_g.map(number)
    out["copied"] = frame.unique_copies.astype(str)
    # Of few copies its interval is far too narrow to be shown (benchmarks/estimators.py).
    out["Chao1 estimate"] = [
        interval(r.chao1_estimate, *((r.chao1_estimate_low, r.chao1_estimate_high) if r.unique_copies >= 10 else (nan, nan)), digits=0)
        for r in frame.itertuples()
    ]
    out["p50 / p95"] = [f"{r.best_p50:.2f} / {r.best_p95:.2f}" for r in frame.itertuples()]
    out[f"copied @N_G={frame.equal_n.iloc[0]:,}"] = [number(v, 1) for v in frame.copied_at_equal_n]
    values = zip(frame.copied_at_equal_cost, frame.equal_cost_capped, strict=True)
    out[f"copied @{frame.equal_cost.iloc[0]:,} fwd"] = [(">=" if capped else "") + number(v, 1) for v, capped in values]
    out["per 1k fwd"] = [number(v, 1) for v in frame.unique_per_1000_evaluations]
    out["fwd/img"] = [number(v) for v in frame.forwards_per_image]
    for column, title in COSTS.items():
        if frame[column].any():
            out[title] = frame[column].map(number)
    out["seconds"] = frame.seconds.map(number)
    out["coverage"] = _coverage(frame)
    return out


def _names(frame: pd.DataFrame) -> pd.DataFrame:
    named = [marked(name, status) for name, status in zip(frame.detector, frame.status, strict=True)]
    return pd.DataFrame({"detector": named, "options": frame.options, "seed": frame.seed.astype(str)}, index=frame.index)


def _intervals(frame: pd.DataFrame, column: str, percent: bool = False) -> list[str]:
    scale, digits = (100, 1) if percent else (1, 3)
    return [interval(r[column], r[f"{column}_low"], r[f"{column}_high"], scale=scale, digits=digits) for _, r in frame.iterrows()]


def _coverage(frame: pd.DataFrame) -> list[str]:
    return [
        ("extraction only" if r.extract_only else f"{r.scored}/{r.of}") + ("" if r.status == "complete" else " PARTIAL")
        for r in frame.itertuples()
    ]


def run_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes below it) of a board's rows: detection, then extraction; none for what no run did."""
    scored, extracted = part[~part.extract_only], part[part.n_ok > 0]
    control = bool(part.control.iloc[0])
    if len(scored):
        yield "detection", _detection_text(scored), [*unsupported(scored), *captions_lines(scored)]
    if len(extracted):
        yield "extraction", _extraction_text(extracted, control), list(_notes(extracted, control))


def _notes(frame: pd.DataFrame, control: bool) -> Iterator[str]:
    if frame.chao1_estimate.notna().any():
        yield "Chao1 estimate: a lower bound, estimated, of the pictures that more images of the same kind would copy in all; no count"
    if control:
        return
    for command in sorted(set(frame.control_command.dropna())):
        yield f"control and excess are n/a: no run of these settings on one control model. Make it: {command}"
    if (frame.excess_ams.notna() & frame.excess_ums.isna()).any():
        yield "excess UMS is n/a where the control run has another number of images, on which UMS depends"
    if frame.equal_cost_capped.any():
        yield ">=: the cost would pay for more images than the run has"
