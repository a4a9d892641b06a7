"""Reads a user's prompts: CSV with a ``prompt`` column, or text with one prompt a line."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from membench.errors import UserError
from membench.types import Condition, Example

COLUMNS = ("label", "kind", "group", "source")
UNLABELLED = -1


def example_id(prompt: str) -> str:
    """16 hex digits of SHA-256: the same prompt has the same id, and so the same noise, in every file."""
    return hashlib.sha256(f"prompt\x1f{prompt}".encode()).hexdigest()[:16]


def read_prompts(path: Path) -> list[Example]:
    """Examples of a prompts file. CSV columns: ``prompt`` and, if known, ``label`` (1 memorized, 0 not), ``kind``,
    ``group``, ``source``. A row without a label is extracted from and scored, but takes no part in detection metrics.

    Raises :class:`UserError` for a missing, empty or non-UTF-8 file, a missing column, an empty or repeated prompt.
    """
    if not path.is_file():
        raise UserError(f"prompts file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise UserError(f"{path} is empty; it needs one prompt a line, or a CSV with a column 'prompt'")
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines())
        if "prompt" not in (reader.fieldnames or []):
            raise UserError(f"{path} has no column 'prompt'; it has {', '.join(map(repr, reader.fieldnames or []))}")
        rows = [(reader.line_num, row) for row in reader]
    else:
        rows = [(i, {"prompt": line}) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise UserError(f"{path} has a header and no prompt")
    seen: dict[str, int] = {}
    examples = []
    for line, row in rows:
        prompt = (row["prompt"] or "").strip()
        if not prompt:
            raise UserError(f"{path}, line {line}: the prompt is empty")
        if prompt in seen:
            raise UserError(f"{path}, line {line}: the prompt of line {seen[prompt]} again; remove one ({prompt[:60]!r})")
        seen[prompt] = line
        label = (row.get("label") or "").strip()
        if label not in ("", "0", "1"):
            raise UserError(f"{path}, line {line}: label {label!r}; write 1 (memorized), 0 (not) or nothing")
        value = int(label) if label else UNLABELLED
        kind = row.get("kind") or {1: "memorized", 0: "N", UNLABELLED: "unlabelled"}[value]
        condition = Condition(example_id(prompt), prompt)
        examples.append(Example(condition, value, kind, row.get("group") or condition.id, row.get("source") or path.name))
    return examples
