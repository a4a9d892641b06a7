"""Malformed inputs by a seed: damaged and absurd files, options and plug-ins, for every
reader that a user can point at a file.

``inputs(rng, folder)`` yields (name, call). A call ends, or raises UserError; what else
it raises is a fault. Where the answer to an undamaged file is known, a call checks that
a damaged one is refused or gives that answer.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from boards import make
from malformed_words import WORDS, command, words
from PIL import Image

from membench import registry
from membench.auditing.settings import parse_budget, parse_limit, parse_max_bad
from membench.cli.common import images_at_once, seeds_of
from membench.datasets.collection import read_collection
from membench.datasets.prompts import read_prompts
from membench.datasets.records import read_records
from membench.options import describe_options, detector_options
from membench.runs.config import read_config
from membench.similarity.descriptors import read_descriptors
from membench.storage.tables import read_table

Call = Callable[[], object]
VALUES: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "a\0b"),
    *([], {}, [[]], {"a": {}}, [None], "9" * 5000, "\x1b[2J", 1.5, "nan", ["a", 1]),
]
PLUGIN = """
from dataclasses import dataclass
import numpy as np
from membench.types import Access, Request, Sample

@dataclass(frozen=True)
class Options:
    t: int = 1

class Plugged:
    Options = Options
    version = 1
    access = Access(model=False)

    def __init__(self, options, *, seed, sampling):
        {init}

    def prepare(self, model, conditions, workspace):
        {prepare}

    def plan(self, conditions):
        {plan}

    def extract(self, model, requests):
        {extract}

    def score(self, model, conditions, extracted):
        {score}
"""
GOOD = {
    "init": "pass",
    "prepare": "return {}",
    "plan": "return []",
    "extract": "return []",
    "score": "return [1.0] * len(conditions)",
}
RETURNED = [
    *("None", "5", "'text'", "{}", "[None]", "[[1.0]]", "['x'] * len(conditions)", "object()"),
    *("[10**400] * len(conditions)", "np.zeros((3, 3))", "np.float64(1)", "(x for x in [1.0])"),
    *(
        "[1.0] * 10**4",
        "[1j]",
        "{1.0}",
        "b'x'",
        "float('nan')",
        "{'a': object()}",
        "{1: np.ones(2)}",
    ),
]
RAISED = ["RuntimeError('a\\nb')", "SystemExit(0)", "GeneratorExit", "MemoryError", "KeyError(5)"]
RAISED += [
    "__import__('os')._exit(0)",
    "type('Stop', (KeyboardInterrupt,), {})",
    "type('Odd', (BaseException,), {})",
    "OSError(28)",
]
REQUESTS = ["Request(conditions[0], -1)", "Request(conditions[0], 'x')", "Request(None, 0)"]
REQUESTS += ["Request(conditions[0], 10**12)", "conditions[0]"]


def inputs(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    """Some hundred, about a third of each kind by chance alone."""
    kinds = (words, _settings, _prompts, _collections, _configs, _descriptors, _runs, _plugins)
    for number, kind in enumerate(kinds):
        place = folder / kind.__name__
        place.mkdir()
        yield from kind(random.Random(rng.random() + number), place)


# ------------------------------------------------------------------------- of settings


def _settings(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    for name in registry.detectors().names():
        cls = registry.detectors().load(name)
        for option in rng.sample(infos := describe_options(cls.Options), min(2, len(infos))):
            setting = f"{option.name}={rng.choice(WORDS)}"
            yield (
                f"{name}.{setting[:40]!r}",
                lambda n=name, c=cls, s=setting: detector_options(n, c, [s], None, "mini"),
            )
    parsers = (parse_budget, parse_limit, parse_max_bad, images_at_once, seeds_of)
    for parse in parsers:
        for word in rng.sample(WORDS, 3):
            for text in (word, f"{word}m", f"copies>{word}"):
                yield f"{parse.__name__} {text[:30]!r}", lambda p=parse, t=text: p(t)


# ------------------------------------------------------------------------------- of files


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Flipped bits, a cut, zeros, a part twice, or an ending of something else."""
    found = bytearray(whole or b"x")
    at = rng.randrange(len(found))
    for _ in range(rng.choice([1, 1, 4])):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    how = rng.choice(["flip", "cut", "zeros", "twice", "more", "nul"])
    if how == "cut":
        del found[at:]
    elif how == "zeros":
        found[at : at + 16] = bytes(len(found[at : at + 16]))
    elif how == "twice":
        found[at:at] = found[: rng.randrange(len(found) + 1)]
    elif how == "more":
        found += rng.randbytes(50)
    elif how == "nul":
        found[at:at] = b"\0"
    return bytes(found)


