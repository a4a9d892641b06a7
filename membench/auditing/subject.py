"""The model of an audit: which kind it is, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from membench.datasets.trained_on import names_training
from membench.errors import UserError
from membench.models.batch_size import AUTO, automatic
from membench.models.checkpoints import CHECKPOINTS, known_checkpoint, pipeline_folder
from membench.models.denoiser import Denoiser
from membench.models.latent import load_model
from membench.models.loading import check_device
from membench.models.pixel import classes_of, find_model, load_pixel_model, pixel_hash
from membench.models.pixel_files import image_shape, model_config
from membench.models.stable_diffusion_folder import check_kind, folder_hash, image_size
from membench.storage.cached_folders import check_folder

Kind = Literal["text", "class", "unconditional"]

# How a model of each kind is sampled where nothing else is asked for: cheaply
SAMPLING = {
    "text": {"steps": 10, "guidance": 3.0},
    "class": {"steps": 20, "guidance": 1.0},
    "unconditional": {"steps": 20, "guidance": 1.0},
}


@dataclass(frozen=True)
class Subject:
    """kind: what it is told. side: pixels of its images. embeddings: of classes, the
    null class included; 0 for none. weights: hash of weights and configurations.
    """

    name: str
    folder: Path
    kind: Kind
    side: int
    embeddings: int
    weights: str

    @property
    def profile(self) -> str:
        """``mini`` for a model that membench has trained, whose network its detectors'
        options of that name are for; "" for another's.
        """
        return "mini" if names_training(self.folder) else ""

    def load(self, classes: int, *, device: str, dtype: str, batch_size: int) -> Denoiser:
        """The model; classes: how many it is told, without the null class.

        Raises :class:`UserError`.
        """
        check_device(device)
        first = batch_size if batch_size != AUTO else 64
        if self.kind == "text":
            model = load_model(self.folder, device, dtype, first)
        else:
            known = classes_of(self.folder, classes, self.side)
            model = load_pixel_model(
                self.folder, known, device=device, dtype=dtype, batch_size=first
            )
        if batch_size == AUTO:
            model.batch_size = automatic(model)
        return model


def find_subject(name: str) -> Subject:
    """The model called ``name``: a folder, a hub id or a short name.

    Raises :class:`UserError` for what is neither Stable Diffusion 1.x, 2.x or XL nor a
    UNet2DModel, and for one whose images are not square.
    """
    folder = _folder(name)
    if _is_text(folder):
        check_kind(folder)
        height, width = image_size(folder)
        return Subject(name, folder, "text", _square(name, height, width), 0, folder_hash(folder))
    embeddings = int(model_config(folder).get("num_class_embeds") or 0)
    side, _ = image_shape(folder)
    kind: Kind = "class" if embeddings else "unconditional"
    return Subject(name, folder, kind, side, embeddings, pixel_hash(folder))


def _folder(name: str) -> Path:
    if Path(name).is_file():
        raise UserError(
            f"{name} is a file, and an audit takes the folder of a pipeline: of a checkpoint in one"
            " file, diffusers' from_single_file and save_pretrained make one"
        )
    if Path(name).exists():
        return check_folder(Path(name))
    if name in CHECKPOINTS or known_checkpoint(name) or "/" not in name:
        return pipeline_folder(name)[0]
    find: list[Callable[[str], Path]] = [lambda n: pipeline_folder(n)[0], find_model]
    try:
        return find[0](name)
    except UserError as error:
        try:  # a pixel model lacks what a pipeline of text needs
            return find[1](name)
        except UserError:
            raise error from None


def _is_text(folder: Path) -> bool:
    """Whether to read it as a pipeline of text; what is neither is refused as one."""
    return (
        not ((folder / "unet").is_dir() or (folder / "config.json").is_file())
        or (folder / "text_encoder").is_dir()
    )


def _square(name: str, height: int, width: int) -> int:
    if height != width:
        raise UserError(
            f"{name} generates {width}x{height} images; an audit compares squares, so it takes"
            " models of square images"
        )
    return height


def same_kind(model: Subject, mirror: Subject) -> None:
    """Raises :class:`UserError` where a mirror cannot be asked what the model is."""
    told = [(s.kind, s.side, s.embeddings) for s in (model, mirror)]
    if told[0] != told[1]:
        words = [
            f"{kind} of {side} pixels" + f" and {classes} embeddings" * (kind == "class")
            for kind, side, classes in told
        ]
        raise UserError(
            f"--mirror {mirror.name} ({words[1]}) is no mirror of {model.name} ({words[0]}): it"
            " must be of the same kind and size, trained on other images"
        )
    if model.weights == mirror.weights:
        raise UserError(
            f"--mirror {mirror.name} is the model itself; a mirror was trained on other images"
        )
