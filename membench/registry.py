"""Names of detectors and tasks, known without importing them: ``list`` and ``--help``
must answer at once.

Built-ins and plug-ins come through the same entry-point groups, ``membench.detectors``
and ``membench.tasks``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membench import detector, task
from membench.errors import UserError, told, unknown_name, unknown_profile
from membench.options import check_options, check_values
from membench.source_text import docstring_of, source_file, statements_hash, typed_source

NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
CONTRACTS = {"detector": detector, "task": task}  # each has ``missing`` and ``adopted``


def adopted(kind: str, cls: Any) -> tuple[str, Any]:
    """The name of a class, and the class with all that a detector or task has.

    Raises TypeError, in one line, for one that breaks a rule of its kind, or whose name
    or options cannot be used.
    """
    found = CONTRACTS[kind].adopted(cls)
    name = found.info.name if kind == "task" else vars(cls).get("name", _snake(cls.__name__))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise TypeError(
            f"{cls.__name__} is called {str(name)[:60]!r}; a name is letters, digits and _"
        )
    if name == "all":
        raise TypeError(f"{cls.__name__} is called 'all', which means every {kind}; rename it")
    check_options(found.Options, cls.__name__)
    if kind == "detector":
        _check_sets(found)
    return name, found


def _check_sets(cls: type[detector.Detector]) -> None:
    """Raises TypeError for presets, or values to tune over, that its options cannot have."""
    for what in ("presets", "tuning"):
        if not isinstance(getattr(cls, what), Mapping):
            raise TypeError(f"{cls.__name__}.{what} is no mapping")
    for preset, values in cls.presets.items():
        check_values(cls.Options, values, f"preset {preset} of {cls.__name__}")
    for examples, grid in cls.tuning.items():
        named = f"{cls.__name__}.tuning[{examples!r}]"
        if not isinstance(grid, Mapping) or not all(isinstance(v, Sequence) for v in grid.values()):
            raise TypeError(f"{named} is no mapping of options to lists of values")
        for option, tried in grid.items():
            for value in tried:
                check_values(cls.Options, {option: value}, named)


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
        source = source_file(module)
        return hashlib.sha256(source.read_bytes()).hexdigest() if source else ""

    @functools.cached_property
    def source(self) -> str:
        """SHA-256 of the statements of the module's file, whatever its comments,
        docstrings and layout; empty where there is no source file.
        """
        source = source_file(self.target.partition(":")[0])
        return statements_hash(source.read_bytes()) if source else ""

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
            source = source_file(module)
            return docstring_of(source, attribute) if source else f"(no source found for {module})"
        except Exception as error:
            return f"(unreadable, {told(error)})"

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
            return adopted(self.kind, found)[1]
        # Whatever a plug-in raises; the traceback is kept as the cause
        except BaseException as error:
            if type(error) is KeyboardInterrupt:  # the user's Ctrl-C
                raise
            raise UserError(
                f"{self.kind} {self.name!r} of {self.origin} ({self.target}) cannot be loaded:"
                f" {told(error)}"
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
            hint = f"membench list {self.kind}s; {of_ones_own(self)}"
            raise unknown_name(self.kind, name, self._entries, hint)
        return self._entries[name]

    def own(self) -> list[str]:
        """The names that a file or a class of the user's has, in the order of loading."""
        return [name for name, entry in self._entries.items() if entry.ran]

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
            name, _ = adopted(self.kind, cls)
        except TypeError as error:
            raise UserError(f"{self.kind} class {error}. See CONTRIBUTING.md") from error
        old = self._entries.get(name)
        if old is not None and old.target != target:
            raise UserError(
                f"a {self.kind} is called {name!r} already ({old.origin}); give {cls.__name__}"
                " another name"
            )
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        # Bytes, as of a plug-in: a source may be in another encoding than UTF-8
        if file and Path(file).is_file():
            source = Path(file).read_bytes()
        else:
            source = typed_source(cls).encode()
        if not source:
            raise UserError(
                f"the source of {cls.__name__} cannot be read, and is part of a run's key: put it"
                " into a file"
            )
        ran = hashlib.sha256(source).hexdigest()
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


@functools.cache
def detectors() -> Registry:
    """The detectors: built in, installed, and loaded by ``--plugin``."""
    return Registry("detector")


@functools.cache
def tasks() -> Registry:
    """The tasks: built in, installed, and loaded by ``--plugin``."""
    return Registry("task")


def task_of(name: str, profile: str) -> Any:
    """The class of a task. Raises :class:`UserError` for a wrong name, and for a profile
    that it has not.
    """
    found = tasks().load(name)
    if profile not in found.info.profiles:
        raise unknown_profile(profile, name, found.info.profiles)
    return found


def of_ones_own(*known: Registry) -> str:
    """For an unknown name: what ``--plugin`` has loaded, or that it does."""
    names = [name for one in known for name in one.own()]
    if not names:
        return "--plugin FILE.py loads one of your own"
    return f"of your own there is {', '.join(names)}"


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
