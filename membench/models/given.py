"""A model that was given as an object: stored as a folder, once, so that a run reads
and hashes it like any other.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError
from membench.models.loading import quiet
from membench.storage.cache import cache_root
from membench.storage.cached_folders import cached_folder
from membench.storage.hashing import file_hash, json_hash, tensor_hash

# Classes, by name, whose folders the tasks read
KNOWN = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "DDPMPipeline",
    "DDIMPipeline",
    "LDMPipeline",
)

# Attention processors of diffusers that compute the same in different ways
SAME = (
    *("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor"),
    *("AttnAddedKVProcessor", "AttnAddedKVProcessor2_0", "SlicedAttnAddedKVProcessor"),
    *("XFormersAttnAddedKVProcessor", "AttnProcessorNPU", "XLAFlashAttnProcessor2_0"),
)

# Whose layers a folder's configuration names
LIBRARIES = ("torch", "diffusers", "transformers")

# Components that a folder must have, of the pipelines that have them
NEEDED = (
    *("unet", "vae", "vqvae", "scheduler"),
    *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
)

# Settings of a layer that change memory and no prediction
SWITCHES = ("training", "gradient_checkpointing")

# Of a tokenizer's files: settings of its last use, and of the place it was loaded from
LEFT_OVER = {
    "tokenizer.json": {"truncation", "padding"},
    "tokenizer_config.json": {"is_local", "local_files_only"},
}


def folder_of(model: Any) -> Path:
    """The folder of a diffusers pipeline, under ``$MEMBENCH_CACHE/given``, named by a
    hash of its weights, configuration and tokenizers.

    It takes the room of the weights. Raises :class:`UserError` for an object of another
    class, a network without its schedule among them, and for what is laid over its
    networks and would not be in the files.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    if "UNet2DModel" in names:
        raise UserError(
            "model is a UNet2DModel alone, without the noise schedule that it was trained with:"
            " give DDPMPipeline(unet, scheduler)"
        )
    if not set(names) & set(KNOWN):
        raise UserError(
            f"model is of class {names[0]}, which no task reads: give a folder, a hub id, or a"
            f" {', '.join(KNOWN[:-1])} or {KNOWN[-1]}"
        )
    _refuse_lack(model)
    _refuse_unsaved(model)
    folder = cache_root() / "given" / f"{names[0]}-{_hash(model)[:16]}"

    def save(aside: Path) -> None:
        model.save_pretrained(aside, safe_serialization=True)
        _forget_use(aside)

    return cached_folder(folder, save)


def _refuse_lack(model: Any) -> None:
    """Raises :class:`UserError` for a part that is not there, is wrapped, or whose
    weights are not in memory.
    """
    for name, given in model.components.items():
        part = _own(given)
        why = ""
        if part is None and name in NEEDED:
            why = "is None; give the whole pipeline"
        elif hasattr(part, "state_dict") and not hasattr(part, "config"):
            why = f"is wrapped in a {type(part).__name__}; give what it wraps"
        elif hasattr(part, "parameters") and any(p.is_meta for p in part.parameters()):
            why = (
                "has weights that are not in memory (device meta), as after"
                " enable_sequential_cpu_offload(); give the pipeline as it was before"
            )
        if why:
            raise UserError(f"model: its {name} {why}")


def _refuse_unsaved(model: Any) -> None:
    """Raises :class:`UserError` for what changes predictions and is no part of a folder:
    LoRAs beside the weights, fused projections, FreeU, and layers, settings of layers,
    hooks or attention of one's own (ToMe, DeepCache, caches of diffusers, seamless
    tiling).
    """
    for name, part in model.components.items():
        modules = list(part.modules()) if hasattr(part, "modules") else []
        odd = [p for p in map(_processor, modules) if p not in ("", *SAME)]
        changed = [name for name in map(_changed, modules) if name]
        why = ""
        if getattr(part, "peft_config", None):
            why = "has an adapter (LoRA) beside its weights: fuse_lora(), unload_lora_weights()"
        elif any(getattr(m, "fused_projections", False) for m in modules):
            why = "has fused projections: unfuse_qkv_projections()"
        elif any(getattr(m, "s1", None) is not None for m in modules):
            why = "draws with FreeU: disable_freeu()"
        elif odd:
            why = f"has another attention ({odd[0]}): set_default_attn_processor()"
        elif changed:
            why = f"computes otherwise than its class, in {changed[0]}: take that back"
        elif modules and (other := _other_than_configured(part)):
            why = f"is not what its configuration makes, in {other}: take that back"
        if why:
            raise UserError(f"model: its {name} {why}; its files would hold nothing of it")


