"""What a folder in diffusers' layout holds, before any weight is loaded: which kind of
pipeline, which weight files, which hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.models.config_fields import check_ranges, positive
from membench.models.loading import config_hash, read_config
from membench.models.weight_files import refuse_adapter
from membench.storage.cache import remembered_hash
from membench.storage.hashing import json_hash

PARTS = ("unet", "text_encoder", "vae")


READS = "membench reads Stable Diffusion 1.x and 2.x (StableDiffusionPipeline)"


# Part of a class name -> why such a model is refused; the first that fits counts.
REFUSED = {
    "StableDiffusionXL": (
        "it has two text encoders, and its U-Net is also told the size and the crop of an image"
    ),
    "StableDiffusion3": (
        "it is a transformer trained by flow matching, with three text encoders, not a U-Net with a"
        " noise schedule"
    ),
    "Flux": "it is a transformer trained by flow matching, not a U-Net with a noise schedule",
    "PixArt": "it is a transformer with a T5 text encoder, not a U-Net with CLIP's",
    "Kandinsky": "it samples from image embeddings of a prior, not from a text encoder's tokens",
    "Inpaint": "its U-Net also wants a mask and the masked image (9 channels in place of 4)",
    "Upscale": "its U-Net also wants a low-resolution image",
    "Depth2Img": "its U-Net also wants a depth map",
    "Pix2Pix": "its U-Net also wants an image",
    "ImageVariation": "it takes an image, not a text",
    "LatentConsistency": (
        "it is distilled: its U-Net is told a guidance weight and predicts no noise of a single"
        " step"
    ),
    "DDPM": "it is a pixel model, which the tasks cifar10 and celeba take",
    "DDIM": "it is a pixel model, which the tasks cifar10 and celeba take",
}


# Settings of a U-Net that mean that it is told more than a timestep and a text.
TOLD_MORE = {
    "addition_embed_type": "added embeddings (as Stable Diffusion XL's U-Net)",
    "encoder_hid_dim": "another encoder's embeddings",
    "class_embed_type": "a class",
    "num_class_embeds": "a class or a noise level (as the upscaler's U-Net)",
    "encoder_hid_dim_type": "another encoder's embeddings",
    "time_cond_proj_dim": "a guidance weight (as a distilled U-Net)",
}


@dataclass(frozen=True)
class Weights:
    """The safetensors of one part: ``variant`` is what ``from_pretrained`` has to be
    given ("" or "fp16"), ``files`` what it then reads.
    """

    variant: str
    files: tuple[Path, ...]


def check_kind(folder: Path) -> None:
    """Raises :class:`UserError` in one line unless this is a text-to-image Stable
    Diffusion 1.x or 2.x in diffusers' layout.
    """
    if folder.is_file() or not (folder / "model_index.json").is_file():
        _refuse_single_file(folder)
        raise UserError(
            f"{folder} is not a diffusers pipeline: model_index.json is missing (save one with"
            " pipeline.save_pretrained)"
        )
    index = read_config(folder / "model_index.json")
    name = str(index.get("_class_name"))
    if name != "StableDiffusionPipeline":
        why = next((why for part, why in REFUSED.items() if part in name), "it is none of them")
        raise UserError(f"{folder} is a {name}: {why}; {READS}")
    for part, wanted in (
        ("text_encoder", "CLIPTextModel"),
        ("unet", "UNet2DConditionModel"),
        ("vae", "AutoencoderKL"),
    ):
        given = index.get(part)
        if isinstance(given, list) and given and given[-1] not in (None, wanted):
            raise UserError(f"{folder}: its {part} is a {given[-1]}, not a {wanted}; {READS}")
    if missing := [part for part in PARTS if not (folder / part).is_dir()]:
        raise UserError(
            f"{folder / missing[0]} is missing, so it has no safetensors file; get the model again"
        )
    if not (folder / "tokenizer").is_dir():
        raise UserError(f"{folder / 'tokenizer'} is missing; get the model again")
    _check_parts(
        folder,
        part_config(folder, "unet"),
        part_config(folder, "text_encoder"),
        part_config(folder, "vae"),
    )


def _check_parts(
    folder: Path, unet: dict[str, Any], text: dict[str, Any], vae: dict[str, Any]
) -> None:
    """Raises :class:`UserError` for parts of another kind, or that do not belong
    together.
    """
    for part, given, wanted in (
        ("unet", unet.get("_class_name", "UNet2DConditionModel"), ("UNet2DConditionModel",)),
        ("vae", vae.get("_class_name", "AutoencoderKL"), ("AutoencoderKL",)),
        ("text_encoder", text.get("model_type", "clip_text_model"), ("clip_text_model", "clip")),
        ("text_encoder", *_architecture(text)),
    ):
        if given not in wanted:
            raise UserError(
                f"{folder / part / 'config.json'} is of a {given}, not of a {wanted[0]}; {READS}"
            )
    for key, what in TOLD_MORE.items():
        if unet.get(key) is not None:
            raise UserError(f"{folder}: its U-Net is also told {what} ({key}={unet[key]}); {READS}")
    channels, out = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if channels != out:
        why = f"; {REFUSED['Inpaint']}" if channels == 9 else ""
        raise UserError(
            f"{folder}: its U-Net takes {channels} channels and gives {out}, so it wants more than"
            f" noisy latents{why}; {READS}"
        )
    if unet.get("sample_size") is None:
        raise UserError(
            f"{folder / 'unet' / 'config.json'} names no sample_size, so membench does not know how"
            " large the model generates"
        )
    if isinstance(unet["sample_size"], list) and len(unet["sample_size"]) != 2:
        raise UserError(
            f"{folder / 'unet' / 'config.json'}: sample_size is {unet['sample_size']}, not one"
            " number or two; get the model again"
        )
    if vae.get("latent_channels", 4) != channels:
        raise UserError(
            f"{folder}: the U-Net's {channels} channels are not the VAE's latent channels"
            f" ({vae.get('latent_channels', 4)})"
        )
    # Diffusers' own default, which the first releases rely on
    positive(folder / "vae" / "config.json", vae, "scaling_factor", 0.18215)
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if vae.get(key) is not None:
            raise UserError(
                f"{folder}: its VAE shifts latents ({key}), which no Stable Diffusion 1.x or 2.x"
                f" does; {READS}"
            )


def _architecture(text: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    given, known = (
        text.get("architectures"),
        ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    )
    return str(given[0]) if isinstance(given, list) and given else known[0], known


def _refuse_single_file(path: Path) -> None:
    """Raises :class:`UserError` with the way out for a part of a model or a checkpoint
    in one file, and a folder of nothing else.
    """
    files = [f for f in ([path] if path.is_file() else sorted(path.glob("[!.]*"))) if f.is_file()]
    refuse_adapter(path, files)
    if alone := next((f for f in files if f.name == "config.json"), None):
        name = read_config(alone).get("_class_name") or read_config(alone).get("model_type")
        raise UserError(
            f"{path} is a {name} alone, not a whole pipeline: model_index.json is missing; {READS}"
        )
    files = [f for f in files if f.suffix in (".safetensors", ".ckpt")]
    if plain := next((f for f in files if f.suffix == ".safetensors"), None):
        convert = (
            "from diffusers import StableDiffusionPipeline as P;"
            f" P.from_single_file('{plain}').save_pretrained('FOLDER')"
        )
        raise UserError(
            f'{plain} is a checkpoint in one file; convert it: python -c "{convert}", then --model'
            " FOLDER"
        )
    if files:
        raise UserError(
            f"{files[0]} is a checkpoint in one file, pickled: reading it could run any code, so"
            " membench refuses it; get the model as safetensors in diffusers' layout"
        )


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """config.json of a part.

    Raises :class:`UserError` where it is missing or no JSON object, of a shape out of
    range, or quantised.
    """
    file = folder / part / "config.json"
    if not file.is_file():
        raise UserError(f"{folder / part} lacks config.json; get the model again")
    return network_config(file)


def network_config(file: Path) -> dict[str, Any]:
    """A network's configuration. Raises :class:`UserError` as :func:`part_config`."""
    config = read_config(file)
    refuse_quantised_config(file, config)
    check_ranges(file, config)
    return config


