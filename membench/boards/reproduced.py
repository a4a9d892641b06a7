"""Whether a measured number is the published one: ``reproduced``, ``not reproduced``,
or ``cannot be judged`` and why.

The rule. A published number has no interval, was rounded, and is of noises of its own.
So it counts as reproduced where, give or take half a unit of its last digit, it lies in
the 95 % interval of ours (over groups of prompts, and over seeds where there are
several). An interval wider than WIDEST would agree with nearly anything, and judges
nothing. Model, prompt sets, options and similarity must be those of the published
number, the run complete, and its examples as many, up to MISSING of them: one prompt of
500 moves an AUROC by 0.002 at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from membench.boards.published import EVIDENCE, ordered
from membench.boards.reported import numbers_of, same_setting, settings_of, stated, title_of

REPRODUCED, NOT_REPRODUCED, OPEN = "reproduced", "not reproduced", "cannot be judged"
WIDEST = 0.1  # of our interval, from end to end
FEWEST = 2  # digits that a paper prints: of a 1.000, alone in its table, none is stored
MISSING = 0.01  # share of the published number's examples that ours may lack or exceed

RULE = (
    "reproduced: the published number, give or take half a unit of its last digit, lies in our"
    f" 95 % interval; one wider than {WIDEST:g} judges nothing"
)

COLUMNS = (
    *("task", "paper", "model", "data", "detector", "options", "metric", "asked"),
    *("published", "rounding", "ours", "low", "high", "verdict", "why", "source", "evidence"),
    "note",
)


def judged(published: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """A row a published number of a detector that the board has a run of, on its task.

    published: of :func:`membench.boards.published.read`. board: one row a setting, of
    :func:`membench.boards.seeds.over_seeds`, with ``space``. Columns COLUMNS: options
    as JSON; asked: whether a run is of its model and data; rounding: half a unit of the
    published number's last digit, taken from the most digits that its paper prints of
    this metric, FEWEST at least, since a table that says 0.990 is stored as 0.99; ours,
    low, high: of the run that comes nearest to its setting, the first of several, NaN
    where nothing was measured at it; why: in words, empty of what is reproduced.
    Several runs at the very setting that disagree judge nothing.
    """
    runs = [run for run in settings_of(board) if run.get("profile") == "full"]
    rows = numbers_of(ordered(published))
    half = _rounding(rows)
    found = []
    for row in rows:
        of_detector = [
            run for run in runs if (run["task"], run["detector"]) == (row["task"], row["detector"])
        ]
        if not of_detector:
            continue
        tried = [(run, *_obstacle(run, row)) for run in of_detector]
        furthest = max(rank for _, rank, _ in tried)
        verdicts = [
            _judged(row, run, why, half[_digits_of(row)])
            for run, rank, why in tried
            if rank == furthest
        ]
        if len({of["verdict"] for of in verdicts}) > 1:
            why = f"{len(verdicts)} runs of this setting disagree"
            verdicts[0] |= {"verdict": OPEN, "why": why}
        found.append(verdicts[0])
    return pd.DataFrame(found, columns=list(COLUMNS))


def _judged(
    row: Mapping[str, Any], run: Mapping[str, Any], why: str, half: float
) -> dict[str, Any]:
    measured = [math.nan] * 3
    verdict = OPEN
    if same_setting(run, row):
        measured = [_value(run, f"{row['column']}{end}") for end in ("", "_low", "_high")]
    if not why:
        _, low, high = measured
        inside = low - half <= row["value"] <= high + half
        verdict = REPRODUCED if inside else NOT_REPRODUCED
        why = "" if inside else f"{row['value']:g} is outside [{low:.3f}, {high:.3f}]"
    return {name: row[name] for name in ("task", "paper", "model", "data", "detector")} | {
        "options": row["options"],
        "metric": title_of(row),
        "asked": (run.get("model"), run.get("data_name")) == (row["model"], row["data"]),
        "published": row["value"],
        "rounding": half,
        **dict(zip(("ours", "low", "high"), measured, strict=True)),
        "verdict": verdict,
        "why": why,
        "source": row["source"],
        "evidence": EVIDENCE[row["evidence"]],
        "note": row["note"],
    }


def _obstacle(run: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, str]:
    """(how many of the demands a run meets, what it fails); "" where it meets all."""
    met = -1
    for met, why in enumerate(_demands(run, row)):
        if why:
            return met, why
    return met + 1, ""


def _demands(run: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a run from being compared with a number, demand by demand; ""s are met."""
    of_model = run.get("model") == row["model"]
    yield "" if of_model else f"published for {row['model']}, and this run is of {run.get('model')}"
    same = run.get("data_name") == row["data"]
    yield "" if same else f"published for {row['data']}, and this run is of {run.get('data_name')}"
    untold = [name for name, value in row["parsed"].items() if value is None]
    yield f"the source does not state {', '.join(untold)}" if untold else ""
    yield "the run is of the control model" if run.get("control", False) else ""
    whole = run.get("status", "complete") == "complete"
    yield "" if whole else "the run is partial: it covers a part of the examples"
    resolved = run["resolved"] if run["comparable"] else {}
    other = [
        f"{name}={value}"
        for name, value in row["parsed"].items()
        if not stated(value, resolved.get(name))
    ]
    yield f"no run has {', '.join(other)}" if other else ""
    yield "" if same_setting(run, row) else "the similarity or band is not the published one"
    yield _other_size(run, row)
    value, low, high = (_value(run, f"{row['column']}{end}") for end in ("", "_low", "_high"))
    yield f"{title_of(row)} was not measured" if math.isnan(value) else ""
    yield "our number has no interval" if math.isnan(high - low) else ""
    wide = f"our interval [{low:.3f}, {high:.3f}] is wider than {WIDEST:g}"
    yield wide if high - low > WIDEST else ""


