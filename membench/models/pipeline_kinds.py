"""Which pipelines are Stable Diffusion 1.x, 2.x or XL; every other is refused by its
class's name, or by what its U-Net is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.models.changes import NONE, Changes, read_part
from membench.models.config_fields import positive, refuse_shift
from membench.models.loading import read_config
from membench.models.weight_files import refuse_adapter, refuse_no_checkpoint

READS = "membench reads Stable Diffusion 1.x, 2.x and XL (text to image)"

# Part of a class name -> why such a model is refused; the first that fits counts.
REFUSED = {
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
    "Img2Img": "it changes an image (as Stable Diffusion XL's refiner)",
    "LDM": "it takes no text; the tasks cifar10 and celeba take it",
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
class Kind:
    """A pipeline's class in diffusers and its text encoders, whose tokenizers are
    called alike.
    """

    name: str
    encoders: tuple[str, ...]

    @property
    def tokenizers(self) -> tuple[str, ...]:
        return tuple(name.replace("text_encoder", "tokenizer") for name in self.encoders)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        return ("unet", *self.encoders, "vae")


SD = Kind("StableDiffusionPipeline", ("text_encoder",))
XL = Kind("StableDiffusionXLPipeline", ("text_encoder", "text_encoder_2"))
ENCODERS = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}
SIZES = 6  # that Stable Diffusion XL's U-Net is told: height and width of three things


def check_kind(folder: Path, changes: Changes = NONE) -> Kind:
    """Which kind of pipeline this is.

    Raises :class:`UserError` in one line unless it is a text-to-image Stable Diffusion
    1.x, 2.x or XL in diffusers' layout. A folder without model_index.json is known by
    its parts.
    """
    index = folder / "model_index.json"
    if index.is_symlink() and not index.exists():
        raise UserError(f"{index} is a link to nothing; get the model again")
    kind = named_kind(folder) if index.is_file() else _by_parts(folder)
    if missing := [part for part in kind.parts if not changes.place(folder, part).is_dir()]:
        both = f"; {kind.name} has two text encoders" if missing[0] in kind.encoders[1:] else ""
        raise UserError(
            f"{folder / missing[0]} is missing, so it has no safetensors file{both}; get the model"
            " again"
        )
    for tokenizer in kind.tokenizers:
        if not (folder / tokenizer).is_dir():
            raise UserError(f"{folder / tokenizer} is missing; get the model again")
    configs = {part: read_part(folder, part, changes) for part in kind.parts}
    for part in kind.encoders:
        _check_encoder(folder / part, ENCODERS[part], configs[part])
    _check_parts(folder, kind, configs, changes)
    return kind


def named_kind(folder: Path) -> Kind:
    """By model_index.json. Raises :class:`UserError`, by its class's name, for another."""
    index = read_config(folder / "model_index.json")
    if not isinstance(name := index.get("_class_name"), str):
        raise UserError(
            f"{folder / 'model_index.json'} names no _class_name, the kind of the pipeline; get the"
            " model again"
        )
    kind = next((k for k in (SD, XL) if k.name == name), None)
    if kind is None:
        why = next((why for part, why in REFUSED.items() if part in name), "it is none of them")
        raise UserError(f"{folder} is of class {name}: {why}; {READS}")
    wanted = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"} | {
        part: ENCODERS[part] for part in kind.encoders
    }
    for part, wanted_class in wanted.items():
        given = index.get(part)
        if isinstance(given, list) and given and given[-1] is None and part in kind.encoders[1:]:
            raise UserError(f"{folder} has no {part}, and {name} needs both text encoders")
        if isinstance(given, list) and given and given[-1] not in (None, wanted_class):
            raise UserError(
                f"{folder}: its {part} is of class {given[-1]}, not {wanted_class}; {READS}"
            )
    return kind


def _by_parts(folder: Path) -> Kind:
    """Of a folder that does not say so: by its U-Net, which knows what it is told."""
    if folder.is_file() or not any((folder / part).is_dir() for part in ("unet", "transformer")):
        _refuse_single_file(folder)
        if folder.is_file():
            raise UserError(
                f"{folder} is a file, and no .safetensors: give the folder that holds"
                " model_index.json"
            )
        raise UserError(
            f"{folder} is not a diffusers pipeline: model_index.json is missing, and so is the"
            " folder unet (save one with pipeline.save_pretrained)"
        )
    if (folder / "transformer" / "config.json").is_file():
        name = str(read_config(folder / "transformer" / "config.json").get("_class_name"))
        why = next((why for part, why in REFUSED.items() if part in name), REFUSED["Flux"])
        raise UserError(f"{folder} is of class {name}: {why}; {READS}")
    if not any((folder / part).is_dir() for part in ENCODERS):
        raise UserError(
            f"{folder} holds a U-Net and no text encoder: a fine-tuned U-Net over its base is"
            f" --model BASE --set sd_webster.unet={folder}"
        )
    return XL if read_part(folder, "unet").get("addition_embed_type") == "text_time" else SD