def changed(rng: random.Random, value: Any) -> Any:
    """The value with one part of it absurd, or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    return rng.choice(VALUES)


def parquet(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def tables(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """A table of captions in each format, its values absurd or its bytes damaged."""
    rows = [
        {"file_name": f"{i}.png", "text": f"a mug {i}", "label": i % 2, "index": i, "url": ""}
        for i in range(4)
    ]
    for k in range(9):
        odd = [changed(rng, row) if rng.random() < 0.5 else row for row in rows]
        kind = ("json", "jsonl", "csv", "parquet", "txt")[k % 5]
        if kind == "json":
            data = json.dumps(odd).encode()
        elif kind == "jsonl":
            data = "\n".join(map(json.dumps, odd)).encode()
        elif kind == "csv":
            data = pd.DataFrame(rows).to_csv(index=False).replace("mug", 'm"u\0g').encode()
        elif kind == "parquet":
            try:
                data = parquet(
                    {
                        n: [row.get(n) if isinstance(row, dict) else row for row in odd]
                        for n in rows[0]
                    }
                )
            except (pa.ArrowException, TypeError, ValueError, OverflowError):  # no such column
                data = parquet({"file_name": [b"\xff"], "text": [["a"]]})
        else:
            data = "\n".join(str(row["text"]) for row in rows).encode()
        whole = rng.random() < 0.5 and kind not in ("csv", "txt")
        yield f"{k}.{kind}", data if whole else damaged(rng, data)


def _prompts(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    for name, data in tables(rng):
        file = folder / name
        file.write_bytes(data)
        yield f"prompts {name}", lambda f=file: read_prompts(f)
        yield f"records {name}", lambda f=file: list(read_records(f))


def png(value: int, size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def _collections(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    """Folders, shards and Parquet of images, whose captions or images are damaged."""

    def read(place: Path, captions: Path | None = None) -> object:
        return read_collection(place, 8, captions=captions, max_bad=float("inf"))

    for k, (name, data) in enumerate(tables(rng)):
        place = folder / f"images{k}"
        place.mkdir()
        for i in range(3):
            bytes_ = png(60 * i)
            (place / f"{i}.png").write_bytes(bytes_ if rng.random() < 0.7 else damaged(rng, bytes_))
        (place / "0.txt").write_bytes(rng.randbytes(5))
        file = folder / name
        file.write_bytes(data)
        yield f"captions {name}", lambda p=place, f=file: read(p, f)
        (place / f"metadata{file.suffix}").write_bytes(data)
        yield f"metadata {name}", lambda p=place: read(p)
    for k in range(12):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for i in range(3):
                for end, data in ((".png", png(50 * i)), (".txt", b"a mug"), (".cls", b"1")):
                    member = tarfile.TarInfo(f"{i}{end}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        shards = folder / f"shards{k}"
        shards.mkdir()
        (shards / "00000.tar").write_bytes(damaged(rng, out.getvalue()[: 512 * 20]))
        yield f"shards {k}", lambda p=shards: read(p)
        columns: dict[str, Any] = {"image": [{"bytes": png(i), "path": ""} for i in range(3)]}
        columns |= {"text": rng.choice([["a"] * 3, [1, 2, 3], [["a"], [], None], [b"\xff"] * 3])}
        parts = folder / f"parquet{k}"
        parts.mkdir()
        data = parquet(columns)
        (parts / "a.parquet").write_bytes(data if rng.random() < 0.2 else damaged(rng, data))
        yield f"parquet of images {k}", lambda p=parts: read(p)


def _configs(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    block = {
        "detectors": ["png_size", {"cfg_norm": {"steps": 2, "preset": "paper"}}],
        "tasks": [{"cifar10": {"half": "a"}}],
        "seeds": [0, 1],
        "worlds": [0],
        "limit": 4,
        "dtype": "float32",
    }
    texts = [json.dumps(changed(rng, changed(rng, block))) for _ in range(14)]
    texts += ["? [a, b]\n: 1", "a: &a [*a]", "seeds: [2001-13-45]", "[" * 5000, "a: !!int x"]
    texts += ["x: &x [1]\ny: [*x, *x]", "detectors: !!python/name:os.system", "runs: [1]", "\0"]
    for k, text in enumerate(texts):
        file = folder / f"{k}.{rng.choice(['yaml', 'toml', 'yml'])}"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        yield f"config {text[:40]!r}", lambda f=file: read_config(f)


def _descriptors(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    unit = np.eye(4, dtype=np.float32)
    out = io.BytesIO()
    np.save(out, unit)
    table = parquet({"id": list("abcd"), "descriptor": list(map(list, unit))})
    odd = [
        parquet({"id": ["a"], "descriptor": value})
        for value in ([[]], [None], [[1.0, None]], [["x"]], [1.0], [[float("nan")]], [[[1.0]]])
    ]
    for k, data in enumerate([damaged(rng, out.getvalue()) for _ in range(6)]):
        (folder / f"{k}.npy").write_bytes(data)
        (folder / f"{k}.ids.txt").write_bytes(damaged(rng, b"a\nb\nc\nd\n"))
        (folder / f"{k}.json").write_text(json.dumps(changed(rng, {"features": "sscd"})))
        yield f"descriptors {k}.npy", lambda f=folder / f"{k}.npy": read_descriptors(f)
    for k, data in enumerate([*odd, *(damaged(rng, table) for _ in range(6))]):
        (folder / f"{k}.parquet").write_bytes(data)
        yield f"descriptors {k}.parquet", lambda f=folder / f"{k}.parquet": read_descriptors(f)


# ------------------------------------------------------------------------ of run folders


def _runs(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    run = make(folder / "whole", [0, 1, None, 0])
    whole = {file.name: file.read_bytes() for file in run.path.glob("*.*")}
    for k in range(24):
        place = folder / f"runs{k}" / run.path.relative_to(folder / "whole")
        shutil.copytree(run.path, place)
        name = rng.choice(sorted(whole))
        if name == "run.json" and rng.random() < 0.8:
            info = changed(rng, json.loads(whole[name]))
            (place / name).write_text(json.dumps(info))
        else:
            (place / name).write_bytes(damaged(rng, whole[name]))
        words = ["--runs", str(folder / f"runs{k}")]
        view = rng.choice([[], ["--by", "attack"], ["--by", "kind"], ["--by", "band"]])
        yield f"leaderboard {name} {k}", lambda w=words, v=view: command("leaderboard", *w, *v)
        if k % 6 == 0:
            out = ["--output", str(folder / f"page{k}")]
            yield f"report {name} {k}", lambda w=words, o=out: command("report", *w, *o)
        if name.endswith(".parquet"):
            table = name.removesuffix(".parquet")
            good = read_table(run.path / name, table)
            yield f"table {name} {k}", lambda f=place / name, t=table, g=good: _same(f, t, g)


def _same(file: Path, name: str, good: pd.DataFrame) -> None:
    """A damaged table is refused, or what was damaged says nothing."""
    pd.testing.assert_frame_equal(read_table(file, name), good)


# --------------------------------------------------------------------------- of plug-ins


def _plugins(rng: random.Random, folder: Path) -> Iterator[tuple[str, Call]]:
    def use(file: Path) -> None:
        try:
            words = ["--plugin", str(file), "--detector", "plugged", "--task", "sd_webster"]
            command("run", *words, "--limit", "2", "--quiet", "--runs", str(folder / file.stem))
        finally:
            registry.detectors.cache_clear()

    bodies = [(method, f"return {value}") for method in GOOD for value in rng.sample(RETURNED, 3)]
    bodies += [(method, f"raise {what}") for method in GOOD for what in rng.sample(RAISED, 2)]
    bodies += [("plan", f"return [{request}]") for request in REQUESTS]
    for k, (method, body) in enumerate(bodies):
        file = folder / f"p{k}.py"
        file.write_text(PLUGIN.format(**GOOD | {method: body}))
        yield f"plug-in {method}: {body}", lambda f=file: use(f)
    for k in range(4):
        file = folder / f"damaged{k}.py"
        file.write_bytes(damaged(rng, PLUGIN.format(**GOOD).encode()))
        yield f"damaged plug-in {k}", lambda f=file: use(f)
