"""What run.json must hold: fields, their types and ranges, and what contradicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from membench.storage.reading import LARGEST_NUMBER, is_amount
from membench.types import Band, Space

Check = Callable[[Any], bool]


DEEPEST = 20  # of a list in a list ...


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    # NaN is not below the largest
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < LARGEST_NUMBER
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def _count(value: Any) -> bool:
    return _whole(value) and value >= 0


def _any(_: Any) -> bool:
    return True


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _map(check: Check, *needed: str) -> Check:
    return lambda value: (
        isinstance(value, dict) and set(needed) <= set(value) and all(map(check, value.values()))
    )


def _space(value: Any) -> bool:
    """A ``Space`` that bands and thresholds can be made of: in the range of its
    measure, no band empty, its copies within the floor.

    Of a run whose images were compared with nothing it has no bands.
    """
    try:
        space = Space(**{**value, "bands": tuple(Band(**band) for band in value["bands"])})
    except (TypeError, KeyError):
        return False
    numbers = [
        space.copy,
        space.floor,
        *(end for band in space.bands for end in (band.low, band.high)),
    ]
    if not (
        _name(space.id)
        and _text(space.source)
        and _flag(space.higher_is_closer)
        and all(map(_number, numbers))
    ):
        return False
    if not all(_name(band.name) and band.low < band.high for band in space.bands):
        return False
    if len({band.name for band in space.bands}) < len(space.bands):
        return False
    least, most = (-1.0, 1.0) if space.higher_is_closer else (0.0, 1e6)
    within = space.floor <= space.copy if space.higher_is_closer else space.copy <= space.floor
    return within and all(least <= number <= most for number in numbers)


TRUTH = ("images", "of them with an image", "memorized prompts")


def _reference(value: Any) -> bool:
    """What a run says of a reference set of descriptors."""
    return (
        _map(_any, "descriptors", "search")(value)
        and _count(value["descriptors"])
        and _name(value["search"])
        and is_amount(value.get("recall", 1.0))
    )


TWICE: Mapping[str, Check] = {  # fields that run.json holds for itself and in the key's parts
    **dict.fromkeys(("task", "profile", "detector", "dtype"), _name),
    **{
        "task_version": _whole,
        "control": _flag,
        "options": _map(_any),
        "space": _space,
        "seed": _whole,
    },
    "hashes": _map(_name, "data", "prompts", "weights"),
}


INFO: dict[str, Check] = {
    **TWICE,
    "key": lambda value: (
        isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None
    ),
    "key_parts": _map(_any, *TWICE, "examples", "sampling", "detector_version"),
    "status": lambda value: value in ("complete", "partial"),
    **dict.fromkeys(("options_passed", "task_options_passed"), _list(_text)),
    "access": _map(_flag, "gradients", "images", "training_data", "labels", "model"),
    **dict.fromkeys(("n_examples", "n_task_examples", "n_images", "truncated_prompts"), _count),
    "failed": _map(_count, "scores", "samples"),
    "phases": _map(_map(is_amount, "seconds")),
    **dict.fromkeys(("seconds", "peak_memory_mb"), is_amount),
    "membench": lambda value: (
        _map(_any, "commit", "dirty")(value)
        and _or_none(_text)(value["commit"])
        and _or_none(_flag)(value["dirty"])
    ),
    "versions": _map(_or_none(_text)),
    "device": _name,
    "batch_size": lambda value: _name(value) or _count(value),
}


OPTIONAL: dict[str, Check] = {
    **{
        "extract_only": _flag,
        "attack": _flag,
        "budget": _or_none(_count),
        "preset": _or_none(_text),
        "finished": lambda value: (
            isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None
        ),
        "earlier": _list(_map(_any)),
        "compile": _flag,
        "executor": _name,
        "workers": _count,
        "source": _map(_text),
    },
    **dict.fromkeys(("model_name", "data_name"), _text),
    "provenance": lambda value: (
        _map(_any)(value)
        and _or_none(_map(_count, *TRUTH))(value.get("ground_truth"))
        and _or_none(_reference)(value.get("reference"))
    ),
    "prepared": _or_none(_map(_any)),
}


def check_info(info: Any, key_of: Callable[[Mapping[str, Any]], str]) -> None:
    """Raises ValueError, in a few words, for a finished run's run.json that lacks a
    field, holds an odd one, or contradicts itself.

    key_of: the key that its parts have (``storage.hashing.content_key``).
    """
    if not isinstance(info, dict):
        raise ValueError("its run.json is not an object")
    if _depth(info) > DEEPEST:
        raise ValueError("its run.json is nested too deeply")
    if missing := [name for name in INFO if name not in info]:
        raise ValueError(f"its run.json lacks {', '.join(missing)}")
    for name, check in (INFO | OPTIONAL).items():
        if name in info and not check(info[name]):
            raise ValueError(
                f"its run.json holds {name} of another type or range than a run writes"
            )
    parts = info["key_parts"]
    if not _name(parts["examples"]):
        raise ValueError("its run.json holds key_parts without a hash of the examples")
    if key_of(parts) != info["key"]:
        raise ValueError("its key is not that of its key_parts")
    if differing := [
        name
        for name in TWICE
        if parts[name] != info[name] or type(parts[name]) is not type(info[name])
    ]:
        raise ValueError(f"its run.json says another {', '.join(differing)} than its key_parts")
    if bool(parts.get("extract_only")) != bool(info.get("extract_only")) or parts.get(
        "budget"
    ) != info.get("budget"):
        raise ValueError("its run.json says another extract_only or budget than its key_parts")
    whole = info["n_examples"] == info["n_task_examples"] and not any(info["failed"].values())
    if info["n_examples"] > info["n_task_examples"] or (info["status"] == "complete") != whole:
        raise ValueError("its status is not what its numbers of examples and failures say")
    if info["seconds"] + 0.1 < sum(phase["seconds"] for phase in info["phases"].values()):
        raise ValueError("it took fewer seconds in all than its phases")


def _depth(value: Any) -> int:
    """How deep lists and objects stand in each other; counted no further than is
    needed.
    """
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            x
            for of in level
            if isinstance(of, dict | list)
            for x in (of.values() if isinstance(of, dict) else of)
        ]
    return depth
