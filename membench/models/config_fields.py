"""The fields of a model's config.json that decide its shape, checked before a library
builds from them.

Types come from the library's own signature, ranges from the table below. A number
beyond its range is a mistake in the file, and building from it could take all memory
before any tensor is compared.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from membench.errors import UserError

# Least and largest whole number; of a list, of each entry.
RANGES = {
    "sample_size": (1, 4096),
    "in_channels": (1, 1024),
    "out_channels": (1, 1024),
    "latent_channels": (1, 1024),
    "block_out_channels": (1, 16384),
    "layers_per_block": (1, 64),
    "transformer_layers_per_block": (1, 64),
    "cross_attention_dim": (1, 16384),
    "attention_head_dim": (1, 16384),
    "num_attention_heads": (1, 1024),
    "norm_num_groups": (1, 1024),
    "attn_norm_num_groups": (1, 1024),
    "time_embedding_dim": (1, 16384),
    "num_class_embeds": (1, 1 << 20),
    "conv_in_kernel": (1, 31),
    "conv_out_kernel": (1, 31),
    "downsample_padding": (0, 8),
    "hidden_size": (1, 16384),
    "intermediate_size": (1, 65536),
    "num_hidden_layers": (1, 128),
    "vocab_size": (1, 1 << 20),
    "max_position_embeddings": (3, 8192),  # begin, one token of a prompt, end
}

LONGEST = 16  # a list: resolutions of a network


def check_ranges(file: Path, config: Mapping[str, Any]) -> None:
    """Raises :class:`UserError` for a field of ``RANGES`` that is not a whole number,
    or a list of them, in its range.

    null passes: whether it may stand there is a matter of types.
    """
    for key, (low, high) in RANGES.items():
        value = config.get(key)
        if value is not None and not _within(value, low, high):
            raise _wrong(file, key, value, f"membench reads whole numbers from {low} to {high}")


def check_types(file: Path, config: Mapping[str, Any], cls: type) -> None:
    """Raises :class:`UserError` for a field that is not of the type that
    ``cls.__init__`` is annotated with, or not finite.

    What ``cls`` does not know passes, as it does there; and so does null for a switch,
    which many published files hold.
    """
    hints = typing.get_type_hints(inspect.unwrap(cls.__init__))  # type: ignore[misc]
    for key, value in config.items():
        if (kind := hints.get(key)) is not None and not _is_a(value, kind):
            raise _wrong(file, key, value, f"{cls.__name__} takes {_words(kind)}")


def positive(file: Path, config: Mapping[str, Any], key: str, default: float) -> float:
    """A finite number above 0. Raises :class:`UserError`."""
    value = config.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise _wrong(file, key, value, "it must be a number above 0")
    return float(value)


def refuse_shift(file: Path, decoder: Mapping[str, Any]) -> None:
    """Raises :class:`UserError` for a decoder whose latents are shifted: they are
    divided by ``scaling_factor`` alone.
    """
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if decoder.get(key) not in (None, 0):  # 0: no shift
            raise UserError(
                f"{file}: {key}: its latents are shifted, and membench decodes those that are"
                " only scaled (scaling_factor), as of Stable Diffusion 1.x, 2.x and XL"
            )


def _wrong(file: Path, key: str, value: Any, wanted: str) -> UserError:
    return UserError(f"{file}: {key} is {str(value)[:80]!r}, but {wanted}; get the model again")


def _within(value: Any, low: int, high: int) -> bool:
    if isinstance(value, list):
        return 1 <= len(value) <= LONGEST and all(_within(v, low, high) for v in value)
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_a(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_is_a(value, k) for k in typing.get_args(kind))
    if kind is tuple or origin is tuple:  # tuple[int] stands for any number of them there
        wanted = [k for k in typing.get_args(kind) if k is not Ellipsis]
        return isinstance(value, list | tuple) and all(
            not wanted or any(_is_a(v, k) for k in wanted) for v in value
        )
    if kind is bool:
        return value is None or isinstance(value, bool)
    if kind is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(kind: Any) -> str:
    return (
        kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    ).replace("typing.", "")
