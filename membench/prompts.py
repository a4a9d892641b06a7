"""Reads a user's prompts: CSV with a ``prompt`` column, or text with one prompt a line."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
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
    ``group``, ``source``. A row without a label is extracted from and scored, but takes no part in detection metrics. Rows without
    a group are grouped with one another, by near-duplicate text and label (:func:`membench.groups.text_groups`, ``by_label``).

    Raises :class:`UserError` for a missing, empty or non-UTF-8 file, a missing column, an empty or repeated prompt, and a group that holds
    both labels, which intervals cannot resample.
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
    examples: list[Example] = []
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
        examples.append(Example(condition, value, kind, row.get("group") or "", row.get("source") or path.name))
    labels: dict[str, int] = {}
    for example in (e for e in examples if e.group and e.label != UNLABELLED):
        if labels.setdefault(example.group, example.label) != example.label:
            raise UserError(
                f"{path}: group {example.group!r} holds memorized and other prompts; give those of each label a group of their own"
            )
    return _grouped(examples)


def _grouped(examples: list[Example]) -> list[Example]:
    """The examples, in their order, those without a group in one by text and label."""
    alone = [i for i, example in enumerate(examples) if not example.group]
    if not alone:
        return examples
    from membench.groups import by_label, text_groups  # imports scikit-learn and pandas

    texts = [examples[i].condition.prompt or "" for i in alone]
    groups = by_label(text_groups(texts), [examples[i].label for i in alone])
    found = dict(zip(alone, groups, strict=True))
    return [replace(example, group=found.get(i, example.group)) for i, example in enumerate(examples)]
