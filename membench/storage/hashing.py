"""Content hashes: of tensors, files and JSON values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


def json_hash(value: Any) -> str:
    """SHA-256 of canonical JSON (sorted keys, no spaces), which may hold half surrogate
    pairs: names of files that are not UTF-8 have them.

    Raises TypeError for what JSON cannot hold.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def table_hash(table: pa.Table) -> str:
    """SHA-256 of the names and cells of a table of plain values, in their order."""
    cells = [[name, list(map(repr, table[name].to_pylist()))] for name in table.column_names]
    return json_hash(cells)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def files_hashes(folder: Path, of: Callable[[Path], str] = file_hash) -> dict[str, str]:
    """The hash of each file below a folder, by its name in it; hidden files are left out."""
    return {
        file.relative_to(folder).as_posix(): of(file)
        for file in sorted(folder.rglob("[!.]*"))
        if file.is_file()
    }


def tensor_hash(tensors: Mapping[str, torch.Tensor] | torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    import torch

    if isinstance(tensors, torch.nn.Module):
        tensors = tensors.state_dict()
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        h.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        h.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


KEY_VERSION = 1


def content_key(parts: Mapping[str, Any]) -> str:
    """16 hex digits of SHA-256 over canonical JSON. parts: all that changes the output,
    and nothing else.

    Raises TypeError for what JSON cannot hold, ValueError for NaN.
    """
    return json_hash({"key_version": KEY_VERSION, **parts})[:16]
