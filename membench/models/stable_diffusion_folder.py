"""What a pipeline's folder in diffusers' layout holds, before any weight is loaded:
which weight files, how large its images are, which hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    """Height and width in pixels of what the model generates: those of its latents
    times 2 for every halving of the VAE.
    """
    height, width = latent_size(read_part(folder, "unet", changes))
    factor = halvings(read_part(folder, "vae"))
    return height * factor, width * factor


def latent_size(unet: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the latents of a U-Net of this configuration: its
    ``sample_size``, one number or two.

    One below 64 that diffusers before 0.9 wrote stands for 64: those releases ignored
    it, fine-tuned models of 512 pixels say 32, and StableDiffusionPipeline corrects
    them alike. That of Stable Diffusion XL, which is younger, corrects nothing.
    """
    size = unet["sample_size"]
    if not isinstance(size, int):
        return int(size[0]), int(size[1])
    corrected = unet.get("addition_embed_type") is None and size < 64
    if corrected and _before_0_9(unet.get("_diffusers_version")):
        return 64, 64
    return size, size


def _before_0_9(release: object) -> bool:
    number = re.match(r"(\d+)\.(\d+)", str(release))
    return number is not None and (int(number[1]), int(number[2])) < (0, 9)


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
