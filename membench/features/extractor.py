"""What every extractor shares: batches, checks, and files of weights that are read
without running code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from membench.errors import UserError
from membench.models.weight_files import refuse_pointer
from membench.storage.hashing import file_hash
from membench.storage.pixels import Rows
from membench.storage.reading import expanded

# Uint8 [n, h, w, 3] -> what the model takes, on the CPU
Prepare = Callable[[np.ndarray], "torch.Tensor"]
Encode = Callable[["torch.Tensor"], "torch.Tensor"]  # that, on the device -> [n, d]
Loaded = tuple[str, Prepare, Encode]  # with the features' id


@dataclass
class Extractor:
    """A :class:`Features` of its three parts; ``batch_size`` images are prepared and
    encoded at once.
    """

    id: str
    prepare: Prepare
    encode: Encode
    device: str
    batch_size: int

    def __call__(self, images: Rows) -> np.ndarray:
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
            or 0 in images.shape
        ):
            raise ValueError(
                f"images must be uint8 [n, h, w, 3] and not empty, not {images.dtype}"
                f" {list(images.shape)}"
            )
        batches = []
        with torch.no_grad():
            for start in range(0, len(images), self.batch_size):
                x = self.prepare(images[start : start + self.batch_size]).to(self.device)
                batches.append(self.encode(x).float().cpu().numpy())
        features = np.concatenate(batches)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise UserError(
                f"{self.id}: NaN or infinite features, first for image {bad[0]} of {len(images)};"
                " are the weights right?"
            )
        return features


def weights_file(path: str | Path) -> tuple[Path, str]:
    """The file and the first 12 digits of its SHA-256.

    Raises :class:`UserError` if it cannot be read.
    """
    file = expanded(path)
    if not (file.is_file() and os.access(file, os.R_OK)):
        raise UserError(f"no weights file {file} that can be read")
    refuse_pointer(file)
    return file, file_hash(file)[:12]


def read_tensors(file: Path) -> Any:
    """What the file holds, read without running code.

    Raises :class:`UserError` if it is damaged or is more than tensors.
    """
    from safetensors.torch import load_file

    try:
        if str(file).endswith(".safetensors"):
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript, which is refused right after
            return torch.load(file, map_location="cpu", weights_only=True)
    # Whatever a damaged file raises; torch's own words tell people to load it unsafely
    except Exception as error:
        raise UserError(
            f"{file} is damaged, or a pickle with code, which membench never runs; convert it to"
            " safetensors"
        ) from error


def short(error: Exception) -> str:
    """An error's message on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
