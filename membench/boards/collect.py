"""``membench leaderboard``: a pure function of the run folders.

Runs that differ in task version, profile, data, examples, weights, similarity or
control never share a table (``identity.BOARD``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from membench.boards.captions import with_captions
from membench.boards.control import control_command, with_control
from membench.boards.identity import BOARD, asked, hash_without, model_of, pair_key
from membench.errors import UserError
from membench.metrics.extraction import copy_counts
from membench.metrics.names import COPIES, DETECTION, NUMBERS, RARE
from membench.metrics.unique import rarefied
from membench.runs.finished import PER_EXAMPLE, Run, evaluations, per_example, read_runs, spent
from membench.storage.hashing import json_hash
from membench.types import sees


def with_equal_terms(
    frame: pd.DataFrame, counts: Sequence[np.ndarray], uneven: Sequence[bool]
) -> pd.DataFrame:
    """Adds how many different training images a row's run copies at its board's
    smallest N_G, and at its smallest cost: the smallest among complete runs, where there
    are any, so that a partial run does not set the terms of the whole ones.

    counts: of each row, by how many of its ``n_ok`` images each copied training image
    is copied (``extraction.copy_counts``). uneven: of each row, whether its images
    have no one price, so that a part of its cost pays for nobody knows which of them: then
    its numbers at equal cost are missing where the cost is below its own. Exact
    rarefaction, no interpolation. Columns
    ``equal_n`` and ``copied_at_equal_n``; ``equal_cost`` (target evaluations of
    preparation and extraction of the cheapest run), ``images_at_equal_cost``
    (floor((cost - preparation) / price of an image), 0 if negative, at most ``n_ok``),
    ``copied_at_equal_cost`` and ``equal_cost_capped`` (the cost would pay for more than
    ``n_ok`` images, so the number is a lower bound). Rows that extracted nothing have
    none and set no terms; a partial row with fewer images has none at equal N_G.
    """
    n, cost = (pd.Series(pd.NA, index=frame.index, dtype="Int64") for _ in range(2))
    images = n.copy()
    copied_n, copied_cost = (pd.Series(np.nan, index=frame.index) for _ in range(2))
    capped = pd.Series(False, index=frame.index)
    position = {label: i for i, label in enumerate(frame.index)}
    extracted = frame[(frame.n_ok > 0) & frame.ams_cumulative.notna()]
    for _, part in extracted.groupby(list(BOARD), dropna=False):
        of_terms = setting_terms(part)
        size = int(of_terms.n_ok.min())
        budget = int((of_terms.prepare_evaluations + of_terms.sample_evaluations).min())
        for label, row in part.iterrows():
            own = counts[position[label]]
            n[label], cost[label] = size, budget
            if row.n_ok >= size:
                [copied_n[label]] = rarefied(own, row.n_ok, [size])
            prepared = row.prepare_evaluations
            if uneven[position[label]] and budget < prepared + row.sample_evaluations:
                continue
            paid = affordable(budget, prepared, row.sample_evaluations, row.n_g)
            images[label], capped[label] = min(paid, row.n_ok), paid > row.n_ok
            [copied_cost[label]] = rarefied(own, row.n_ok, [images[label]])
    return frame.assign(
        equal_n=n,
        copied_at_equal_n=copied_n,
        equal_cost=cost,
        images_at_equal_cost=images,
        copied_at_equal_cost=copied_cost,
        equal_cost_capped=capped,
    )


def setting_terms(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of a board that say at how many images and at what cost all compare: the
    complete ones, where there are any.
    """
    whole = part[part.status == "complete"]
    return whole if len(whole) else part


