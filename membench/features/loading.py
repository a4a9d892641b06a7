"""Image features: pixels; SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image
Copy Detection", CVPR 2022); and CLIP (Radford et al., "Learning Transferable Visual
Models From Natural Language Supervision", ICML 2021) through open_clip.

Weights are read from safetensors or from pickles of plain tensors; code in a pickle is
never run. A TorchScript file is a program; it runs in a process of its own
(:mod:`membench.features.apart`).
"""

from __future__ import annotations

from membench.errors import UserError, unknown_name
from membench.features.clip import load_clip
from membench.features.extractor import Extractor
from membench.features.pixels import load_pixels
from membench.features.preprocessing import DEFAULT, find_preprocessing
from membench.features.sscd import load_sscd
from membench.features.sscd_int8 import load_sscd_int8
from membench.models.loading import check_device
from membench.similarity.criterion import Features

EXTRACTORS = ("pixels", "sscd", "sscd-int8", "clip")


def load_features(
    name: str,
    weights: str = "",
    *,
    device: str = "cpu",
    batch_size: int = 64,
    preprocess: str = "",
    option: str = "--set features_weights=",
) -> Features:
    """The extractor ``name`` with its weights on the device; the features do not depend
    on ``batch_size`` beyond rounding.

    pixels: values in [-1, 1], each side above 32 brought to 32 by area averaging,
    flattened: d = 3 * min(h, 32) * min(w, 32). No weights. sscd: d = 512 (1024 for
    disc_large), L2 norm 1. weights: a published ``.torchscript.pt`` or
    ``.torchvision.pt`` (ResNet-50), a ``.safetensors`` with the latter's keys, or the
    name of a variant that was downloaded (``VARIANTS``; empty: disc_mixup). sscd-int8:
    d = 512, L2 norm 1: SSCD in 8-bit integers, on the CPU whatever the device. weights:
    empty, or an ``.onnx`` file; see :mod:`membench.features.sscd_int8`. clip:
    open_clip's image embedding, not normalised, d as the model. weights: ``MODEL:TAG``
    (downloaded once by open_clip) or ``MODEL:FILE``. A tag brings its own
    preprocessing; with a file open_clip takes its default, which is not that of SigLIP,
    CLIPA or MobileCLIP. preprocess: how an image is brought to SSCD's input, a name of
    ``PREPROCESSING`` (empty: square288, the authors' size without keeping the aspect
    ratio); the cosines of two preprocessings are not comparable, and published papers
    differ in it. option: what the user writes before the weights, for a refusal.

    Raises :class:`UserError` for an unknown extractor, model, tag or preprocessing, a
    device that is not there, and weights that are missing, damaged, of other shapes or
    not plain tensors; ValueError for ``batch_size`` < 1.
    """
    if name not in EXTRACTORS:
        raise unknown_name("features", name, EXTRACTORS, "|".join(EXTRACTORS))
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
    check_device(device)
    if name in ("pixels", "clip"):
        if preprocess:
            raise UserError(
                f"{name} has one preprocessing of its own: leave out {preprocess}, which is for"
                " sscd and sscd-int8"
            )
        load = {"pixels": load_pixels, "clip": load_clip}[name]
        return Extractor(*load(weights, device, option), device=device, batch_size=batch_size)
    chosen = find_preprocessing(preprocess or DEFAULT)
    if name == "sscd-int8":
        return Extractor(*load_sscd_int8(weights, chosen), device="cpu", batch_size=batch_size)
    loaded = load_sscd(weights, device, chosen, option)
    return Extractor(*loaded, device=device, batch_size=batch_size)