def refuse_quantised_config(file: Path, config: dict[str, Any]) -> None:
    """Raises :class:`UserError` if the network's weights are to be read by a
    quantisation's own library.
    """
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{file} has a quantization_config: quantised weights are not read; get the model in"
            " float32, float16 or bfloat16"
        )


def image_size(folder: Path) -> tuple[int, int]:
    """Height and width in pixels of what the model generates: the U-Net's
    ``sample_size`` times 2 for every halving of the VAE.
    """
    height, width = latent_size(part_config(folder, "unet")["sample_size"])
    factor = 2 ** (len(part_config(folder, "vae").get("block_out_channels", (64,))) - 1)
    return height * factor, width * factor


def latent_size(sample_size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """A U-Net's ``sample_size``, one number or two, as height and width."""
    return (
        (sample_size, sample_size)
        if isinstance(sample_size, int)
        else (int(sample_size[0]), int(sample_size[1]))
    )


def part_weights(folder: Path, part: str) -> Weights:
    """The files that ``from_pretrained`` reads of a part, and the variant to ask it
    for: the plain one, else fp16.

    Where a part is both whole and in shards, diffusers reads the shards and
    transformers the whole; so do we. Raises :class:`UserError` for a part that is
    missing, pickled or lacks a shard.
    """
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    for variant in ("", "fp16"):
        dot = f".{variant}" if variant else ""
        whole, index = (
            folder / part / f"{stem}{dot}.safetensors",
            folder / part / f"{stem}.safetensors.index{dot}.json",
        )
        order = (whole, index) if part == "text_encoder" else (index, whole)
        if found := next((f for f in order if f.is_file()), None):
            return Weights(variant, (found,) if found is whole else (found, *_shards(found)))
    given = [
        f.name
        for f in sorted((folder / part).glob("[!.]*"))
        if f.suffix in (".bin", ".ckpt", ".pt", ".safetensors")
    ]
    if any(name.endswith(".safetensors") for name in given):
        raise UserError(
            f"{folder / part} lacks {stem}.safetensors (there is {', '.join(given[:3])})"
        )
    if given:
        raise UserError(
            f"{folder / part} holds pickled weights only ({given[0]}), and reading a pickle can run"
            " any code, so membench refuses it; convert them: load the pipeline in diffusers, then"
            " pipeline.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"{folder / part} has no safetensors file; get the model again")


def _shards(index: Path) -> list[Path]:
    names = read_config(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index} names no shards; get the model again")
    shards = [index.parent / str(name) for name in sorted(set(map(str, names.values())))]
    for shard in shards:
        if shard.suffix != ".safetensors" or shard.parent != index.parent:
            raise UserError(
                f"{index} names {shard.name}, which is not a safetensors file beside it; get the"
                " model again"
            )
        if not shard.is_file():
            raise UserError(f"{shard} is missing, which {index.name} names; get the model again")
    return shards


def weight_files(folder: Path) -> list[Path]:
    """The weight files of all parts.

    Raises :class:`UserError` as :func:`part_weights`, and for a folder that is no
    pipeline.
    """
    check_kind(folder)
    return [file for part in PARTS for file in part_weights(folder, part).files]


def folder_hash(folder: Path) -> str:
    """SHA-256 over weights and configurations: what decides a prediction, whatever the
    folder's name. Hidden files do not count.

    Raises :class:`UserError` for whatever :func:`check_kind` and :func:`part_weights`
    refuse.
    """
    configs = [folder / part / "config.json" for part in PARTS]
    configs += [
        folder / "scheduler" / "scheduler_config.json",
        *sorted((folder / "tokenizer").glob("[!.]*.*")),
    ]
    files = [*weight_files(folder), *(c for c in configs if c.is_file())]
    return json_hash(
        {
            str(f.relative_to(folder)): (
                config_hash(f) if f.name == "config.json" else remembered_hash(f)
            )
            for f in files
        }
    )