def affordable(budget: int, preparation: int, extraction: int, n_images: int) -> int:
    """How many images a budget of target evaluations pays for when ``n_images`` took
    ``extraction`` after the preparation.
    """
    if budget < preparation:
        return 0
    return int((budget - preparation) * n_images // extraction) if extraction else n_images


def _is_uneven(run: Run) -> bool:
    """Whether the preparation pays for images: for all, or for SIDE's synthetic ones."""
    prepared = evaluations(run, "prepare") > 0 and evaluations(run, "samples") == 0
    return prepared or bool(run.info["options"].get("count_synthetic"))


Source = Path | Sequence[Run]


def collect(source: Source, groups: str = "task") -> pd.DataFrame:
    """One row a finished run: those under a folder, or those given.

    Raises :class:`UserError` where there is none.

    Columns that compare runs are those of ``control.with_control`` and
    :func:`with_equal_terms`; with what, ``captions_...``, captions alone reach on the
    row's board (``captions.with_captions``; groups: what the interval of these
    resamples). Of a folder, one that cannot be read is refused; ``finished.read_runs``
    leaves it out and names it.
    """
    runs = _runs(source)
    frame = with_equal_terms(
        with_control(pd.DataFrame([_row(run) for run in runs])),
        [_copies(run) for run in runs],
        [_is_uneven(run) for run in runs],
    )
    for name in ("budget", "unique_copies"):
        frame[name] = frame[name].astype("Int64")
    alone = ~frame.control & frame.control_weights.isna() & frame.ams_cumulative.notna()
    frame["control_command"] = frame.control_command.where(alone, None)
    frame = with_captions(frame, runs, groups)
    return frame.sort_values(
        [*BOARD, "auroc", "detector", "seed"],
        ascending=[*[True] * len(BOARD), False, True, True],
        ignore_index=True,
    )


def collect_kinds(source: Source, by: str = "kind") -> pd.DataFrame:
    """One row a finished run and kind of memorized example ("all" first): the metrics
    of DETECTION, each kind as ``of_kind``.

    by: "source" in place of "kind" for a row a source of negatives, all memorized
    examples against those of each. The column has the same name. Raises
    :class:`UserError` where there is no run with scores.
    """
    rows = []
    for run in _runs(source):
        m = run.metrics[run.metrics.metric.isin(DETECTION)]
        row = about(run)
        for subset in m.subset[(m.subset == "all") | m.subset.str.startswith(f"{by}=")].unique():
            rows.append(
                row
                | {by: subset.removeprefix(f"{by}=")}
                | _values(m[m.subset == subset], DETECTION)
            )
    if not rows:
        raise UserError(
            "no run has scores of both labels"
            + (f" under {source}" if isinstance(source, Path) else "")
        )
    return pd.DataFrame(rows).sort_values(
        [*BOARD, "detector", "options", by, "seed"], ignore_index=True
    )


def collect_bands(source: Source) -> pd.DataFrame:
    """One row a run with images and region: ``ams``, ``ums`` and ``ums_nearest`` with
    intervals in each band ("banded"), up to the band's far edge ("cumulative") and of
    the copies (band ""). ``edge``: the threshold of a cumulative row.

    Raises :class:`UserError` where no run has images.
    """
    rows = []
    for run in _runs(source):
        m = run.metrics[
            (run.metrics.subset == "all")
            & run.metrics.metric.str.match("(ams|ums|ums_nearest)(_cumulative)?$")
        ]
        for (band, form), part in m.groupby(
            [m.band.fillna(""), m.metric.str.endswith("_cumulative")], sort=False
        ):
            plain = part.assign(metric=part.metric.str.removesuffix("_cumulative"), band=None)
            edge = float(part.threshold.iloc[0]) if form else np.nan
            place = [b.name for b in run.space.bands].index(band) if band else len(run.space.bands)
            rows.append(
                about(run)
                | {
                    "place": place,
                    "band": band,
                    "form": "cumulative" if form else "banded",
                    "edge": edge,
                    "n": int(part.n.iloc[0]),
                }
                | _values(plain, ("ams", "ums", "ums_nearest"))
            )
    if not rows:
        raise UserError(
            "no run has images" + (f" under {source}" if isinstance(source, Path) else "")
        )
    order = [*BOARD, "detector", "options", "seed", "place", "form"]
    return pd.DataFrame(rows).sort_values(order, ignore_index=True).drop(columns="place")


def _runs(source: Source) -> Sequence[Run]:
    if not isinstance(source, Path):
        return source
    found = read_runs(source)
    if found.problems:
        raise UserError(found.problems[0])
    return found.runs


def about(run: Run) -> dict[str, Any]:
    """Which board, setting and seed a run is of."""
    info, parts = run.info, run.info["key_parts"]
    row: dict[str, Any] = {
        name: parts[name]
        for name in ("task", "task_version", "profile", "control", "examples", "dtype")
    }
    row |= {name: parts["hashes"][name][:8] for name in ("data", "prompts", "weights")}
    space = {name: value for name, value in info["space"].items() if name != "source"}
    row |= {"examples": row["examples"][:8], "space": json_hash(space)[:8], "space_id": space["id"]}
    settings = hash_without(parts, "seed")
    row |= {
        "detector": info["detector"],
        "options": asked(info),
        "seed": info["seed"],
        "status": info["status"],
    }
    return row | {"settings": settings, "run": str(run.path)}


def _values(metrics: pd.DataFrame, names: Iterable[str]) -> dict[str, float]:
    """Value and interval of each metric, of rows that hold it once without a band; NaN
    for one that is not there.
    """
    found = {r.metric: r for r in metrics[metrics.band.isna()].itertuples()}
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    held = {
        name + end: getattr(found[name], column) if name in found else None
        for name in names
        for end, column in ends
    }
    return {name: float("nan") if value is None else float(value) for name, value in held.items()}


def _row(run: Run) -> dict[str, Any]:
    info, m = run.info, run.metrics
    row = about(run) | _values(m[m.subset == "all"], (*DETECTION, *RARE, *COPIES, *NUMBERS))
    for band in run.space.bands:  # named as in published.py, since ams_low is an interval's end
        of_band = m[(m.subset == "all") & (m.band == band.name)].assign(band=None)
        for name in ("ams", "ums", "ums_nearest"):
            whole = f"{name}_cumulative"
            found = _values(of_band, (name, whole))
            row |= {f"{name}_in_{band.name}": found[name], f"{name}_to_{band.name}": found[whole]}
    if not run.info.get("attack", False):
        row |= dict.fromkeys([name for name in row if of_attacks(name)], float("nan"))
    scored, good, drawn = (
        run.scores[run.scores.status == "ok"],
        run.n_ok,
        len(run.samples),
    )
    row |= {
        "model": model_of(info),
        "data_name": info.get("data_name", ""),
        "bands": json.dumps({band.name: [band.low, band.high] for band in run.space.bands}),
        "resolved": json.dumps(info.get("options", {}), sort_keys=True),
        "extract_only": bool(info.get("extract_only", False)),
        "budget": info.get("budget"),
        "scored": len(scored),
        "of": info["n_task_examples"],
        "positives": int((scored.label == 1).sum()),
        "negatives": int((scored.label == 0).sum()),
        "unlabelled": int((scored.label < 0).sum()),
        "n_g": drawn,
        "n_ok": good,  # N_G less the failed images: what AMS and UMS are shares of
        # Of a detector that scores no 0: its images say nothing of it
        "unique_copies": (
            pd.NA
            if np.isnan(row["ums_nearest_cumulative"])
            else round(row["ums_nearest_cumulative"] * good)
        ),
        **{f"{what}_per_example": per_example(run, what) for what in PER_EXAMPLE},
        "forwards_per_image": spent(run, "forwards", "samples") / drawn if drawn else float("nan"),
        "prepare_forwards": spent(run, "forwards", "prepare"),
        "prepare_evaluations": evaluations(run, "prepare"),
        "sample_forwards": spent(run, "forwards", "samples"),
        "sample_evaluations": evaluations(run, "samples"),
        "backwards": spent(run, "backwards"),
        "jvps": spent(run, "jvps"),
        "surrogate_forwards": spent(run, "surrogate_forwards"),
        "surrogate_backwards": spent(run, "surrogate_backwards"),
        "sees": "+".join(sees(info["access"])).removeprefix("outputs+"),
        # Of all sessions, and of a preparation that another run has paid for in time:
        # what it would take alone.
        "seconds": info["seconds"],
        "commit": (info["membench"]["commit"] or "")[:8]
        + ("+dirty" if info["membench"]["dirty"] else ""),
        "dirty": bool(info["membench"]["dirty"]),
        "pair": pair_key(info),
        "pair_settings": pair_key(info, "seed"),
        "control_command": control_command(info),
    }
    return row


def of_attacks(column: str) -> bool:
    """Whether a column is of the images that an attack has extracted: of a detector that
    extracts the task's own images only its confidence in them is its own.
    """
    return column.startswith((*COPIES, *NUMBERS, "ams_", "ums_")) and not column.startswith(
        "precision_at_"
    )


def _copies(run: Run) -> np.ndarray:
    """By how many images each copied training image is copied."""
    good, found = run.found()
    return np.zeros(0, dtype=int) if good.empty else copy_counts(found, len(good), run.space)
