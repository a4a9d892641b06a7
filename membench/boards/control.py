"""Columns that compare a run with the same run on the control model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from membench import registry
from membench.boards.identity import passed
from membench.metrics.levels import mover
from membench.options import describe_options
from membench.runs.stored import HELD

SCORES = {"ams": "ams_cumulative", "ums": "ums_cumulative", "auroc": "auroc"}

# Of which the control's is subtracted; an AUROC on the control is a line to compare
# with
EXCESS = ("ams", "ums")


def with_control(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the control run's scores and the excess over them, with intervals, to each
    run on the model.

    Pairs have the same ``pair`` (all that changes the output, but control and weights;
    of rows over seeds ``pair_settings``, without the seed). Columns ``control_auroc``,
    ``control_ams``, ``control_ums``, ``excess_ams``, ``excess_ums``, each with ``_low``
    and ``_high``, ``control_weights``, ``control_seeds`` (how many seeds the control
    row has) and ``control_status``. Missing without a control run, or with runs on
    several control models; the excess of UMS also where the numbers of images differ,
    on which UMS depends.
    """
    frame = frame.copy()
    names = [
        f"{what}_{score}{end}"
        for score in SCORES
        for what in ("control", "excess")
        for end in ("", "_low", "_high")
    ]
    names = [name for name in names if not name.startswith("excess_auroc")]
    found: dict[str, list[Any]] = {name: [np.nan] * len(frame) for name in names} | {
        "control_weights": [None] * len(frame)
    }
    found["control_seeds"] = [0] * len(frame)
    found["control_status"] = [None] * len(frame)
    pair = "pair_settings" if "seeds" in frame else "pair"
    controls = {same: rows for same, rows in frame[frame.control].groupby(pair)}
    for i, (_, row) in enumerate(frame.iterrows()):
        rows = controls.get(row[pair])
        if row.control or rows is None or len(rows) != 1:
            continue
        control = rows.iloc[0]
        found["control_weights"][i], found["control_seeds"][i] = (
            control.weights,
            control.get("seeds", 1),
        )
        found["control_status"][i] = control.get("status", "complete")
        for score, column in SCORES.items():
            mine, other = (
                tuple(float(r[column + end]) for end in ("", "_low", "_high"))
                for r in (row, control)
            )
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


def takes(task: str, option: str) -> bool:
    """Whether a task that is known here has an option of that name."""
    known = registry.tasks()
    return task in known.names() and any(
        o.name == option for o in describe_options(known.load(task).Options)
    )


def control_command(info: Mapping[str, Any]) -> str:
    """The command that makes the control run of a run, from its run.json."""
    # A shipped control model is named by --control alone; of a user's model the user
    # has to name it.
    own = info["profile"] == "full" and takes(info["task"], "control_model")
    kept = passed(info) if own else passed(info, "model")
    if own and not any(o.startswith("control_model=") for o in kept):
        kept.append("control_model=FOLDER")
    return shlex.join([*run_words({**info, "task_options_passed": kept}), "--control"])


FLAGS = {
    "prompts": "--prompts",
    "negatives": "--negatives",
    "data_root": "--data-root",
    "model": "--model",
}


def run_words(info: Mapping[str, Any]) -> list[str]:
    """The words of the command that makes a run, from its run.json, but for --control
    and where it is kept.
    """
    words = ["membench", "run", *["--plugin", "FILE.py"] * _files(info)]
    words += ["--detector", info["detector"], "--task", info["task"]]
    words += ["--profile", info["profile"]] if info["profile"] != "mini" else []
    words += ["--preset", info["preset"]] if info.get("preset") else []
    words += [word for option in info["options_passed"] for word in ("--set", option)]
    for name, _, value in (o.partition("=") for o in info.get("task_options_passed", ())):
        words += [FLAGS[name], value] if name in FLAGS else []
        words += [] if name in FLAGS else ["--set", f"{info['task']}.{name}={value}"]
    words += ["--seeds", str(info["seed"])] if info["seed"] else []
    words += ["--dtype", info["dtype"]] if info["dtype"] != "float32" else []
    if info["n_examples"] < info["n_task_examples"]:
        words += ["--limit", str(info["n_examples"])]
    if info.get("budget") is not None:
        words += ["--budget", str(info["budget"])]
    elif info.get("extract_only"):
        words += ["--extract-only"]
    return words


def _files(info: Mapping[str, Any]) -> int:
    """How many files of one's own ``--plugin`` has to name: a run holds their hashes, not
    where they lie. What is imported by name needs none.
    """
    code = info.get("key_parts", {}).get("plugin_code")
    found = set()
    for what, of in code.items() if isinstance(code, dict) else ():
        known = registry.tasks() if what == "task" else registry.detectors()
        name = str(info.get(what, what.removeprefix(HELD)))
        if name not in known.names() or known.get(name).ran:
            found.add(str(of))
    return len(found)
