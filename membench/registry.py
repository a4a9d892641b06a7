"""Names of detectors and tasks, known without importing them: ``list`` and ``--help``
must answer at once.

Built-ins and plug-ins come through the same entry-point groups, ``membench.detectors``
and ``membench.tasks``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import linecache
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from membench import detector, task
from membench.errors import UserError, unknown_name
from membench.options import check_options

NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
CONTRACTS = {"detector": detector, "task": task}  # each has ``missing`` and ``adopted``


def _adopted(kind: str, cls: Any) -> Any:
    """The class with all that a detector or task has. Raises TypeError, in one line, for
    one that breaks a rule of its kind, or whose name or options cannot be used.
    """
    found = CONTRACTS[kind].adopted(cls)
    name = found.info.name if kind == "task" else vars(cls).get("name", _snake(cls.__name__))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise TypeError(
            f"{cls.__name__} is called {str(name)[:60]!r}; a name is letters, digits and _"
        )
    check_options(found.Options, cls.__name__)
    return found


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _source(module: str) -> Path | None:
    """The source file of a module, found without importing it or any package above it;
    None if there is none.
    """
    spec, path = None, None
    for i in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:i])
        # Membench itself, whose __path__ reaches into the checkout, and plug-in files
        if name in sys.modules:
            spec, path = sys.modules[name].__spec__, getattr(sys.modules[name], "__path__", None)
        # The module above is not a package: without a path, finders would look in
        # sys.path
        elif i > 1 and path is None:
            return None
        else:
            finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
            spec = next((found for find in finders if (found := find(name, path))), None)
            path = spec.submodule_search_locations if spec else None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _statements(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:]  # type: ignore[attr-defined, index]  # it has one
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _docstring(source: Path, attribute: str) -> str:
    """The class's docstring, then its module's, read from the text: a module may hold
    several detectors.
    """
    tree = ast.parse(source.read_bytes())
    classes = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute
    )
    found = [*map(ast.get_docstring, classes), ast.get_docstring(tree)]
    return "\n\n".join(filter(None, found))


@dataclass(frozen=True)
class Entry:
    """A name and where it leads. target: ``"module:Attr"``; origin: the file or the
    distribution that registers it. ran: SHA-256 of the plug-in file that was run; empty
    for what is imported by name.
    """

    name: str
    kind: str
    target: str
    origin: str
    ran: str = ""
    # A class that was given, not named: it need not be importable
    given: Any = None

    @functools.cached_property
    def code(self) -> str:
        """SHA-256 of the source file of a plug-in, as it was when it was loaded: an
        edited one gives other numbers under the same version. Empty for what ships with
        membench, whose version says so, and where there is no source file.
        """
        module = self.target.partition(":")[0]
        if self.ran or module.startswith("membench."):
            return self.ran
        source = _source(module)
        return hashlib.sha256(source.read_bytes()).hexdigest() if source else ""

    @functools.cached_property
    def source(self) -> str:
        """SHA-256 of the statements of the module's file, whatever its comments,
        docstrings and layout; empty where there is no source file.
        """
        source = _source(self.target.partition(":")[0])
        return _statements(source.read_bytes()) if source else ""

    @functools.cached_property
    def summary(self) -> str:
        """One line: the first paragraph of the docstring."""
        return " ".join(self.docstring.partition("\n\n")[0].split())

    @functools.cached_property
    def docstring(self) -> str:
        """Of the source; nothing is imported, and a broken plug-in does not break the
        list.
        """
        module, _, attribute = self.target.partition(":")
        try:
            source = _source(module)
            return _docstring(source, attribute) if source else f"(no source found for {module})"
        except Exception as error:
            return f"(unreadable, {_cause(error)})"

    def load(self) -> Any:
        """Imports the target: a class with all that a detector or task has
        (``adopted``).

        Raises UserError naming the origin and the cause if it cannot be had.
        """
        module, _, attribute = self.target.partition(":")
        try:
            # Before the import: of the file that is imported, whatever becomes of it
            # later
            _ = self.code
            found = self.given or getattr(importlib.import_module(module), attribute)
            return _adopted(self.kind, found)
        # Whatever a plug-in raises; the traceback is kept as the cause
        except BaseException as error:
            if type(error) is KeyboardInterrupt:  # the user's Ctrl-C
                raise
            raise UserError(
                f"{self.kind} {self.name!r} of {self.origin} ({self.target}) cannot be loaded:"
                f" {_cause(error)}"
            ) from error


class Registry:
    """Names of one kind, ``"detector"`` or ``"task"``.

    Raises UserError if two places claim one name.
    """

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
        """The detector or task class itself; imports its module.

        Raises UserError if unknown or broken.
        """
        return self.get(name).load()

    def of(self, cls: type) -> str:
        """The name of a class, registered under it: the entry's that leads to it, else
        its ``name`` (of a task its ``info.name``) or its own in snake case.

        What hash its code has is as of a plug-in file; of a class that was typed into a
        notebook its own cell counts, so helpers in other cells ask for a new
        ``version``. Raises UserError, in one line, for a class that is no detector or
        task, whose name is taken, or whose source cannot be read.
        """
        target = f"{cls.__module__}:{cls.__qualname__}"
        for entry in self._entries.values():
            if entry.target == target and entry.given in (None, cls):
                return entry.name
        try:
            adopted = _adopted(self.kind, cls)
        except TypeError as error:
            raise UserError(f"{self.kind} class {error}. See CONTRIBUTING.md") from error
        if self.kind == "task":
            name = adopted.info.name
        else:
            name = vars(cls).get("name", _snake(cls.__name__))
        old = self._entries.get(name)
        if old is not None and old.target != target:
            raise UserError(
                f"a {self.kind} is called {name!r} already ({old.origin}); give {cls.__name__}"
                " another name"
            )
        file = sys.modules[cls.__module__].__dict__.get("__file__")
        if file and Path(file).is_file():
            source = Path(file).read_text(encoding="utf-8")
        else:
            source = _typed(cls)
        if not source:
            raise UserError(
                f"the source of {cls.__name__} cannot be read, and is part of a run's key: put it"
                " into a file"
            )
        ran = hashlib.sha256(source.encode()).hexdigest()
        origin = f"class {cls.__qualname__} of {file or cls.__module__}"
        self._entries[name] = Entry(name, self.kind, target, origin, ran, cls)
        return name

    def add(self, name: str, target: str, origin: str, ran: str = "") -> Entry:
        """Registers a name.

        The same target again is the same entry, unless its file has been edited and run
        anew; another target raises UserError naming both places.
        """
        new = Entry(name, self.kind, target, origin, ran)
        old = self._entries.setdefault(name, new)
        if old.target != target:
            places = " and ".join(f"{entry.origin} ({entry.target})" for entry in (old, new))
            raise UserError(
                f"two {self.kind}s are called {name!r}: {places}; rename one, or uninstall it"
            )
        if old.ran != ran:
            self._entries[name] = new
        return self._entries[name]


def _typed(cls: type) -> str:
    """The cells of a notebook, or of a prompt, that define the methods of a class; empty
    where it has none, or they were not kept.

    ``inspect.getsource`` takes a class by its module's file, which cells have not.
    """
    own = [f.__code__ for f in vars(cls).values() if inspect.isfunction(f)]
    return "".join(sorted({"".join(linecache.getlines(code.co_filename)) for code in own}))


@functools.cache
def detectors() -> Registry:
    """The detectors: built in, installed, and loaded by ``--plugin``."""
    return Registry("detector")


@functools.cache
def tasks() -> Registry:
    """The tasks: built in, installed, and loaded by ``--plugin``."""
    return Registry("task")


def _installed(group: str) -> Iterator[tuple[str, str, str]]:
    """(name, target, origin) of each entry point.

    In a checkout its pyproject.toml speaks for membench, installed or not.
    """
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    declared = _checkout(pyproject)
    points = sorted(importlib.metadata.entry_points(group=group))
    # A name is read from a file each time, and one distribution has many entry points
    names = {dist: dist.name for dist in {point.dist for point in points} if dist}
    for point in points:
        owner = names[point.dist] if point.dist else "an unnamed distribution"
        if declared is None or owner != "membench":
            yield point.name, point.value, f"distribution {owner}"
    for name, target in (declared or {}).get(group, {}).items():
        yield name, target, str(pyproject)


def _checkout(pyproject: Path) -> dict[str, dict[str, str]] | None:
    """The entry points of membench's own pyproject.toml; None if membench runs from an
    installed wheel.
    """
    if not pyproject.is_file():
        return None
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    return project.get("entry-points", {}) if project.get("name") == "membench" else None


def load_plugin(path: str | Path) -> list[Entry]:
    """Runs a Python file and registers each detector and task class that it defines.

    A detector has Options, version and score, and is called by its ``name`` or in snake
    case; a task has info and load, and is called by ``info.name``. Classes that begin
    with ``_`` are left out. Raises UserError if the file is missing, fails, holds
    neither, breaks the contract of one or claims a name that is taken.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UserError(f"no plug-in file {path}; --plugin takes the path of a Python file")
    module, ran = _execute(file)
    own = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and c.__module__ == module.__name__ and not c.__name__.startswith("_")
    ]
    found = [
        (kind, c) for c in own for kind, contract in CONTRACTS.items() if not contract.missing(c)
    ]
    if not found:
        raise UserError(f"plug-in {path} holds no detector and no task: {_nearest(own)}")
    entries = []
    for kind, cls in found:
        try:
            adopted = _adopted(kind, cls)
        except TypeError as error:
            raise UserError(f"plug-in {path}: {error}") from error
        name = adopted.info.name if kind == "task" else vars(cls).get("name", _snake(cls.__name__))
        known = tasks() if kind == "task" else detectors()
        entries.append(
            known.add(name, f"{module.__name__}:{cls.__name__}", f"{file}:{_line(file, cls)}", ran)
        )
    return entries


def _nearest(classes: list[type]) -> str:
    """What the classes of a file lack of a detector or a task, of the one that lacks
    least.
    """
    needs = "a detector is a class with Options, version and score, a task one with info and load"
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
        source = file.read_bytes()
        exec(spec.loader.source_to_code(source, str(file)), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if type(error) is KeyboardInterrupt:  # the user's Ctrl-C, no class of the plug-in's
            raise
        raise UserError(f"plug-in {file} fails on import: {_cause(error)}") from error
    return module, hashlib.sha256(source).hexdigest()


def _line(file: Path, cls: type) -> int:
    tree = ast.parse(file.read_bytes())
    return next(
        (
            node.lineno
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__
        ),
        1,
    )


def _snake(name: str) -> str:
    """``"CfgNorm"`` -> ``"cfg_norm"``, ``"SIDENorm2"`` -> ``"side_norm2"``."""
    starts = [
        i
        for i, c in enumerate(name)
        if c.isupper() and i and (not name[i - 1].isupper() or name[i + 1 : i + 2].islower())
    ]
    return "_".join(
        name[a:b] for a, b in zip([0, *starts], [*starts, len(name)], strict=True)
    ).lower()
