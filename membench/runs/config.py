"""A file of runs: ``membench run --config runs.yaml``, YAML or TOML.

A block names detectors and tasks, each alone or with its options, and lists whose every
combination is run: ``seeds``, ``worlds``, ``rungs`` and ``halves``. A file is one
block, or a list of them under ``runs``. Nothing in it is executed: YAML is read as
plain data.
"""

from __future__ import annotations

import itertools
import math
import re
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from membench import registry
from membench.errors import UserError, suggest
from membench.models.loading import DTYPES
from membench.options import as_settings, detector_options, parse_options
from membench.runs.spec import Spec
from membench.storage.reading import read_text

LARGEST = 1 << 20  # bytes of a file of runs
MOST_RUNS = 100_000

# Lists of a block, and the task option that each sets
SWEPT = {"worlds": "world", "rungs": "rung", "halves": "half"}
SINGLE = {
    "profile": str,
    "control": bool,
    "limit": int,
    "budget": int,
    "extract_only": bool,
    "dtype": str,
}
KEYS = ("detectors", "tasks", "seeds", *SWEPT, *SINGLE)


@dataclass(frozen=True)
class Lines:
    """Says where a name stands in a file."""

    path: Path
    text: str

    def places(self, name: object) -> list[int]:
        """The numbers of the lines where the word stands, from 1."""
        word = re.compile(rf"(?<![\w-]){re.escape(str(name))}(?![\w-])")
        return [
            number
            for number, line in enumerate(self.text.splitlines(), 1)
            if str(name) and word.search(line.partition("#")[0])
        ]

    def error(self, name: object, message: str, nth: int = 0) -> UserError:
        """nth: which of the places where the name stands, from 0."""
        places = self.places(name)
        where = f", line {places[min(nth, len(places) - 1)]}" if places else ""
        return UserError(f"{self.path}{where}: {message}")


def read_config(path: Path, **given: Any) -> list[list[Spec]]:
    """The specs of a file: those that can run side by side in one list.

    given: fields of :class:`Spec` for blocks that do not set them themselves, such as
    ``device``. Raises :class:`UserError`, in one line with the file's line and the
    closest name, for a file that cannot be read, an unknown key, name or option, and a
    value of the wrong type.
    """
    text = read_text(path, most=LARGEST, what="--config")
    lines = Lines(path, text)
    found = _parsed(path, text)
    if not isinstance(found, dict):
        raise UserError(f"{path}: it holds no mapping; write detectors: [...] and tasks: [...]")
    blocks = found.get("runs", found)
    if isinstance(blocks, list) and (others := [key for key in found if key != "runs"]):
        raise lines.error(
            others[0], f"{others[0]} stands beside runs; put it into each of the runs"
        )
    if blocks == []:
        raise lines.error("runs", "runs is a list of nothing; write detectors and tasks into it")
    blocks = blocks if isinstance(blocks, list) else [blocks]
    specs: list[list[Spec]] = []
    for block in blocks:
        if not isinstance(block, dict):
            raise lines.error("runs", "each of runs must be a mapping with detectors and tasks")
        specs += _block(block, lines, given)
    return specs


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in (".yaml", ".yml"):
            return yaml.load(text, Loader=_Loader)
    # What a value raises that its tag does not fit: !!bool x, !!timestamp x, !!set [x]
    except (KeyError, AttributeError, TypeError):
        raise UserError(
            f"{path}: a value is not what its tag (!!...) says; leave the tag out"
        ) from None
    # ValueError: TOML's own, and a number or date that Python cannot hold
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{where}: {what[:300]}") from None
    raise UserError(f"--config {path}: it must end in .yaml, .yml or .toml")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice, which it would overwrite, and
    one that is no word; and references, which let a short file stand for an endless
    one.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                problem="a reference (*name); write it out",
                problem_mark=self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem="a key that is no word", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """A number in decimal digits: YAML 1.1 reads 010 as 8, and 1:30 as 90."""
        self.construct_scalar(node)  # refuses the tag of a number before a list
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value):
            if re.search("[:_xX]", node.value) or not re.search(r"[.eE]", node.value):
                raise yaml.constructor.ConstructorError(
                    problem=f"{_cut(node.value)} is no number in decimal digits; write it in these,"
                    " or in quotes",
                    problem_mark=node.start_mark,
                )
            return float(self.construct_yaml_float(node))
        return int(node.value)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def _block(block: Mapping[str, Any], lines: Lines, given: Mapping[str, Any]) -> list[list[Spec]]:
    for key in block:
        if key not in KEYS:
            raise lines.error(key, f"unknown key {_cut(key)}.{suggest(str(key)[:100], KEYS)}")
    detectors = _named(block, "detectors", lines, registry.detectors())
    tasks = _named(block, "tasks", lines, registry.tasks())
    shared = dict(given)
    for key, kind in SINGLE.items():
        if key in block:
            if type(block[key]) is not kind:
                raise lines.error(key, f"{key} must be {_WORDS[kind]}, not {_cut(block[key])}")
            shared[key] = block[key]
    _in_range(shared, lines)
    shared["extract_only"] = shared.get("extract_only", False) or bool(shared.get("budget"))
    seeds = _list(block, "seeds", lines, [0])
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 10**18:
            raise lines.error("seeds", f"seeds: {_cut(seed)} is no whole number of up to 18 digits")
    _refuse_twice(seeds, "seeds", lines)
    swept = {key: _list(block, key, lines, [None]) for key in SWEPT}
    for key in SWEPT:
        _refuse_twice(swept[key], key, lines)
    lists = [detectors, tasks, seeds, *swept.values()]
    if (many := math.prod(map(len, lists))) > MOST_RUNS:
        raise lines.error("seeds", f"{many:,} runs, more than {MOST_RUNS:,}; make it several files")
    profile = shared.get("profile", "mini")
    made = []
    for (task, options, nth), *values, seed in itertools.product(tasks, *swept.values(), seeds):
        own = {**options}
        for key, value in zip(SWEPT, values, strict=True):
            if value is None:
                continue
            if SWEPT[key] in own:
                raise lines.error(
                    SWEPT[key], f"task {task} has the option {SWEPT[key]} beside {key}; choose one"
                )
            own[SWEPT[key]] = value
        cls = registry.tasks().load(task)
        for key, value in zip(SWEPT, values, strict=True):
            if value is not None and SWEPT[key] not in {f.name for f in fields(cls.Options)}:
                raise lines.error(key, f"task {task} has no option {SWEPT[key]}; leave {key} out")
        settings = _checked(lines, own, nth, lambda o=own: as_settings(o))
        _checked(
            lines,
            own,
            nth,
            lambda c=cls, s=settings, t=task: parse_options(c.Options, s, owner=f"task {t}"),
        )
        specs = []
        asked: list[tuple[str, Any]] = []
        for name, own_options, at in detectors:
            preset = own_options.get("preset")
            kept = {k: v for k, v in own_options.items() if k != "preset"}
            chosen = _checked(lines, kept, at, lambda k=kept: as_settings(k))
            found = registry.detectors().load(name)
            resolved = _checked(
                lines,
                kept,
                at,
                lambda n=name, f=found, c=chosen, p=preset: detector_options(n, f, c, p, profile),
            )
            if (name, resolved) in asked:  # one run, which two would write side by side
                raise lines.error(name, f"{name} stands twice with the same options", at)
            asked.append((name, resolved))
            specs.append(
                Spec(name, task, options=chosen, preset=preset, task_options=settings, seed=seed)
            )
        made.append([replace(spec, **shared) for spec in specs])
    return made


