"""Names of detectors and tasks, known without importing them: ``list`` and ``--help`` must answer at once.

Built-ins and plug-ins come through the same entry-point groups, ``membench.detectors`` and ``membench.tasks``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from membench.errors import UserError, unknown_name

DETECTOR_NEEDS = ("Options", "version", "access", "plan", "extract", "score")


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _source(module: str) -> Path | None:
    """The source file of a module, found without importing it or any package above it; None if there is none."""
    spec, path = None, None
    for i in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:i])
        if name in sys.modules:  # membench itself, whose __path__ reaches into the checkout, and plug-in files
            spec, path = sys.modules[name].__spec__, getattr(sys.modules[name], "__path__", None)
        elif i > 1 and path is None:  # the module above is no package: without a path, finders would look in sys.path
            return None
        else:
            finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
            spec = next((found for find in finders if (found := find(name, path))), None)
            path = spec.submodule_search_locations if spec else None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _summary(source: Path, attribute: str) -> str:
    """First line of the class's docstring, else of its module's, read from the text: a module may hold several detectors."""
    tree = ast.parse(source.read_bytes())
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute)
    text = next(filter(None, map(ast.get_docstring, classes)), "") or ast.get_docstring(tree) or ""
    return text.partition("\n")[0]


@dataclass(frozen=True)
class Entry:
    """A name and where it leads. target: ``"module:Attr"``; origin: the file or the distribution that registers it.
    ran: SHA-256 of the plug-in file that was run; empty for what is imported by name."""

    name: str
    kind: str
    target: str
    origin: str
    ran: str = ""

    @functools.cached_property
    def code(self) -> str:
        """SHA-256 of the source file of a plug-in, as it was when it was loaded: an edited one gives other numbers under the same
        version. Empty for what ships with membench, whose version says so, and where there is no source file."""
        module = self.target.partition(":")[0]
        if self.ran or module.startswith("membench."):
            return self.ran
        source = _source(module)
        return hashlib.sha256(source.read_bytes()).hexdigest() if source else ""

    @functools.cached_property
    def summary(self) -> str:
        """One line from the source's docstring; nothing is imported, and a broken plug-in does not break the list."""
        module, _, attribute = self.target.partition(":")
        try:
            source = _source(module)
            return _summary(source, attribute) if source else f"(no source found for {module})"
        except Exception as error:
            return f"(unreadable, {_cause(error)})"

    def load(self) -> Any:
        """Imports the target. Raises UserError naming the origin and the cause if it cannot be had."""
        module, _, attribute = self.target.partition(":")
        try:
            _ = self.code  # before the import: of the file that is imported, whatever becomes of it later
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a plug-in raises; the traceback is kept as the cause
            raise UserError(f"{self.kind} {self.name!r} of {self.origin} ({self.target}) cannot be loaded: {_cause(error)}") from error


class Registry:
    """Names of one kind, ``"detector"`` or ``"task"``. Raises UserError if two places claim one name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for name, target, origin in _installed(f"membench.{kind}s"):
            self.add(name, target, origin)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Entry:
        """The entry. Raises UserError with suggestions if the name is unknown."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, f"membench list {self.kind}s")
        return self._entries[name]

    def load(self, name: str) -> Any:
        """The detector or task class itself; imports its module. Raises UserError if unknown or broken."""
        return self.get(name).load()

    def add(self, name: str, target: str, origin: str, ran: str = "") -> Entry:
        """Registers a name. The same target again is the same entry, unless its file has been edited and run anew; another target
        raises UserError naming both places."""
        new = Entry(name, self.kind, target, origin, ran)
        old = self._entries.setdefault(name, new)
        if old.target != target:
            places = " and ".join(f"{entry.origin} ({entry.target})" for entry in (old, new))
            raise UserError(f"two {self.kind}s are called {name!r}: {places}; rename one, or uninstall it")
        if old.ran != ran:
            self._entries[name] = new
        return self._entries[name]


@functools.cache
def detectors() -> Registry:
    """The detectors: built in, installed, and loaded by ``--plugin``."""
    return Registry("detector")


@functools.cache
def tasks() -> Registry:
    """The tasks: built in and installed."""
    return Registry("task")


def _installed(group: str) -> Iterator[tuple[str, str, str]]:
    """(name, target, origin) of each entry point. In a checkout its pyproject.toml speaks for membench, installed or not."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    declared = _checkout(pyproject)
    for point in sorted(importlib.metadata.entry_points(group=group)):
        owner = point.dist.name if point.dist else "an unnamed distribution"
        if declared is None or owner != "membench":
            yield point.name, point.value, f"distribution {owner}"
    for name, target in (declared or {}).get(group, {}).items():
        yield name, target, str(pyproject)


def _checkout(pyproject: Path) -> dict[str, dict[str, str]] | None:
    """The entry points of membench's own pyproject.toml; None if membench runs from an installed wheel."""
    if not pyproject.is_file():
        return None
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    return project.get("entry-points", {}) if project.get("name") == "membench" else None


def load_plugin(path: str | Path) -> list[Entry]:
    """Runs a Python file and registers each detector class that it defines, under its ``name`` or in snake case.

    A detector has Options, version, access, plan, extract and score; classes that begin with ``_`` are left out.
    Raises UserError if the file is missing, fails, holds no detector or claims a name that is taken.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UserError(f"no plug-in file {path}; --plugin takes the path of a Python file")
    module, ran = _execute(file)
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__ and not c.__name__.startswith("_")]
    found = [c for c in own if all(hasattr(c, need) for need in DETECTOR_NEEDS)]
    if not found:
        near = max(own, key=lambda c: sum(hasattr(c, need) for need in DETECTOR_NEEDS), default=None)
        lacks = f" ({near.__name__} lacks {', '.join(n for n in DETECTOR_NEEDS if not hasattr(near, n))})" if near else ""
        raise UserError(f"plug-in {path} holds no detector: a class with {', '.join(DETECTOR_NEEDS)}{lacks}")
    entries = []
    for cls in found:
        name, target = getattr(cls, "name", _snake(cls.__name__)), f"{module.__name__}:{cls.__name__}"
        entries.append(detectors().add(name, target, f"{file}:{_line(file, cls)}", ran))
    return entries


def _execute(file: Path) -> tuple[ModuleType, str]:
    """The module of a file, and the SHA-256 of the very bytes that were run: no bytecode of an earlier version is."""
    name = f"membench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or not isinstance(spec.loader, SourceLoader):
        raise UserError(f"plug-in {file} is no Python file; --plugin takes a path that ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up while it runs
    try:
        source = file.read_bytes()
        exec(spec.loader.source_to_code(source, str(file)), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plug-in {file} fails on import: {_cause(error)}") from error
    return module, hashlib.sha256(source).hexdigest()


def _line(file: Path, cls: type) -> int:
    tree = ast.parse(file.read_bytes())
    return next((node.lineno for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__), 1)


def _snake(name: str) -> str:
    """``"CfgNorm"`` -> ``"cfg_norm"``, ``"SIDENorm2"`` -> ``"side_norm2"``."""
    starts = [i for i, c in enumerate(name) if c.isupper() and i and (not name[i - 1].isupper() or name[i + 1 : i + 2].islower())]
    return "_".join(name[a:b] for a, b in zip([0, *starts], [*starts, len(name)], strict=True)).lower()
