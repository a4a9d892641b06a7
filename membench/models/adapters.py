"""Puts in force what is laid over a pipeline: LoRAs and learned words.

A LoRA (Hu et al. 2022) changes a layer's weight W to W + scale alpha / r up down. It is
added to the weights themselves, in float32, so that the network stays a plain one.
diffusers translates the names that kohya's and its own trainings write; every tensor
must have its layer, and its layer its shape: a LoRA of another architecture is half
ignored by the libraries without a word.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError, reason
from membench.models.loading import loading
from membench.models.weight_files import PEFT, check_tensors
from membench.storage.reading import parse_json

# MODULE, then how each library calls the two factors
FACTOR = re.compile(
    r"(.+?)(?:_lora|\.lora_linear_layer|\.lora)?\.(up|down|lora_A|lora_B)(?:\.default)?\.weight"
)
ALPHA = re.compile(r"(_lora|\.lora_linear_layer|\.lora)?(\.down\.weight)?\.alpha$")
LAYER = re.compile(r"[\w.]+")
PROJECTIONS = re.compile(r"self_attn\.to_(q|k|v|out)$")
UP = ("up", "lora_B")
OTHER_KINDS = ("dora_scale", "magnitude_vector", "lokr_", "hada_", "oft_", ".bias", "lora_mid")


@dataclass
class _Change:
    """up [out, r, ...], down [r, in, ...], and alpha (None: r)."""

    factors: dict[str, torch.Tensor] = field(default_factory=dict)
    alpha: float | None = None


def add_loras(
    networks: Mapping[str, torch.nn.Module], loras: Sequence[tuple[Path, float]], base: Path
) -> None:
    """Adds each LoRA, times its scale, to the weights of the networks, by their names
    in the pipeline, in place.

    Raises :class:`UserError` for a file that is no LoRA, is one of another architecture
    than ``base``, or changes nothing.
    """
    modules = {part: dict(network.named_modules()) for part, network in networks.items()}
    for file, scale in loras:
        check_tensors(file)
        changed = 0.0
        for name, change in _read(file, networks["unet"]).items():
            weight = _weight(file, name, modules, base)
            delta = _delta(file, name, change, weight, base)
            if not math.isfinite(most := abs(scale) * float(delta.abs().max())):
                raise UserError(f"lora={file}: its change of {name} is infinite; get it again")
            changed = max(changed, most)
            with torch.no_grad():
                weight += scale * delta
        if not changed:
            raise UserError(
                f"lora={file} changes nothing: its matrices or its scale are 0; leave it out, or"
                " get the LoRA again"
            )


def _read(file: Path, unet: Any) -> dict[str, _Change]:
    """The changes by the name of their layer, "unet.down_blocks...."."""
    from diffusers import StableDiffusionXLPipeline
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
        notes = opened.metadata() or {}
    if odd := next((n for n in held if any(kind in n for kind in OTHER_KINDS)), None):
        raise UserError(
            f"lora={file} is not a plain LoRA (it holds {odd}): membench adds up and down matrices"
            " only; merge it in the library that made it, and give the whole model"
        )
    with loading(file):  # XL's translates the names of 1.x and 2.x, too
        tensors, alphas = StableDiffusionXLPipeline.lora_state_dict(held, unet_config=unet.config)
    changes: dict[str, _Change] = defaultdict(_Change)
    for key, tensor in tensors.items():
        found = FACTOR.fullmatch(key)
        if key.startswith("base_model.model."):  # it does not say of which part
            raise UserError(f"lora={file} is in peft's own layout: {PEFT}")
        if not found or not key.startswith(("unet.", "text_encoder.", "text_encoder_2.")):
            raise UserError(
                f"lora={file}: {key} is not a tensor of a LoRA as diffusers or kohya save it"
                " (unet....lora_A.weight)"
            )
        changes[_layer(found[1])].factors["up" if found[2] in UP else "down"] = tensor
    for key, alpha in (alphas or {}).items():
        changes[_layer(ALPHA.sub("", key))].alpha = float(alpha)
    for name, change in changes.items():
        _check_factors(file, name, change)
    _settings(file, notes, changes)
    return dict(changes)


def _layer(name: str) -> str:
    return name.replace(".processor.", ".")


def _check_factors(file: Path, name: str, change: _Change) -> None:
    if {*change.factors} != {"up", "down"}:
        raise UserError(
            f"lora={file} lacks the {'down' if 'up' in change.factors else 'up'} matrix of {name};"
            " get it again"
        )
    for factor in change.factors.values():
        if factor.ndim < 2 or not factor.numel():
            raise UserError(
                f"lora={file}: a factor of {name} has the shape {[*factor.shape]}, which is no"
                " matrix; get it again"
            )


def _settings(file: Path, notes: Mapping[str, str], changes: dict[str, _Change]) -> None:
    """Reads alphas from the settings that peft keeps beside the tensors, by part."""
    if "lora_adapter_metadata" not in notes:
        return
    try:
        told = parse_json(notes["lora_adapter_metadata"])
        if not isinstance(told, dict):
            raise TypeError("it is no JSON object")
        for name, change in changes.items():
            part, _, layer = name.partition(".")
            if f"{part}.lora_alpha" not in told or change.alpha is not None:
                continue
            pattern = told.get(f"{part}.alpha_pattern") or {}
            # peft would run these as regular expressions, which may take for ever
            if odd := next((k for k in pattern if not LAYER.fullmatch(k)), None):
                raise ValueError(f"{odd[:60]} of alpha_pattern is not a layer's name")
            key = next((k for k in pattern if f".{layer}".endswith(f".{k}")), None)
            change.alpha = float(told[f"{part}.lora_alpha"] if key is None else pattern[key])
            if told.get(f"{part}.use_rslora"):  # alpha / sqrt(r)
                change.alpha *= len(change.factors["down"]) ** 0.5
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise UserError(
            f"lora={file}: its lora_adapter_metadata cannot be read ({reason(error)}); get it again"
        ) from None


def _weight(
    file: Path, name: str, modules: Mapping[str, Mapping[str, torch.nn.Module]], base: Path
) -> torch.Tensor:
    part, _, layer = name.partition(".")
    found = None
    if part in modules:
        if part.startswith("text_encoder"):  # diffusers' words for CLIP's own layers
            layer = PROJECTIONS.sub(r"self_attn.\1_proj", layer)
        # to_out is a list of a layer and a dropout; transformers has dropped text_model
        names = (layer, f"{layer}.0", layer.removeprefix("text_model."), f"text_model.{layer}")
        layers = [modules[part].get(n) for n in names]
        found = next((w for m in layers if (w := getattr(m, "weight", None)) is not None), None)
    if not isinstance(found, torch.Tensor):
        raise _another(file, base, f"it changes {name}, which {base} does not have")
    return found


def _delta(
    file: Path, name: str, change: _Change, weight: torch.Tensor, base: Path
) -> torch.Tensor:
    """alpha / r up down, of the weight's shape."""
    up, down = change.factors["up"].flatten(1), change.factors["down"].flatten(1)
    rank = len(down)
    if up.shape != (len(weight), rank) or down[0].numel() != weight[0].numel():
        raise _another(
            file,
            base,
            f"{name} is changed by {[*change.factors['up'].shape]} and"
            f" {[*change.factors['down'].shape]}, and its weight there is {[*weight.shape]}",
        )
    alpha = rank if change.alpha is None else change.alpha
    return (alpha / rank * (up @ down)).reshape(weight.shape)


