"""What the folder of a UNet2DModel holds, before any weight is loaded: which parts and
files, of images or of latents, how large its images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.models.loading import halvings, network_config, read_config
from membench.models.part_files import DIFFUSERS, Weights, find_weights, refuse_absent_variant
from membench.models.weight_files import refuse_adapter


@dataclass(frozen=True)
class Parts:
    """Folders of a model: unet, scheduler, and decoder (of a latent model; else None).
    The hub's older pipelines keep all of it in one. weights: of unet, and of the
    decoder.
    """

    unet: Path
    scheduler: Path
    decoder: Path | None
    weights: tuple[Weights, ...]


DECODERS = ("vqvae", "vae")


def parts_of(folder: Path, variant: str = "") -> Parts:
    """Raises :class:`UserError`, naming what is missing."""
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    refuse_adapter(folder, [file for file in sorted(unet.glob("*")) if file.is_file()])
    if not (unet / "config.json").is_file():
        raise UserError(
            f"{folder} holds no UNet2DModel: {unet / 'config.json'} is missing (save one with"
            " pipeline.save_pretrained)"
        )
    if not (scheduler / "scheduler_config.json").is_file():
        raise UserError(
            f"{folder} has no scheduler_config.json: membench must know the noise schedule that the"
            " model was trained with (save it with DDPMPipeline(unet, scheduler).save_pretrained)"
        )
    decoder = next((folder / name for name in DECODERS if (folder / name).is_dir()), None)
    if decoder is None and _index(folder).startswith("LDM"):
        raise UserError(
            f"{folder} is a latent model, and its decoder {folder / 'vqvae'} is missing; get the"
            " model again"
        )
    parts = [unet] if decoder is None else [unet, decoder]
    weights = tuple(_weights(part, variant) for part in parts)
    refuse_absent_variant(folder, variant, weights)
    return Parts(unet, scheduler, decoder, weights)


def _index(folder: Path) -> str:
    """The pipeline's class, where the folder names one."""
    file = folder / "model_index.json"
    return str(read_config(file).get("_class_name")) if file.is_file() else ""


def _weights(part: Path, variant: str) -> Weights:
    if found := find_weights(part.parent, part.name, variant):
        return found
    pickled = part / f"{DIFFUSERS}.bin"
    if not pickled.is_file():
        raise UserError(
            f"{part} lacks diffusion_pytorch_model.safetensors (and .bin, which is read too,"
            " tensors only)"
        )
    return Weights("", (pickled,))


def model_config(folder: Path, variant: str = "") -> dict[str, Any]:
    """The network's configuration.

    Raises :class:`UserError` if it is none of a UNet2DModel.
    """
    file = parts_of(folder, variant).unet / "config.json"
    config = network_config(file)
    if (name := class_name(config)) != "UNet2DModel":
        raise UserError(f"{file} is of class {name}, not UNet2DModel")
    if (kind := config.get("class_embed_type")) is not None:
        raise UserError(
            f"{file}: class_embed_type is {kind!r}, but membench tells a network its class by"
            " number (null, num_class_embeds)"
        )
    if (kind := config.get("time_embedding_type", "positional")) == "fourier":
        # It takes the logarithm, which timestep 0, where sampling ends, has not
        raise UserError(
            f"{file}: time_embedding_type is {kind!r}, which is of noise levels, but membench tells"
            " a network its timestep (positional or learned)"
        )
    elif kind not in ("positional", "learned"):
        raise UserError(
            f"{file}: time_embedding_type is {str(kind)[:40]!r}, which is not known (positional or"
            " learned); get the model again"
        )
    return config


def network_side(file: Path, config: dict[str, Any]) -> int:
    """``sample_size`` of a network's config.json: one number, or as height and width.

    Raises :class:`UserError` where it is missing or not of a square.
    """
    given: Any = config.get("sample_size")
    sides = given if isinstance(given, list) else [given]
    if not sides or any(type(s) is not int or s != sides[0] for s in sides):
        raise UserError(
            f"{file}: sample_size is {'missing' if given is None else repr(given)}, but membench"
            " reads networks of square images; get the model again"
        )
    return int(sides[0])


def image_shape(folder: Path, variant: str = "") -> tuple[int, tuple[int, int]]:
    """(pixels a side of what the model generates, its network's channels in and out).

    Raises :class:`UserError` for channels that are neither images nor the latents of
    the decoder, a learned variance that the scheduler does not name, and images that
    are not square.
    """
    parts, config = parts_of(folder, variant), model_config(folder, variant)
    given, out = config.get("in_channels", 3), config.get("out_channels", 3)
    if out == 2 * given:
        schedule = read_config(parts.scheduler / "scheduler_config.json")
        if schedule.get("variance_type") not in LEARNED:
            raise UserError(
                f"{folder} gives {out} channels for {given}, as for a learned variance, but"
                f" variance_type of its scheduler_config.json is {schedule.get('variance_type')!r},"
                f" not {' or '.join(LEARNED)}; get the model again"
            )
    elif out != given:
        raise UserError(f"{folder} takes {given} channels and gives {out}; get the model again")
    side = network_side(parts.unet / "config.json", config)
    if parts.decoder is None:
        return side, (given, out)
    decoder = network_config(parts.decoder / "config.json")
    if (latents := decoder.get("latent_channels", 3 if is_vq(decoder) else 4)) != given:
        raise UserError(
            f"{folder}: the U-Net's {given} channels are not the latent channels of"
            f" {parts.decoder.name} ({latents}); get the model again"
        )
    return side * halvings(decoder), (3, 3)


LEARNED = ("learned", "learned_range")


def is_vq(decoder: dict[str, Any]) -> bool:
    return class_name(decoder) == "VQModel"


def class_name(config: Any) -> str:
    return str(config.get("_class_name")) if isinstance(config, dict) else type(config).__name__
