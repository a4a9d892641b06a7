"""SSCD, the copy detector (Pizzi et al., CVPR 2022), from the files that its authors
publish.
"""

from __future__ import annotations

import functools
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from membench.errors import UserError, suggest, unknown_name
from membench.features.apart import Apart, ProgramFailed
from membench.features.extractor import Encode, Loaded, read_tensors, weights_file
from membench.features.preprocessing import Preprocessing
from membench.storage.cache import cache_root
from membench.storage.hashing import file_hash
from membench.storage.reading import expanded

if TYPE_CHECKING:
    from membench.fetching.resources import Resource

SSCD_HOME = "https://github.com/facebookresearch/sscd-copy-detection"
_FILES = "https://dl.fbaipublicfiles.com/sscd-copy-detection"
DEFAULT_VARIANT = "disc_mixup"

# : The published models with the SHA-256 of their ``.torchscript.pt``. The authors
# publish no checksums: that of disc_mixup (98,791,638 : bytes) is the one that several
# unrelated projects pin, which agree. Empty: none could be found, so the first download
# is trusted : (:func:`membench.fetching.net.fetch` notes its SHA-256); the features'
# id, and with it every run, names the file by its digest.
VARIANTS = {
    # ResNet-50, d = 512, the authors' default
    "disc_mixup": "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56",
    "disc_large": "",  # ResNeXt-101, d = 1024
    "disc_advanced": "",
    "disc_blur": "",
    "imagenet_mixup": "",
    "imagenet_advanced": "",
    "imagenet_blur": "",
}


def sscd_resource(variant: str = DEFAULT_VARIANT) -> Resource:
    """The TorchScript file of a variant (``VARIANTS``) in the cache's ``weights/sscd``,
    from its authors' server.

    Checked against a SHA-256 where one is known; see ``VARIANTS``. Raises
    :class:`UserError` for an unknown variant.
    """
    from membench.fetching import net
    from membench.fetching.resources import Resource

    variant = variant.removeprefix("sscd_")
    if variant not in VARIANTS:
        raise unknown_name("variant of SSCD", variant, VARIANTS, SSCD_HOME)
    path, sha256 = _cached(variant), VARIANTS[variant]
    size = "99 MB, " if variant == DEFAULT_VARIANT else ""
    which = "" if variant == DEFAULT_VARIANT else f" --set sd_webster.criterion_weights={variant}"
    return Resource(
        name=f"sscd_{variant}",
        what="SSCD, the copy detector",
        find=lambda: _found(variant),
        fetch=lambda: net.fetch(f"{_FILES}/{path.name}", path, sha256=sha256, progress=True),
        command=f"membench download sd_webster --set sd_webster.criterion=sscd{which}",
        note=f"{size}SHA-256 {sha256[:12] or 'unknown'}, licence: {SSCD_HOME}",
    )


def load_sscd(weights: str, device: str, preprocessing: Preprocessing, option: str) -> Loaded:
    """See :func:`membench.features.loading.load_features`."""
    file, digest = weights_file(_weights(weights, option))
    if _is_torchscript(file):
        encode = _torchscript(file, device, preprocessing)
    else:
        encode = _resnet(file, device)
    return f"sscd-{digest}-{preprocessing.name}", preprocessing.tensor, encode


def _cached(variant: str) -> Path:
    return cache_root() / "weights" / "sscd" / f"sscd_{variant}.torchscript.pt"


def _found(variant: str) -> Path | None:
    """The downloaded file; None if it is not there.

    Raises :class:`UserError` for one that is not the published one.
    """
    path, sha256 = _cached(variant), VARIANTS[variant]
    if path.is_file() and sha256 and (got := file_hash(path)) != sha256:
        raise UserError(
            f"{path} has SHA-256 {got}, the published file {sha256}: delete it and fetch it again"
        )
    return path if path.is_file() else None


def _weights(weights: str, option: str) -> Path:
    """The file that ``weights`` says, by path or by a variant's name."""
    variant = weights.removeprefix("sscd_") or DEFAULT_VARIANT
    if weights and (variant not in VARIANTS or Path(weights).is_file()):
        file = expanded(weights)
        if not file.exists() and (near := suggest(variant, VARIANTS)):
            raise UserError(f"no weights file {file} and no variant of SSCD.{near}")
        return file
    path = _found(variant)
    if path is None:
        raise UserError(
            f"the weights {variant} of sscd are not here: fetch them"
            f" ({sscd_resource(variant).command}), or name a file: {option}PATH,"
            f" such as that of {_cached(variant).name} from {SSCD_HOME}"
        )
    return path


def _torchscript(file: Path, device: str, preprocessing: Preprocessing) -> Encode:
    side = preprocessing.crop or preprocessing.side
    try:
        model = Apart(file, device)
        if (out := model(torch.zeros(2, 3, side, side))).ndim != 2 or len(out) != 2:
            raise ProgramFailed(f"{file} does not give one vector an image")
    except ProgramFailed as error:
        raise UserError(
            f"{error}: it is no TorchScript model of {side} x {side} images; see {SSCD_HOME}"
        ) from error

    @functools.cache
    def tell() -> None:
        told = f"{file.name} is a program (TorchScript); it runs in a process of its own"
        print(f"membench: {told}", file=sys.stderr)

    def encode(x: torch.Tensor) -> torch.Tensor:
        tell()
        return model(x)

    return encode


def _resnet(file: Path, device: str) -> Encode:
    from torchvision.models import resnet50

    state = read_tensors(file)
    # The authors' model holds the ResNet as ``backbone``; GeM pooling and the L2 norm
    # have no parameters.
    state = (
        {str(k).removeprefix("backbone."): v for k, v in state.items()}
        if isinstance(state, dict)
        else {}
    )
    net = resnet50(num_classes=512)
    try:
        net.load_state_dict(state)
    except Exception as error:  # keys, shapes, values that are not tensors
        why = (
            "does not fit a torchvision ResNet-50 with 512 outputs: take a .torchvision.pt or a"
            " .torchscript.pt of"
        )
        raise UserError(f"{file} {why} {SSCD_HOME}") from error
    net = net.to(device).eval()
    # Without average pooling and the last layer
    trunk = torch.nn.Sequential(*list(net.children())[:-2])

    def encode(x: torch.Tensor) -> torch.Tensor:
        pooled = trunk(x).clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)  # GeM with p = 3
        return torch.nn.functional.normalize(net.fc(pooled))

    return encode


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(n.endswith("/constants.pkl") for n in archive.namelist())
    except zipfile.BadZipFile:
        return False