def _another(file: Path, base: Path, why: str) -> UserError:
    return UserError(
        f"lora={file} is of another architecture than {base}: {why}; give its own base with --model"
    )


# ------------------------------------------------------------------------ learned words


XL_WORDS = ("clip_l", "clip_g")  # names of the vectors for the two encoders


def add_words(
    encoders: Sequence[Any],
    tokenizers: Sequence[Any],
    words: Sequence[tuple[Path, str]],
    base: Path,
) -> None:
    """Textual inversion (Gal et al. 2023): each file's word becomes a token, or one for
    each of its vectors, in place.

    Raises :class:`UserError` for a file that holds something else, vectors of another
    width than the encoder's, and a word that the tokenizer knows already.
    """
    for file, given in words:
        word, vectors = _learned(file, given)
        if len(vectors) != len(encoders):
            raise UserError(
                f"textual_inversion={file} holds vectors for {len(vectors)} text"
                f" encoder{'' if len(vectors) == 1 else 's'}, and {base} has {len(encoders)}"
            )
        for encoder, tokenizer, vector in zip(encoders, tokenizers, vectors, strict=True):
            width = encoder.config.hidden_size
            if vector.shape[-1] != width:
                raise UserError(
                    f"textual_inversion={file} was learned for a text encoder of width"
                    f" {vector.shape[-1]}, and that of {base} has {width}; give its own base with"
                    " --model"
                )
            if word in tokenizer.get_vocab():
                raise UserError(
                    f"textual_inversion={file}: {word} is a token already; name another with"
                    f" {file}:WORD"
                )
            # transformers makes up rows from the global generator before they are set
            with loading(file), torch.random.fork_rng(devices=[]):
                _loader().load_textual_inversion(
                    vector.to(encoder.device, encoder.dtype),
                    token=word,
                    tokenizer=tokenizer,
                    text_encoder=encoder,
                )
            encoder.requires_grad_(False)


def _loader() -> Any:
    """diffusers' loader without a pipeline around it."""
    from diffusers.loaders import TextualInversionLoaderMixin

    class Loader(TextualInversionLoaderMixin):
        hf_device_map = None
        components: dict[str, Any] = {}  # noqa: RUF012 - none that hooks would move

    return Loader()


def _learned(file: Path, given: str) -> tuple[str, list[torch.Tensor]]:
    """The word, and its vectors [d] or [n, d] for each encoder."""
    from safetensors.torch import load_file

    check_tensors(file)
    held = load_file(file)
    if odd := next((n for n, t in held.items() if t.ndim not in (1, 2) or not t.numel()), None):
        raise UserError(
            f"textual_inversion={file}: {odd} has the shape {[*held[odd].shape]}, which is no"
            " vector of a word and no list of them"
        )
    if {*held} == {*XL_WORDS}:
        return given or file.stem, [held[name] for name in XL_WORDS]
    if len(held) != 1:
        raise UserError(
            f"textual_inversion={file} holds {len(held)} tensors, such as {min(held)}: not a"
            " learned word (one tensor, or clip_l and clip_g)"
        )
    [(name, vectors)] = held.items()
    return given or (file.stem if name in ("", "emb_params") else name), [vectors]
