"""``--set key=value`` into the frozen ``Options`` dataclass of a detector or a task.

Field types: int, float, bool, str, ``Literal[...]``, ``tuple[int, ...]`` (also of the
other types) and ``... | None``. Field metadata: ``help``, and ``min`` and ``max``, both
inclusive. A number without ``max`` is at most ``LARGEST``, and a list has at most
``MOST`` items.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from membench.errors import UserError, suggest, told, unknown_name

T = TypeVar("T")

LARGEST = 10_000_000  # of a number that names no limit of its own
MOST = 10_000  # numbers in a list

BOOLS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class OptionInfo(NamedTuple):
    """One line of ``membench show``. type: as told to people, with its range; default:
    the value itself.
    """

    name: str
    type: str
    default: Any
    help: str


@functools.lru_cache(maxsize=256)
def _hints(options: Any) -> dict[str, Any]:
    """The types of the fields of a class, to be read only. They are evaluated once: a board
    of thirty runs asks 25,000 times.
    """
    return get_type_hints(options)


def describe_options(options: type) -> list[OptionInfo]:
    """The options in the order of their declaration."""
    hints = _hints(options)
    fields = dataclasses.fields(options)
    return [
        OptionInfo(
            f.name, _told(hints[f.name], f.metadata), _default(f), f.metadata.get("help", "")
        )
        for f in fields
    ]


def check_options(options: type, owner: str) -> None:
    """Raises TypeError, in one line, for a dataclass of options that the command line
    cannot fill or run.json cannot hold. owner: the class that has them.
    """
    try:
        hints = _hints(options)
    except Exception as error:  # whatever a hint's name raises
        raise TypeError(f"{owner}.Options has a type that is not there ({error})") from None
    for f in dataclasses.fields(options):
        name = f"option {f.name} of {owner}"
        if not _is_kind(hints[f.name]):
            raise TypeError(
                f"{name} is of type {hints[f.name]}; it may be int, float, bool, str, Literal[...],"
                " tuple[int, ...] of these, or one of them | None"
            )
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise TypeError(f"{name} has no default")
        try:
            json.dumps(_default(f), allow_nan=False)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} has the default {_default(f)!r}, which JSON cannot hold"
            ) from None
        check_values(options, {f.name: _default(f)}, f"{owner}.Options")


def check_values(options: type, values: Any, what: str) -> None:
    """Raises TypeError, in one line, for what is not a mapping of options to values that
    they can have; ranges are not looked at. what: what has the values, such as a preset.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{what} is {str(values)[:60]!r}, not a mapping of options to values")
    hints = _hints(options)
    known = {f.name: f.metadata for f in dataclasses.fields(options)}
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"{what} names {str(name)[:60]!r}, which is no option")
        if not _fits(value, hints[name]):
            raise TypeError(
                f"{what} has {name}={str(value)[:60]!r}; it must be"
                f" {_told(hints[name], known[name])}"
            )


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that options may have."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return value is None or _fits(value, _inner(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, get_args(kind)[0]) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _is_kind(kind: Any) -> bool:
    """Whether :func:`parse_options` reads options of this type."""
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str | int | float | bool) for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        return len(inner) == 1 and len(get_args(kind)) == 2 and _is_kind(inner[0])
    if get_origin(kind) is tuple:
        args = get_args(kind)
        return len(args) == 2 and args[1] is Ellipsis and _is_kind(args[0])
    return kind in (int, float, bool, str)


def parse_options(
    options: type[T],
    settings: Iterable[str],
    owner: str,
    base: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """``Options`` with the ``"key=value"`` settings applied. owner: ``"detector
    cfg_norm"``, for the messages.

    base: values of a preset, in place of the defaults.

    Raises UserError for an unknown or repeated key, a value of the wrong type or out of
    range, and for what the dataclass itself refuses with ValueError.
    """
    hints = _hints(options)  # type: ignore[arg-type]  # a class is hashable
    fields = {f.name: f for f in dataclasses.fields(options)}  # type: ignore[arg-type]  # a dataclass, by contract
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"{owner}: cannot read --set {setting[:60]!r}; write --set key=value")
        if key not in fields:
            raise unknown_name(
                f"option of {owner}:", key, fields, f"membench show {owner.split()[-1]}"
            )
        if key in values:
            raise UserError(f"{owner}: option {key} is set twice; give it once")
        try:
            values[key] = _ranged(_convert(text.strip(), hints[key]), fields[key].metadata)
        except _Absurd:
            raise UserError(
                f"{owner}: option {key}: {text[:60]!r} is too much; numbers go up to {LARGEST:,},"
                f" and {MOST:,} in a list"
            ) from None
        except ValueError as error:
            near = (
                suggest(text, map(str, get_args(hints[key])))
                if get_origin(hints[key]) is Literal
                else ""
            )
            raise UserError(
                f"{owner}: option {key} must be {_told(hints[key], fields[key].metadata)}, not"
                f" {text[:60]!r}.{near}"
            ) from error
    try:
        return options(**{**base, **values})
    except ValueError as error:  # options that do not fit each other, refused in __post_init__
        raise UserError(f"{owner}: {error}") from error
    except Exception as error:
        if options.__module__.startswith("membench."):
            raise
        raise UserError(f"{owner}: its Options fail: {told(error)}") from error


