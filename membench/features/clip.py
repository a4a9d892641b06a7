"""CLIP (Radford et al., ICML 2021) through open_clip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from membench.errors import UserError, suggest, unknown_name
from membench.features.extractor import Loaded, read_tensors, short, weights_file
from membench.storage.hashing import json_hash
from membench.storage.reading import expanded

if TYPE_CHECKING:
    from membench.fetching.resources import Resource


def clip_resource(weights: str) -> Resource:
    """The weights ``MODEL:TAG`` where open_clip keeps them: the hub's cache.

    ``MODEL:FILE``: the file, which is not fetched.

    Raises :class:`UserError` for an unknown model or tag.
    """
    from membench.fetching.resources import Resource

    name, source, _, tag = _named(weights, "--set sd_webster.criterion_weights=")

    def find() -> Path | None:
        file = _cached(tag) if tag else expanded(source)
        return file if file and file.is_file() else None

    return Resource(
        name=f"clip {name}:{source}",
        what="CLIP's weights",
        find=find,
        fetch=lambda: _fetched(name, source, tag),
        command=(
            "membench download sd_webster --set sd_webster.criterion=clip --set"
            f" sd_webster.criterion_weights={name}:{source}"
        ),
        note=tag.get("hf_hub", "").rstrip("/"),
    )


def load_clip(weights: str, device: str, option: str) -> Loaded:
    """See :func:`membench.features.loading.load_features`."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    name, source, config, tag = _named(weights, option)
    file, digest = weights_file(_fetched(name, source, tag) if tag else source)
    # Open_clip falls back to pickle's own loader in one case: what gets past this has
    # no code in it
    read_tensors(file)
    try:
        model = open_clip.create_model(
            name, str(file), device=device, force_preprocess_cfg=tag, weights_only=True
        ).eval()
    except Exception as error:  # whatever another model's file raises
        raise UserError(f"{file} does not fit CLIP model {name}: {short(error)}") from error
    settings = PreprocessCfg(**model.visual.preprocess_cfg)
    transform: Any = image_transform_v2(settings, is_train=False)

    def prepare(images: np.ndarray) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(i)) for i in images])

    size = "x".join(map(str, settings.input_size[1:]))
    details = json_hash({"model": config, "preprocessing": model.visual.preprocess_cfg})[:8]
    return (
        f"clip-{name}-{digest}-{settings.resize_mode}{size}-{details}",
        prepare,
        model.encode_image,
    )


def _named(weights: str, option: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Model, tag or file, open_clip's configuration of the model, and that of the tag
    ({} for a file).
    """
    import open_clip

    name, _, source = weights.partition(":")
    if not name or not source:
        raise UserError(
            f"clip needs {option}MODEL:TAG or MODEL:FILE, such as ViT-B-32:laion2b_s34b_b79k"
        )
    name = name.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    config = open_clip.get_model_config(name)
    if config is None:
        raise unknown_name("CLIP model", name, open_clip.list_models(), "open_clip.list_models()")
    tag = open_clip.get_pretrained_cfg(name, source)
    if not tag and not expanded(source).is_file():
        near = suggest(source, open_clip.list_pretrained_tags_by_model(name))
        raise UserError(
            f"weights {source!r} of CLIP model {name} are no file and no tag.{near} See:"
            " open_clip.list_pretrained()"
        )
    if tag and bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        # open_clip only warns, and the features would be wrong.
        other = f"{name}-quickgelu" if tag.get("quick_gelu") else name.removesuffix("-quickgelu")
        raise UserError(
            f"weights {source!r} were trained with another activation than CLIP model {name}: take"
            f" {other}:{source}"
        )
    return name, source, config, tag


def _cached(tag: dict[str, Any]) -> Path | None:
    """A tag's file where an earlier download left it; no network."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    if "file" in tag:
        return Path(tag["file"])
    if not tag.get("hf_hub"):
        file = expanded("~/.cache/clip") / os.path.basename(tag.get("url", ""))
        return file if file.is_file() else None
    repository, filename = os.path.split(tag["hf_hub"])
    names = [filename] if filename else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if filename.endswith((".bin", ".pth")):
        names.insert(0, f"{filename[:-4]}.safetensors")  # preferred, as open_clip does
    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _fetched(name: str, source: str, tag: dict[str, Any]) -> Path:
    """A tag's file: that of an earlier download without asking the network, else
    downloaded by open_clip.
    """
    import open_clip

    from membench.fetching import net

    if file := _cached(tag):
        return file
    if net.offline():
        raise UserError(
            f"weights {source!r} of CLIP model {name} are not in the cache and cannot be downloaded"
            f" offline; fetch them with `{clip_resource(f'{name}:{source}').command}`, or give a"
            " file instead"
        )
    try:
        return Path(open_clip.download_pretrained(tag))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"weights {source!r} of CLIP model {name} cannot be downloaded ({short(error)}); give a"
            " file instead"
        ) from error
