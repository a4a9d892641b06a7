"""Image features: pixels; SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022); and
CLIP (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021) through open_clip.

Weights are read from safetensors or from pickles of plain tensors; code in a pickle is never run. A TorchScript file is a
program, which cannot call Python but can write files: take it from its authors only.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from membench.errors import UserError
from membench.hashing import file_hash, json_hash
from membench.pipelines import check_device
from membench.registry import suggest, unknown_name

EXTRACTORS = ("pixels", "sscd", "clip")
PIXELS_SIDE = 32
SSCD_SIDE = 288
SSCD_HOME = "https://github.com/facebookresearch/sscd-copy-detection"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


class Features(Protocol):
    """Turns images into vectors.

    id: names the extractor, the weights (first 12 digits of the file's SHA-256) and the preprocessing; part of content keys.
    """

    id: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """images ``uint8`` [n, h, w, 3], n >= 1 -> finite ``float32`` [n, d], not L2-normalised unless the model does it (SSCD).

        Raises ValueError for another dtype or shape, :class:`UserError` for NaN or infinite features.
        """
        ...


Prepare = Callable[[np.ndarray], torch.Tensor]  # uint8 [n, h, w, 3] -> what the model takes, on the CPU
Encode = Callable[[torch.Tensor], torch.Tensor]  # that, on the device -> [n, d]


@dataclass
class _Extractor:
    id: str
    prepare: Prepare
    encode: Encode
    device: str
    batch_size: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise ValueError(f"images must be uint8 [n, h, w, 3] and not empty, not {images.dtype} {list(images.shape)}")
        batches = []
        with torch.no_grad():
            for start in range(0, len(images), self.batch_size):
                x = self.prepare(images[start : start + self.batch_size]).to(self.device)
                batches.append(self.encode(x).float().cpu().numpy())
        features = np.concatenate(batches)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise UserError(f"{self.id}: NaN or infinite features, first for image {bad[0]} of {len(images)}; are the weights right?")
        return features


def load_features(name: str, weights: str = "", *, device: str = "cpu", batch_size: int = 64) -> Features:
    """The extractor ``name`` with its weights on the device; the features do not depend on ``batch_size`` beyond rounding.

    pixels: values in [-1, 1], each side above 32 brought to 32 by area averaging, flattened: d = 3 * min(h, 32) * min(w, 32).
    No weights.
    sscd: d = 512 (1024 for sscd_disc_large), L2 norm 1, of the picture resized to 288 x 288 without keeping its aspect ratio; for
    square pictures that is the authors' default (short edge 288). weights: a published ``.torchscript.pt`` or ``.torchvision.pt``
    (ResNet-50), or a ``.safetensors`` with the latter's keys.
    clip: open_clip's image embedding, not normalised, d as the model. weights: ``MODEL:TAG`` (downloaded once by open_clip) or
    ``MODEL:FILE``. A tag brings its own preprocessing; with a file open_clip takes its default, which is not that of SigLIP,
    CLIPA or MobileCLIP.

    Raises :class:`UserError` for an unknown extractor, model or tag, a device that is not there, and weights that are missing,
    damaged, of other shapes or not plain tensors; ValueError for ``batch_size`` < 1.
    """
    if name not in EXTRACTORS:
        raise unknown_name("features", name, EXTRACTORS, f"--set features={'|'.join(EXTRACTORS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
    check_device(device)
    load = {"pixels": _pixels, "sscd": _sscd, "clip": _clip}[name]
    return _Extractor(*load(weights, device), device=device, batch_size=batch_size)


def _pixels(weights: str, device: str) -> tuple[str, Prepare, Encode]:
    if weights:
        raise UserError(f"pixels have no weights: leave out --set features_weights={weights}")

    def encode(x: torch.Tensor) -> torch.Tensor:
        rows, columns = (_area_average(side).to(x.device) for side in x.shape[1:3])
        return torch.einsum("ih,nhwc,jw->nijc", rows, x.float() / 127.5 - 1, columns).flatten(1)

    # A copy, because torch takes no read-only or reversed array.
    return f"pixels-area{PIXELS_SIDE}", lambda images: torch.from_numpy(images.copy()), encode


def _area_average(side: int) -> torch.Tensor:
    """float32 [min(side, 32), side]: the share of each pixel in each cell of equal width; rows sum to 1."""
    cells = min(side, PIXELS_SIDE)
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    pixel = torch.arange(side, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return (overlap.clamp(min=0) * cells / side).float()


def _sscd(weights: str, device: str) -> tuple[str, Prepare, Encode]:
    if not weights:
        raise UserError(f"sscd needs --set features_weights=PATH, such as that of sscd_disc_mixup.torchscript.pt from {SSCD_HOME}")
    file, digest = _file(weights)
    encode = _sscd_script(file, device) if _is_torchscript(file) else _sscd_resnet(file, device)
    return f"sscd-{digest}-square{SSCD_SIDE}", _sscd_prepare, encode


def _sscd_prepare(images: np.ndarray) -> torch.Tensor:
    # On 8-bit pictures as the authors do, not on tensors, whose resizing differs by up to a grey level.
    resized = [np.asarray(Image.fromarray(i).resize((SSCD_SIDE, SSCD_SIDE), Image.Resampling.BILINEAR)) for i in images]
    x = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = torch.tensor(IMAGENET).view(2, 3, 1, 1)
    return (x - mean) / std


def _sscd_script(file: Path, device: str) -> Encode:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, but what the authors publish
            model = torch.jit.load(str(file), map_location=device).eval()
            out = model(torch.zeros(2, 3, SSCD_SIDE, SSCD_SIDE, device=device))
            if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != 2:
                raise ValueError("it does not give one vector an image")
    except Exception as error:  # whatever a damaged file or another program raises
        raise UserError(f"{file} is no TorchScript model of {SSCD_SIDE} x {SSCD_SIDE} images: {_short(error)}; see {SSCD_HOME}") from error
    return model


def _sscd_resnet(file: Path, device: str) -> Encode:
    from torchvision.models import resnet50

    state = _tensors(file)
    # The authors' model holds the ResNet as ``backbone``; GeM pooling and the L2 norm have no parameters.
    state = {str(k).removeprefix("backbone."): v for k, v in state.items()} if isinstance(state, dict) else {}
    net = resnet50(num_classes=512)
    try:
        net.load_state_dict(state)
    except Exception as error:  # keys, shapes, values that are no tensors
        why = "does not fit a torchvision ResNet-50 with 512 outputs: take a .torchvision.pt or a .torchscript.pt of"
        raise UserError(f"{file} {why} {SSCD_HOME}") from error
    net = net.to(device).eval()
    trunk = torch.nn.Sequential(*list(net.children())[:-2])  # without average pooling and the last layer

    def encode(x: torch.Tensor) -> torch.Tensor:
        pooled = trunk(x).clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)  # GeM with p = 3
        return torch.nn.functional.normalize(net.fc(pooled))

    return encode


def _clip(weights: str, device: str) -> tuple[str, Prepare, Encode]:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    name, _, source = weights.partition(":")
    if not name or not source:
        raise UserError("clip needs --set features_weights=MODEL:TAG or MODEL:FILE, such as ViT-B-32:laion2b_s34b_b79k")
    name = name.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    config = open_clip.get_model_config(name)
    if config is None:
        raise unknown_name("CLIP model", name, open_clip.list_models(), "open_clip.list_models()")
    tag = open_clip.get_pretrained_cfg(name, source)
    if not tag and not Path(source).expanduser().is_file():
        near = suggest(source, open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"weights {source!r} of CLIP model {name} are no file and no tag.{near} See: open_clip.list_pretrained()")
    if tag and bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        # open_clip only warns, and the features would be wrong.
        other = f"{name}-quickgelu" if tag.get("quick_gelu") else name.removesuffix("-quickgelu")
        raise UserError(f"weights {source!r} were trained with another activation than CLIP model {name}: take {other}:{source}")
    try:
        file, digest = _file(open_clip.download_pretrained(tag) if tag else source)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"weights {source!r} of CLIP model {name} cannot be downloaded ({_short(error)}); give a file instead") from error
    _tensors(file)  # open_clip falls back to pickle's own loader in one case: what gets past this has no code in it
    try:
        model = open_clip.create_model(name, str(file), device=device, force_preprocess_cfg=tag, weights_only=True).eval()
    except Exception as error:  # whatever another model's file raises
        raise UserError(f"{file} does not fit CLIP model {name}: {_short(error)}") from error
    settings = PreprocessCfg(**model.visual.preprocess_cfg)
    transform: Any = image_transform_v2(settings, is_train=False)

    def prepare(images: np.ndarray) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(i)) for i in images])

    size = "x".join(map(str, settings.input_size[1:]))
    details = json_hash({"model": config, "preprocessing": model.visual.preprocess_cfg})[:8]
    return f"clip-{name}-{digest}-{settings.resize_mode}{size}-{details}", prepare, model.encode_image


def _file(path: str) -> tuple[Path, str]:
    """The file and the first 12 digits of its SHA-256. Raises :class:`UserError` if it cannot be read."""
    file = Path(path).expanduser()
    if not (file.is_file() and os.access(file, os.R_OK)):
        raise UserError(f"no weights file {file} that can be read")
    return file, file_hash(file)[:12]


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(n.endswith("/constants.pkl") for n in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _tensors(file: Path) -> Any:
    """What the file holds, read without running code. Raises :class:`UserError` if it is damaged or is more than tensors."""
    from safetensors.torch import load_file

    try:
        if str(file).endswith(".safetensors"):
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript, which is refused right after
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file raises; torch's own words tell people to load it unsafely
        raise UserError(f"{file} is damaged, or a pickle with code, which membench never runs; convert it to safetensors") from error


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
