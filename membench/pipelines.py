"""Loads a text-to-image model in Stable Diffusion's folder layout, safetensors only, each part when it is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError
from membench.hashing import file_hash, json_hash

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PARTS = ("unet", "text_encoder", "vae")


@dataclass
class TextToImage:
    """The parts that a :class:`~membench.denoiser.LatentDenoiser` needs."""

    unet: Any
    text_encoder: Any
    tokenizer: Any
    vae: Any
    scheduler: Any


def weight_files(folder: Path) -> list[Path]:
    """The weight file of each part. Raises :class:`UserError` if the folder or a part is missing or is a pickle."""
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is no diffusers pipeline: model_index.json is missing (save one with pipeline.save_pretrained)")
    files = []
    for part in PARTS:
        found = sorted((folder / part).glob("*.safetensors"))
        if not found:
            pickles = [*(folder / part).glob("*.bin"), *(folder / part).glob("*.ckpt")]
            why = (
                "holds pickled weights only, which membench refuses; convert them to safetensors" if pickles else "has no safetensors file"
            )
            raise UserError(f"{folder / part} {why}")
        plain = [f for f in found if ".fp16." not in f.name and ".non_ema." not in f.name]
        files += plain or found
    return files


def folder_hash(folder: Path) -> str:
    """SHA-256 over weights and configurations: what decides a prediction, whatever the folder's name."""
    configs = [folder / part / "config.json" for part in PARTS]
    configs += [folder / "scheduler" / "scheduler_config.json", *sorted((folder / "tokenizer").glob("*.*"))]
    files = [*weight_files(folder), *(c for c in configs if c.is_file())]
    return json_hash({str(f.relative_to(folder)): config_hash(f) if f.name == "config.json" else file_hash(f) for f in files})


def config_hash(file: Path) -> str:
    """Of a configuration without the folder that it was once loaded from. Raises :class:`UserError` if it is no JSON."""
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); get the model again") from None
    return json_hash({k: v for k, v in config.items() if k != "_name_or_path"})


def check_tensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            for name in names:
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise UserError(f"{file}: tensor {name} holds NaN or infinite values; get the weights again")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or cut short ({error}); get the weights again") from None


def load_text_to_image(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> TextToImage:
    """Loads U-Net, text encoder, tokenizer, VAE and a DDIM scheduler made from the model's own configuration.

    Raises :class:`UserError`, naming the file, for a missing part, damaged weights or shapes that do not fit.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # membench shows its own

    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    for file in weight_files(folder):
        check_tensors(file)
    kind = DTYPES[dtype]
    parts: dict[str, Any] = {}
    for part, loader in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel), ("vae", AutoencoderKL)):
        try:
            model = loader.from_pretrained(folder / part, torch_dtype=kind, local_files_only=True, use_safetensors=True)
        except (ValueError, RuntimeError, OSError, json.JSONDecodeError) as error:
            raise UserError(f"{folder / part} cannot be loaded: {first_line(error)}") from None
        parts[part] = model.to(device).eval()
    width, given = parts["unet"].config.cross_attention_dim, parts["text_encoder"].config.hidden_size
    if width != given:
        raise UserError(f"{folder}: the U-Net wants text embeddings of width {width}, the text encoder gives {given}")
    if parts["unet"].config.in_channels != parts["vae"].config.latent_channels:
        raise UserError(f"{folder}: the U-Net's {parts['unet'].config.in_channels} channels are not the VAE's latent channels")
    try:
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (ValueError, OSError, TypeError) as error:
        raise UserError(f"{folder}: {first_line(error)}") from None
    return TextToImage(tokenizer=tokenizer, scheduler=scheduler, **parts)


def check_device(name: str) -> None:
    """Raises :class:`UserError` if torch has no such device here."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's three ways to say no
        raise UserError(f"device {name!r} cannot be used here: {first_line(error)}. See: membench doctor") from None


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
