"""Columns that compare runs: with the control model, at equal numbers of images and at equal cost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from membench import registry
from membench.hashing import json_hash
from membench.metrics.unique import Interval, rarefied
from membench.options import describe_options

# Rows of one board are comparable: they are runs on the same model, data, prompts and examples, with the same measure of likeness.
BOARD = ("task", "task_version", "profile", "control", "data", "prompts", "examples", "weights", "dtype", "space")
SCORES = {"ams": "ams_cumulative", "ums": "ums_cumulative", "auroc": "auroc"}
EXCESS = ("ams", "ums")  # of which the control's is subtracted; an AUROC on the control is a line to compare with


def hash_without(parts: Mapping[str, Any], *names: str) -> str:
    """The key of a run (``key_parts`` of its run.json) without some of its parts; ``weights`` is one of the hashes."""
    kept = {k: v for k, v in parts.items() if k not in names}
    return json_hash(kept | {"hashes": {k: v for k, v in parts["hashes"].items() if k not in names}})[:12]


def pair_key(parts: Mapping[str, Any]) -> str:
    """The same for a run on the model and its control: all that changes the output, but control and weights."""
    return hash_without(parts, "control", "weights")


def asked(info: Mapping[str, Any]) -> str:
    """What a run was asked for beside the defaults, in one order."""
    words = [f"{name}={info[name]}" for name in ("preset", "budget") if info.get(name) is not None]
    return " ".join([*words, *sorted(info["options_passed"])])


def apart(frame: pd.DataFrame) -> list[str]:
    """Why boards of one task are boards of their own: a line for each that differs from the task's first in more than being its control.

    It names the fields of BOARD that differ, with both values. A control's board is compared with the first control's, if it is not that.
    """
    lines = []
    for task, rows in frame.drop_duplicates(list(BOARD)).groupby("task", sort=False):
        found = rows.to_dict("records")
        firsts = {kind: next(row for row in found if row["control"] == kind) for kind in {row["control"] for row in found}}
        for other in found[1:]:
            first = found[0] if other is firsts[other["control"]] else firsts[other["control"]]
            own = {"control", "weights"} if other["control"] != first["control"] else set()  # a control differs in these
            differing = [name for name in BOARD if first[name] != other[name] and name not in own]
            if differing:
                what = ", ".join(f"{name} ({other[name]}, not {first[name]})" for name in differing)
                lines.append(f"{task}: not comparable with the first board of the task, and so a board of its own: other {what}")
    return lines


def mover(value: float, interval: Interval, other: float, other_interval: Interval) -> Interval:
    """Interval of value - other from the two single ones, which need not be symmetric: MOVER (Zou & Donner, Stat. Med. 2008).

    It takes the two as independent. A run and its control share prompts and noise, so the difference is known no worse than this.
    """
    (low, high), (other_low, other_high) = interval, other_interval
    difference = value - other
    below = np.hypot(value - low, other_high - other)
    above = np.hypot(high - value, other - other_low)
    return float(difference - below), float(difference + above)


def with_control(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the control run's scores and the excess over them, with intervals, to each run on the model.

    Pairs have the same ``pair`` (all that changes the output, but control and weights; of rows over seeds ``pair_settings``, without the
    seed). Columns ``control_auroc``, ``control_ams``, ``control_ums``, ``excess_ams``, ``excess_ums``, each with ``_low`` and
    ``_high``, ``control_weights``, ``control_seeds`` (how many seeds the control row has) and ``control_status``. Missing without a
    control run, or with runs on several control models; the excess of UMS also where the numbers of images differ, on which UMS depends.
    """
    frame = frame.copy()
    names = [f"{what}_{score}{end}" for score in SCORES for what in ("control", "excess") for end in ("", "_low", "_high")]
    names = [name for name in names if not name.startswith("excess_auroc")]
    found: dict[str, list[Any]] = {name: [np.nan] * len(frame) for name in names} | {"control_weights": [None] * len(frame)}
    found["control_seeds"] = [0] * len(frame)
    found["control_status"] = [None] * len(frame)
    pair = "pair_settings" if "seeds" in frame else "pair"
    controls = {same: rows for same, rows in frame[frame.control].groupby(pair)}
    for i, (_, row) in enumerate(frame.iterrows()):
        rows = controls.get(row[pair])
        if row.control or rows is None or len(rows) != 1:
            continue
        control = rows.iloc[0]
        found["control_weights"][i], found["control_seeds"][i] = control.weights, control.get("seeds", 1)
        found["control_status"][i] = control.get("status", "complete")
        for score, column in SCORES.items():
            mine, other = (tuple(float(r[column + end]) for end in ("", "_low", "_high")) for r in (row, control))
            for end, value in zip(("", "_low", "_high"), other, strict=True):
                found[f"control_{score}{end}"][i] = value
            if score not in EXCESS:
                continue
            excess = (mine[0] - other[0], *mover(mine[0], mine[1:], other[0], other[1:]))  # type: ignore[arg-type]
            if score == "ams":  # a difference of two shares
                excess = tuple(np.clip(excess, -1.0, 1.0).tolist())
            if score == "ums" and row.n_ok != control.n_ok:
                excess = (np.nan,) * 3
            for end, value in zip(("", "_low", "_high"), excess, strict=True):
                found[f"excess_{score}{end}"][i] = value
    return frame.assign(**found)


