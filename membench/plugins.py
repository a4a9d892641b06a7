"""Plug-in files: run, and what they define registered."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from membench import detector, registry
from membench.errors import UserError, told
from membench.source_text import line_of


def load_plugin(path: str | Path) -> list[registry.Entry]:
    """Runs a Python file and registers each detector and task class that it defines.

    A detector has Options, version and score, and is called by its ``name`` or in snake
    case; a task has info and load, and is called by ``info.name``. Classes that begin
    with ``_`` are left out. Raises UserError if the file is missing, fails, holds
    neither, breaks the contract of one or claims a name that is taken.
    """
    if not Path(path).is_file():  # nor is what no file can be called, or a loop of links
        raise UserError(f"no plug-in file {path}; --plugin takes the path of a Python file")
    file = Path(path).resolve()
    module, ran = _execute(file)
    own = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and c.__module__ == module.__name__ and not c.__name__.startswith("_")
    ]
    found = [
        (kind, c)
        for c in own
        for kind, contract in registry.CONTRACTS.items()
        if not contract.missing(c)
    ]
    if not found:
        raise UserError(f"plug-in {path} holds no detector and no task: {_nearest(own)}")
    entries = []
    for kind, cls in found:
        try:
            name, _ = registry.adopted(kind, cls)
        except TypeError as error:
            raise UserError(f"plug-in {path}: {error}") from error
        known = registry.tasks() if kind == "task" else registry.detectors()
        entries.append(
            known.add(
                name, f"{module.__name__}:{cls.__name__}", f"{file}:{line_of(file, cls)}", ran
            )
        )
    return entries


@contextmanager
def staying() -> Iterator[None]:
    """``os._exit`` raises SystemExit: a plug-in that ends the process would otherwise end
    it as if all were done, or leave a run half made without a word. Its own child
    processes end by it as they should.
    """
    end, process = os._exit, os.getpid()

    def refuse(status: int = 0) -> NoReturn:
        if os.getpid() != process:
            end(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end


def settings() -> dict[str, str]:
    """Settings of torch's that decide what the rest of the process computes; empty where
    it is not imported.
    """
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "get_default_device"):  # nor while it is being imported
        return {}
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "grad mode": str(torch.is_grad_enabled()),
        "inference mode": str(torch.is_inference_mode_enabled()),
        "autocast": str(torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


def changed(before: dict[str, str]) -> str:
    """What is no longer as ``settings`` had it, in words; empty for nothing."""
    now = settings()
    found = next((name for name in before if now[name] != before[name]), None)
    return f"torch's {found} at {now[found]} (it was {before[found]})" if found else ""


def _nearest(classes: list[type]) -> str:
    """What the classes of a file lack of a detector or a task, of the one that lacks
    least.
    """
    needs = "a detector is a class with version and score, a task one with info and load"
    own = [
        (len(lacks), f"{c.__name__} lacks {', '.join(lacks)}")
        for c in classes
        if (lacks := detector.missing(c))
    ]
    return f"{needs} ({min(own)[1]})" if own else needs


def _execute(file: Path) -> tuple[ModuleType, str]:
    """The module of a file, and the SHA-256 of the very bytes that were run: no
    bytecode of an earlier version is.
    """
    name = f"membench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or not isinstance(spec.loader, SourceLoader):
        raise UserError(
            f"plug-in {file} is not a Python file; --plugin takes a path that ends in .py"
        )
    # Dataclasses look their module up while it runs
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        source, before = file.read_bytes(), settings()
        with staying():
            exec(spec.loader.source_to_code(source, str(file)), vars(module))
        if left := changed(before):
            raise UserError(f"it leaves {left}, for all that comes after it; restore it")
    except BaseException as error:
        del sys.modules[name]
        if type(error) is KeyboardInterrupt:  # the user's Ctrl-C, no class of the plug-in's
            raise
        raise UserError(f"plug-in {file} fails on import: {told(error)}") from error
    return module, hashlib.sha256(source).hexdigest()