def _check_encoder(place: Path, wanted: str, text: dict[str, Any]) -> None:
    model_type = text.get("model_type", "clip_text_model")
    if model_type not in ("clip_text_model", "clip"):
        raise UserError(f"{place / 'config.json'} is of type {model_type}, not CLIP; {READS}")
    given, known = _architecture(text)
    if given not in known or (wanted != known[0] and given == known[0] and "architectures" in text):
        raise UserError(f"{place / 'config.json'} is of class {given}, not {wanted}; {READS}")


def _check_parts(
    folder: Path, kind: Kind, configs: dict[str, dict[str, Any]], changes: Changes
) -> None:
    """Raises :class:`UserError` for parts of another kind, or that do not belong
    together.
    """
    unet, vae, place = configs["unet"], configs["vae"], changes.place(folder, "unet")
    for where, config, wanted in (
        (place, unet, "UNet2DConditionModel"),
        (folder / "vae", vae, "AutoencoderKL"),
    ):
        if (given := config.get("_class_name", wanted)) != wanted:
            raise UserError(f"{where / 'config.json'} is of class {given}, not {wanted}; {READS}")
    for key, what in TOLD_MORE.items():
        told = kind is XL and (key, unet.get(key)) == ("addition_embed_type", "text_time")
        if unet.get(key) is not None and not told:
            raise UserError(f"{folder}: its U-Net is also told {what} ({key}={unet[key]}); {READS}")
    if kind is XL:
        _check_told(place, unet, configs["text_encoder_2"])
    channels, out = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if channels != out:
        why = f"; {REFUSED['Inpaint']}" if channels == 9 else ""
        raise UserError(
            f"{folder}: its U-Net takes {channels} channels and gives {out}, so it wants more than"
            f" noisy latents{why}; {READS}"
        )
    if unet.get("sample_size") is None:
        raise UserError(
            f"{place / 'config.json'} names no sample_size, so membench does not know how"
            " large the model generates"
        )
    if isinstance(unet["sample_size"], list) and len(unet["sample_size"]) != 2:
        raise UserError(
            f"{place / 'config.json'}: sample_size is {unet['sample_size']}, not one"
            " number or two; get the model again"
        )
    if vae.get("latent_channels", 4) != channels:
        raise UserError(
            f"{folder}: the U-Net's {channels} channels are not the VAE's latent channels"
            f" ({vae.get('latent_channels', 4)})"
        )
    # Diffusers' own default, which the first releases rely on
    positive(folder / "vae" / "config.json", vae, "scaling_factor", 0.18215)
    refuse_shift(folder / "vae" / "config.json", vae)


def _check_told(place: Path, unet: dict[str, Any], text: dict[str, Any]) -> None:
    """Raises :class:`UserError` unless the U-Net is told the pooled embedding of this
    encoder and six numbers.
    """
    if unet.get("addition_embed_type") != "text_time":
        raise UserError(
            f"{place / 'config.json'}: addition_embed_type is {unet.get('addition_embed_type')}, so"
            " this is not Stable Diffusion XL's U-Net, which is told text_time; name a base of its"
            " own architecture"
        )
    width, told = unet.get("addition_time_embed_dim"), "projection_class_embeddings_input_dim"
    pooled = text.get("projection_dim", 512)
    if not isinstance(width, int) or unet.get(told) != SIZES * width + pooled:
        raise UserError(
            f"{place / 'config.json'}: {told} is {unet.get(told)}, but six sizes of"
            f" {width} and the text's {pooled} would be told (a refiner is told others); {READS}"
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
            f"{path} is one part of a pipeline ({name}): model_index.json is missing; {READS}"
        )
    files = [f for f in files if f.suffix in (".safetensors", ".ckpt")]
    if plain := next((f for f in files if f.suffix == ".safetensors"), None):
        refuse_no_checkpoint(plain)
        raise UserError(
            f"{plain} is a checkpoint in one file: name a pipeline of its architecture for"
            f" configurations and tokenizers, --profile full --model {plain} --set"
            " sd_webster.base=sd-1.5; or save it with diffusers' from_single_file and"
            " save_pretrained, and give --model FOLDER"
        )
    if files:
        raise UserError(
            f"{files[0]} is a checkpoint in one file, pickled: reading it could run any code, so"
            " membench refuses it; get the model as safetensors in diffusers' layout"
        )