def with_equal_terms(frame: pd.DataFrame, counts: Sequence[np.ndarray]) -> pd.DataFrame:
    """Adds how many different training images a row's run copies at its board's smallest N_G, and at its smallest cost.

    counts: of each row, by how many of its ``n_ok`` images each copied training image is copied (``extraction.copy_counts``). Exact
    rarefaction, no interpolation. Columns ``equal_n`` and ``copied_at_equal_n``; ``equal_cost`` (target evaluations of preparation
    and extraction of the cheapest run), ``images_at_equal_cost`` (floor((cost - preparation) / price of an image), 0 if
    negative, at most ``n_ok``), ``copied_at_equal_cost`` and ``equal_cost_capped`` (the cost would pay for more than ``n_ok`` images,
    so the number is a lower bound). Rows that extracted nothing have none and set no terms.
    """
    n, cost = (pd.Series(pd.NA, index=frame.index, dtype="Int64") for _ in range(2))
    images = n.copy()
    copied_n, copied_cost = (pd.Series(np.nan, index=frame.index) for _ in range(2))
    capped = pd.Series(False, index=frame.index)
    position = {label: i for i, label in enumerate(frame.index)}
    for _, part in frame[frame.n_ok > 0].groupby(list(BOARD), dropna=False):
        size = int(part.n_ok.min())
        budget = int((part.prepare_forwards + part.sample_evaluations).min())
        for label, row in part.iterrows():
            paid = affordable(budget, row.prepare_forwards, row.sample_evaluations, row.n_g)
            n[label], cost[label], images[label] = size, budget, min(paid, row.n_ok)
            capped[label] = paid > row.n_ok
            copied_n[label], copied_cost[label] = rarefied(counts[position[label]], row.n_ok, [size, images[label]])
    return frame.assign(
        equal_n=n,
        copied_at_equal_n=copied_n,
        equal_cost=cost,
        images_at_equal_cost=images,
        copied_at_equal_cost=copied_cost,
        equal_cost_capped=capped,
    )


def affordable(budget: int, preparation: int, extraction: int, n_images: int) -> int:
    """How many images a budget of target evaluations pays for when ``n_images`` took ``extraction`` after the preparation."""
    if budget < preparation:
        return 0
    return int((budget - preparation) * n_images // extraction) if extraction else n_images


def _takes(task: str, option: str) -> bool:
    """Whether a task that is known here has an option of that name."""
    known = registry.tasks()
    return task in known.names() and any(o.name == option for o in describe_options(known.load(task).Options))


def control_command(info: Mapping[str, Any]) -> str:
    """The command that makes the control run of a run, from its run.json."""
    words = ["membench", "run", "--detector", info["detector"], "--task", info["task"]]
    words += ["--profile", info["profile"]] if info["profile"] != "mini" else []
    words += ["--preset", info["preset"]] if info.get("preset") else []
    words += [word for option in info["options_passed"] for word in ("--set", option)]
    # A shipped control model is named by --control alone; of a user's model the user has to name it.
    own, flags = (
        info["profile"] == "full" and _takes(info["task"], "control_model"),
        {"prompts": "--prompts", "negatives": "--negatives", "data_root": "--data-root", "model": "--model"},
    )
    given = [setting.partition("=")[::2] for setting in info.get("task_options_passed", ())]
    for name, value in given:
        if name != "model" or own:
            words += [flags[name], value] if name in flags else ["--set", f"{info['task']}.{name}={value}"]
    if own and "control_model" not in dict(given):
        words += ["--set", f"{info['task']}.control_model=FOLDER"]
    words += ["--seed", str(info["seed"])] if info["seed"] else []
    words += ["--dtype", info["dtype"]] if info["dtype"] != "float32" else []
    words += ["--limit", str(info["n_examples"])] if info["n_examples"] < info["n_task_examples"] else []
    if info.get("budget") is not None:
        words += ["--budget", str(info["budget"])]
    elif info.get("extract_only"):
        words += ["--extract-only"]
    return shlex.join([*words, "--control"])
