"""Writes the file of runs (``membench run --config``) that makes runs again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

# Numbers that the file's reader gives back as they are written; other texts stay texts
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]{1,17}")


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes out what stands twice: a file of runs has no references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def config_of(infos: Sequence[Mapping[str, Any]]) -> str:
    """The YAML that makes runs again, from their run.json; a block for those that agree
    in all but detector, its options and the seed.
    """
    held = {"runs": list(_blocks(infos))}
    text: str = yaml.dump(held, Dumper=_Dumper, sort_keys=False, width=80)
    return text


def _blocks(infos: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for info in infos:
        task = {k: _value(v) for k, _, v in map(_split, info["task_options_passed"])}
        detector = {k: _value(v) for k, _, v in map(_split, info["options_passed"])}
        detector |= {"preset": info["preset"]} if info.get("preset") else {}
        block: dict[str, Any] = {"tasks": [{info["task"]: task} if task else info["task"]]}
        defaults = {"profile": "mini", "control": False, "dtype": "float32", "budget": None}
        block |= {k: info[k] for k, default in defaults.items() if info.get(k) != default}
        if info.get("extract_only") and info.get("budget") is None:
            block["extract_only"] = True
        if info["n_examples"] < info["n_task_examples"]:
            block["limit"] = info["n_examples"]
        own = {info["detector"]: detector} if detector else info["detector"]
        _, members = settings.setdefault(repr(block), (block, {}))
        members.setdefault(repr(own), (own, []))[1].append(int(info["seed"]))
    for block, members in settings.values():
        by_seeds: dict[tuple[int, ...], list[Any]] = {}
        for own, seeds in members.values():
            by_seeds.setdefault(tuple(sorted(set(seeds))), []).append(own)
        for seeds, detectors in by_seeds.items():
            yield {"detectors": detectors, "seeds": list(seeds), **block}


def _split(setting: str) -> tuple[str, str, str]:
    return setting.partition("=")


def _value(text: str) -> Any:
    """A number, true or false as such, where the option's text stays the same; else the
    text, which YAML quotes where it would read something else. A run.json may come from
    anybody, so its texts are not read as YAML.
    """
    if text in ("true", "false"):
        return text == "true"
    if WHOLE.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text) and str(float(text)) == text:
        return float(text)
    return text
