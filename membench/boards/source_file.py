"""The file of somebody's detector: read, hashed and parsed, never run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from membench.errors import UserError

LARGEST = 1_000_000  # bytes


def read_source(path: Path) -> bytes:
    """The bytes of a Python file that stands alone.

    Raises :class:`UserError` where it cannot be read, is no Python, or imports another
    file beside it: that one is not part of a run's key.
    """
    if not path.is_file():
        raise UserError(f"--source {path}: there is no such file")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"--source {path} has more than {LARGEST:,} bytes, so it is no source")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"--source {path} cannot be read: {error.strerror}") from None
    if beside := next(_beside(parsed(text, path), path.parent), ""):
        raise UserError(
            f"--source {path} imports {beside} from its own folder, which is no part of the run's"
            " key; put all of the detector into one file, and make the run again"
        )
    return text


def parsed(text: bytes, path: Path) -> ast.Module:
    """The file as a tree. Raises :class:`UserError` for what is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--source {path} is no Python: {error}") from None


def docstring(text: bytes) -> str:
    """The docstring of a module, else of its first class that has one; or nothing."""
    tree = ast.parse(text)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = [ast.get_docstring(tree), *(ast.get_docstring(node) for node in classes)]
    return next(filter(None, found), "")


def _beside(tree: ast.Module, folder: Path) -> Iterator[str]:
    """Modules of the same folder that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for top in (name.partition(".")[0] for name in names):
            own = (folder / f"{top}.py", folder / top / "__init__.py")
            if top not in sys.stdlib_module_names and any(file.is_file() for file in own):
                yield top
