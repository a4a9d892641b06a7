"""A model that was given as an object: stored as a folder, once, so that a run reads
and hashes it like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.storage.cache import cache_root
from membench.storage.cached_folders import cached_folder
from membench.storage.hashing import json_hash, tensor_hash

# Classes, by name, whose folders the tasks read
KNOWN = ("StableDiffusionPipeline", "DDPMPipeline", "DDIMPipeline", "UNet2DModel")


def folder_of(model: Any) -> Path:
    """The folder of a diffusers pipeline or ``UNet2DModel``, under
    ``$MEMBENCH_CACHE/given``, named by a hash of its weights and configuration.

    It takes the room of the weights. Raises :class:`UserError` for an object of another
    class.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    if not set(names) & set(KNOWN):
        raise UserError(
            f"model is a {names[0]}, which no task reads: give a folder, a hub id, or a"
            f" {', '.join(KNOWN[:-1])} or {KNOWN[-1]}"
        )
    folder = cache_root() / "given" / f"{names[0]}-{_hash(model)[:16]}"
    return cached_folder(
        folder, lambda aside: model.save_pretrained(aside, safe_serialization=True)
    )


def _hash(model: Any) -> str:
    """Of weights and configuration; where it was loaded from, or stored, is left out."""
    found: dict[str, Any] = {"model": _config(model)}
    for name, part in getattr(model, "components", {"network": model}).items():
        weights = tensor_hash(part) if hasattr(part, "state_dict") else ""
        found[name] = [weights, _config(part)]
    return json_hash(found)


def _config(part: Any) -> str:
    config = getattr(part, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return str(sorted((k, str(v)) for k, v in values.items() if not k.startswith("_")))
