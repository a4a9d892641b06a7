"""Loads a text-to-image model in Stable Diffusion's folder layout, safetensors only, each part when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from membench.config_fields import check_types
from membench.errors import UserError
from membench.loading import first_line, load_network
from membench.pipeline_files import (
    config_hash,
    folder_hash,
    image_size,
    part_config,
    part_weights,
    weight_files,
)
from membench.proof import prove_vae
from membench.scheduler_config import read_scheduler
from membench.tokenizer_files import load_tokenizer
from membench.weight_files import check_header, check_tensors

__all__ = [
    "DTYPES",
    "TextToImage",
    "check_device",
    "config_hash",
    "folder_hash",
    "layout",
    "load_text_to_image",
    "weight_files",
]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class TextToImage:
    """The parts that a :class:`~membench.latent_denoiser.LatentDenoiser` needs. size: height and width in pixels of what it draws."""

    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    load_vae: Callable[[], Any]
    size: tuple[int, int]

    @cached_property
    def vae(self) -> Any:
        """Loaded when it is first asked for: a detector that neither decodes nor encodes does without. Raises :class:`UserError`."""
        return self.load_vae()


def load_text_to_image(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> TextToImage:
    """Loads U-Net, text encoder and tokenizer, and a DDIM scheduler made from the model's own configuration; the VAE when it is asked for.

    Any Stable Diffusion 1.x or 2.x. Its text embeddings are the text encoder's ``last_hidden_state``, as diffusers' own pipeline takes it
    (that Stable Diffusion 2 uses the last but one layer of OpenCLIP is in its weights, which end there). Raises :class:`UserError`, naming
    the file, for another kind of pipeline, a missing part, damaged weights or shapes that do not fit.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    weight_files(folder)
    for file in _tensors(folder, "vae"):  # the rest of it when it is loaded
        check_header(file)
    check_types(folder / "vae" / "config.json", part_config(folder, "vae"), AutoencoderKL)
    unet = _load(folder, "unet", UNet2DConditionModel, device, dtype)
    text_encoder = _load(folder, "text_encoder", CLIPTextModel, device, dtype)
    widths, given = unet.config.cross_attention_dim, text_encoder.config.hidden_size
    if {*(widths if isinstance(widths, list | tuple) else (widths,))} != {given}:
        raise UserError(f"{folder}: the U-Net wants text embeddings of width {widths}, the text encoder gives {given}")
    words = text_encoder.config
    return TextToImage(
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(folder / "tokenizer", words.vocab_size, words.max_position_embeddings),
        scheduler=read_scheduler(folder / "scheduler" / "scheduler_config.json", latent=True),
        load_vae=lambda: _load_vae(folder, device, dtype),
        size=image_size(folder),
    )


def _load_vae(folder: Path, device: str, dtype: str) -> Any:
    from diffusers import AutoencoderKL

    vae = _load(folder, "vae", AutoencoderKL, device, dtype)
    prove_vae(vae, folder / "vae")
    return vae


def _tensors(folder: Path, part: str) -> list[Path]:
    return [file for file in part_weights(folder, part).files if file.suffix == ".safetensors"]


def _load(folder: Path, part: str, loader: Any, device: str, dtype: str) -> Any:
    """The part on the device, in evaluation mode. Raises :class:`UserError`."""
    for file in _tensors(folder, part):
        check_tensors(file)
    kind = DTYPES[dtype]
    variant = part_weights(folder, part).variant or None
    try:
        model = load_network(folder / part, loader, part_config(folder, part), torch_dtype=kind, use_safetensors=True, variant=variant)
        model = model.to(torch.device(device)).eval().requires_grad_(False)
    except torch.OutOfMemoryError:
        raise UserError(f"{folder / part} does not fit on {device} as {dtype}: take a smaller --dtype, or another device") from None
    return model if part == "text_encoder" else model.to(memory_format=layout(device, kind))


def layout(device: str, dtype: torch.dtype) -> torch.memory_format:
    """Channels last where it is faster: the tensor cores of a GPU convolve half precision in that order."""
    fast = torch.device(device).type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return torch.channels_last if fast else torch.contiguous_format


def check_device(name: str) -> None:
    """Raises :class:`UserError` if torch has no such device here."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's three ways to say no
        raise UserError(f"device {name!r} cannot be used here: {first_line(error)}. See: membench doctor") from None
