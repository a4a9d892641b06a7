"""The source of modules and classes, read as text: nothing is imported for it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import sys
from pathlib import Path


def source_file(module: str) -> Path | None:
    """The source file of a module, found without importing it or any package above it;
    None if there is none.
    """
    spec, path = None, None
    for i in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:i])
        # Membench itself, and plug-in files
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


def statements_hash(source: bytes) -> str:
    """SHA-256 of a file's statements, whatever its comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:]  # type: ignore[attr-defined, index]  # it has one
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def docstring_of(source: Path, attribute: str) -> str:
    """The class's docstring, then its module's, read from the text: a module may hold
    several detectors.
    """
    tree = ast.parse(source.read_bytes())
    classes = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute
    )
    found = [*map(ast.get_docstring, classes), ast.get_docstring(tree)]
    return "\n\n".join(filter(None, found))


def typed_source(cls: type) -> str:
    """The cells of a notebook, or of a prompt, that define the methods of a class; empty
    where it has none, or they were not kept.

    ``inspect.getsource`` takes a class by its module's file, which cells have not.
    """
    own = [f.__code__ for f in vars(cls).values() if inspect.isfunction(f)]
    return "".join(sorted({"".join(linecache.getlines(code.co_filename)) for code in own}))


def line_of(file: Path, cls: type) -> int:
    """The line of a class's statement in its file, from 1; 1 where it has none."""
    tree = ast.parse(file.read_bytes())
    return next(
        (
            node.lineno
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__
        ),
        1,
    )
