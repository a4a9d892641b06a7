"""Which runs may share a table, which settings they were asked for, and what a table is
called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from membench.storage.hashing import json_hash

# Rows of one board are comparable: they are runs on the same model, data, prompts and
# examples, with the same measure of similarity.
BOARD = (
    "task",
    "task_version",
    "profile",
    "control",
    "data",
    "prompts",
    "examples",
    "weights",
    "dtype",
    "space",
)


def hash_without(parts: Mapping[str, Any], *names: str) -> str:
    """The key of a run (``key_parts`` of its run.json) without some of its parts;
    ``weights`` is one of the hashes.
    """
    kept = {k: v for k, v in parts.items() if k not in names}
    return json_hash(
        kept | {"hashes": {k: v for k, v in parts["hashes"].items() if k not in names}}
    )[:12]


def passed(info: Mapping[str, Any], *without: str) -> list[str]:
    """Options of the task that were passed, ``key=value``, but those of these names.
    info: a run's run.json.
    """
    given = info.get("task_options_passed", ())
    return [option for option in given if option.partition("=")[0].strip() not in without]


def given(info: Mapping[str, Any], name: str) -> str:
    """The value of an option of the task that was passed, the last one; empty where it
    was not. info: a run's run.json.
    """
    options = (option.partition("=") for option in passed(info))
    return {key.strip(): value for key, _, value in options}.get(name, "")


def model_of(info: Mapping[str, Any]) -> str:
    """What a board calls a run's model: its hub id, or the last part of its folder, since
    where it lies is nobody else's business. info: a run's run.json.
    """
    if info.get("model_name"):
        return str(info["model_name"])
    model = given(info, "model")
    if not model:
        return "shipped" if info["profile"] == "mini" else "default"
    is_path = model.startswith(("/", "~", ".")) or model.count("/") > 1
    return model.rstrip("/").rpartition("/")[2] if is_path else model


# Options of a task that may differ between the two: who is asked; the half is in a hash
OF_MODEL = ("model", "control_model", "half")


def pair_key(info: Mapping[str, Any], *without: str) -> str:
    """The same for a run on the model and its control: all that changes the output, but
    control and weights. info: a run's run.json. without: further parts to leave out.

    Options of the task that choose weights alone (a rung, a folder of models) are in no
    other hash, so what was passed counts: the control of one rung is not that of another.
    """
    key = hash_without(info["key_parts"], "control", "weights", *without)
    kept = sorted(passed(info, *OF_MODEL))
    return json_hash([key, kept])[:12] if kept else key


def asked(info: Mapping[str, Any]) -> str:
    """What a run was asked for beside the defaults, in one order."""
    words = [f"{name}={info[name]}" for name in ("preset", "budget") if info.get(name) is not None]
    return " ".join([*words, *sorted(info["options_passed"])])


def mixed(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of runs that a file of runs names side by side, what tells each from others beside
    task, detector and options: control, profile and precision, where they differ; and how
    many examples, where runs would be called alike. infos: their run.json.
    """
    words = [("CONTROL" * bool(i["control"]), i["profile"], i["dtype"]) for i in infos]
    kept = [k for k in range(3) if len({of[k] for of in words}) > 1]
    told = [" ".join(of[k] for k in kept if of[k]) for of in words]
    names = [
        (i["task"], i["detector"], asked(i), *passed(i), of)
        for i, of in zip(infos, told, strict=True)
    ]
    return [
        f"{of} {i['n_examples']:,} examples".strip() if names.count(name) > 1 else of
        for i, of, name in zip(infos, told, names, strict=True)
    ]


def common(infos: Sequence[Mapping[str, Any]]) -> str:
    """What the runs of a table are all of, for its title: profile, control and seed."""
    profiles, seeds = (
        " and ".join(dict.fromkeys(str(i[name]) for i in infos)) for name in ("profile", "seed")
    )
    control = f", CONTROL model{'s' * (len(infos) > 1)}" if all(i["control"] for i in infos) else ""
    return f"{profiles}{control}, seed {seeds}"


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of BOARD that are not the same in all rows, boards or their fields."""
    return [name for name in BOARD if len({str(row[name]) for row in rows}) > 1]


def apart(frame: pd.DataFrame) -> list[str]:
    """Why boards of one task are boards of their own: a line for each that differs from
    the task's first in more than being its control.

    It names the fields of BOARD that differ, with both values. A control's board is
    compared with the first control's, if it is not that.
    """
    lines = []
    for task, rows in frame.drop_duplicates(list(BOARD)).groupby("task", sort=False):
        found = rows.to_dict("records")
        firsts = {
            kind: next(row for row in found if row["control"] == kind)
            for kind in {row["control"] for row in found}
        }
        for other in found[1:]:
            first = found[0] if other is firsts[other["control"]] else firsts[other["control"]]
            # A control differs in these
            own = {"control", "weights"} if other["control"] != first["control"] else set()
            if names := [name for name in differing([first, other]) if name not in own]:
                what = ", ".join(f"{name} ({other[name]}, not {first[name]})" for name in names)
                lines.append(
                    f"{task}: not comparable with the first board of the task, and so a board of"
                    f" its own: other {what}"
                )
    return lines


# ----------------------------------------------------------------------------- printing


def boards(frame: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Each comparable set of rows with its title; boards that differ in their
    similarity alone are told apart by it.
    """
    parts = [part for _, part in frame.groupby(list(BOARD), dropna=False, sort=False)]
    titles = [_title(part.iloc[0]) for part in parts]
    for title, part in zip(titles, parts, strict=True):
        space = f", similarity {part.space.iloc[0]}" if titles.count(title) > 1 else ""
        yield title + space, part


def _title(row: pd.Series) -> str:
    named = f" ({row.data_name})" if row.get("data_name") else ""
    model = "CONTROL model" if row.control else "model"
    return (
        f"{row.task} v{row.task_version}, {row['profile']} profile, {model} {row.weights}, "
        f"data {row['data']}, prompts {row.prompts}{named}, examples {row.examples}, {row['dtype']}"
    )


# In place of a number of seeds, where each seed gives the same scores
DETERMINISTIC = "deterministic"


def marked(name: str, status: str) -> str:
    """The name of a row; of one that is not whole with PARTIAL in front of it, and so
    in front of its numbers.
    """
    return name if status == "complete" else f"PARTIAL {name}"


def status_of(statuses: Iterable[str]) -> str:
    """``complete`` if all are."""
    return "complete" if all(status == "complete" for status in statuses) else "partial"