def _own(part: Any) -> Any:
    """The network that torch.compile has wrapped; what is not wrapped, itself."""
    return getattr(part, "_orig_mod", part)


def _processor(module: Any) -> str:
    """The class of a layer's attention processor; "" of a layer without."""
    kind = type(getattr(module, "processor", None))
    if kind is type(None):
        return ""
    own = kind.__module__ == "diffusers.models.attention_processor"
    return kind.__name__ if own else f"{kind.__module__}.{kind.__name__}"


def _changed(module: Any) -> str:
    """What of a layer is not its class's as the libraries have it, in words; "" where all
    is. Accelerate's offloading, which moves weights, and torch.compile are none.
    """
    kind = type(module)
    if kind.__module__.split(".")[0] not in LIBRARIES:
        return f"a layer {kind.__module__}.{kind.__name__}"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"a forward hook of a {kind.__name__}"
    moved = hasattr(module, "_hf_hook") or kind.__name__ == "OptimizedModule"
    if "forward" in vars(module) and not moved:
        return f"the forward of a {kind.__name__}"
    return ""


def _other_than_configured(network: Any) -> str:
    """The first layer, or setting of a layer, that a network of this configuration would
    not have, in words; "" where there is none. The network's own switches (tiling,
    slicing, checkpoints) and dropout do not change what it predicts.
    """
    network = _own(network)
    with torch.device("meta"), quiet():
        fresh = (
            type(network).from_config(network.config)
            if hasattr(type(network), "from_config")
            else type(network)(copy.deepcopy(network.config))
        )
    given = {name.replace("_orig_mod.", ""): m for name, m in network.named_modules()}
    for name, layer in fresh.named_modules():
        own = _own(given.get(name))
        if type(own) is not type(layer):
            return f"{name}, {'nothing' if own is None else f'a {type(own).__name__}'}"
        if not name or isinstance(layer, torch.nn.Dropout):
            continue
        for key, value in vars(layer).items():
            plain = not key.startswith("_") and isinstance(value, bool | int | float | str | tuple)
            if plain and key not in SWITCHES and getattr(own, key, value) != value:
                return f"{name}, {key}={getattr(own, key)!s:.40}"
    return ""


def _hash(model: Any) -> str:
    """Of weights, configuration and tokenizers; where it was loaded from, or stored, is
    left out.
    """
    found: dict[str, Any] = {"model": _config(model)}
    for name, given in model.components.items():
        part = _own(given)
        weights = tensor_hash(part) if hasattr(part, "state_dict") else ""
        words = _saved_hash(part) if hasattr(part, "get_vocab") else {}
        found[name] = [weights, _config(part), words]
    return json_hash(found)


def _saved_hash(tokenizer: Any) -> dict[str, str]:
    """Of its files: vocabulary, merges, added and special tokens."""
    with tempfile.TemporaryDirectory() as aside:
        tokenizer.save_pretrained(aside)
        _forget_use(Path(aside))
        return {file.name: file_hash(file) for file in sorted(Path(aside).iterdir())}


def _forget_use(folder: Path) -> None:
    for name, settings in LEFT_OVER.items():
        for file in folder.rglob(name):
            held = json.loads(file.read_text(encoding="utf-8"))
            kept = {key: value for key, value in held.items() if key not in settings}
            file.write_text(json.dumps(kept), encoding="utf-8")


def _config(part: Any) -> str:
    config = getattr(part, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return str(sorted((k, str(v)) for k, v in values.items() if not k.startswith("_")))
