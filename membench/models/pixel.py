"""Loads a UNet2DModel of pixels: from a folder or the hub, as a DDPM or DDIM pipeline
or the bare network with its scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from membench.errors import UserError
from membench.fetching.hub import PIPELINE_IGNORE, model_folder
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser, from_uint8, same_size, to_uint8
from membench.models.loading import config_hash, load_network, torch_dtype
from membench.models.proof import prove
from membench.models.scheduler_config import read_scheduler
from membench.models.stable_diffusion_folder import network_config
from membench.models.weight_files import check_pickle, check_tensors, refuse_adapter
from membench.storage.hashing import file_hash, json_hash
from membench.types import Condition


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

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        # Contiguous whatever the network's memory format, so that sums over an image
        # are made in one order.
        return (
            self._run(x, t, condition.embeddings) if self.classes else self._run(x, t)
        ).sample.contiguous()

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
        return Conditioning(torch.tensor(labels, device=self.device))

    def decode(self, x: torch.Tensor) -> np.ndarray:
        return to_uint8(x)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        x = from_uint8(images).to(self.device)
        same_size(images, tuple(x.shape[1:]), self.shape)
        return x


FLAT = ("*.json", "*.safetensors")


# Each is one file, in its part's folder or, in the oldest pipelines, in the model's
# own: what parts_of wants of a folder.
REQUIRED = (
    "unet/config.json|config.json",
    "unet/diffusion_pytorch_model.safetensors|diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json|scheduler_config.json",
)


def find_model(name: str) -> Path:
    """The folder of a model: ``name`` itself, or the hub's ``ID`` or ``ID@REVISION``,
    from its cache or fetched.

    Raises :class:`UserError` where it is neither a folder nor a hub id, or the hub
    refuses (:func:`membench.fetching.hub.hub_folder`). The hub's oldest pipelines hold
    a file of torch's, ``.bin``, in place of safetensors: it is read as tensors only
    (``load_pixel_model``).
    """
    return model_folder(
        name,
        patterns=FLAT,
        ignore=PIPELINE_IGNORE,
        required=REQUIRED,
        pickles=True,
        advice="give --model FOLDER",
    )


def parts_of(folder: Path) -> tuple[Path, Path, Path]:
    """(folder of the network, its weight file, folder of the scheduler).

    The hub's older pipelines keep all of it in one folder.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    refuse_adapter(folder, [file for file in sorted(unet.glob("*")) if file.is_file()])
    if not (unet / "config.json").is_file():
        raise UserError(
            f"{folder} holds no UNet2DModel: {unet / 'config.json'} is missing (save one with"
            " pipeline.save_pretrained)"
        )
    weights = unet / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        weights = weights.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(
            f"{unet} lacks diffusion_pytorch_model.safetensors (and .bin, which is read too,"
            " tensors only)"
        )
    if not (scheduler / "scheduler_config.json").is_file():
        raise UserError(
            f"{folder} has no scheduler_config.json: membench must know the noise schedule that the"
            " model was trained with"
        )
    return unet, weights, scheduler


def pixel_hash(folder: Path) -> str:
    """SHA-256 over weights, configuration and schedule."""
    unet, weights, scheduler = parts_of(folder)
    return json_hash(
        [
            config_hash(unet / "config.json"),
            file_hash(weights),
            config_hash(scheduler / "scheduler_config.json"),
        ]
    )


def model_config(folder: Path) -> dict[str, Any]:
    """The network's configuration.

    Raises :class:`UserError` if it is none of a UNet2DModel.
    """
    file = parts_of(folder)[0] / "config.json"
    config = network_config(file)
    if (name := _class_name(config)) != "UNet2DModel":
        raise UserError(f"{file} is of a {name}, not of a UNet2DModel")
    if (kind := config.get("class_embed_type")) is not None:
        raise UserError(
            f"{file}: class_embed_type is {kind!r}, but membench tells a network its class by"
            " number (null, num_class_embeds)"
        )
    return config


def classes_of(folder: Path, known: int, size: int) -> int:
    """Classes that the model is told: ``known``, those of the data, or 0.

    Raises :class:`UserError` for a model that does not fit.
    """
    config = model_config(folder)
    side, channels = (
        config.get("sample_size"),
        (config.get("in_channels", 3), config.get("out_channels", 3)),
    )
    if side != size or channels != (3, 3):
        raise UserError(
            f"{folder} generates {side}x{side} images of {channels[1]} channels, the data are"
            f" {size}x{size} of 3; choose a model of that size"
        )
    embeddings = config.get("num_class_embeds")
    if embeddings is None:
        return 0
    if embeddings not in (known, known + 1):
        raise UserError(
            f"{folder} is told one of {embeddings} classes; the data have {known} (and may have a"
            " null class after them)"
        )
    return known


def load_pixel_model(
    folder: Path, classes: int, *, device: str = "cpu", dtype: str = "float32", batch_size: int = 64
) -> PixelDenoiser:
    """The model with a DDIM scheduler made from its own schedule.

    Raises :class:`UserError`, naming the file, for damaged weights.
    """
    import torch
    from diffusers import UNet2DModel

    unet, weights, scheduler = parts_of(folder)
    size = int(model_config(folder)["sample_size"])
    kind = torch_dtype(dtype)
    schedule = read_scheduler(scheduler / "scheduler_config.json")
    pickled = weights.suffix == ".bin"
    if pickled:
        check_pickle(weights)
    else:
        check_tensors(weights)
    network = load_network(
        unet, UNet2DModel, model_config(folder), torch_dtype=kind, use_safetensors=not pickled
    )
    # On the CPU channels last is up to a quarter faster (benchmarks/sampling.py).
    layout = torch.channels_last if torch.device(device).type == "cpu" else torch.contiguous_format
    network = network.to(torch.device(device)).to(memory_format=layout)
    model = PixelDenoiser(
        network, schedule, shape=(3, size, size), batch_size=batch_size, classes=classes
    )
    prove_pixels(model, unet)
    return model


def _class_name(config: Any) -> str:
    return str(config.get("_class_name")) if isinstance(config, dict) else type(config).__name__


def prove_pixels(model: PixelDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless predictions are finite and differ between two
    classes, or, without classes, two noises.
    """
    if not model.classes:
        return prove(
            model, folder, [Conditioning(None)] * 2, "whatever noise it is given", noises=2
        )
    # Of one class alone, the null class beside it
    told = [0, min(1, model.classes - 1 + model.has_null)]
    conditions = [Conditioning(torch.tensor([label], device=model.device)) for label in told]
    noises = 1 if told[0] != told[1] else 2
    return prove(
        model, folder, conditions, f"whether it is told class {told[0]} or {told[1]}", noises=noises
    )