def as_settings(options: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """``["steps=5", "layers=1,2"]`` of ``{"steps": 5, "layers": (1, 2)}``; a list of
    settings stays as it is. Raises UserError for a value that an option cannot have.
    """
    if isinstance(options, str):
        raise UserError(f"options {options[:60]!r} is a text; give a list of key=value, or a dict")
    if not isinstance(options, Mapping):
        return list(options)
    return [f"{name}={_written(name, value)}" for name, value in options.items()]


def _written(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        if any(isinstance(part, list | tuple) for part in value):
            raise UserError(f"option {name} is a list of lists; give one list")
        return ",".join(_written(name, part) for part in value)
    if isinstance(value, str | int | float | Path):
        return str(value)
    raise UserError(
        f"option {name} is of type {type(value).__name__}: give a number, a word, true or false, or"
        " a list of these"
    )


def detector_options(
    name: str, detector: Any, settings: Iterable[str], preset: str | None, profile: str
) -> Any:
    """The options of a detector: its defaults, then the preset (or the one that is
    named like the profile), then the settings.

    Raises :class:`UserError` for an unknown preset or option.
    """
    presets: Mapping[str, Mapping[str, Any]] = detector.presets
    if preset is not None and preset not in presets:
        if not presets:
            raise UserError(
                f"detector {name} has no presets; leave --preset out. See: membench show {name}"
            )
        raise unknown_name(f"preset of detector {name}:", preset, presets, f"membench show {name}")
    chosen = presets.get(preset if preset is not None else profile, {})
    return parse_options(detector.Options, settings, owner=f"detector {name}", base=chosen)


def _convert(text: str, kind: Any) -> Any:
    """The value of a text.

    Raises ValueError if it is none of its kind, TypeError for a kind that options
    cannot have.
    """
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[
            _member(text, map(str, get_args(kind)))
        ]
    if get_origin(kind) in (Union, types.UnionType):
        return None if text.lower() == "none" else _convert(text, _inner(kind))
    if get_origin(kind) is tuple:
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        if not all(parts):
            raise ValueError(f"{text!r} has an item that is empty")
        return tuple(_convert(part, get_args(kind)[0]) for part in parts)
    if kind is bool:
        return BOOLS[_member(text.lower(), BOOLS)]
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    if kind is float:
        return float(text) + 0.0  # -0.0 is 0.0: one run has one key
    if kind is int:
        return int(text)
    if kind is str:  # no shell expands the ~ of --set model=~/x
        return re.sub(r"(^|,\s*)~/", lambda m: f"{m[1]}{os.path.expanduser('~')}/", text)
    raise TypeError(f"an option cannot be of type {kind}")


def _member(text: str, choices: Iterable[str]) -> str:
    if text not in (known := list(choices)):
        raise ValueError(f"{text!r} is none of {known}")
    return text


def _inner(union: Any) -> Any:
    return next(kind for kind in get_args(union) if kind is not type(None))


def _ranged(value: Any, limits: Mapping[str, Any]) -> Any:
    numbers = [
        v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)
    ]
    if not all(limits.get("min", -math.inf) <= v <= limits.get("max", math.inf) for v in numbers):
        raise ValueError(f"{value} is out of range")
    if len(numbers) > MOST or any(abs(v) > limits.get("max", LARGEST) for v in numbers):
        raise _Absurd
    return value


class _Absurd(ValueError):
    """A number within the limits that are named, and beyond what can be computed."""


def _told(kind: Any, limits: Mapping[str, Any]) -> str:
    """``"int from 1 to 50"``, ``"one of ddim, dpm"``, ``"ints separated by commas"``,
    ``"float or none"``.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return f"{_told(_inner(kind), limits)} or none"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    name = (
        f"{get_args(kind)[0].__name__}s separated by commas"
        if get_origin(kind) is tuple
        else kind.__name__
    )
    ends = [
        f"{word} {limits[end]}" for end, word in (("min", "from"), ("max", "to")) if end in limits
    ]
    return " ".join([name, *ends])


def _default(field: dataclasses.Field[Any]) -> Any:
    return (
        field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    )


def changed(options: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """(name, value) of those of these options, a dataclass, that are not at their default,
    in the order of its fields.
    """
    found = ((of, getattr(options, of.name)) for of in dataclasses.fields(options))
    return [(of.name, value) for of, value in found if of.name in names and value != _default(of)]


def refuse_unread(
    options: Any,
    names: Sequence[str],
    why: str,
    presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Raises :class:`UserError` for one of these options that is not at its default, where
    nothing would read it: a number would be taken for that of the option, and a sweep of it
    would be a flat line.

    presets: whose values are allowed, too: a preset is of several variants, and each
    reads its own part of it.
    """
    for name, value in changed(options, names):
        if value not in [of[name] for of in presets.values() if name in of]:
            raise UserError(f"{name}={value}: {why}")