def _other_size(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    for ours, theirs in (("positives", "n_positive"), ("negatives", "n_negative")):
        wanted, there = row[theirs], run.get(ours)
        if pd.isna(wanted) or there is None or pd.isna(there):
            continue
        if abs(int(there) - int(wanted)) > MISSING * int(wanted):
            return f"published of {wanted} {ours}, and {there} were scored"
    return ""


def _value(run: Mapping[str, Any], column: str) -> float:
    found = run.get(column)
    return math.nan if found is None or pd.isna(found) else float(found)


def _digits_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["paper"], row["source"], row["metric"]


def _rounding(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], float]:
    """Half a unit of the last digit, by paper, source and metric."""
    digits: dict[tuple[str, str, str], int] = {}
    for row in rows:
        _, _, fraction = f"{row['value']:.10f}".rstrip("0").partition(".")
        key = _digits_of(row)
        digits[key] = max(digits.get(key, FEWEST), len(fraction))
    return {key: 0.5 * 10.0**-n for key, n in digits.items()}


def verdict_of(rows: pd.DataFrame) -> str:
    """One line of the judged numbers of one published setting; "" of none."""
    failed = rows[rows.verdict == NOT_REPRODUCED]
    if len(failed):
        return f"{NOT_REPRODUCED}: {', '.join(f'{r.metric} {r.why}' for r in failed.itertuples())}"
    told = rows[rows.verdict == OPEN]
    if len(told) == len(rows):
        return f"{OPEN}: {told.why.iloc[0]}" if len(told) else ""
    open_ = f"; {', '.join(told.metric)} {OPEN}: {told.why.iloc[0]}" if len(told) else ""
    return REPRODUCED + open_


def sentence(found: pd.DataFrame) -> str:
    """What the comparison comes to. found: of :func:`judged`, not empty."""
    open_ = found[found.verdict == OPEN]
    told = len(found) - len(open_)
    if not told:
        return f"{OPEN}: {_reasons(open_)}"
    failed = found[found.verdict == NOT_REPRODUCED]
    text = (
        f"{REPRODUCED}: {told - len(failed)} of {told} published numbers that can be judged"
        if told > len(failed)
        else f"{NOT_REPRODUCED}: none of {told} published numbers"
    )
    return text + (f"; {OPEN}: {len(open_)}" if len(open_) else "")


def _reasons(open_: pd.DataFrame) -> str:
    reasons = list(dict.fromkeys(open_.why))
    more = len(reasons) - 1
    return reasons[0] + (f"; and {more} more reason{'s' * (more > 1)}" if more else "")
