"""Loads a UNet2DModel of pixels or of latents: from a folder or the hub, as a DDPM, DDIM
or latent diffusion pipeline, or the bare network with its scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from membench.errors import UserError
from membench.fetching.hub import model_folder
from membench.models import pipeline_files
from membench.models.autoencoder import LatentStates
from membench.models.conditioning import Conditioning
from membench.models.config_fields import positive, refuse_shift
from membench.models.denoiser import Denoiser
from membench.models.image_values import from_uint8, same_size, to_uint8
from membench.models.loading import config_hash, load_network, network_config, torch_dtype
from membench.models.part_files import Weights, tensor_files
from membench.models.pixel_files import (
    Parts,
    class_name,
    image_shape,
    is_vq,
    model_config,
    network_side,
    parts_of,
)
from membench.models.proof import prove, prove_vae
from membench.models.scheduler_config import read_scheduler
from membench.models.weight_files import check_pickle, check_tensors
from membench.storage.cache import remembered_hash
from membench.storage.hashing import json_hash
from membench.types import Condition

# Of one evaluation on the CPU (benchmarks/sampling.py): from 64 rows on diffusers'
# upsampling leaves channels last, and beyond so many pixels the maps of a layer are
# memory that the system gives and takes back every time. Of small images the calls
# themselves take longer than either.
ROWS, PIXELS, SMALL = 32, 2**16, 32 * 32


class PixelDenoiser(Denoiser):
    """A UNet2DModel on images in [-1, 1]: unconditional (classes = 0), or told one of
    ``classes`` labels.

    A conditional network has an embedding for each class and may have one more, which
    is then the null class. Without it nothing was trained to be unconditional, and what
    needs a null prediction refuses.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        scheduler: Any,
        *,
        shape: tuple[int, ...],
        batch_size: int = 64,
        classes: int = 0,
    ) -> None:
        super().__init__(network, scheduler, shape=shape, batch_size=batch_size)
        self.classes = classes
        # An unconditional network is its own null.
        config: Any = getattr(network, "config", {})
        self.has_null = not classes or config["num_class_embeds"] == classes + 1
        if self.device.type == "cpu":
            pixels = math.prod(shape[1:])
            if pixels >= SMALL:
                # Even, so that the two evaluations of a pair stay together
                self.quickest = max(2, min(ROWS, PIXELS // pixels) // 2 * 2)

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        # Contiguous whatever the network's memory format, so that sums over an image
        # are made in one order. What is beyond the channels of x is a learned variance
        # (Nichol and Dhariwal 2021), which DDIM has no use for.
        out = self._run(x, t, condition.embeddings) if self.classes else self._run(x, t)
        return out.sample[:, : self.shape[0]].contiguous()

    @property
    def has_condition(self) -> bool:
        return self.classes > 0

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        """Labels [n]; the null class is the label after the last.

        Raises :class:`UserError` for a label that the model has not learned.
        """
        if any(c.prompt is not None for c in conditions):
            raise UserError("this model takes no text; it cannot be given a prompt")
        if not self.classes:
            return Conditioning(None)
        if wrong := [
            c.class_label
            for c in conditions
            if c.class_label is not None and not 0 <= c.class_label < self.classes
        ]:
            raise UserError(
                f"class {wrong[0]}: this model has learned classes 0 to {self.classes - 1}"
            )
        labels = [self.classes if c.class_label is None else c.class_label for c in conditions]
        if self.classes in labels and not self.has_null:
            raise UserError("this model has no null class: every image needs a label")
        return Conditioning(torch.tensor(labels)).keyed().to(self.device)

    def decode(self, x: torch.Tensor) -> np.ndarray:
        """Grey images as colour images of three equal channels."""
        return to_uint8(x.expand(-1, 3, -1, -1) if self.shape[0] == 1 else x)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """Of a grey model the luminance, as Pillow has it."""
        if self.shape[0] == 1:
            images = np.stack([np.asarray(Image.fromarray(i).convert("L")) for i in images])
            images = images[..., None]
        x = from_uint8(images).to(self.device)
        same_size(images, tuple(x.shape[1:]), self.shape)
        return x


class LatentImages(LatentStates, PixelDenoiser):
    """A UNet2DModel on the latents of a VQModel or a VAE, as diffusers' LDMPipeline."""

    def __init__(self, network: torch.nn.Module, scheduler: Any, vae: Any, **how: Any) -> None:
        super().__init__(network, scheduler, **how)
        self._vae = vae

    @property
    def vae(self) -> Any:
        return self._vae


FLAT = ("*.json", "*.safetensors")

# Each is one file, in its part's folder or, in the oldest pipelines, in the model's
# own: what parts_of wants of a folder.
REQUIRED = (
    "unet/config.json|config.json",
    "unet/diffusion_pytorch_model*.safetensors|diffusion_pytorch_model*.safetensors",
    "scheduler/scheduler_config.json|scheduler_config.json",
)


def find_model(name: str, variant: str = "") -> Path:
    """The folder of a model: ``name`` itself, or the hub's ``ID`` or ``ID@REVISION``,
    from its cache or fetched.

    Raises :class:`UserError` where it is neither a folder nor a hub id, or the hub
    refuses (:func:`membench.fetching.hub.hub_folder`). The hub's oldest pipelines hold
    a file of torch's, ``.bin``, in place of safetensors: it is read as tensors only
    (``load_pixel_model``). variant: as :func:`membench.fetching.hub_files.of_variant`.
    """
    return model_folder(
        name,
        patterns=FLAT,
        ignore=pipeline_files.IGNORE,
        required=REQUIRED,
        pickles=True,
        variant=variant,
        # A folder that is misspelt looks like a hub id
        advice=f"give --model FOLDER; no folder here is called {name}",
    )


def pixel_hash(folder: Path, variant: str = "") -> str:
    """SHA-256 over weights, configuration and schedule."""
    parts = parts_of(folder, variant)
    unet, *decoder = parts.weights
    hashes: list[Any] = [
        config_hash(parts.unet / "config.json"),
        remembered_hash(unet.files[0]),
        config_hash(parts.scheduler / "scheduler_config.json"),
    ]
    hashes += map(remembered_hash, unet.files[1:])
    if parts.decoder is not None:
        hashes += [
            config_hash(parts.decoder / "config.json"),
            *map(remembered_hash, decoder[0].files),
        ]
    return json_hash(hashes)


def classes_of(folder: Path, known: int, size: int, variant: str = "") -> int:
    """Classes that the model is told: ``known``, those of the data, or 0.

    Raises :class:`UserError` for a model that does not fit.
    """
    side, channels = image_shape(folder, variant)
    if side != size or channels[0] not in (1, 3):
        raise UserError(
            f"{folder} generates {side}x{side} images of {channels[0]} channels, the data are"
            f" {size}x{size} of 3; choose a model of that size"
        )
    embeddings = model_config(folder, variant).get("num_class_embeds")
    if embeddings is None:
        return 0
    if embeddings not in (known, known + 1):
        raise UserError(
            f"{folder} is told one of {embeddings} classes; the data have {known} (and may have a"
            " null class after them)"
        )
    return known


def load_pixel_model(
    folder: Path,
    classes: int,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 64,
    variant: str = "",
) -> PixelDenoiser:
    """The model with a DDIM scheduler made from its own schedule, and the decoder of a
    latent one.

    Raises :class:`UserError`, naming the file, for damaged weights.
    """
    from diffusers import UNet2DModel

    parts, config = parts_of(folder, variant), model_config(folder, variant)
    image_shape(folder, variant)
    schedule = read_scheduler(parts.scheduler / "scheduler_config.json")
    network = _loaded(parts.unet, parts.weights[0], UNet2DModel, device, dtype)
    # On the CPU channels last is up to a quarter faster (benchmarks/sampling.py).
    layout = torch.channels_last if torch.device(device).type == "cpu" else torch.contiguous_format
    network, size = (
        network.to(memory_format=layout),
        network_side(parts.unet / "config.json", config),
    )
    how: dict[str, Any] = {
        "shape": (int(config.get("in_channels", 3)), size, size),
        "batch_size": batch_size,
        "classes": classes,
    }
    if parts.decoder is None:
        model = PixelDenoiser(network, schedule, **how)
    else:
        model = LatentImages(network, schedule, _decoder(parts, device, dtype), **how)
    prove_pixels(model, parts.unet)
    return model


def _decoder(parts: Parts, device: str, dtype: str) -> Any:
    from diffusers import AutoencoderKL, VQModel

    assert parts.decoder is not None
    config = network_config(parts.decoder / "config.json")
    if (name := class_name(config)) not in ("VQModel", "AutoencoderKL"):
        raise UserError(f"{parts.decoder} is of class {name}, neither VQModel nor AutoencoderKL")
    positive(parts.decoder / "config.json", config, "scaling_factor", 0.18215)
    refuse_shift(parts.decoder / "config.json", config)
    loader = VQModel if is_vq(config) else AutoencoderKL
    vae = _loaded(parts.decoder, parts.weights[1], loader, device, dtype)
    prove_vae(vae, parts.decoder)
    return vae


def _loaded(part: Path, weights: Weights, loader: Any, device: str, dtype: str) -> Any:
    pickled = weights.files[0].suffix == ".bin"
    for file in weights.files if pickled else tensor_files(weights):
        (check_pickle if pickled else check_tensors)(file)
    network = load_network(
        part,
        loader,
        network_config(part / "config.json"),
        torch_dtype=torch_dtype(dtype),
        use_safetensors=not pickled,
        variant=weights.variant or None,
    )
    return network.to(torch.device(device)).eval().requires_grad_(False)


def prove_pixels(model: PixelDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless predictions are finite and differ between two
    noises and, if there are any, two classes.
    """
    # Of one class alone, the null class beside it
    told = sorted({0, min(1, model.classes - 1 + model.has_null)}) if model.classes else []
    conditions = [Conditioning(torch.tensor([label], device=model.device)) for label in told]
    how = f"whether it is told class {told[0]} or {told[-1]}" if told else ""
    prove(model, folder, conditions or [Conditioning(None)], how)
