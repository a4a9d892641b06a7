"""What a pipeline's folder in diffusers' layout holds, before any weight is loaded:
which weight files, how large its images are, which hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.models.changes import NONE, Changes, part_hashes, read_part
from membench.models.loading import config_hash, halvings, read_config
from membench.models.part_files import refuse_absent_variant
from membench.models.pipeline_kinds import XL, check_kind
from membench.storage.cache import remembered_hash
from membench.storage.hashing import json_hash


def image_size(folder: Path, changes: Changes = NONE) -> tuple[int, int]:
    """Height and width in pixels of what the model generates: the U-Net's
    ``sample_size`` times 2 for every halving of the VAE.
    """
    height, width = latent_size(read_part(folder, "unet", changes)["sample_size"])
    factor = halvings(read_part(folder, "vae"))
    return height * factor, width * factor


def latent_size(sample_size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """A U-Net's ``sample_size``, one number or two, as height and width."""
    return (
        (sample_size, sample_size)
        if isinstance(sample_size, int)
        else (int(sample_size[0]), int(sample_size[1]))
    )


def weight_files(folder: Path, changes: Changes = NONE) -> list[Path]:
    """The weight files of all parts.

    Raises :class:`UserError` as :func:`check_kind` and
    :func:`membench.models.part_files.part_weights`, and for a variant that no part has.
    """
    found = [changes.weights(folder, part) for part in check_kind(folder, changes).parts]
    refuse_absent_variant(folder, changes.variant, found)
    return [file for weights in found for file in weights.files]


def folder_hash(folder: Path, changes: Changes = NONE) -> str:
    """SHA-256 over weights, configurations and changes: what decides a prediction,
    whatever the folder's name. Hidden files do not count.

    Raises :class:`UserError` for whatever :func:`weight_files` refuses.
    """
    weight_files(folder, changes)
    kind = check_kind(folder, changes)
    hashes: dict[str, Any] = {}
    for part in kind.parts:
        hashes |= part_hashes(folder, part, changes)
    for name in kind.tokenizers:
        for file in sorted((folder / name).glob("[!.]*.*")):
            hashes[f"{name}/{file.name}"] = (
                config_hash(file) if file.name == "config.json" else remembered_hash(file)
            )
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.is_file():
        hashes["scheduler/scheduler_config.json"] = remembered_hash(scheduler)
    if kind is XL:
        hashes["force_zeros_for_empty_prompt"] = zero_null(folder)
    return json_hash(hashes | changes.record())


def zero_null(folder: Path) -> bool:
    """Whether Stable Diffusion XL's null condition is zeros, and not the embedding of
    the empty prompt: ``force_zeros_for_empty_prompt`` of model_index.json, else
    diffusers' default.
    """
    file = folder / "model_index.json"
    given = read_config(file).get("force_zeros_for_empty_prompt", True) if file.is_file() else True
    if not isinstance(given, bool):
        raise UserError(f"{file}: force_zeros_for_empty_prompt is {given!r}; get the model again")
    return given