def _refuse_twice(values: list[Any], key: str, lines: Lines) -> None:
    if any(value in values[:at] for at, value in enumerate(values)):
        raise lines.error(key, f"{key}: one stands twice")


def _in_range(shared: Mapping[str, Any], lines: Lines) -> None:
    for key in ("limit", "budget"):
        if shared.get(key) is not None and shared[key] < 1:
            raise lines.error(key, f"{key} must be at least 1, not {_cut(shared[key])}")
    if (dtype := shared.get("dtype", DTYPES[0])) not in DTYPES:
        near = suggest(dtype, DTYPES)
        raise lines.error(
            "dtype", f"dtype must be one of {', '.join(DTYPES)}, not {_cut(dtype)}.{near}"
        )


def _cut(value: object) -> str:
    """A value as it is told: short, whatever a file holds."""
    return reprlib.repr(value)


_WORDS = {str: "a word", bool: "true or false", int: "a whole number"}


def _checked(lines: Lines, options: Mapping[str, Any], nth: int, act: Any) -> Any:
    """What ``act`` returns; what it refuses is told with the line of the option."""
    try:
        return act()
    except UserError as error:
        at = next((key for key in options if re.search(rf"\b{re.escape(key)}\b", str(error))), "")
        lists = {option: key for key, option in SWEPT.items()}
        name = at if lines.places(at) else lists.get(at, at)
        raise lines.error(name, str(error), nth) from None


def _list(block: Mapping[str, Any], key: str, lines: Lines, default: list[Any]) -> list[Any]:
    found = block.get(key, default)
    if not isinstance(found, list) or not found:
        such = {"detectors": "[NAME]", "tasks": "[NAME]", "halves": "[a, b]"}.get(key, "[0, 1]")
        raise lines.error(key, f"{key} must be a list with something in it, such as {key}: {such}")
    return found


def _named(
    block: Mapping[str, Any], key: str, lines: Lines, known: registry.Registry
) -> list[tuple[str, dict[str, Any], int]]:
    """(name, options, how often the name stood before) of each item: a name, or a
    mapping of one name to its options.
    """
    if key not in block:
        raise UserError(f"{lines.path}: there is no {key}; write {key}: [NAME]")
    found: list[tuple[str, dict[str, Any], int]] = []
    for item in _list(block, key, lines, []):
        name, options = next(iter(item.items())) if isinstance(item, dict) and item else (item, {})
        if isinstance(item, dict) and len(item) != 1:
            raise lines.error(name, f"{key}: {_cut(item)} must be one name with its options")
        kind = known.kind
        if not isinstance(name, str) or name not in known.names():
            near = suggest(str(name)[:100], known.names())
            raise lines.error(
                name, f"unknown {kind} {_cut(name)}.{near} See: membench list {kind}s"
            )
        if options is not None and not isinstance(options, dict):
            raise lines.error(
                name, f"the options of {name} must be a mapping, such as {{steps: 5}}"
            )
        if odd := next((k for k in options or () if not isinstance(k, str)), None):
            raise lines.error(odd, f"the options of {name}: {_cut(odd)} is no name of an option")
        if not isinstance(preset := (options or {}).get("preset", ""), str):
            raise lines.error("preset", f"preset must be a word, not {_cut(preset)}")
        found.append((name, dict(options or {}), sum(name == other for other, *_ in found)))
    return found
